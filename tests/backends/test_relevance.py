"""Relevance by operator interception: a layer worked out by hand, recorded nets, conservation."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camsweep.backends.torch.relevance.interception import Relevances
from camsweep.core.relevance import rules
from camsweep.core.relevance.grammar import InputRule, Rules
from camsweep.core.relevance.manner import Manner

RECORDED = dict(np.load(Path(__file__).parents[1] / "oracles" / "lrp.npz"))


class ByHand:
    kind, name, axis = "dense", "", 0
    weight = torch.tensor([[1.0, -2, 3], [-1, 0.5, 2]], dtype=torch.float64)
    bias = torch.tensor([0.5, -1], dtype=torch.float64)

    def run(self, x, weight):
        return x @ weight.T

    def pull(self, s, weight):
        return s @ weight

    def ones(self, x):
        return torch.ones_like(x)

    def box(self, x, low, high):
        return low.expand_as(x), high.expand_as(x)

    def once(self, _, compute):
        return compute()


class Unbiased(ByHand):
    bias = None


def first(text):
    """What the first operators do by an input rule, and whether that is a multiplier."""
    found = InputRule.parse(text)
    if found.box is not None:
        low, high = (torch.tensor(float(each), dtype=torch.float64) for each in found.box.split(":"))
        return partial(rules.zbox, low=low, high=high, key=text)
    return found.rule


def recorded(module, x):
    """A forward, frozen and recorded: input, mode, outputs."""
    x = x.clone().requires_grad_()
    module.requires_grad_(False)
    with Relevances(x, {}) as mode:
        y = module(x)
    return x, mode, y


def relevance(forward, text, **manner):
    """The map of an expression, the start being the logit of the predicted class."""
    x, mode, y = forward
    base, _, at = text.partition("@")
    manner = Manner(Rules.parse(base).composite, absorbs=at != "w2nb", **manner)
    chosen = y.argmax(1, keepdim=True)
    start = torch.zeros_like(y).scatter(1, chosen, y.detach().gather(1, chosen))
    found = mode.propagated([y], [start], replace(manner, absorbs=True))
    found.manner = manner
    if at.startswith("sign="):
        rule = InputRule.parse(at)
        g = found.gradient(lambda op, x, z, R: rules.multiplier(op, z, R, rule.epsilon.size(op, x)))
        return rules.sign(x.detach(), g, float(rule.mu))
    return found.at_input(first(at.removesuffix("nb")) if at else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z", [0.484848, 0.060606, 1.878788]),
        ("eps=1", [0.346154, 0.115385, 1.461538]),
        ("eps=0.25std", [0.431837, 0.084354, 1.723991]),
        ("a1b0", [0.666667, 2, 0]),
        ("a2b1", [0.833333, 3.428571, -1.428571]),
        ("gamma=0.25", [0.487069, 0.189655, 1.767241]),
        ("zbox=-2:3", [1.041667, 0.916667, 1.041667]),
        ("w2", [0.390175, 0.360702, 1.911579]),
        ("w2nb", [0.452381, 0.380952, 2.166667]),
        ("flat", [1, 1, 1]),
        ("sign=0", [0.484848, 0.030303, 1.878788]),
        ("sign=1.5", [-0.484848, 0.030303, 1.878788]),
        ("sign=-1", [0.484848, 0.030303, -1.878788]),
        ("sign=0,eps=0.25std", [0.431837, 0.042177, 1.723991]),
    ],
)
def test_a_layer_worked_out_by_hand(text, expected):
    op, x, R = (
        ByHand() if text != "w2nb" else Unbiased(),
        torch.tensor([[1.0, 2, -1]], dtype=torch.float64),
        torch.tensor([[1.0, 2]], dtype=torch.float64),
    )
    z = op.run(x, op.weight) + ByHand.bias
    if text.startswith("sign="):
        rule = InputRule.parse(text)
        found = rules.sign(x, rules.multiplier(op, z, R, rule.epsilon.size(op, x)), float(rule.mu))
    else:
        found = first(text.removesuffix("nb"))(op, x, z, R)
    assert found.numpy() == pytest.approx(np.array([expected]), abs=5e-7)


def wave(shape, a, b=0.3, scale=1.0):
    k = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (torch.sin(k * a + b) * scale).reshape(shape)


def net(rank, bias):
    """The nets of the recorded maps: every parameter a sine."""
    two = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AvgPool2d(2),
           nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)]  # fmt: skip
    one = [nn.Conv1d(2, 4, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(4, 3, 3, dilation=2), nn.ReLU(), nn.Flatten(),
           nn.Linear(12, 3)]  # fmt: skip
    module = nn.Sequential(*(one if rank == "1d" else two)).double().eval()
    for i, layer in enumerate(layer for layer in module if hasattr(layer, "weight")):
        layer.weight.data = wave(layer.weight.shape, 2.3 + 0.31 * i, 0.7, 2.0 / np.sqrt(layer.weight[0].numel()))
        layer.bias.data = wave(layer.bias.shape, 2.1 + 0.3 * i, 0.2, 0.3) if bias else torch.zeros_like(layer.bias)
    return module, wave((2, 2, 16), 0.61, 0.4) if rank == "1d" else wave((2, 2, 8, 8), 0.37, 0.1)


SUMS = {
    "1d": ([0.167856, -0.115413, 0.034003], [0.02478506, 0.01264015, 0.10509921, 0.14265089]),
    "2d": ([-0.355843, 0.497119, -0.539815], [-0.0032896, -0.0065943, -0.00632448, 0.23637716]),
}
"""Logits and, of the maps below, the sums for the first sample, as two releases of zennit gave them alike."""


@pytest.mark.parametrize("rank", SUMS)
def test_published_sums(rank):
    forward = recorded(*net(rank, bias=True))
    logits, expected = SUMS[rank]
    assert forward[2][0].detach().numpy() == pytest.approx(logits, abs=1e-6)
    texts = ("z", "eps=0.25std", "eps=0.25std@sign=0", "a1b0@flat")
    found = [float(relevance(forward, text)[0].sum()) for text in texts]
    assert found == pytest.approx(expected, abs=5e-9, rel=1e-6)


@pytest.mark.parametrize("rank", ["1d", "2d"])
@pytest.mark.parametrize("bias", ["bias", "nobias"])
def test_recorded_maps(rank, bias, monkeypatch):
    def absolute(z, size=0.0, axis=0):
        """They were made with 1e-12 in every denominator, which this net, with sums near 0, shows."""
        size = torch.as_tensor(size, dtype=z.dtype).clamp(min=1e-12)
        return z + size.where(z >= 0, -size)

    monkeypatch.setattr(rules, "stabilised", absolute)
    monkeypatch.setattr("camsweep.backends.torch.relevance.functions.stabilised", absolute)
    forward = recorded(*net(rank, bias == "bias"))
    names = [name for name in RECORDED if name.startswith(f"{rank}/{bias}/")]
    assert len(names) == 40
    for name in names:
        found, expected = relevance(forward, name.split("/", 2)[2]).numpy(), RECORDED[name]
        assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max(), name
    assert not forward[1].unruled


class Everything(nn.Module):
    """Functional and in-place activations, residual sums, one layer used twice, a gate, a norm, resampling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.again = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.down = nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, output_padding=1, bias=False)
        self.norm = nn.GroupNorm(2, 4, affine=False)
        self.gate = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        h = F.gelu(self.stem(x))
        h = h + F.relu(self.again(h))
        h += F.silu(self.again(h))
        h = self.norm(h)
        h = self.up(F.leaky_relu(self.down(h), 0.2, inplace=True))
        h = F.interpolate(h, scale_factor=2, mode="bilinear")
        h = h * torch.sigmoid(self.gate(h.mean((2, 3))))[:, :, None, None]
        h = torch.cat([h, h.relu_()], 1)
        return self.head(F.max_pool2d(h, 2).mean((2, 3)))


