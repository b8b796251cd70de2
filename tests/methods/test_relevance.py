"""Layer-wise relevance: what its rules keep, what it must not depend on, and what torch runs as one taken apart by hand."""

import copy
import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camsweep.core.checks import settle_domains
from camsweep.core.domains import Space
from camsweep.core.errors import RequestError
from camsweep.core.methods import parse_expression
from camsweep.core.relevance.grammar import BOXES, FORMS, NAMED, Rules
from camsweep.core.trace import Trace

from ..backends.test_torch_backend import Hostile, snapshot
from ..support import AXES, CONV, Net, answers, boxes, inputs, maps, traced
from . import path_references
from . import relevance_references as ref

RANKS = [1, 2, 3]
EXAMPLES = {
    "z": ["z"],
    "eps": ["eps=0.1"],
    "std": ["eps=0.25std"],
    "alphabeta": ["a1b0", "a2b1"],
    "gamma": ["gamma=0.25"],
    "flat": ["flat"],
    "w2": ["w2"],
    "pass": [],
}
"""Of each rule's spelling; ``pass`` is for layers that keep the shape, and has a test of its own."""
RULES = list(itertools.chain(*EXAMPLES.values()))
SIGNS = ["sign=0", "sign=0.3,eps=0.1std", "sign=0.1/-0.2,eps=0.1"]
FIRSTS = [*RULES, *SIGNS, "zbox=-4:4", "zbox=-4/-5:6/4", "zbox=data"]
WHOLE = [*RULES, *NAMED, *(f"{rule},bias=ignore" for rule in RULES), *(f"eps=0.1@{first}" for first in FIRSTS)]
"""Every rule, composite and input rule."""
NAMES = list(csv.DictReader((Path(__file__).parents[1] / "oracles" / "sign_xai_names.csv").read_text().splitlines()))


def explained(net, x, *texts, target=1, dtype="float64", **more):
    """Maps by what stands behind ``lrp:``, as arrays."""
    found = maps(net, x, [f"lrp:{text}" for text in texts], (), target, dtype, **more)
    return [found[str(parse_expression(f"lrp:{text}")), None].numpy() for text in texts]


def opened(net, x, texts, target=1):
    """A trace and its target, to ask of it what stands behind ``lrp:``."""
    parsed = [parse_expression(f"lrp:{text}") for text in texts]
    around = {"domains": settle_domains(parsed, Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2]))}
    return traced(net, x, "rx", (), target, boxes=boxes(parsed, x, "float64"), **around)


def recorded(net, x, *texts):
    """As `explained`, of a model whose recorded forward must be the plain one, by rules alone."""
    with opened(net, x, texts) as (trace, target):
        mode, read = trace.run.recorded
        assert not mode.unruled
        near(read.outputs.scores.detach().numpy(), plain(net, x), 1e-12)
        return [trace.map(parse_expression(f"lrp:{text}"), target, (), x.shape[2:]).numpy() for text in texts]


def alike(net, other, x, *texts, share=1e-10):
    """Two ways to write one model."""
    near(plain(net, x), plain(other, x), 1e-12)
    for found, expected in zip(recorded(net, x, *texts), recorded(other, x, *texts), strict=True):
        near(found, expected, share)


def with_key(text, setting):
    rules, mark, first = text.partition("@")
    return f"{rules},{setting}{mark}{first}"


def plain(net, x):
    """The outputs, in float64."""
    with torch.no_grad():
        return copy.deepcopy(net).double().eval()(torch.from_numpy(x).double()).numpy()


def sums(values):
    return values.reshape(len(values), -1).sum(1)


def near(found, expected, share=1e-10):
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    gap, size = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    assert gap <= share * size


def far(found, other):
    assert np.abs(found - other).max() > 1e-6 * np.abs(other).max()


def normal(module):
    """Its parameters and running statistics drawn anew."""
    torch.manual_seed(0)
    for each in module.parameters():
        nn.init.normal_(each, std=0.5)
    for each in module.modules():
        if getattr(each, "running_var", None) is not None:
            nn.init.normal_(each.running_mean, std=0.3)
            nn.init.uniform_(each.running_var, 0.3, 2.0)
    return module.double().eval()


