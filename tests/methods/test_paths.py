"""Integrated gradients: closed forms, completeness, rules, baselines, and recorded values of another package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import firwin
from torch import nn

from ..support import Net, answers, inputs, maps
from . import path_references as ref

RANKS = [1, 2, 3]
RULES = ["gauss", "riemann", "trapezoid"]
SIGNAL = dict(np.load(Path(__file__).parents[1] / "oracles" / "signal.npz"))


def numpy(found):
    return {key: values.numpy() for key, values in found.items()}


def near(found, expected, share=1e-10):
    found = np.asarray(found)
    assert found.shape == np.shape(expected)
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def one(*args, **kwargs):
    [found] = maps(*args, **kwargs).values()
    return found.numpy()


# Closed forms


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 7])
def test_a_linear_model_is_exact_by_any_rule(rank, rule, steps):
    x = inputs(rank)
    net = ref.Linear(x.shape[1:])
    for word, o in [("zero", 0 * x), ("0.3/-0.2", np.stack([ref.numbers([0.3, -0.2], each) for each in x]))]:
        found = one(net, x, [f"ig:rule={rule},steps={steps},baseline={word}"], (), 1)
        near(found, net.of(1) * (x - o))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", [ref.Quadratic, ref.Squares])
@pytest.mark.parametrize("rule", ["gauss:1", "gauss:5", "trapezoid:2", "trapezoid:3", "trapezoid:20"])
def test_a_quadratic_model_is_exact_where_the_rule_is(rank, kind, rule):
    """The gradient on the path is a straight line: one point in its middle, or both ends, say all."""
    x = inputs(rank)
    net, (name, steps) = kind(x.shape[1:]), rule.split(":")
    found = one(net, x, [f"ig:rule={name},steps={steps}"], (), 0)
    for sample, expected in zip(found, x.astype(float), strict=True):
        w = net.of(0)
        if kind is ref.Squares:
            near(sample, (w * expected) ** 2)
        else:
            b = float(net.b.detach()[0])
            near(sample, w * expected * ((w * expected).sum() + 2 * b))


@pytest.mark.parametrize("rank", RANKS)
def test_the_right_riemann_sum_of_a_square_at_twenty_steps_is_off_by_a_twentieth(rank):
    x = inputs(rank)
    found = one(ref.Squares(x.shape[1:]), x, ["ig:rule=riemann,steps=20"], (), 0)
    near(found, 1.05 * (ref.Squares(x.shape[1:]).of(0) * x) ** 2)


def test_a_product_is_shared_equally():
    x = inputs(2).astype(float)
    found = one(ref.Product(), x, ["ig:steps=1"], (), 0)
    half = x[:, 0] * x[:, 1] / 2
    near(found, np.stack([half, half], 1))
    found = one(ref.Product(), x, ["ig:steps=1,baseline=1/0"], (), 0)
    near(found[:, 0], (x[:, 0] - 1) * x[:, 1] / 2)
    near(found[:, 1], x[:, 1] * (x[:, 0] + 1) / 2)


@pytest.mark.parametrize("rank", RANKS)
def test_a_homogeneous_model_is_exact_at_any_number_of_steps(rank):
    """f(a x) = a f(x) behind ReLUs without biases: the gradient is the same all along the path from 0."""
    net, x = Net(rank, bias=False).double(), inputs(rank)
    found = numpy(maps(net, x, ["ig:steps=1", "ig:steps=7,rule=riemann", "grad+input"], target=1))
    for values in found.values():
        near(values, found["grad+input", None])
    scores = ref.outputs(net, x)[:, 1]
    near(found["ig:steps=1", None].reshape(3, -1).sum(1), scores)


# Against loops


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("rule", ["gauss:32", "gauss:5", "riemann:6", "trapezoid:6"])
@pytest.mark.parametrize("smooth", [True, False])
def test_equals_the_sum_over_the_path(rank, rule, smooth):
    net, x = Net(rank, smooth=smooth).double(), inputs(rank, 2)
    name, steps = rule.split(":")
    found = one(net, x, [f"ig:rule={name},steps={steps},baseline=0.1/-0.2"], target=2)
    for values, sample in zip(found, x.astype(float), strict=True):
        near(values, ref.ig(net, sample, ref.numbers([0.1, -0.2], sample), 2, name, int(steps)))


@pytest.mark.parametrize("rank", RANKS)
def test_baselines(rank, tmp_path):
    net, x = Net(rank, smooth=True).double(), inputs(rank, 2)
    rng = np.random.default_rng(7)
    array, mean = rng.normal(size=x.shape[1:]), rng.normal(size=(2, *[1] * rank))
    np.save(tmp_path / "rest.npy", array)
    references = {f"{tmp_path}/rest.npy": array, "mean": mean, "quiet": x[1].astype(float)}
    wide = [each.astype(float) for each in x]
    cases = {
        "zero": [0 * each for each in wide],
        "-0.7": [ref.numbers([-0.7], each) for each in wide],
        "0.1/-0.2": [ref.numbers([0.1, -0.2], each) for each in wide],
        "blur": [ref.blurred(each) for each in wide],
        "blur,blur=0.03": [ref.blurred(each, 0.03) for each in wide],
        "mean": [mean + 0 * each for each in wide],
        f"{tmp_path}/rest.npy": [array, array],
        "quiet": [wide[1], wide[1]],
    }
    for word, baselines in cases.items():
        found, residual = next(iter(answers(net, x, [f"ig:baseline={word}"], target=1, references=references).values()))
        for values, missed, sample, o in zip(found.numpy(), residual.numpy(), wide, baselines, strict=True):
            expected = ref.ig(net, sample, o, 1)
            assert np.abs(values - expected).max() <= 1e-10 * np.abs(expected).max() + 1e-15, word
            assert abs(missed - (ref.score(net, sample, 1) - ref.score(net, o, 1) - expected.sum())) < 1e-12, word


@pytest.mark.parametrize("rank", RANKS)
def test_the_uniform_baseline_is_noise_of_the_samples_own_range(rank):
    """Seen through a linear model of known weights."""
    x = inputs(rank, 4)
    x[2] = x[2] * 5 + 3
    net = ref.Linear(x.shape[1:])

    def baseline(rows, **around):
        ids = [f"sample {row}" for row in rows]
        return x[rows] - one(net, x[rows], ["ig:baseline=uniform"], (), 0, ids=ids, **around) / net.of(0)

    o = baseline([0, 1, 2, 3])
    for sample, noise in zip(x, o, strict=True):
        low, high = sample.min(), sample.max()
        assert low - 1e-6 <= noise.min() < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < noise.max() <= high + 1e-6
        assert abs(noise.mean() - (low + high) / 2) < 0.2 * (high - low)
        assert len(np.unique(noise.round(9))) == noise.size
    near(baseline([0, 1, 2, 3]), o, 0)
    near(baseline([2]), o[2:3], 1e-12)  # whatever its mates
    near(baseline([3, 0], chunk=1), o[[3, 0]], 1e-12)
    assert (baseline([0, 1, 2, 3], seed=1) != o).all()
    share = [(noise - sample.min()) / np.ptp(sample) for sample, noise in zip(x, o, strict=True)]
    assert np.abs(share[0] - share[1]).max() > 0.1  # each has noise of its own


# Completeness

DOMAINS = [
    "time",
    "fourier",
    "fourier,sided=two",
    "wavelet,levels=1",
    "wavelet,wavelet=haar,per=level",
    "ica",
    "cepstrum",
]
OF_SIGNALS = ["fourier,bands=low:0-10/high:20-40", "stft", "stft,window=boxcar,length=10,hop=5", "parts,period=5"]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("word", ["zero", "blur", "uniform", "0.1/-0.2", "mean"])
def test_every_domain_is_complete(rank, word):
    """In a range where tanh is no step: 32 nodes are then more than enough."""
    net, x = Net(rank, smooth=True).double(), inputs(rank) / 4
    mean = np.random.default_rng(3).normal(size=(2, *[1] * rank)) / 4
    domains = DOMAINS + OF_SIGNALS * (rank == 1)
    asked = [f"ig:baseline={word},domain={domain}" for domain in domains]
    found = answers(net, x, asked, target=0, references={"mean": mean})
    assert len(found) == len(asked)
    wide = [each.astype(float) for each in x]
    baselines = {
        "zero": [0 * each for each in wide],
        "blur": [ref.blurred(each) for each in wide],
        "0.1/-0.2": [ref.numbers([0.1, -0.2], each) for each in wide],
        "mean": [mean + 0 * each for each in wide],
    }
    if word == "uniform":  # told by the time domain of a model that shows it
        linear = ref.Linear(x.shape[1:])
        shown = one(linear, x, ["ig:baseline=uniform"], (), 0)
        baselines[word] = [each - m / linear.of(0) for each, m in zip(wide, shown, strict=True)]
    change = np.array(
        [ref.score(net, each, 0) - ref.score(net, o, 0) for each, o in zip(wide, baselines[word], strict=True)]
    )
    for (expression, _), (values, residual) in found.items():
        missed = change - values.numpy().reshape(3, -1).sum(1)
        assert np.abs(missed).max() < 1e-5 * np.abs(change).max(), expression
        assert np.abs(residual.numpy() - missed).max() < 1e-12, expression


@pytest.mark.parametrize("rule", ["riemann", "trapezoid"])
def test_the_residual_says_what_a_coarse_rule_misses(rule):
    net, x = Net(1, smooth=True).double(), inputs(1)
    asked = [f"ig:steps=3,rule={rule},domain={domain}" for domain in DOMAINS]
    change = ref.outputs(net, x)[:, 1] - ref.outputs(net, 0 * x)[:, 1]
    for values, residual in answers(net, x, asked, target=1).values():
        missed = change - values.numpy().reshape(3, -1).sum(1)
        assert np.abs(residual.numpy() - missed).max() < 1e-12
        assert np.abs(missed).max() > 1e-4 * np.abs(change).max()


def test_only_paths_have_a_residual():
    found = answers(Net(1).double(), inputs(1), ["grad", "smoothgrad:n=2", "occlusion", "rise:n=2"])
    assert all(residual is None for _, residual in found.values())


# Each sample for itself

OTHERS = [
    "grad+input:domain=fourier",
    "grad+sign=0.1",
    "occlusion:window=3,channels=each",
    "rise:n=9",
    "smoothgrad:n=9",
]


@pytest.mark.parametrize("rank", RANKS)
def test_each_item_is_of_its_own_target_batch_and_chunk_do_not_matter(rank):
    net, x = Net(rank, smooth=True).double(), inputs(rank, 16, seed=5) * 3
    x[4] *= 100  # a loud mate
    with torch.no_grad():
        net.head.bias -= torch.from_numpy(ref.outputs(net, x).mean(0))
    classes = [ref.predicted(net, each) for each in x.astype(float)]
    rows = {4, *(classes.index(each) for each in set(classes))}
    assert len(set(classes)) > 1
    asked = [f"ig:steps=4,domain={domain}" for domain in DOMAINS + OF_SIGNALS * (rank == 1)]
    asked += [*OTHERS, "vargrad:n=5", "smoothgrad2:n=5", "ig:steps=4,baseline=uniform"]
    ids = [f"item {row}" for row in range(16)]
    whole = answers(net, x, asked, ids=ids)
    others = [answers(net, x, asked, ids=ids, chunk=chunk) for chunk in (1, 5)]
    for row in rows:
        alone = answers(net, x[row : row + 1], asked, ids=[ids[row]])
        named = answers(net, x[row : row + 1], asked, ids=[ids[row]], target=classes[row], chunk=7)
        for key, (values, residual) in whole.items():
            for other, at in [*[(each, row) for each in others], (alone, 0), (named, 0)]:
                same, missed = other[key]
                scale = 1e-10 * values[row].abs().max()
                assert (same[at] - values[row]).abs().max() <= scale, key
                assert residual is None or (missed[at] - residual[row]).abs() <= 1e-9 * max(1, values[row].abs().sum())


def test_two_targets_in_a_contrast_are_the_difference_of_their_maps():
    net, x = Net(1, smooth=True).double(), inputs(1)
    for method in ["ig", "ig:domain=stft", "occlusion", "rise:n=20", "smoothgrad:n=5"]:
        one_, two, both = (one(net, x, [method], target=t) for t in ("class:0", "class:2", "class:0-vs-class:2"))
        near(both, one_ - two)


# Recorded


def det(shape, a=1.7, b=0.5, s=0.3):
    k = np.arange(int(np.prod(shape)), dtype=np.float64)
    return (s * np.sin(a * k + 0.0031 * k * k + b)).reshape(shape).astype(np.float32)


class Smooth(nn.Module):
    """(N, 2, T) -> (N, 3); the j-th parameter is det(shape, 1.7 + 0.13 j, 0.5 + j, 0.6)."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(2, 4, 5, padding=2)
        self.f = nn.Linear(4, 3)
        with torch.no_grad():
            for j, p in enumerate(self.parameters()):
                p.copy_(torch.from_numpy(det(tuple(p.shape), 1.7 + 0.13 * j, 0.5 + j, 0.6)))

    def forward(self, x):
        return self.f(torch.tanh(self.c(x)).mean(-1))


