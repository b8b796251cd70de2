"""Batch norms folded into convolutions: equal to the plain forward, and only where that is sure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from camsweep.backends.torch.folding import FoldWatch, folded

from ..support import CONV, SHAPES, inputs, traced

NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def normed(norm, h):
    return F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)


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
        n = normed(self.norm, h) if self.kind == "by a function" else self.norm(h)
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
        ("by a function", 1),
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
        assert len(session._folds.weights) == folds
        assert (session._folds.modules is None) == (kind == "by a function")
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
    assert not any("forward" in vars(each) or each._forward_hooks for each in net.modules())


class Breaks(nn.Module):
    """Behind a convolution and a batch norm."""

    def forward(self, x):
        if len(x) > 1:
            raise ValueError("too many")
        return x


def test_modules_get_their_forwards_back_whatever_happens():
    net, x = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), Breaks()).eval(), torch.randn(2, 2, 8)
    with FoldWatch(net) as watch:
        given = net(x[:1])
    folds = watch.folds(given)
    assert len(folds.weights) == 1
    with folded(folds):
        assert all("forward" in vars(net[i]) for i in (0, 1))
    with pytest.raises(ValueError, match="too many"), folded(folds):
        net(x)
    assert not any("forward" in vars(each) or each._forward_pre_hooks for each in net.modules())


class Turning(nn.Module):
    """Norms what it is given only where that is more than 0."""

    def __init__(self, *, function):
        super().__init__()
        self.entry, self.first, self.norm, self.head = (
            nn.Identity(),
            nn.Conv1d(2, 4, 3),
            nn.BatchNorm1d(4),
            nn.Linear(4, 3),
        )
        self.by = (lambda h: normed(self.norm, h)) if function else self.norm
        nn.init.uniform_(self.norm.running_mean, 1, 2)

    def forward(self, x):
        h = self.first(self.entry(x))
        return self.head((self.by(h) if x.sum() > 0 else h).mean(2))


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("letters", ["AS", "AGS"])
def test_a_batch_that_goes_another_way_runs_unfolded(function, letters):
    torch.manual_seed(0)
    net, x = Turning(function=function).double().eval(), inputs(1)
    one = np.abs(x).astype(np.float64)
    with traced(net, one, letters, ["entry"]) as (trace, _):
        session = trace.session
        assert len(session._folds.weights) == 1
        for given in (one, -one, one, -one):
            given = torch.from_numpy(given)
            assert torch.allclose(session(given).outputs.scores, net(given), rtol=1e-12, atol=1e-14)
            found = session.forward(given, torch.zeros(len(given), dtype=torch.long)).scores
            assert torch.allclose(found, net(given), rtol=1e-12, atol=1e-14)
        assert not session._folds.weights


class Own(nn.Conv1d):
    """A forward that is not its class's."""

    def forward(self, x):
        return super().forward(x) * 2


def made(kind):
    """A convolution of some kind."""
    conv = (Own if kind == "a class of its own" else nn.Conv1d)(
        2, 4, 3, padding=1, padding_mode="circular" if kind == "circular" else "zeros"
    )
    match kind:
        case "weight norm":
            return nn.utils.parametrizations.weight_norm(conv)
        case "pruned":
            prune.random_unstructured(conv, "weight", 0.5)
        case "a forward of its own":
            conv.forward = lambda x: F.conv1d(x, conv.weight, conv.bias, padding=1).abs()
    return conv


KINDS = ["plain", "circular", "weight norm", "pruned", "a class of its own", "a forward of its own"]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_of_any_kind(kind, lines):
    torch.manual_seed(0)
    net, x = nn.Sequential(made(kind), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 5)), torch.randn(3, 2, 9)
    net(torch.randn(50, 2, 9) * 2 + 1)  # statistics
    net.eval()
    with torch.no_grad(), FoldWatch(net) as watch:
        given = net(x[:1])
    folds = watch.folds(given)
    assert (folds.modules is not None) == (kind in ("plain", "circular"))
    expected = net(x)
    with folded(folds, lines=lines):
        with torch.no_grad():
            assert torch.allclose(net(x), expected, atol=1e-6)
        wanted = x.clone().requires_grad_()
        backwards = net(wanted)  # what a gradient goes back through is as it is
        [gradient] = torch.autograd.grad(backwards.sum(), [wanted])
    assert torch.equal(backwards, expected)
    wanted = x.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(net(wanted).sum(), [wanted])[0], gradient)


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
        assert len(trace.session._folds.weights) == folds
        assert torch.allclose(trace.run.activations[layer], seen[layer], rtol=1e-12, atol=1e-14)
        assert torch.allclose(trace.run.outputs.scores, scores, rtol=1e-12, atol=1e-14)
        if letters == "AG" and layer == "norm":
            assert torch.allclose(trace.gradients(target)[layer], expected, rtol=1e-12, atol=1e-14)
        again = trace.session(trace.run.inputs).activations[layer]
        assert torch.equal(again, trace.run.activations[layer])