def test_each_rule_composite_and_box_is_tested():
    assert set(EXAMPLES) == set(FORMS)
    assert set(ref.BOXES) == set(BOXES)
    assert set(ref.COMPOSITES) == set(NAMED)
    for name, text in NAMED.items():
        rules, _, first = ref.COMPOSITES[name].partition("@")
        assert Rules.parse(rules).composite == Rules.parse(text.partition("@")[0]).composite
        assert first == text.partition("@")[2]


# Against dense matrices: more nets than `test_every_method` has, and every weighted operator


def ranges(x):
    over = (0, *range(2, x.ndim))
    return x.min(over), x.max(over)


def is_its_reference(net, x, texts, share=1e-11):
    found = explained(net, x, *texts)
    for i, sample in enumerate(x):
        layers = ref.ran(net, sample)
        for text, values in zip(texts, found, strict=True):
            near(values[i], ref.lrp(sample, net, 1, text, ranges(x), layers), share)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nets_with_relus(rank, seed):
    texts = [
        *RULES,
        "A@sign=0",
        "B@flat",
        "eps=0.1@zbox=data",
        "z@zbox=-4/-5:6/4",
        "w2,bias=ignore@sign=0.1/-0.2,eps=0.2",
    ]
    is_its_reference(Net(rank, seed=seed).double(), inputs(rank, 2, seed=seed), texts)


OPERATORS = {
    "stride": ((2, 11), nn.Conv1d(2, 4, 3, stride=2)),
    "same": ((2, 11), nn.Conv1d(2, 4, 3, padding="same", dilation=2)),
    "more padding than kernel": ((2, 7), nn.Conv1d(2, 3, 2, padding=3)),
    "kernel of one": ((2, 9), nn.Conv1d(2, 3, 1, stride=3)),
    "groups": ((4, 7, 9), nn.Conv2d(4, 6, (3, 2), stride=(1, 2), dilation=(2, 1), padding=(2, 0), groups=2)),
    "depthwise": ((3, 6, 5), nn.Conv2d(3, 6, 3, padding="valid", groups=3)),
    "volume": ((2, 3, 4, 5), nn.Conv3d(2, 3, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1))),
    "transposed": ((2, 7), nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)),
    "transposed, groups": ((4, 7), nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, groups=2)),
    "transposed, gaps": ((2, 5), nn.ConvTranspose1d(2, 3, 2, stride=3, output_padding=1)),
    "transposed, dilated": (
        (2, 4, 3),
        nn.ConvTranspose2d(2, 3, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(2, 1)),
    ),
    "transposed volume": ((2, 2, 3, 2), nn.ConvTranspose3d(2, 3, 2, stride=2)),
    "linear": ((2, 6), nn.Linear(6, 5)),
    "linear on a grid": ((2, 3, 6), nn.Linear(6, 5)),
    "mean": ((2, 9), nn.AvgPool1d(2)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("first", [True, False])
def test_every_weighted_operator(name, first):
    """As the first layer, and behind another one and a tanh."""
    shape, operator = OPERATORS[name]
    torch.manual_seed(1)
    before = [] if first and name != "mean" else [CONV[len(shape) - 1](shape[0], shape[0], 1), nn.Tanh()]
    start = nn.Sequential(*before, copy.deepcopy(operator))
    with torch.no_grad():
        size = start(torch.zeros(1, *shape)).numel()
    for parameter in start.parameters():
        nn.init.normal_(parameter, std=0.5)
    net = nn.Sequential(*start, nn.ReLU(), nn.Flatten(), nn.Linear(size, 3)).double()
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    firsts = ["z@sign=0.1", "z@zbox=-4:4", "eps=0.1@w2", "eps=0.1@flat", "w2,bias=ignore@w2"]
    is_its_reference(net, x, [*RULES, "a2b1,bias=ignore", *firsts])


@pytest.mark.parametrize("name", BOXES)
def test_named_boxes(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12, 3)).double()
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    is_its_reference(net, x, [f"z@zbox={name}"], 1e-6)  # the bounds have seven digits


