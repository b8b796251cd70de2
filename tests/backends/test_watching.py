"""What is seen of a forward: ReLUs, biases, curvature and the final activation, each against plain autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.backend import Tapping
from camsweep.core.errors import RequestError
from camsweep.core.methods import parse_expression
from camsweep.core.outputs import Readout
from camsweep.core.targets import Reading, parse_target, settle
from camsweep.core.trace import Trace

from ..support import inputs, maps, traced
from .test_torch_backend import snapshot

ANY = parse_expression("gradcam")


class GuidedReLU(torch.autograd.Function):
    """An independent one."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.clamp(x, min=0)

    @staticmethod
    def backward(ctx, g):
        [x] = ctx.saved_tensors
        return torch.where((x > 0) & (g > 0), g, torch.zeros_like(g))


def by_hand(m, h):
    return GuidedReLU.apply(h)


RELUS = {
    "function": lambda m, h: F.relu(h),
    "torch": lambda m, h: torch.relu(h),
    "keyword": lambda m, h: F.relu(input=h, inplace=True),
    "method": lambda m, h: h.relu(),
    "method in place": lambda m, h: h.relu_(),
    "function in place": lambda m, h: F.relu(h, True),
    "torch in place": lambda m, h: torch.relu_(h),
    "F.relu_": lambda m, h: F.relu_(h),
    "module": lambda m, h: m.plain(h),
    "module in place": lambda m, h: m.inplace(h),
}


class Relued(nn.Module):
    """Three ReLUs, one behind a residual sum; a module is used for all."""

    def __init__(self, relu):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.plain, self.inplace, self.relu = nn.ReLU(), nn.ReLU(inplace=True), relu
        filled(self)

    def forward(self, x):
        h = self.relu(self, self.norm(self.first(x)))
        h = self.relu(self, self.second(h) + 0) + h
        return self.head(self.relu(self, h - 0.5).mean((2, 3)))


def filled(module, seed=2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.5)
        for each in module.modules():
            if getattr(each, "running_var", None) is not None:
                each.running_var.abs_().add_(0.3)
    return module


def gradient(module, x, pick=lambda y: y[:, 1].sum()):
    given = torch.from_numpy(x).double().requires_grad_()
    [found] = torch.autograd.grad(pick(module.double().eval()(given.clone())), given)
    return found


@pytest.mark.parametrize("letters", ["u", "AGHDugbx"])
@pytest.mark.parametrize("name", RELUS)
def test_guided_backpropagation_equals_relus_replaced_by_hand(name, letters):
    x, model = inputs(2), Relued(RELUS[name])
    want, plain = gradient(Relued(by_hand), x), gradient(Relued(RELUS["function"]), x)
    assert not torch.allclose(want, plain)
    before = snapshot(model)
    with traced(model, x, letters, ["first"], target=1) as (trace, target):
        for _ in range(2):  # and asking for the one leaves the other as it is
            torch.testing.assert_close(trace.answer("u", target, "", ANY), want)
            torch.testing.assert_close(trace.gradients(target)[""], plain)
        assert trace.run.session.passes["forward"] == 1
    assert snapshot(model) == before


@pytest.mark.parametrize("in_place", [False, True])
def test_guided_relu_of_a_view(in_place):
    def forward(m, h):
        h = h + 0
        if in_place:
            h[:, :2].relu_()
            return h
        return torch.cat([h[:, :2].relu(), h[:, 2:]], 1)

    def masks(m, h):
        return torch.cat([GuidedReLU.apply(h[:, :2]), h[:, 2:]], 1)

    x = inputs(2)
    with traced(Relued(forward), x, "ug", ["first"], target=1) as (trace, target):
        torch.testing.assert_close(trace.answer("u", target, "", ANY), gradient(Relued(masks), x))
        torch.testing.assert_close(trace.gradients(target)[""], gradient(Relued(forward), x))


def test_guided_backpropagation_of_a_model_without_relus_is_refused():
    x = inputs(2)
    with traced(Relued(lambda m, h: h.tanh()), x, "ug", ["first"], target=1) as (trace, target):
        torch.testing.assert_close(trace.gradients(target)[""], gradient(Relued(lambda m, h: h.tanh()), x))
        with pytest.raises(RequestError, match="ReLU"):
            trace.answer("u", target, "", ANY)