class Sum(nn.Module):
    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack([-total, total], 1)


class Fir(nn.Module):
    """Two filters, below and above 2.5 Hz at 32 Hz, ReLU, mean."""

    def __init__(self):
        super().__init__()
        low, high = (20 * firwin(31, 2.5, fs=32, pass_zero=kind) for kind in ("lowpass", "highpass"))
        self.filters = nn.Conv1d(1, 2, 31, padding=15, bias=False)
        with torch.no_grad():
            self.filters.weight.copy_(torch.from_numpy(np.stack([low, high])[:, None]))

    def forward(self, x):
        return torch.relu(self.filters(x)).mean(-1)


X, BASELINE = det((1, 2, 64), 0.37, 0.2, 1.0), det((1, 2, 64), 0.9, 1.0, 0.1)
ODD = X[..., :61]
FIFTY = "ig:rule=riemann,steps=50"


def smooth(expression, x=X, **around):
    return one(Smooth(), x, [expression], (), 1, references={"det": BASELINE[0].astype(float)}, **around)[0]


def stands(found, total, largest, place):
    """Against the printed sum, the value largest in size, and its flat place."""
    assert found.sum() == pytest.approx(total, rel=2e-6)
    assert np.abs(found).argmax() == place
    assert np.abs(found).max() == pytest.approx(largest, rel=2e-6)