@pytest.mark.parametrize("first", [True, False])
def test_pass_leaves_relevance_where_it_is(first):
    torch.manual_seed(0)
    square, rest = nn.Conv2d(2, 2, 3, padding=1), [nn.ReLU(), nn.Flatten(), nn.Linear(60, 3)]
    x = inputs(2)[:, :, :6, :5]
    without = nn.Conv2d(2, 2, 1), nn.Tanh()
    net = nn.Sequential(square, *rest) if first else nn.Sequential(*without, square, *rest)
    found, sign = explained(
        net, x, "0.pass,z" if first else "2.pass,0.eps=0.1,z", "z@pass" if first else "2.pass,0.eps=0.1"
    )
    near(found, sign, 0)
    net = net.double()
    for sample, values in zip(x, found, strict=True):
        layers = ref.ran(net, sample)
        R = ref.start(layers[-1].z, 1, "logit")
        R = (ref.shares(layers[-1], "z").T @ R)[:-1]
        near(values, (R if first else (ref.shares(layers[0], "eps=0.1").T @ R)[:-1]).reshape(sample.shape))


# What the rules keep


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("smooth", [True, False])
def test_without_biases_nothing_is_lost(rank, smooth):
    """By a1b0, if what is shared has a positive part, as all has behind ReLUs for a positive score; by flat and w2, which
    give to zeros too, if no channel is zero everywhere, whose mean then has nothing to share by."""
    checked = 0
    for seed in range(6):
        net, x = Net(rank, smooth=smooth, bias=False, seed=seed), inputs(rank, seed=seed)
        score = plain(net, x)[:, 1]
        with torch.no_grad():
            last = net.act(net.second(net.act(net.first(torch.from_numpy(x))))).flatten(2).abs().amax(2)
        kept = {"a1b0": (score > 0) & (not smooth), "excitation-backprop": (score > 0) & (not smooth)}
        kept |= dict.fromkeys(["flat", "w2", "first.flat,second.w2,gamma=1"], last.amin(1).numpy() > 0)
        texts = ["z", "eps=0.0000000001", "gamma=0.25", "gamma=3", *kept]
        for text, found in zip(texts, explained(net, x, *texts), strict=True):
            here = kept.get(text, score == score)
            assert np.allclose(sums(found)[here], score[here], rtol=1e-6 if "eps" in text else 1e-9)
            checked += here.sum()
    assert checked > 100