class Passing(nn.Module):
    """A layer that gives back the very tensor it got, which also skips past it."""

    def __init__(self, layer):
        super().__init__()
        self.conv, self.layer, self.head = nn.Conv2d(2, 4, 3, padding=1), layer, nn.Linear(4, 3)
        filled(self)

    def forward(self, x):
        h = self.conv(x)
        return self.head((self.layer(h).sin() + h**2).mean((2, 3)))


@pytest.mark.parametrize("letters", ["AG", "AGg"])
@pytest.mark.parametrize("layers", [["layer"], ["conv", "layer"]])
@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout()])
def test_the_gradient_at_a_layer_is_that_of_its_output_alone(layer, layers, letters):
    x, model = inputs(2), Passing(layer)
    with traced(model, x, letters, layers, target=1) as (trace, target):
        found = trace.gradients(target)["layer"]
    h = model.double().conv(torch.from_numpy(x).double())
    want = h.cos() * model.head.weight[1][:, None, None] / h[0, 0].numel()
    torch.testing.assert_close(found, want.detach())


@pytest.mark.parametrize("rank", [1, 2])
def test_a_layer_with_rows_of_its_own_is_refused(rank):
    class Channelwise(nn.Module):
        """Each channel by itself, as if it were a sample."""

        def __init__(self):
            super().__init__()
            self.conv = {1: nn.Conv1d, 2: nn.Conv2d}[rank](1, 3, 3)

        def forward(self, x):
            h = self.conv(x.flatten(0, 1)[:, None]).flatten(2).mean(2)
            return h.reshape(len(x), -1)

    with pytest.raises(RequestError, match="conv"):
        maps(Channelwise(), inputs(rank), ["gradcam"], ["conv"])
    [found] = maps(Channelwise(), inputs(rank), ["fullgrad"], []).values()
    assert found.shape == inputs(rank)[:, 0].shape


class Smooth(nn.Module):
    def __init__(self, act=torch.tanh):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3)
        self.norm, self.head, self.act = nn.GroupNorm(1, 3), nn.Linear(3, 3), act
        filled(self)

    def tail(self, h):
        return self.end(self.second(self.act(h)))

    def end(self, h):
        return self.head(self.act(self.norm(h) if self.act is torch.tanh else h).mean((2, 3)))

    def forward(self, x):
        return self.tail(self.first(x))


@pytest.mark.parametrize("score", ["logit", "probability", "log-probability"])
@pytest.mark.parametrize("letters", ["AGH", "AGHDgub"])
def test_curvature_equals_autograds(score, letters):
    x, model = inputs(2), Smooth()
    backend = TorchBackend(model, device=torch.device("cpu"), dtype="float64")
    structure = backend.structure(x[:1])
    reading = Reading(Readout(structure.outputs, score=score), torch.full((3,), -1), np.arange(3))
    with backend.tapped(Tapping(["first", "second"], 2, frozenset(letters))) as session:
        trace = Trace(session, session.tensor(x), lambda y: settle(parse_target("class:2"), y, reading))
        [target] = trace.targets
        found = {name: trace.answer("H", target, name, ANY) for name in ("second", "first")}
        gradients = trace.gradients(target)
    pick = {
        "logit": lambda z: z,
        "probability": lambda z: z.softmax(1),
        "log-probability": lambda z: z.log_softmax(1),
    }[score]
    model = model.double()
    first = model.first(torch.from_numpy(x).double()).detach()
    points = {"first": (first, model.tail), "second": (model.second(torch.tanh(first)).detach(), model.end)}
    for name, (A, tail) in points.items():

        def scored(a, tail=tail):
            return pick(tail(a))[:, 2].sum()

        _, want = torch.autograd.functional.hvp(scored, A, A)
        torch.testing.assert_close(found[name], want, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients[name], torch.autograd.functional.vjp(scored, A)[1], rtol=1e-9, atol=1e-12)
        assert want.abs().max() > 1e-6