@pytest.mark.parametrize(
    ("key", "expression"),
    [
        ("B01_time_n50", FIFTY),
        ("B01_time_n50_baselineB", f"{FIFTY},baseline=det"),
        ("B02_fourier_n50", f"{FIFTY},domain=fourier,sided=two"),
        ("B02_fourier_n50_baselineB", f"{FIFTY},domain=fourier,sided=two,baseline=det"),
        ("B03_dwt_L3_n50", f"{FIFTY},domain=wavelet,wavelet=haar,levels=3,per=level"),
        ("B08_captum_fourier_gl_n50", "ig:steps=50,domain=fourier,sided=two"),
    ],
)
def test_recorded_attributions(key, expression):
    recorded, found = SIGNAL[key][0], smooth(expression)
    if "fourier" in key:
        recorded = np.fft.fftshift(recorded, -1)
    if "dwt" in key:
        recorded = recorded[:, [0, 3, 2, 1], 0]  # theirs: A3, D1, D2, D3
    near(found, recorded, 1e-6)


@pytest.mark.parametrize(
    ("baseline", "time", "fourier"),
    [
        ("zero", (0.10630032, 0.0079655731, 50), (0.10630031, 0.020661589, 74)),
        ("det", (0.098877724, 0.0089262817, 51), (0.098877712, 0.020710744, 74)),
    ],
)
def test_printed_attributions_of_time_and_frequency(baseline, time, fourier):
    stands(smooth(f"{FIFTY},baseline={baseline}"), *time)
    two = smooth(f"{FIFTY},domain=fourier,sided=two,baseline={baseline}")
    half = smooth(f"{FIFTY},domain=fourier,baseline={baseline}")
    two = np.fft.ifftshift(two, -1)
    total, largest, place = fourier
    # A real signal has every frequency twice; either of the two may come out larger by the last bit.
    assert place % 64 < 32
    assert np.abs(two[:, :33]).argmax() == place // 64 * 33 + place % 64
    assert two.sum() == pytest.approx(total, rel=2e-6)
    assert np.abs(two).max() == pytest.approx(largest, rel=2e-6)
    near(half[:, 1:32], 2 * two[:, 1:32])
    near(half[:, [0, 32]], two[:, [0, 32]])