@pytest.mark.parametrize("rank", RANKS)
def test_no_input_rule_changes_the_sum(rank):
    texts = ["z", "eps=0.1", "eps=0.25std", "a2b1", "A", "B", "gamma=0.25", "flat", "w2"]
    firsts = ["z", "flat", "w2", "gamma=0.25", "zbox=-4:4", "zbox=-4/-5:6/4", "zbox=data", "zbox=caffe"]
    for bias in (False, True):
        # A bias takes a part of what reaches the first layer, but of these not.
        firsts = [each for each in firsts if not bias or each == "flat" or "zbox" in each]
        found = explained(Net(rank, bias=bias), inputs(rank), *(f"{text}@{each}" for text in texts for each in firsts))
        for i in range(0, len(found), len(firsts)):
            for values in found[i : i + len(firsts)]:
                assert np.allclose(sums(values), sums(found[i]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    "text", [*RULES, "A", "epsilon-plus-flat", "z@zbox=-4:4", "eps=0.1@w2", "z,init=one", "a2b1,bias=ignore"]
)
def test_what_is_missing_is_what_biases_and_epsilons_took(rank, text):
    net, x = Net(rank).double(), inputs(rank)
    [(found, residual)] = answers(net, x, [f"lrp:{text}"], (), 1).values()
    for sample, values, missing in zip(x, found.numpy(), residual.numpy(), strict=True):
        _, flow = ref.handed_down(sample, net, 1, text)
        biases, rest = sum(each.bias for each in flow), sum(each.kept for each in flow)
        total = flow[0].got
        assert missing == pytest.approx(biases + rest, rel=1e-8, abs=1e-12 * abs(total))
        assert values.sum() + biases + rest == pytest.approx(total, rel=1e-9)
        if not {"eps", "a2b1", "A", "epsilon"} & set(
            text.replace("=", " ").replace(",", " ").replace("-", " ").split()
        ):
            assert missing == pytest.approx(biases, rel=1e-7, abs=1e-10 * abs(total))


@pytest.mark.parametrize(
    ("text", "whole"), [("a2b1", 2.0), ("a1b0", 1.0), ("a1.5b0.5", 1.5), ("zplus", 1.0), ("gamma=1", 1.0)]
)
def test_where_all_that_is_shared_has_one_sign(text, whole):
    """Of an output without negative contributions alpha times its relevance goes on, of one without positive ones -beta."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 2, bias=False)), np.abs(inputs(1)[:, :, :3]) + 0.1
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.5], [-0.7]]).expand(2, 6))
    score = plain(net, x)
    for target, share in ((0, whole), (1, whole if "gamma" in text else 1 - whole)):
        [found] = explained(net, x, text, target=target)
        assert np.allclose(sums(found), share * score[:, target])
        assert (found != 0).all() or share == 0


# Input rules and the start


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("eps", ["", ",eps=0.1", ",eps=0.25std"])
@pytest.mark.parametrize("mu", ["0", "0.5", "-0.5", "-1.5", "0.1/-0.2"])
def test_lrp_sign_is_the_sign_times_what_lrp_epsilon_multiplies_with(rank, eps, mu):
    x = inputs(rank)
    against = np.reshape([float(each) for each in mu.split("/")], (-1, *[1] * rank))
    for text in ("z", "A", "gamma=0.25"):
        found, plain_ = explained(Net(rank), x, f"{text}@sign={mu}{eps}", f"{text}@{eps[1:] or 'z'}")
        near(found, np.where(x < against, -1, 1) * plain_ / x.astype(float), 1e-12)


def test_the_sign_at_its_level_is_positive_and_zeros_have_relevance():
    x = np.abs(inputs(2))
    x[:, :, ::2] = 0
    x[:, :, :, 0] = 0.25
    found, at_level, below = explained(Net(2), x, "z@sign=0", "z@sign=0.25", "z@sign=-3")
    near(found, below, 0)
    assert (found[:, :, ::2] != 0).any()
    near(at_level, np.where(x < 0.25, -1, 1) * found, 0)


@pytest.mark.parametrize("rank", RANKS)
def test_maps_are_linear_in_the_start(rank):
    net, x = Net(rank, classes=4), inputs(rank)
    logits = plain(net, x)
    odds = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    found = explained(net, x, *WHOLE, *(with_key(t, f"init={i}") for i in ("one", "probability") for t in WHOLE))
    shape = (-1, *[1] * (x.ndim - 1))
    for logit, one, probability in zip(*np.array_split(np.stack(found), 3), strict=True):
        near(logit, logits[:, 1].reshape(shape) * one, 1e-13)
        near(probability, odds.reshape(shape) * one, 1e-13)


@pytest.mark.parametrize("rank", RANKS)
def test_a_contrast_is_the_difference_of_the_maps(rank):
    net, x = Net(rank), inputs(rank)
    one, two, both = (explained(net, x, *WHOLE, target=target) for target in (0, 2, "class:0-vs-class:2"))
    for first, second, found in zip(one, two, both, strict=True):
        near(found, first - second, 1e-12)


@pytest.mark.parametrize("rank", RANKS)
def test_levels_and_bounds_from_files(rank, tmp_path):
    net, x = Net(rank), inputs(rank)
    rng = np.random.default_rng(0)
    mu, low = rng.normal(size=x.shape[1:]).astype(np.float32), -5 - rng.random(x.shape[1:], np.float32)
    np.save(tmp_path / "mu.npy", mu)
    np.savez(tmp_path / "all.npz", low=low, high=-low)
    np.savez(tmp_path / "channels.npz", low=[-4, -5], high=[6, 4])
    text = f"A@sign={tmp_path}/mu.npy"
    [found] = explained(net, x, text, references={f"{tmp_path}/mu.npy": mu})
    [plain_] = explained(net, x, "A@z")
    near(found, np.where(x < mu, -1, 1) * plain_ / x.astype(float), 1e-12)
    channels, same, whole = explained(
        net, x, f"z@zbox={tmp_path}/channels.npz", "z@zbox=-4/-5:6/4", f"z@zbox={tmp_path}/all.npz"
    )
    near(channels, same, 0)
    for sample, values in zip(x, whole, strict=True):
        near(values, ref.lrp(sample, net.double(), 1, "z@zbox=data", (low, -low)))


@pytest.mark.parametrize("rank", RANKS)
def test_no_map_depends_on_its_batch_mates(rank):
    net, x = Net(rank), inputs(rank, 7)
    x *= np.logspace(-1, 1, 7, dtype=np.float32)[[3, 0, 6, 1, 5, 2, 4]].reshape(-1, *[1] * (rank + 1))
    around = {"boxes": boxes([parse_expression(f"lrp:{text}") for text in WHOLE], x, "float64")}
    whole = explained(net, x, *WHOLE, **around)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 7)):
        for found, expected in zip(explained(net, x[rows], *WHOLE, **around), whole, strict=True):
            for one, other in zip(found, expected[rows], strict=True):
                near(one, other, 1e-12)


@pytest.mark.parametrize("rank", RANKS)
def test_the_same_again_and_another_for_another_class(rank):
    net, x = Net(rank), inputs(rank)
    for first, again, other in zip(
        explained(net, x, *WHOLE), explained(net, x, *WHOLE), explained(net, x, *WHOLE, target=2), strict=True
    ):
        near(first, again, 0)
        far(first, other)


class Twice(nn.Module):
    """One layer used again, by other settings too."""

    def __init__(self, *, shared=True, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv1d(2, 4, 3, padding=1, bias=bias)
        self.a = nn.Conv1d(4, 4, 3, padding=1, bias=bias)
        self.b, self.c = (self.a, self.a) if shared else (copy.deepcopy(self.a), copy.deepcopy(self.a))
        self.head = nn.Linear(4, 3, bias=bias)

    def forward(self, x):
        h = torch.relu(self.a(torch.relu(self.stem(x))))
        h = torch.relu(self.b(h))
        h = torch.relu(F.conv1d(h, self.c.weight, self.c.bias, stride=2, dilation=2, padding=1))
        return self.head(h.mean(2))


def test_what_the_first_batch_leaves_behind_serves_the_next():
    """Weights' parts and counts are kept for the run: by layer, settings and shape, not by batch."""
    net, x, texts = Twice(), inputs(1, 6), [text for text in WHOLE if "data" not in text and "box" not in text]
    first, second = x[:3], x[3:, :, :16]
    with opened(net, first, texts) as (trace, target):
        for text in texts:
            trace.map(parse_expression(f"lrp:{text}"), target, (), first.shape[2:])
        trace = Trace(trace.session, trace.session.tensor(second), lambda _: [target], trace.around)
        found = [trace.map(parse_expression(f"lrp:{text}"), target, (), second.shape[2:]).numpy() for text in texts]
    for values, alone in zip(found, explained(net, second, *texts), strict=True):
        near(values, alone, 0)


def test_the_legacy_names_are_112_different_methods():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(),
                        nn.Linear(60, 12), nn.ReLU(), nn.Linear(12, 3))  # fmt: skip
    names = {str(parse_expression(row["legacy_name"])) for row in NAMES if "lrp" in row["legacy_name"]}
    assert len(names) == 112
    found = maps(net, inputs(2)[:, :, :, :14], sorted(names), (), 1)
    for row in range(3):
        flat = np.stack([each[row].flatten().numpy() for each in found.values()])
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        cosines = np.abs(flat @ flat.T) - np.eye(len(flat))
        assert cosines.max() < 1 - 1e-9


