"""SmoothGrad and its kin against a loop over the noise that is specified; gradients times a sign."""

import numpy as np
import pytest

from ..support import Net, inputs, maps
from . import path_references as ref
from .references import letters

RANKS = [1, 2, 3]
KIN = {"smoothgrad": ref.smoothgrad, "smoothgrad2": ref.smoothgrad2, "vargrad": ref.vargrad}


def near(found, expected, share=1e-9):
    found = np.asarray(found)
    assert found.shape == np.shape(expected)
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def asked(given=""):
    return [f"{name}:{given}" if given else name for name in KIN]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("given", "known"), [
    ("n=7", {"n": 7}), ("n=1,sd=0.05", {"n": 1, "sd": 0.05}), ("n=12,sd=0.6", {"n": 12, "sd": 0.6}), ("", {}),
])  # fmt: skip
def test_equals_the_loop(rank, smooth, given, known):
    net, x = Net(rank, smooth=smooth).double(), inputs(rank, 2)
    x[1] = 3 * x[1] + 2  # each sample has a range of its own
    ids = ["first", "b/c \u00e9 \udc80.npy"]  # a file's name need not be text
    found = maps(net, x, asked(given), target=1, ids=ids, seed=4)
    for row, sample in enumerate(x.astype(float)):
        gradients = ref.noisy_gradients(net, sample, 1, ids[row], seed=4, **known)
        for values, reference in zip(found.values(), KIN.values(), strict=True):
            expected = reference(gradients)
            assert values[row].shape == expected.shape
            assert np.abs(values[row].numpy() - expected).max() <= 1e-9 * ref.smoothgrad2(gradients).max() ** 0.5


@pytest.mark.parametrize("rank", RANKS)
def test_a_linear_model_is_its_weights(rank):
    x = inputs(rank)
    net = ref.Linear(x.shape[1:])
    w = np.broadcast_to(net.of(0), x.shape)
    found = [values.numpy() for values in maps(net, x, asked("n=9"), (), 0).values()]
    near(found[0], w, 1e-12)
    near(found[1], w**2, 1e-12)
    assert np.abs(found[2]).max() < 1e-24


@pytest.mark.parametrize("rank", RANKS)
def test_a_square_has_the_noises_own_moments(rank):
    """f = sum (w x)^2 has the gradient 2 w^2 x: its mean and variance are those of the noise."""
    x = inputs(rank, 1)
    net = ref.Squares(x.shape[1:])
    slope = 2 * net.of(0) ** 2
    found = [values.numpy()[0] for values in maps(net, x, asked("n=400,sd=0.1"), (), 0).values()]
    deviation = 0.1 * (x.max() - x.min())
    scale = np.abs(slope).max()
    assert np.abs(found[0] - slope * x[0]).max() < scale * deviation * 5 / 20
    assert (found[2] / (slope * deviation) ** 2).mean() == pytest.approx(1, abs=0.1)
    near(found[1], found[0] ** 2 + found[2])


@pytest.mark.parametrize("rank", RANKS)
def test_noise_is_of_the_seed_and_the_sample_alone(rank):
    net, x = Net(rank, smooth=True).double(), inputs(rank, 16)
    x[5] *= 100  # a loud mate
    ids = [f"item {row}" for row in range(16)]
    whole = maps(net, x, asked("n=11"), target=1, ids=ids)
    for chunk in (1, 5, 32):
        for key, values in maps(net, x, asked("n=11"), target=1, ids=ids, chunk=chunk).items():
            near(values.numpy(), whole[key].numpy(), 1e-10)
        for row in (0, 5, 15):
            for key, values in maps(
                net, x[row : row + 1], asked("n=11"), target=1, ids=[ids[row]], chunk=chunk
            ).items():
                near(values[0].numpy(), whole[key][row].numpy(), 1e-10)
    for around in ({"ids": ids, "seed": 1}, {"ids": ids[::-1]}):
        for key, values in maps(net, x, asked("n=11"), target=1, **around).items():
            assert ((values != whole[key]).flatten(1).any(1)).all()


def test_a_constant_sample_has_no_noise():
    net, x = Net(1, smooth=True).double(), np.full((1, 2, 23), 0.7, np.float32)
    found = maps(net, x, ["grad", *asked("n=5")], target=0)
    near(found["smoothgrad:n=5", None].numpy(), found["grad", None].numpy())
    assert found["vargrad:n=5", None].abs().max() < 1e-24


@pytest.mark.parametrize("rank", RANKS)
def test_each_sample_by_its_own_class_under_noise_too(rank):
    """The class is that of the clean sample, however the noise would turn the prediction."""
    net, x = Net(rank, smooth=True).double(), inputs(rank, 6, seed=3)
    net.head.bias.data -= net.head.bias.data.new_tensor(ref.outputs(net, x).mean(0))
    classes = [ref.predicted(net, sample) for sample in x.astype(float)]
    assert len(set(classes)) > 1
    [found] = maps(net, x, ["smoothgrad:n=6,sd=1"]).values()
    for row, sample in enumerate(x.astype(float)):
        near(found[row], ref.smoothgrad(ref.noisy_gradients(net, sample, classes[row], f"{row:06d}", n=6, sd=1)))


# Signs

THRESHOLDS = ["", "=0", "=0.25", "=-1.5", "=-0.25/0.5", "=mean", "=FILE"]
BASES = ["grad", "guided", "deconv", "smoothgrad:n=4", "ig:steps=4", "vargrad:n=4", "grad+input"]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("text", THRESHOLDS)
def test_times_the_sign_against_a_threshold(rank, text, tmp_path):
    net, x = Net(rank).double(), inputs(rank)
    path = f"{tmp_path}/mu.npy"
    array = np.random.default_rng(2).normal(size=x.shape[1:]).round(2)
    mean = np.array([0.125, -0.5]).reshape(2, *[1] * rank)
    for mu in (0.25, -0.25, 0.5, 0.0, -1.5, 0.125, -0.5):
        x[np.random.default_rng(int(8 * mu + 99)).random(x.shape) < 0.05] = mu
    x[0] = np.where(np.random.default_rng(1).random(x[0].shape) < 0.3, array.astype(np.float32), x[0])
    array = array.astype(np.float32).astype(float)
    np.save(path, array)
    text = text.replace("FILE", path)
    wide = x.astype(float)
    thresholds = {"": 0, "=0": 0, "=0.25": 0.25, "=-1.5": -1.5, "=mean": mean, f"={path}": array,
                  "=-0.25/0.5": np.array([-0.25, 0.5]).reshape(2, *[1] * rank)}  # fmt: skip
    mu = np.broadcast_to(thresholds[text], x.shape[1:])
    sign = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        sign[at] = -1 if wide[at] < mu[at[1:]] else 1
    assert ((wide == mu) & (sign == 1)).any()
    references = {"mean": mean, path: array}
    plain = maps(net, x, BASES, target=1)
    turned = maps(net, x, [f"{base}+sign{text}" for base in BASES], target=1, references=references)
    assert len(turned) == len(BASES)
    for values, before in zip(turned.values(), plain.values(), strict=True):
        assert (values.numpy() == before.numpy() * sign).all()
    for base, known in [("grad", "g"), ("guided", "u"), ("deconv", "d")]:
        found = turned[list(turned)[BASES.index(base)]].numpy()
        for row, sample in enumerate(wide):
            expected = ref.gradient(net, sample, 1) if known == "g" else letters(net, sample, 1)[known]
            near(found[row], expected * sign[row], 1e-7)