def test_printed_haar_levels():
    haar = f"{FIFTY},domain=wavelet,wavelet=haar,levels=3,per=level"
    stands(smooth(haar), 0.10630031, 0.055081226, 6)
    # 61 points: they wrap round to fill up to 64, here there are zeros; the whole is the same.
    odd = smooth(haar, ODD)
    assert odd.sum() == pytest.approx(0.10686745, rel=2e-6)
    near(odd.sum(1), smooth(FIFTY, ODD).sum(1))


def test_a_short_time_spectrum_padded_in_another_way():
    """There a signal is mirrored beyond its ends, here it is 0: frames that lie within it agree, and so does the sum."""
    found = smooth(f"{FIFTY},domain=stft,window=boxcar,length=16,hop=8")
    recorded = SIGNAL["B04_stft_16_8_16_center_n50"][0]
    assert found.shape == recorded.shape == (2, 9, 9)
    assert found.sum() == pytest.approx(0.10630032, rel=2e-6)
    near(found[..., 1:-1], recorded[..., 1:-1], 1e-6)


@pytest.mark.parametrize("compat", ["off", "cross-domain-saliency-maps"])
def test_printed_cepstra(compat):
    """They take the constant as it is; ours is a share of the sample's largest amplitude, and the whole is the same."""
    given = f"domain=cepstrum,floor=1e-7,compat={compat}"
    riemann, gauss = smooth(f"ig:rule=riemann,steps=300,{given}"), smooth(f"ig:steps=300,{given}")
    if compat == "off":
        assert gauss.sum() == pytest.approx(0.10445225, rel=1e-6)
    else:
        assert riemann.sum() == pytest.approx(0.10986271, rel=1e-5)
        assert np.abs(riemann).argmax() == 64
        assert np.abs(riemann).max() == pytest.approx(0.090697333, rel=1e-5)
        assert gauss.sum() == pytest.approx(0.10445221, rel=1e-5)
        assert np.abs(gauss).max() == pytest.approx(0.086370662, rel=1e-5)