@pytest.mark.parametrize("row", NAMES, ids=[row["legacy_name"] for row in NAMES])
def test_legacy_names(row):
    """Where the catalogue names a layer or multiplies a CAM, ours has a method or takes the layer elsewhere."""
    expected = row["expression"].replace("<mu>", "mean")
    if expected.startswith("gradcam"):
        expected = "guided-gradcam" if "+guided" in expected else "gradcam"
    assert str(parse_expression(row["legacy_name"])) == str(parse_expression(expected))


def test_there_are_146_legacy_names():
    assert len({row["legacy_name"] for row in NAMES}) == 146
    assert sum("lrp" in row["legacy_name"] for row in NAMES) == 114


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("text", ["eps=0.01", "a2b1,init=one", "eps=0.1@sign=0", "B@flat"])
def test_in_a_domain_relevance_over_the_input_is_carried_as_a_gradient_is(rank, text):
    net, x = Net(rank), inputs(rank, 2)
    domains = {
        "fourier": path_references.fourier,
        "fourier,sided=two": lambda dx, g: path_references.fourier(dx, g, "two"),
        "wavelet,wavelet=haar,levels=1": lambda dx, g: path_references.wavelet(dx, g, "haar", 1),
    }
    if rank == 1:
        domains["fourier,bands=0-20"] = lambda dx, g: path_references.bands(dx, g, 100, [(0, 20)])
    R, *found = explained(net, x, text, *(with_key(text, f"domain={domain}") for domain in domains))
    for values, reference in zip(found, domains.values(), strict=True):
        for sample, of_time, got in zip(x.astype(float), R, values, strict=True):
            near(got, reference(sample, of_time / sample), 1e-9)
            assert got.sum() == pytest.approx(of_time.sum(), rel=1e-9)


