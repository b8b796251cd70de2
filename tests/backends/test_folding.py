"""Batch norms folded into convolutions: equal to the plain forward, and only where that is sure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ..support import CONV, SHAPES, inputs, traced

NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Normed(nn.Module):
    """A net whose first convolution is folded, and what else is done with it."""

    def __init__(self, rank, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.kind = kind
        self.entry = nn.Identity()
        self.first = CONV[rank](2, 4, 3, padding=1, bias=kind != "no bias")
        self.norm = NORM[rank](4, affine=kind != "not affine")
        self.second = CONV[rank](4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for each in [*self.parameters(), *self.buffers()]:
                if each.is_floating_point():
                    each.copy_(torch.rand(each.shape, generator=generator) + 0.1)

    def forward(self, x):
        h = self.first(self.entry(x))
        n = self.norm(h)
        match self.kind:
            case "used twice":
                n = n + h
            case "run twice":
                n = self.norm(self.second(F.relu(n))) + self.second(n)
            case "in place":
                n.relu_()
            case "written into":
                h[:, :1] = 0.5
                n = n + self.norm(h)
        scores = self.head(torch.tanh(self.second(n)).flatten(2).mean(2))
        return {"logits": scores, "hidden": h} if self.kind == "given away" else scores


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "folds"),
    [
        ("plain", 1),
        ("no bias", 1),
        ("not affine", 1),
        ("in place", 1),
        ("used twice", 0),
        ("run twice", 1),
        ("written into", 0),
        ("given away", 0),
    ],
)
def test_folded_forwards_are_the_plain_ones(rank, kind, folds):
    net, x = Normed(rank, kind), inputs(rank)
    with traced(net, x, "AS", ["entry"]) as (trace, _):
        session = trace.session
        assert len(session._folds) == folds
        other = torch.from_numpy(np.random.default_rng(5).normal(size=(4, *SHAPES[rank])))
        found = session.forward(other, torch.zeros(4, dtype=torch.long)).scores
        with torch.no_grad():
            expected = net(other)
        expected = expected["logits"] if kind == "given away" else expected
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_nothing_is_done_to_the_module():
    net, x = Normed(2, "plain"), inputs(2)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with traced(net, x, "AS", ["entry"]) as (trace, _):
        trace.session.forward(trace.run.inputs, torch.arange(len(x)))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("letters", ["A", "AG"])
@pytest.mark.parametrize(("layer", "folds"), [("entry", 1), ("first", 0), ("norm", 1), ("second", 1)])
def test_tapped_forwards_are_folded_but_at_the_tap(rank, letters, layer, folds):
    """What lies below the taps runs folded from the first batch on; what is tapped is what the layer gives."""
    net, x, seen = Normed(rank, "plain").double().eval(), inputs(rank), {}
    for name in ("entry", "first", "norm", "second"):
        getattr(net, name).register_forward_hook(lambda _m, _a, output, name=name: seen.update({name: output}))
    scores = net(torch.from_numpy(x).double())
    seen = dict(seen)
    [expected] = torch.autograd.grad(scores[:, 1].sum(), [seen["norm"]])
    with traced(net, x, letters, [layer], target=1) as (trace, target):
        assert len(trace.session._folds) == folds
        assert torch.allclose(trace.run.activations[layer], seen[layer], rtol=1e-12, atol=1e-14)
        assert torch.allclose(trace.run.outputs.scores, scores, rtol=1e-12, atol=1e-14)
        if letters == "AG" and layer == "norm":
            assert torch.allclose(trace.gradients(target)[layer], expected, rtol=1e-12, atol=1e-14)
        again = trace.session(trace.run.inputs).activations[layer]
        assert torch.equal(again, trace.run.activations[layer])
