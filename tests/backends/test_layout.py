"""How activations lie in memory is our affair: models that ask for neighbours there come to the same numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camsweep.backends.torch.folding import Folds, folded, line

from ..support import CONV, SHAPES, inputs, traced

VIEWS = {
    "flat": lambda x: x.view(len(x), -1),
    "batch and channels": lambda x: x.view(len(x) * x.shape[1], -1).mul(2).view(len(x), -1),
    "reshaped": lambda x: x.reshape(len(x), -1),
}


class Viewing(nn.Module):
    """Two convolutions, and a head on all that they give."""

    def __init__(self, rank, how):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(4)
            self.entry, self.first = CONV[rank](2, 4, 3, padding=1), CONV[rank](4, 4, 3, padding="same")
            self.head = nn.Linear(4 * int(np.prod(SHAPES[rank][1:])), 3)
        self.how, self.strides = VIEWS[how], []

    def forward(self, x):
        h = torch.relu(self.entry(x))
        self.strides.append(h.stride()[1] == 1)
        return self.head(self.how(torch.tanh(self.first(h))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", VIEWS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_models_that_view(rank, how, dtype):
    """In a trace, and in a forward for the outputs alone, of several samples; the faster layout is kept where it can be."""
    net, x = Viewing(rank, how).to(getattr(torch, dtype)).eval(), inputs(rank)
    before = {name: (each.clone(), each.stride()) for name, each in net.state_dict().items()}
    given = torch.from_numpy(x).to(getattr(torch, dtype))
    expected, exact = net(given), {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}

    def inner(x):
        """What `first` gives, and the gradient of class 1 there, without us."""
        first = net.first(torch.relu(net.entry(x))).detach().requires_grad_()
        scores = net.head(net.how(torch.tanh(first)))
        return {"first": first.detach(), "gradient": torch.autograd.grad(scores[:, 1].sum(), first)[0]}

    for letters in ("AG", "A", "AGr", "ADG"):
        net.strides.clear()
        with traced(net, x, letters, ["first"], target=1, dtype=dtype) as (trace, target):
            assert torch.allclose(trace.run.outputs.scores, expected, **exact)
            once = trace.session.forward(given.flip(0), torch.arange(len(x)))
            again = trace.session.bare(given.flip(0), torch.arange(len(x))).outputs
            assert torch.allclose(once.scores, expected.flip(0), **exact)
            assert torch.allclose(again.scores, expected.flip(0), **exact)
            activation = trace.run.activations["first"]
            assert torch.allclose(activation, inner(given)["first"], **exact)
            if letters == "AG":
                assert torch.allclose(trace.gradients(target)["first"], inner(given)["gradient"], **exact)
        if letters == "A" and dtype == "float32":
            assert net.strides[-2] == (how == "reshaped")  # of `forward`; `bare` goes back through it
    assert all(torch.equal(net.state_dict()[name], value) for name, (value, _) in before.items())
    assert all(net.state_dict()[name].stride() == stride for name, (_, stride) in before.items())


@pytest.mark.parametrize(
    ("stride", "padding"), [(1, 0), (2, 2), ((2,), (3,)), ([3], [1]), (1, "same"), (2, "valid")], ids=str
)
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dilation", [1, (3,)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_a_signal_is_a_picture_one_line_high(stride, padding, groups, dilation, biased):
    x, weight, bias = torch.randn(3, 8, 29), torch.randn(16, 8 // groups, 5), torch.randn(16) if biased else None
    how = stride, padding, dilation, groups
    expected = F.conv1d(x.double(), weight.double(), None if bias is None else bias.double(), *how)
    found = line(x, weight, bias, *how)
    assert found.shape == expected.shape
    assert found.stride()[1] == 1
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)
    with folded(Folds(), lines=True):
        assert torch.equal(F.conv1d(x, weight, bias, *how), found)
        assert torch.equal(
            F.conv1d(x, weight, bias, stride=how[0], padding=how[1], dilation=how[2], groups=groups), found
        )
        alone = F.conv1d(x[0], weight, bias, *how)  # without an axis for the batch
        backwards = F.conv1d(x.clone().requires_grad_(), weight, bias, *how)
    assert torch.equal(alone, F.conv1d(x[0], weight, bias, *how))
    assert torch.equal(backwards, F.conv1d(x, weight, bias, *how))