def test_relevance_is_conserved_through_whatever_runs():
    torch.manual_seed(0)
    forward = recorded(Everything().double().eval(), torch.randn(3, 2, 8, 8, dtype=torch.float64))
    score = forward[2].detach().amax(1)
    for text in ("z", "z@flat", "z@w2", "z@zbox=-4:4"):
        assert relevance(forward, text).flatten(1).sum(1).numpy() == pytest.approx(score.numpy(), rel=1e-9)
    assert not forward[1].unruled


def test_with_relus_lrp_z_is_the_input_times_the_gradient_with_biases_too():
    torch.manual_seed(1)
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Conv1d(2, 5, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool1d(2),
                           nn.Conv1d(5, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double()  # fmt: skip
    x = torch.randn(4, 2, 23, dtype=torch.float64)
    module.train()(x)  # moves the running statistics
    module.eval()
    found = relevance(recorded(module, x), "z")
    leaf = x.clone().requires_grad_()
    [gradient] = torch.autograd.grad(module(leaf).amax(1).sum(), leaf)
    assert torch.allclose(found, x * gradient, rtol=1e-8, atol=1e-12)


def test_an_operator_without_a_rule_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.i0(F.linear(x, torch.ones(3, 4, dtype=x.dtype)))

    _, mode, _ = recorded(Odd(), torch.ones(2, 4, dtype=torch.float64))
    assert mode.unruled == {"special_i0": 1}
