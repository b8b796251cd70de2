"""The torch backend: right gradients on hostile models, and no trace left on the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.backend import INPUT, Tapping
from camsweep.core.errors import RequestError
from camsweep.core.outputs import Outputs, Readout
from camsweep.core.targets import Reading, parse_target, settle

from ..support import Net, inputs, maps, traced

CPU = torch.device("cpu")


def snapshot(module):
    """Every bit, flag and identity of a module's state."""
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    return {
        "training": [m.training for m in module.modules()],
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in module.modules()],
        "bits": {n: t.detach().numpy().tobytes() for n, t in tensors.items()},
        "strides": {n: t.stride() for n, t in tensors.items()},
        "storage": {n: t.data_ptr() for n, t in tensors.items()},
        "dtype": {n: t.dtype for n, t in tensors.items()},
        "requires_grad": {n: t.requires_grad for n, t in tensors.items()},
        "grad": {n: None if t.grad is None else t.grad.numpy().tobytes() for n, t in tensors.items()},
    }


class Hostile(nn.Module):
    """Batch norm, dropout, in-place activations, a frozen part, a shared ReLU and a buffer its forward writes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.head.bias.requires_grad_(False)
        self.drop.eval()

    def forward(self, x):
        self.calls += 1
        h = self.relu(self.norm(self.conv(x)))
        h = h + self.relu(self.second(h))
        return self.head(self.drop(h).mean((2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(dtype, fails):
    model = Hostile()
    model(torch.randn(4, 2, 9, 14)).sum().backward()  # it is being trained: gradients, running statistics
    before = snapshot(model)
    if fails:
        wrong = np.zeros((2, 3, 9, 14), np.float32)  # three channels for a convolution of two
        with pytest.raises(RequestError):
            maps(model, wrong, ["gradcam", "grad"], ["second"], dtype=dtype)
        backend = TorchBackend(model, device=CPU, dtype=dtype)
        tapping = Tapping(["second"], 2, frozenset("AGHDSugb"))
        with pytest.raises(RuntimeError), backend.tapped(tapping) as session:
            session(session.tensor(wrong))
    else:
        maps(model, inputs(2), ["gradcam", "grad"], ["conv", "second"], dtype=dtype)
        TorchBackend(model, device=CPU, dtype=dtype).structure(inputs(2))
    assert snapshot(model) == before


def test_the_global_state_is_left_as_it_was():
    model = Hostile()

    def state():
        return torch.get_rng_state().tolist(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()

    before = state()
    maps(model, inputs(2), ["gradcam"], ["second"])
    assert state() == before


class InPlaceBehind(nn.Module):
    """What follows the tapped layer overwrites its output, as in DenseNet."""

    def __init__(self, *, inplace):
        super().__init__()
        self.net, self.inplace = Net(2), inplace

    def forward(self, x):
        h = self.net.first(x)
        h = F.relu_(h) if self.inplace else F.relu(h)
        h = self.net.second(h)
        h = h.relu_() if self.inplace else h.relu()
        return self.net.head(h.mean((2, 3)))


def test_an_in_place_operator_does_not_change_the_activation_under_the_gradient():
    x, layers = inputs(2), ["net.first", "net.second"]
    want = maps(InPlaceBehind(inplace=False), x, ["gradcam", "hirescam", "grad"], layers)
    got = maps(InPlaceBehind(inplace=True), x, ["gradcam", "hirescam", "grad"], layers)
    for key in want:
        assert torch.equal(got[key], want[key])


class InPlaceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(x.mul_(2).mean((2, 3)))


def test_a_model_may_change_its_input_in_place():
    x = inputs(2)
    before = x.copy()
    [found] = maps(InPlaceFirst(), x, ["grad"], []).values()
    assert torch.isfinite(found).all()
    assert np.array_equal(x, before)


def test_a_layer_on_a_side_branch_gets_its_own_gradient():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return (self.left(x) * self.right(x)).mean((2, 3))

    model, x = Branches(), inputs(2)
    found = maps(model, x, ["hirescam"], ["left", "right"], target=1)
    with torch.no_grad():
        model = model.double()
        left, right = model.left(torch.from_numpy(x).double()), model.right(torch.from_numpy(x).double())
    expected = (left * right)[:, 1] / left[0, 0].numel()
    for values in found.values():
        assert torch.allclose(values, expected, rtol=1e-12)


class Ending(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.net, self.ending = Net(2), ending

    def forward(self, x):
        return self.ending(self.net(x))


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        (nn.Softmax(1), "softmax"),
        (lambda y: F.softmax(y, dim=1), "softmax"),
        (lambda y: y.softmax(-1), "softmax"),
        (lambda y: torch.log_softmax(y, 1), "log-softmax"),
        (torch.sigmoid, "sigmoid"),
        (nn.Sigmoid(), "sigmoid"),
    ],
)
def test_targets_step_behind_a_final_activation(ending, name):
    """A saturated softmax has no gradient left; the logit behind it has."""
    model, bare, x = Ending(ending), Net(2), inputs(2)
    with torch.no_grad():
        for net in (model.net, bare):
            net.head.weight.mul_(1e4)
    [got] = maps(model, x, ["gradcam"], ["net.first"], target=1).values()
    [want] = maps(bare, x, ["gradcam"], target=1).values()
    assert torch.equal(got, want)
    assert want.abs().max() > 0
    structure = TorchBackend(model, device=CPU).structure(x[:1])
    assert structure.final == name


def test_a_softmax_inside_is_not_the_final_one():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net(2)

        def forward(self, x):
            return self.net(x * x.softmax(1))

    assert TorchBackend(Gate(), device=CPU).structure(inputs(2)[:1]).final is None


def test_structure_names_layers_shapes_and_the_auto_layer():
    model = Hostile()
    structure = TorchBackend(model, device=CPU).structure(inputs(2)[:1])
    layers = {layer.name: layer for layer in structure.layers}
    assert structure.outputs == 3
    assert structure.auto == "drop"
    assert layers["second"].shape == (4, 9, 14)
    assert layers["second"].tappable
    assert layers["relu"].calls == 2
    assert not layers["relu"].tappable
    assert layers["head"].rank == 0
    assert structure.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("secnd", "Did you mean 'second'"),
        ("relu", "runs more than once"),
        ("unused", "does not run"),
    ],
)
def test_a_layer_that_cannot_be_tapped_is_refused(layer, says):
    model = Hostile()
    model.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(RequestError, match=says):
        maps(model, inputs(2), ["gradcam"], [layer])


def test_a_detached_model_is_refused():
    class Detached(Net):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(RequestError, match="do not depend on 'first'"):
        maps(Detached(2), inputs(2), ["gradcam"])


@pytest.mark.parametrize(
    ("output", "says"),
    [(lambda y: {"a": "y"}, "gives no tensor"), (lambda y: y.sum(), r"gives \(\) for a batch of 1"),
     (lambda y: y[:0], r"gives \(0, 3\) for a batch of 1")],
)  # fmt: skip
def test_outputs_that_are_none_of_the_samples_are_refused(output, says):
    with pytest.raises(RequestError, match=says):
        maps(Ending(output), inputs(2), ["gradcam"], ["net.first"])


def test_nothing_below_the_lowest_tap_records_a_graph():
    model, x = Net(2), inputs(2)
    grads = []
    model.first.register_forward_hook(lambda module, arguments, output: grads.append(output.requires_grad))
    maps(model, x, ["gradcam"], ["second"])
    maps(model, x, ["gradcam", "grad"], ["second"])
    assert grads == [False, False, False, True]  # each time after the one sample that shows the layers


def test_one_backward_serves_all_layers_and_methods():
    with traced(Net(2), inputs(2), "AGg", ["first", "second"], target=1) as (trace, target):
        found = trace.gradients(target)
        assert set(found) == {"first", "second", INPUT}
        assert trace.gradients(target) is found
        assert torch.equal(target.score(trace.run.outputs), trace.run.outputs.scores[:, 1])


def test_undefined_targets_have_no_score_and_no_gradient():
    outputs = Outputs(torch.randn(3, 4), torch.arange(3), {})
    outputs = replace(outputs, named={"": outputs.scores})
    reading = Reading(Readout(4), torch.tensor([2, -1, 0]), np.arange(3))
    [target] = settle(parse_target("label"), outputs, reading)
    assert torch.isnan(target.score(outputs)[1])
    cotangent = target.cotangents(outputs)[""]
    assert (cotangent[1] == 0).all()
    assert cotangent[0].tolist() == [0, 0, 1, 0]


def test_the_auto_layer_lies_before_the_final_activation():
    """Of a segmentation: the targets step behind its softmax, where a map of the softmax would be of nothing."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Softmax(dim=1))
    structure = TorchBackend(net, device=torch.device("cpu")).structure(np.ones((1, 2, 6, 5), np.float32))
    assert (structure.auto, structure.final) == ("2", "softmax")


def test_a_layer_that_sees_windows_is_no_place_for_a_map():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.mix, self.head = nn.Conv2d(2, 4, 1), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            h = self.first(x)
            windows = h.unflatten(2, (2, 2)).unflatten(4, (2, 2)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4)
            return self.head(self.mix(windows).reshape(len(x), 16, 4).mean(1))

    structure = TorchBackend(Windows(), device=torch.device("cpu")).structure(np.ones((1, 2, 4, 4), np.float32))
    [mix] = [layer for layer in structure.layers if layer.name == "mix"]
    assert structure.auto == "first"
    assert not mix.tappable
    assert mix.doubt == "gives 4 rows for a sample (windows, frames or steps); choose another layer"