def test_where_the_input_is_zero_nothing_goes_into_a_domain():
    x = inputs(1)
    x[:, :, 5:9] = 0
    R, found = explained(Net(1), x, "z@flat", "z,domain=fourier@flat")
    assert R[:, :, 5:9].all()
    R[:, :, 5:9] = 0
    assert np.allclose(sums(found), sums(R), rtol=1e-9)


# What is degenerate, and what must not be touched


def graded(module):
    for each in module.parameters():
        each.grad = torch.ones_like(each) if each.requires_grad else None
    return module


MODELS = {
    "as it is": Hostile,
    "frozen": lambda: Hostile().requires_grad_(False),
    "a copy": lambda: copy.deepcopy(Hostile().train()),
    "float64": lambda: Hostile().eval().double(),
    "with gradients": lambda: graded(Hostile()),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_and_the_input_stay_as_they_were(model, dtype):
    torch.manual_seed(0)
    module, x = MODELS[model](), inputs(2)
    before, batch, given = snapshot(module), x.tobytes(), torch.is_grad_enabled()
    explained(module, x, *WHOLE, dtype=dtype)
    with pytest.raises(RequestError):
        explained(module, x, "nosuch.eps=0.1", dtype=dtype)
    assert snapshot(module) == before
    assert x.tobytes() == batch
    assert torch.is_grad_enabled() is given
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("rank", RANKS)
def test_single_precision_is_near_double(rank):
    net, x = Net(rank), inputs(rank)
    for single, double in zip(explained(net, x, *WHOLE, dtype="float32"), explained(net, x, *WHOLE), strict=True):
        assert single.dtype == np.float32
        near(single.astype(float), double, 2e-2)  # of what cancels in a denominator near 0 few digits stay


EMPTY = {
    "zero input": lambda net, x: x * 0,
    "constant input": lambda net, x: x * 0 + 0.7,
    "dead net": lambda net, x: [nn.init.zeros_(p) for p in net.head.parameters()] and x,
    "dead layer": lambda net, x: [nn.init.constant_(net.second.bias, -1e4)] and x,
    "all weights zero": lambda net, x: [nn.init.zeros_(p) for p in net.parameters()] and x,
    "saturated": lambda net, x: x * np.float32(1e4),
    "tiny": lambda net, x: x * np.float32(1e-30),
}


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize(("smooth", "bias"), [(True, True), (False, False)])
def test_of_what_is_degenerate_every_map_is_finite(case, smooth, bias):
    net, x = Net(2, smooth=smooth, bias=bias or case == "dead layer"), inputs(2)
    x = EMPTY[case](net, x)
    texts = [*WHOLE, *(f"{rule},init={init}@sign=0" for init in ("one", "probability") for rule in RULES)]
    for text, found in zip(texts, explained(net, x, *texts, dtype="float32"), strict=True):
        assert np.isfinite(found).all(), text
        if case == "dead net" and "init" not in text:
            assert not found.any()
