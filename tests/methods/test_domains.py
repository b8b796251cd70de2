"""Each domain against dense matrices: the shares of its coefficients, with a mean gradient from a path of their own."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.seasonal import STL

from camsweep.core.errors import RequestError

from ..support import SHAPES, Net, answers, inputs, maps
from . import path_references as ref

RANKS = [1, 2, 3]
EVEN = {1: (2, 24), 2: (2, 6, 8), 3: (2, 4, 6, 4)}
GRIDS = [(rank, shape) for shapes in (SHAPES, EVEN) for rank, shape in shapes.items()]
BASELINE = [0.3, -0.2]
TARGET = 1


def samples(shape, batch=2):
    return np.random.default_rng(sum(shape)).normal(size=(batch, *shape)).astype(np.float32)


@cache
def walked(shape):
    """[(x, o, x - o, mean gradient)] of `samples` in a smooth net."""
    net, found = Net(len(shape) - 1, smooth=True).double(), []
    for x in samples(shape).astype(float):
        o = ref.numbers(BASELINE, x)
        found.append((x, o, x - o, ref.mean_gradient(net, x, o, TARGET)))
    return found


def shares(shape, domain):
    net = Net(len(shape) - 1, smooth=True).double()
    [found] = maps(net, samples(shape), [f"ig:baseline=0.3/-0.2,domain={domain}"], target=TARGET).values()
    return found.numpy()


def near(found, expected, share=1e-9):
    assert found.shape == np.shape(expected)
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def agrees(shape, domain, reference):
    """``reference`` takes x - o and the mean gradient."""
    for found, (_, _, dx, g) in zip(shares(shape, domain), walked(shape), strict=True):
        expected = reference(dx, g)
        near(found, expected)
        assert expected.sum() == pytest.approx((dx * g).sum(), rel=1e-9)  # the reference itself leaves nothing out


@pytest.mark.parametrize(("rank", "shape"), GRIDS)
@pytest.mark.parametrize("sided", ["one", "two"])
def test_fourier(rank, shape, sided):
    agrees(shape, f"fourier,sided={sided}", lambda dx, g: ref.fourier(dx, g, sided))


@pytest.mark.parametrize("size", [20, 25])
@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("low:0-15/high:20-45", [(0, 15), (20, 45)]),  # bins every 5 or 4 Hz: edges on them and between
        ("0-5/5-10/10-50.1", [(0, 5), (5, 10), (10, 50.1)]),
        ("all:0-1000", [(0, 1000)]),
    ],
)
def test_bands_are_half_open_and_leave_a_rest(size, text, edges):
    agrees((2, size), f"fourier,bands={text}", lambda dx, g: ref.bands(dx, g, 100, edges))


def test_bands_of_the_eeg():
    edges = [(0.5, 4), (4, 8), (8, 13), (13, 30), (30, 100)]
    agrees((2, 210), "fourier,bands=eeg", lambda dx, g: ref.bands(dx, g, 100, edges))


@pytest.mark.parametrize("size", [40, 43, 17])
@pytest.mark.parametrize(
    ("window", "length", "hop"),
    [
        ("hann", 16, 4),
        ("hann", 16, 8),
        ("hamming", 12, 6),
        ("boxcar", 10, 5),
        ("boxcar", 8, 8),
        ("boxcar", 7, 7),
        ("blackman", 15, 5),
    ],
)
def test_stft(size, window, length, hop):
    agrees(
        (2, size),
        f"stft,window={window},length={length},hop={hop}",
        lambda dx, g: ref.stft(dx, g, window, length, hop),
    )


@pytest.mark.parametrize("given", ["window=hann,length=16,hop=12", "window=hamming,length=10,hop=7", "length=8,hop=9"])
def test_windows_that_do_not_add_up_are_refused(given):
    with pytest.raises(RequestError, match="do not add up"):
        shares((2, 40), f"stft,{given}")


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("domain", ["stft", "parts,period=4", "fourier,bands=0-10"])
def test_what_is_for_signals_is_refused_elsewhere(rank, domain):
    with pytest.raises(RequestError, match="is for signals"):
        shares(SHAPES[rank], domain)


@pytest.mark.parametrize("per", ["coefficient", "level"])
@pytest.mark.parametrize(
    ("shape", "name", "levels"),
    [
        ((2, 24), "haar", 3), ((2, 24), "db4", 1), ((2, 32), "db2", 3), ((2, 32), "bior2.2", 2),
        ((2, 23), "haar", 2), ((2, 23), "db4", 2), ((2, 21), "rbio3.1", 3),
        ((2, 8, 12), "haar", 2), ((2, 8, 12), "bior1.3", 1), ((2, 9, 14), "db2", 1), ((2, 9, 14), "haar", 2),
        ((2, 4, 8, 4), "haar", 2), ((2, 4, 6, 8), "bior2.2", 1), ((2, 5, 8, 7), "db2", 1),
    ],
)  # fmt: skip
def test_wavelet(shape, name, levels, per):
    agrees(
        shape, f"wavelet,wavelet={name},levels={levels},per={per}", lambda dx, g: ref.wavelet(dx, g, name, levels, per)
    )


def test_as_many_levels_as_fit():
    found = shares((2, 60), "wavelet")  # db4 has 8 taps: 60 // 7 halves three times
    assert found.shape == (2, 2, 4, 60)
    near(found, shares((2, 60), "wavelet,wavelet=db4,levels=3"), 0)


MIXINGS = {
    "square": [[0.9, -0.4], [0.3, 1.1]],
    "thin": [[0.9], [0.3]],
    "wide": [[0.9, -0.4, 0.2], [0.3, 1.1, -0.7]],
    "singular": [[0.9, 1.8], [0.3, 0.6]],
}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", MIXINGS)
def test_components_of_a_given_fit(rank, kind, tmp_path):
    mixing = np.array(MIXINGS[kind])
    np.savez(tmp_path / "fit.npz", mixing=mixing, mean=[0.05, -0.02])
    (tmp_path / "fit.py").write_text(
        "from types import SimpleNamespace\nimport numpy as np\n"
        f"ours = SimpleNamespace(mixing_=np.array({mixing.tolist()}), mean_=np.array([0.05, -0.02]))\n"
    )
    for fit in ("fit.npz", "fit.py:ours"):
        agrees(SHAPES[rank], f"ica,fit={tmp_path}/{fit}", lambda dx, g: ref.ica(dx, g, mixing))


def test_components_found_in_a_mixture_are_its_sources():
    """Two sources far from Gaussian: the one of more energy first, whatever its sign, and whoever is in the batch."""
    t = np.arange(1200)
    sources = np.stack([np.sign(np.sin(t * 0.21)), (t % 37) / 18 - 1])
    quiet, loud = np.array([[0.2], [-0.1]]), np.array([[0.5], [0.8]])
    x = np.stack([quiet * sources[0] + loud * sources[1], loud * sources[0] + quiet * sources[1]])
    x = (x + np.array([[0.3], [-0.6]])).astype(np.float32)
    net = Net(1, smooth=True).double()
    asked, ids = ["ig:domain=ica,baseline=0.3/-0.6"], ["one", "two"]
    [found] = maps(net, x, asked, target=TARGET, ids=ids).values()
    for row, (values, sample) in enumerate(zip(found.numpy(), x.astype(float), strict=True)):
        o = ref.numbers([0.3, -0.6], sample)
        g = ref.mean_gradient(net, sample, o, TARGET)
        each = [
            (weights * source * g).sum()
            for weights, source in zip((loud, quiet), sources[:: 1 if row else -1], strict=True)
        ]
        assert values.shape == (3,)
        assert np.abs(values[:2] - each).max() < 0.05 * np.abs(each).max()
        assert abs(values[2]) < 1e-9
        assert values.sum() == pytest.approx(((sample - o) * g).sum(), rel=1e-9)
    [alone] = maps(net, x[1:], asked, target=TARGET, ids=ids[1:]).values()
    near(alone[0].numpy(), found[1].numpy())


def test_one_component_leaves_the_others_to_the_rest():
    shape = (2, 200)
    two, one = shares(shape, "ica"), shares(shape, "ica,n=1")
    assert two.shape == (2, 3)
    assert one.shape == (2, 2)
    near(one.sum(1), two.sum(1))
    assert (np.abs(two[:, 2]) < 1e-9).all()
    assert (np.abs(one[:, 1]) > 1e-6).all()


@pytest.mark.parametrize("period", [4, 7])
def test_trend_and_season(period):
    def reference(dx, g):
        fits = [STL(channel, period=period).fit() for channel in dx]
        return ref.parts([np.stack([fit.trend for fit in fits]), np.stack([fit.seasonal for fit in fits])], dx, g)

    agrees((2, 40), f"parts,period={period}", reference)


@pytest.mark.parametrize("rank", RANKS)
def test_the_users_parts(rank, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def halves(x):\n"
        "    positive = x.clamp(min=0)\n"
        "    return {'positive': positive, 'mean': x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).expand_as(x)}\n"
    )

    def reference(dx, g):
        means = [np.full(channel.shape, channel.mean()) for channel in dx]
        return ref.parts([np.maximum(dx, 0), np.stack(means)], dx, g)

    agrees(SHAPES[rank], f"parts,of={tmp_path}/mine.py:halves", reference)


@pytest.mark.parametrize(("rank", "shape"), GRIDS)
@pytest.mark.parametrize(("given", "known"), [
    ("floor=0.01", {"floor": 0.01}),
    ("floor=0.5,compat=cross-domain-saliency-maps", {"floor": 0.5, "relative": False}),
    ("floor=0.001", {"floor": 0.001}),
])  # fmt: skip
def test_cepstrum(rank, shape, given, known):
    net = Net(rank, smooth=True).double()
    for row, found in enumerate(shares(shape, f"cepstrum,{given}")):
        x, o, _, _ = walked(shape)[row]
        near(found, ref.cepstrum(net, x, o, TARGET, **known), 1e-7)


OWN = """
import torch


