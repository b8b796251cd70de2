"""Methods against recorded values of other packages and of closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ..support import maps

ORACLES = Path(__file__).parents[1] / "oracles"
CAM = json.loads((ORACLES / "cam.json").read_text())
OURS = {
    "GradCAM": "gradcam:relu=off",
    "HiResCAM": "hirescam",
    "LayerCAM": "layercam:relu=off",
    "GradCAMPlusPlus": "gradcam++:compat=pytorch-grad-cam,relu=off",
    "XGradCAM": "xgradcam:compat=pytorch-grad-cam,relu=off",
    "EigenCAM": "eigencam",
    "GradCAMElementWise": "gradcam-elementwise",
    "EigenGradCAM": "eigengradcam",
    "SegEigenCAM": "segeigencam",
    "FEM": "fem:compat=pytorch-grad-cam",
    "ShapleyCAM": "shapleycam:relu=off",
    "AblationCAM": "ablationcam:compat=pytorch-grad-cam,relu=off",
    "ScoreCAM": "scorecam:relu=off",
}
CASES = [(case, method) for case, methods in CAM["cases"].items() for method in methods]


class Power(nn.Module):
    """y_j = mean_p (sum_c W[j,c] A[c,p])^n, behind a layer that gives A unchanged."""

    def __init__(self, power):
        super().__init__()
        self.layer = nn.Identity()
        self.power = power

    def forward(self, x):
        mixed = torch.einsum("jc,bcp->bjp", torch.tensor(CAM["W"], dtype=x.dtype), self.layer(x).flatten(2))
        return (mixed**self.power).mean(2)


@pytest.mark.parametrize(("case", "method"), CASES)
def test_closed_forms(case, method):
    rank, power, target = case.split("/")
    activation = np.array(CAM[f"A{rank[0]}"], np.float32)[None]
    net, expression = Power(int(power[1:])), OURS[method]
    [raw] = maps(net, activation, [expression], ["layer"], int(target[-1])).values()
    recorded = CAM["cases"][case][method]
    expected = np.array(recorded["raw"])
    if "Eigen" in method and np.abs(expected).max() > expected.max():
        # A principal component has no sign of its own: theirs is the linear algebra library's, ours is stated.
        assert np.allclose(raw[0], -expected, rtol=1e-6, atol=1e-8)
        return
    assert np.allclose(raw[0], expected, rtol=1e-6, atol=1e-8)
    # The other package's way to a picture: cut below 0, shift to 0, divide by the largest.
    final = raw[0].relu()
    final = final - final.min()
    final = final / (1e-7 + final.max())
    assert np.allclose(final, recorded["final"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["gradcam++", "xgradcam"])
def test_without_the_constant_the_exact_closed_form(method):
    """Where the other package adds an absolute constant, ours is the paper's formula."""
    activation = np.array(CAM["A2"], np.float32)[None]
    [raw] = maps(Power(1), activation, [method], ["layer"], 0).values()
    A, w = np.array(CAM["A2"]), np.array(CAM["W"][0]) / 4  # dy/dA = W/P everywhere
    total = A.sum((1, 2))
    weights = np.maximum(w, 0) / (2 + w * total) * 4 if method == "gradcam++" else w
    assert np.allclose(raw[0], np.maximum(np.einsum("c,chw->hw", weights, A), 0), rtol=1e-12)


class Net1(nn.Module):
    """(N, 2, T) -> (N, k); the j-th parameter is 0.6 sin((1.7 + 0.13 j) k + 0.0031 k^2 + 0.5 + j)."""

    def __init__(self, k=3, end=nn.Identity(), scale=1.0):  # noqa: B008
        super().__init__()
        self.c1 = nn.Conv1d(2, 4, 5, stride=2, padding=2)
        self.c2 = nn.Conv1d(4, 6, 3, padding=1)
        self.f = nn.Linear(6, k)
        self.end, self.scale = end, scale
        with torch.no_grad():
            for j, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.from_numpy(sines(tuple(parameter.shape), 1.7 + 0.13 * j, 0.5 + j, 0.6)))

    def forward(self, x):
        return self.end(self.scale * self.f(torch.relu(self.c2(torch.relu(self.c1(x)))).mean(-1)))


def sines(shape, a, b, s):
    k = np.arange(int(np.prod(shape)), dtype=np.float64)
    return (s * np.sin(a * k + 0.0031 * k * k + b)).reshape(shape).astype(np.float32)


SIGNALS = np.stack([sines((2, 64), 0.31 + 0.07 * i, 0.2 * i, 1.0) for i in range(3)])
RECORDED = dict(np.load(ORACLES / "signal.npz"))


@pytest.mark.parametrize(
    ("key", "net", "expression", "target"),
    [
        ("A01_gradcam1d_raw", Net1(), "gradcam", "class:1"),
        ("A01_gradcam1d_raw", Net1(end=nn.Softmax(1)), "gradcam", "class:1"),  # behind it: the same map
        ("A02_hirescam1d_raw", Net1(), "hirescam:relu=on", "class:1"),
        ("A04_contrastive_1_vs_2_raw", Net1(), "gradcam", "class:1-vs-class:2"),
        ("A04_contrastive_1_vs_2_raw", Net1(end=nn.Softmax(1)), "gradcam", "1-vs-2"),
        ("A06_signed_raw", Net1(), "gradcam:relu=off", "class:1"),
        ("A07_binary_logit_class0_raw", Net1(1), "gradcam", "class:0"),
        ("A07_binary_logit_class1_raw", Net1(1), "gradcam", "class:1"),
        ("A07_binary_logit_class1_raw", Net1(1, nn.Sigmoid()), "gradcam", "class:1"),  # A08
        ("A13_tf_gradcam1d_raw", Net1(), "gradcam", "class:1"),
    ],
)
def test_signals(key, net, expression, target):
    recorded = RECORDED[key]
    [found] = maps(net, SIGNALS, [expression], ["c2"], target, dtype="float32").values()
    assert np.abs(found.numpy() - recorded).max() <= 1e-6 * np.abs(recorded).max()


@pytest.mark.parametrize("score", ["logit", "log-probability"])
def test_a_saturated_softmax_is_no_map_of_zeros(score):
    """Case A15: a package clamps the probability before its logarithm, and every map is zero."""
    assert not RECORDED["A15_saturated_softmax_raw_is_zero"].any()
    net = Net1(end=nn.Softmax(1), scale=1e4)
    with torch.no_grad():
        assert set(net(torch.from_numpy(SIGNALS)).unique().tolist()) == {0.0, 1.0}
    [found] = maps(net, SIGNALS, ["gradcam:relu=off"], ["c2"], "class:1", dtype="float64", score=score).values()
    [plain] = maps(Net1(), SIGNALS, ["gradcam:relu=off"], ["c2"], "class:1").values()
    assert found.abs().flatten(1).amax(1).min() > 0
    if score == "logit":
        assert torch.allclose(found, plain * 1e4, rtol=1e-9)
