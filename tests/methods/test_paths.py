"""Integrated gradients: closed forms, completeness, rules, baselines."""

import numpy as np
import pytest
import torch

from ..support import Net, answers, inputs, maps
from . import path_references as ref

RANKS = [1, 2, 3]
RULES = ["gauss", "riemann", "trapezoid"]


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