class Hadamard:
    axes = [("sequency", "")]

    def forward(self, x):
        return x.flatten(2) @ self.matrix(x).T

    def inverse(self, z):
        return (z @ self.matrix(z)).unflatten(-1, (4, 4) if self.square else (16,)) / 16

    def matrix(self, like):
        found = torch.ones(1, 1, dtype=like.dtype)
        for _ in range(4):
            found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)])
        return found

    square = False


class Plane(Hadamard):
    square = True


class Arc:
    linear = False

    def forward(self, x):
        return x.asinh()

    def inverse(self, z):
        return z.sinh()


class Phase:
    axes = [("place", "")]

    def forward(self, x):
        return torch.complex(x[..., :8], 2 * x[..., 8:])

    def inverse(self, z):
        return torch.cat([z.real, z.imag / 2], -1)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path}/own.py"


def hadamard(dx, g):
    matrix = np.ones((1, 1))
    for _ in range(4):
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return (dx.reshape(2, 16) @ matrix.T) * (g.reshape(2, 16) @ matrix.T) / 16


def test_the_users_domain(own):
    agrees((2, 16), f"{own}:Hadamard", hadamard)
    agrees((2, 4, 4), f"{own}:Plane", hadamard)
    agrees((2, 16), f"{own}:Phase", lambda dx, g: (dx * g)[:, :8] + (dx * g)[:, 8:])


