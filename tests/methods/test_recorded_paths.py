"""Attributions along a path against values recorded from cross-domain-saliency-maps, and its nets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import firwin
from torch import nn

from ..support import maps
from .test_paths import near, numpy, one

SIGNAL = dict(np.load(Path(__file__).parents[1] / "oracles" / "signal.npz"))


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