def test_printed_components(tmp_path):
    np.savez(tmp_path / "fit.npz", mixing=[[0.9, -0.4], [0.3, 1.1]], mean=[0.05, -0.02])
    found = smooth(f"{FIFTY},baseline=0.05/-0.02,domain=ica,fit={tmp_path}/fit.npz")
    stands(found[:2], 0.11668092, 0.13060355, 1)
    assert abs(found[2]) < 1e-12  # as many components as channels leave nothing


@pytest.mark.parametrize(("domain", "largest", "place"), [
    ("time", 0.0078764958, 50), ("fourier,sided=two", 0.020252287, 74),
    ("wavelet,wavelet=haar,levels=3,per=level", 0.053985752, 6),
])  # fmt: skip
def test_the_plain_mean_from_end_to_end_is_the_trapezoid_and_half_its_ends(domain, largest, place):
    """M = mean of g(a_i) dx over both ends and between; T has the ends by half: n M = (n - 1) T + (g0 + g1) / 2 dx."""
    asked = [f"ig:steps={steps},rule={rule},domain={domain}" for steps, rule in [(50, "trapezoid"), (2, "trapezoid")]]
    trapezoid, ends = (values[0] for values in numpy(maps(Smooth(), X, asked, (), 1)).values())
    mean = (49 * trapezoid + ends) / 50
    if "two" in domain:
        mean = np.fft.ifftshift(mean, -1)[:, :33]
        place = place // 64 * 33 + place % 64
    else:
        assert mean.sum() == pytest.approx(0.10394375, rel=2e-6)
    assert np.abs(mean).argmax() == place
    assert np.abs(mean).max() == pytest.approx(largest, rel=2e-6)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_filter_hears_what_it_lets_through(steps):
    t = np.arange(2560) / 32
    x = (np.cos(2 * np.pi * t) + 0.5 * np.cos(8 * np.pi * t))[None, None].astype(np.float32)
    recorded = SIGNAL["B09_fir_fourier_lowpass_n1"]
    found = one(Fir(), x, [f"ig:steps={steps},rule=riemann,domain=fourier,sided=two"], (), 0)
    near(np.fft.ifftshift(found, -1), recorded, 2e-6)
    half = one(Fir(), x, [f"ig:steps={steps},domain=fourier"], (), 0)[0, 0]
    assert half.argmax() == 80
    assert half[80] == pytest.approx(2 * 3.1010938, rel=2e-6)
    assert half[320] == pytest.approx(2 * 0.0012338, rel=1e-4)
    assert half.sum() == pytest.approx(6.2046552, rel=2e-6)