def test_the_users_domain_that_is_not_linear(own):
    net, shape = Net(1, smooth=True).double(), (2, 16)
    for row, found in enumerate(shares(shape, f"{own}:Arc")):
        x, o, _, _ = walked(shape)[row]
        start, end, total = np.arcsinh(o), np.arcsinh(x), 0
        for a, w in ref.quadrature("gauss", 32):
            z = start + a * (end - start)
            total = total + w * ref.gradient(net, np.sinh(z), TARGET) * np.cosh(z)
        near(found, (end - start) * total)


# Gradient x input in a domain


def linear(rank, own=None):
    domains = {
        "fourier": ref.fourier,
        "fourier,sided=two": lambda dx, g: ref.fourier(dx, g, "two"),
        "wavelet,wavelet=haar,levels=1": lambda dx, g: ref.wavelet(dx, g, "haar", 1),
        "wavelet,wavelet=haar,levels=1,per=level": lambda dx, g: ref.wavelet(dx, g, "haar", 1, "level"),
    }
    if rank == 1:
        domains |= {
            "fourier,bands=0-20": lambda dx, g: ref.bands(dx, g, 100, [(0, 20)]),
            "stft,length=8,hop=4": lambda dx, g: ref.stft(dx, g, "hann", 8, 4),
        }
    return domains


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", ["grad", "guided", "deconv", "smoothgrad:n=3"])
def test_times_input_in_a_domain(rank, method):
    net, x = Net(rank).double(), inputs(rank, 2)
    domains = linear(rank)
    [plain] = maps(net, x, [method], target=TARGET).values()
    found = maps(net, x, [f"{method}+input:domain={domain}" for domain in domains], target=TARGET)
    assert len(found) == len(domains)
    for values, reference in zip(found.values(), domains.values(), strict=True):
        for sample, m, got in zip(x.astype(float), plain.numpy(), values.numpy(), strict=True):
            near(got, reference(sample, m))


