"""FullGrad's terms: the input's and every bias' share of a piecewise linear score, which together are the score."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ..support import CONV, SHAPES, inputs, maps, traced
from .test_watching import ANY, filled

TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
TRACKED = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class Piecewise(nn.Module):
    """All that is piecewise linear, put together by ``body``; defined in an order that is not that of the forward."""

    def __init__(self, rank, body):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.unused = CONV[rank](2, 4, 3)
        self.norm, self.bare = NORM[rank](4), NORM[rank](4, affine=False)
        self.tracked = TRACKED[rank](4, affine=True, track_running_stats=True)
        self.up = TRANSPOSED[rank](4, 4, 3, stride=2, padding=1, groups=2)
        self.same = CONV[rank](4, 4, 3, padding=1, padding_mode="reflect")
        self.down = CONV[rank](4, 4, 3, stride=2, padding=2, dilation=2, groups=4)
        self.first, self.free = CONV[rank](2, 4, 3, padding=1), CONV[rank](4, 4, 1, bias=False)
        self.mixed = nn.Linear(4, 4)
        self.body, self.rank = body, rank
        filled(self)

    def forward(self, x):
        return self.body(self, x)

    def end(self, h):
        return self.head(h.flatten(2).mean(2))


def plain(m, x):
    return m.end(F.relu(m.same(F.relu(m.first(x)))))


def normed(m, x):
    return m.end(F.relu_(m.bare(m.free(m.norm(m.first(x)).relu_()))))


def strided(m, x):
    return m.end(m.up(F.leaky_relu(m.down(m.first(x).relu_()), 0.1, True)))


def residual(m, x):
    h = m.first(x)
    h += m.norm(m.same(h.relu()))
    return m.end(torch.relu(h) + m.free(h))


def shared(m, x):
    h = m.same(m.first(x).relu())
    return m.end(m.same(h.relu_()).relu() + h)


def functional(m, x):
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[m.rank]
    h = conv(x, m.first.weight, bias=m.first.bias, padding="same").relu()
    h = conv(h, m.same.weight, padding=1)
    n = m.norm
    h = F.batch_norm(h, n.running_mean, n.running_var, weight=n.weight, bias=n.bias, eps=0.1).relu()
    return F.linear(h.flatten(2).amax(2), m.head.weight, bias=m.head.bias)


def channels_last(m, x):
    return m.end(m.mixed(m.first(x).movedim(1, -1)).relu().movedim(-1, 1))


def constants(m, x):
    """A branch that no input goes into, as position biases are made."""
    place = m.mixed(torch.zeros(1, 4, dtype=x.dtype)).relu().expand(len(x), -1)
    return m.end(m.first(x).relu() * 1) + F.linear(place, m.head.weight)


def tracked(m, x):
    return m.end(m.tracked(m.first(x)).relu())


BODIES = [plain, normed, strided, residual, shared, functional, channels_last, constants, tracked]


@pytest.mark.parametrize("letters", ["xgb", "AGHDxgub"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("body", BODIES)
def test_all_terms_together_are_the_score(body, rank, letters):
    x, model = inputs(rank), Piecewise(rank, body)
    with traced(model, x, letters, ["first"] if "A" in letters and body is not functional else [], target=1) as (
        trace,
        target,
    ):
        score = trace.answer("y", target, "", ANY).detach()
        given = (trace.answer("x", target, "", ANY) * trace.answer("g", target, "", ANY)).flatten(1).sum(1)
        biases = trace.answer("b", target, "", ANY)
    want = model.double().eval()(torch.from_numpy(x).double())[:, 1]
    torch.testing.assert_close(score, want.detach(), rtol=1e-12, atol=1e-12)
    total = given + sum(len(each) == len(x) and each.flatten(1).sum(1) for each in biases)
    if body is constants:  # one row for all samples: it is none of theirs, and no map has room for it
        place = F.linear(model.mixed.bias.relu(), model.head.weight)[1]
        total = total + place
    torch.testing.assert_close(total, score, rtol=1e-10, atol=1e-10)
    assert (given - score).abs().max() > 1e-3


@pytest.mark.parametrize("letters", ["b", "gubAGD"])
def test_biases_come_in_the_order_in_which_they_run(letters):
    model = Piecewise(2, residual)
    with traced(model, inputs(2), letters, ["first"], target=1) as (trace, target):
        found = [each.flatten() for each in trace.run.biases.values()]
        assert all(trace.gradients(target)[name].shape[1] == 4 for name in list(trace.run.biases)[:-1])
    n = model.norm
    eff = n.bias - n.running_mean * n.weight / (n.running_var + n.eps).sqrt()
    want = [model.first.bias, model.same.bias, eff, model.head.bias]
    assert len(found) == len(want)  # what is defined and does not run is none of them
    for each, bias in zip(found, want, strict=True):
        torch.testing.assert_close(each, bias.detach().double(), rtol=1e-6, atol=1e-6)


def test_the_order_of_definition_does_not_matter():
    class Swapped(Piecewise):
        def __init__(self, rank, body):
            super().__init__(rank, body)
            for name in ("first", "same", "norm", "head"):
                module = getattr(self, name)
                delattr(self, name)
                setattr(self, name, module)

    x = inputs(2)
    one, other = Piecewise(2, residual), Swapped(2, residual)
    assert [*dict(one.named_children())] != [*dict(other.named_children())]
    other.load_state_dict(one.state_dict())
    [want] = maps(one, x, ["fullgrad"], [], target=1).values()
    [found] = maps(other, x, ["fullgrad"], [], target=1).values()
    assert torch.equal(found, want)
    assert want.abs().max() > 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_fullgrad_equals_the_sum_of_its_terms_by_hand(rank):
    x, model = inputs(rank), Piecewise(rank, plain).double().eval()
    given = torch.from_numpy(x).double().requires_grad_()
    first = model.first(given)
    second = model.same(first.relu())
    score = model.end(second.relu())[:, 1].sum()
    g, one, two = torch.autograd.grad(score, [given, first, second])
    shape = (-1, *[1] * rank)
    terms = [given * g, model.first.bias.reshape(shape) * one, model.same.bias.reshape(shape) * two]
    want = 0
    for term in terms:
        flat = term.abs().flatten(1)
        low, high = (each.reshape(-1, 1, *[1] * rank) for each in flat.aminmax(dim=1))
        want = want + ((term.abs() - low) / (high - low)).sum(1)
    [found] = maps(model, x, ["fullgrad"], [], target=1).values()
    torch.testing.assert_close(found, want.detach(), rtol=1e-10, atol=1e-10)
    assert found.shape[1:] == SHAPES[rank][1:]


def test_further_inputs_have_biases_too():
    """Their layers do not depend on the explained input by a gradient."""

    class Aged(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.age, self.head = nn.Conv2d(2, 4, 3), nn.Linear(1, 4), nn.Linear(4, 3)
            filled(self)

        def forward(self, x, age):
            return self.head((self.conv(x).mean((2, 3)) + self.age(age.mul_(2)).relu()).relu())

    x, model = inputs(2), Aged().double()
    age = torch.tensor([[0.3], [-0.4], [2.0]], dtype=torch.float64)

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model
            self.ages = age.clone()

        def forward(self, x):
            return self.net(x, self.ages[: len(x)].clone())

    with traced(Known(), x, "xgb", [], target=1) as (trace, target):
        score, biases = trace.answer("y", target, "", ANY), trace.answer("b", target, "", ANY)
        given = (trace.answer("x", target, "", ANY) * trace.answer("g", target, "", ANY)).flatten(1).sum(1)
    hidden = (
        model.conv(torch.from_numpy(x).double()).mean((2, 3))
        + F.linear(2 * age, model.age.weight, model.age.bias).relu()
    )
    through = (hidden > 0) * model.head.weight[1] * (F.linear(2 * age, model.age.weight, model.age.bias) > 0)
    ages = (through * F.linear(2 * age, model.age.weight)).sum(1).detach()
    torch.testing.assert_close(
        given + ages + sum(each.flatten(1).sum(1) for each in biases), score, rtol=1e-10, atol=1e-10
    )