def test_a_sum_is_attributed_to_its_summands():
    recorded = SIGNAL["B10_sum_time_n4"]
    near(one(Sum(), X, ["ig:steps=4,rule=riemann"], (), 1), recorded, 1e-6)
    references = {"det": BASELINE[0].astype(float)}
    found = one(Sum(), X, ["ig:steps=4,rule=riemann,baseline=det"], (), 1, references=references)
    near(found, X.astype(float) - BASELINE, 1e-12)


SEASONS = """
def trend_and_season(x):
    import torch

    kernel = torch.ones(x.shape[1], 1, 17, dtype=x.dtype) / 17
    trend = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (8, 8), mode="reflect"), kernel, groups=x.shape[1])
    rest = x - trend
    season = torch.stack([rest[..., i::8].mean(-1) for i in range(8)], -1).repeat(1, 1, -(-x.shape[-1] // 8))
    return {"trend": trend, "season": season[..., : x.shape[-1]]}
"""


def test_the_users_parts_have_the_sum_of_all_domains(tmp_path):
    (tmp_path / "mine.py").write_text(SEASONS)
    found = smooth(f"{FIFTY},domain=parts,of={tmp_path}/mine.py:trend_and_season")
    assert found.shape == (2, 3)
    assert found.sum() == pytest.approx(0.10630031, rel=2e-6)
    near(found.sum(1), smooth(FIFTY).sum(1))


def test_the_range_that_complete_maps_sum_to():
    f = SIGNAL["B00_f_x_f_0_f_b"]
    assert smooth("ig").sum() == pytest.approx(f[0] - f[1], rel=1e-6)
    assert smooth("ig:baseline=det").sum() == pytest.approx(f[0] - f[2], rel=1e-6)