@pytest.mark.parametrize("rank", RANKS)
def test_the_gradient_in_a_domain_is_the_loops_gradient(rank):
    net, x = Net(rank).double(), inputs(rank, 2)
    [found] = maps(net, x, ["grad+input:domain=fourier"], target=TARGET).values()
    for sample, got in zip(x.astype(float), found.numpy(), strict=True):
        near(got, ref.fourier(sample, ref.gradient(net, sample, TARGET)))


@pytest.mark.parametrize("rank", RANKS)
def test_no_gradient_times_input_in_a_domain_that_is_not_linear(rank):
    with pytest.raises(RequestError, match="not linear"):
        maps(Net(rank).double(), inputs(rank), ["grad+input:domain=cepstrum"])


# Whatever the size


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(0, 1000),
    st.sampled_from(["gauss", "riemann"]),
)
def test_one_side_of_a_spectrum_is_both_and_no_domain_loses_anything(sizes, channels, seed, rule):
    x = np.random.default_rng(seed).normal(size=(2, channels, *sizes))
    net = ref.Quadratic(x.shape[1:], seed)
    start = f"ig:steps=3,rule={rule},baseline=0.2,domain="
    domains = ["time", "fourier", "fourier,sided=two", "ica"]
    if min(sizes) > 1:
        domains += ["wavelet,wavelet=haar,levels=1", "wavelet,wavelet=haar,levels=1,per=level"]
    if sizes[0] > 3 and len(sizes) == 1:
        domains += ["stft,length=4,hop=2", "parts,period=2"]
    found = [values.numpy() for values in maps(net, x, [start + each for each in domains], (), 0).values()]
    whole = np.abs(found[0]).sum() + 1e-30
    for values in found:
        assert np.abs(values.reshape(2, -1).sum(1) - found[0].reshape(2, -1).sum(1)).max() < 1e-10 * whole
    one, two = found[1], found[2]
    shift = tuple(range(2, two.ndim))
    two, one = np.fft.ifftshift(two, shift), np.fft.ifftshift(one, shift[:-1])
    folded = np.zeros_like(one)
    for k in np.ndindex(*sizes):
        at = k if k[-1] <= sizes[-1] // 2 else tuple(-i % size for i, size in zip(k, sizes, strict=True))
        folded[:, :, *at] += two[:, :, *k]
        twin = tuple(-i % size for i, size in zip(k, sizes, strict=True))
        assert np.abs(two[:, :, *k] - two[:, :, *twin]).max() < 1e-10 * whole
    assert np.abs(folded - one).max() < 1e-10 * whole


@pytest.mark.parametrize("rank", RANKS)
def test_domains_share_one_path_without_changing_each_other(rank):
    net, x = Net(rank, smooth=True).double(), inputs(rank)
    asked = [f"ig:baseline=blur,domain={domain}" for domain in [*linear(rank), "cepstrum", "ica", "time"]]
    together = answers(net, x, asked)
    for expression in asked:
        [(key, (values, residual))] = answers(net, x, [expression]).items()
        assert torch.equal(together[key][0], values)
        assert torch.equal(together[key][1], residual)
