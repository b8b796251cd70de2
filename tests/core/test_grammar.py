"""The method grammar: one canonical spelling for each meaning, and one line for each mistake."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camsweep.core.domains import DOMAINS
from camsweep.core.errors import RequestError
from camsweep.core.keys import Baseline, Code, Count, Share
from camsweep.core.methods import METHODS, parse_expression
from camsweep.core.methods.registry import FACTORS
from camsweep.core.relevance.grammar import InputRule, Rules


@pytest.mark.parametrize(
    ("given_text", "canonical"),
    [
        ("gradcam", "gradcam"),
        ("gradcam:relu=on", "gradcam"),  # a default is not written
        ("gradcam:relu=off", "gradcam:relu=off"),
        ("hirescam:relu=off", "hirescam"),
        ("gradcam++", "gradcam++"),
        ("gradcam++:relu=off,compat=pytorch-grad-cam", "gradcam++:compat=pytorch-grad-cam,relu=off"),
        ("grad+input", "grad+input"),
        ("grad+input+input", "grad+input+input"),
    ],
)
def test_canonical_spelling(given_text, canonical):
    assert str(parse_expression(given_text)) == canonical


RULES = ["eps=.5", "eps=1e-3std", "zplus", "gamma=1.0", "w2", "A", "epsilon-gamma-box", "conv.a1.5b.5,dense.eps=0",
         "layer1.0.flat,stage*.z,pass"]  # fmt: skip


@st.composite
def expressions(draw):
    method = METHODS[draw(st.sampled_from(sorted(METHODS)))]
    settings = {}
    for key, spec in method.keys.items():
        if draw(st.booleans()):
            free = {
                int: [0, 3, 40], float: [0.5, 2.0, 1e-3], str: ["1", "1.2.3"], Count: [1, 32], Share: [0.5, 1.0],
                Baseline: ["zero", "blur", "0.5", "0.1/-0.2", "mean", "patient-7", "1e-20"], Code: [*DOMAINS],
                Rules: RULES, InputRule: [*RULES[:5], "sign=0", "sign=1/-0.5,eps=0.1std", "zbox=-1:2", "zbox=torchvision"],
            }  # fmt: skip
            values = [True, False] if spec.kind is bool else list(spec.choices) or free[spec.kind]
            settings[key] = spec.show(draw(st.sampled_from(values)))
    rules, first = settings.pop("rules", ""), settings.pop("first", "")
    parts = [*([rules] if rules else []), *(f"{k}={v}" for k, v in settings.items())]
    text = method.name + (":" if parts else "") + ",".join(parts) + (f"@{first}" if first else "")
    known = ["input", "sign", "sign=-0.5", "sign=mean", "sign=1/2e3", "input:domain=time"]
    assert {each.partition("=")[0].partition(":")[0] for each in known} == set(FACTORS)
    factors = draw(st.lists(st.sampled_from(known), max_size=2)) if method.per_channel else []
    if settings.get("domain", "time") == "time":
        return "+".join(
            [
                text,
                *factors,
                *draw(st.sampled_from([[], ["input:domain=stft,hop=4,length=8"]] if method.per_channel else [[]])),
            ]
        )
    key = draw(st.sampled_from(["", *DOMAINS[settings["domain"]].keys]))
    values = {
        "bands": "eeg",
        "window": "hann",
        "wavelet": "db2",
        "fit": "dataset",
        "of": "mine.py:parts",
        "floor": "0.01",
        "per": "level",
        "sided": "two",
        "compat": "off",
    }
    text, mark, first = text.partition("@")
    return text + (f",{key}={values.get(key, '3')}" if key else "") + mark + first


@given(expressions())
@example("lrp:layer1.0.flat,stage*.z,pass")
def test_what_is_printed_reads_back(text):
    once = parse_expression(text)
    again = parse_expression(str(once))
    assert str(again) == str(once)
    assert again.settings == once.settings
    typed = set(text) & {"*"}  # a pattern of layers has one, and whoever writes it puts it in quotes
    assert not (set(str(once)) - typed) & set(" '\"()[]{}*|&;<>$`\\")  # nothing a shell would touch


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gradcan", "unknown method 'gradcan'. Did you mean 'gradcam'?"),
        ("gradcam:", "ends in a colon"),
        ("gradcam:rely=on", "gradcam has no key 'rely'. Did you mean 'relu'?"),
        ("gradcam:relu=yes", "relu='yes' given, expected on or off"),
        ("gradcam:relu", "relu='' given, expected on or off"),
        ("gradcam:relu=on,relu=off", "sets a key twice"),
        ("gradcam++:compat=other", "expected off or pytorch-grad-cam"),
        ("grad+inputt", "unknown factor 'inputt'. Did you mean 'input'?"),
        ("gradcam+input", "factors multiply an input attribution"),
        ("", "unknown method ''"),
    ],
)
def test_mistakes(text, says):
    with pytest.raises(RequestError) as caught:
        parse_expression(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_method_says_what_it_is():
    for method in [*METHODS.values(), *FACTORS.values()]:
        assert method.formula
        assert method.summary
        assert method.source or method.name in FACTORS
        assert method.units or method.name in FACTORS  # a sign leaves a map its own