def test_curvature_of_a_piecewise_linear_net_is_zero():
    with traced(Smooth(torch.relu), inputs(2), "AGH", ["first", "second"], target=1) as (trace, target):
        for name in ("first", "second"):
            assert (trace.answer("H", target, name, ANY) == 0).all()
            assert trace.gradients(target)[name].abs().max() > 0


@pytest.mark.parametrize("letters", ["AG", "AGg", "AGgb", "AGHDgb"])
def test_a_layer_that_no_gradient_reaches_is_refused(letters):
    class Bare(Smooth):
        def forward(self, x):
            with torch.no_grad():
                h = self.first(x)
            return self.tail(h)

    given = traced(Bare(), inputs(2), letters, ["first"], target=1)
    with given as (trace, target), pytest.raises(RequestError, match=r"do not depend on .*'first'"):
        trace.gradients(target)


@pytest.mark.parametrize("letters", ["A", "AGHDSgub"])
def test_a_buffer_that_the_forward_replaces_is_put_back(letters):
    class Counting(Smooth):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return super().forward(x)

    model = Counting()
    buffer, before = model.count, snapshot(model)
    with traced(model, inputs(2), letters, ["first"], target=1):
        pass
    assert model.count is buffer
    assert snapshot(model) == before


ENDS = {
    "softmax": [
        nn.Softmax(dim=1), lambda z: F.softmax(z, 1), lambda z: z.softmax(dim=-1), lambda z: torch.softmax(input=z, dim=1),
        lambda z: torch.special.softmax(z, 1), lambda z: z[..., None].softmax(1).squeeze(-1),
        lambda z: z[..., None, None].softmax(1).flatten(1), lambda z: z.softmax(1).view(len(z), 3).reshape(-1, 3),
    ],
    "log-softmax": [nn.LogSoftmax(1), lambda z: z.log_softmax(1), lambda z: torch.special.log_softmax(z, 1)],
    "sigmoid": [nn.Sigmoid(), F.sigmoid, torch.sigmoid, lambda z: z.sigmoid(), torch.special.expit, lambda z: z[:, :1].sigmoid().squeeze(1)],
    None: [
        lambda z: z, lambda z: z * z.softmax(1), lambda z: z.softmax(1) + 0, lambda z: z.sigmoid() * 2, lambda z: z.softmax(1).log(),
        lambda z: (z.sigmoid(), z)[1], lambda z: z.softmax(0),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "end"), [(name, end) for name, ends in ENDS.items() for end in ends])
def test_the_final_activation_is_found_however_it_is_called(name, end):
    class Ended(Smooth):
        def forward(self, x):
            return end(super().forward(x))

    x, model = inputs(2), Ended()
    with traced(model, x, "AG", ["first"], target=0) as (trace, _):
        assert trace.run.final == name
        found = trace.run.outputs.scores
    logits = Smooth().double()(torch.from_numpy(x).double()).detach()
    want = end(logits) if name is None else logits[:, : found.shape[1]]
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("head", [0, 1])
def test_each_of_several_heads_has_its_own_final_activation(head, count):
    class Heads(Smooth):
        def forward(self, x):
            z = super().forward(x)
            return [(z * (i + 1)).softmax(1) for i in range(count)]

    x, model = inputs(2), Heads()
    backend = TorchBackend(model, device=torch.device("cpu"), dtype="float64", output=str(head))
    assert backend.structure(x[:1]).final == "softmax"
    with backend.tapped(Tapping(["first"], 2, frozenset("AG"))) as session:
        found = session(session.tensor(x)).outputs.scores
    logits = Smooth().double()(torch.from_numpy(x).double()).detach()
    torch.testing.assert_close(found, logits * (head + 1))


def test_an_attentions_softmax_is_not_the_final_one():
    class Attended(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 2)

        def forward(self, x):
            t = x.flatten(2).mT
            weights = (t @ t.mT).softmax(-1)
            return self.head((self.mix(t, t, t)[0] + weights @ t).mean(1))

    assert TorchBackend(Attended(), device=torch.device("cpu")).structure(inputs(2)[:1]).final is None
