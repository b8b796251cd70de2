"""What must hold for every registered method; a new one is tested by being registered."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.methods import METHODS

from ..support import SHAPES, Net, inputs, maps
from .references import REFERENCES, differences

NAMES = list(METHODS)
RANKS = [1, 2, 3]


def test_each_has_a_reference():
    assert set(REFERENCES) == set(METHODS)


@cache
def gradients(rank):
    """Per sample: A, G, x, g in float64, the gradients by differences of forward passes."""
    net = Net(rank, smooth=True).double()
    found = []
    with torch.no_grad():
        for sample in torch.from_numpy(inputs(rank, 2)).double():
            activation = net.first(sample[None])[0]
            target = int(net(sample[None]).argmax())

            def from_layer(value, target=target):
                return float(net.tail(torch.from_numpy(value)[None])[0, target])

            def from_input(value, target=target):
                return float(net(torch.from_numpy(value)[None])[0, target])

            A, x = activation.numpy(), sample.numpy()
            found.append({"A": A, "G": differences(from_layer, A), "x": x, "g": differences(from_input, x)})
    return found


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", NAMES)
def test_equals_its_reference(name, rank):
    [found] = maps(Net(rank, smooth=True), inputs(rank, 2), [name]).values()
    for sample, letters in zip(found, gradients(rank), strict=True):
        expected = REFERENCES[name](**letters)
        assert np.abs(sample.numpy() - expected).max() <= 1e-7 * np.abs(expected).max()


@pytest.mark.parametrize("rank", RANKS)
def test_times_input(rank):
    [found] = maps(Net(rank, smooth=True), inputs(rank, 2), ["grad+input"]).values()
    for sample, letters in zip(found, gradients(rank), strict=True):
        expected = letters["g"] * letters["x"]
        assert np.abs(sample.numpy() - expected).max() <= 1e-7 * np.abs(expected).max()


class Lifted(nn.Module):
    """A 1-D net whose convolutions are of a higher rank, one point wide along the added axes."""

    def __init__(self, net, rank):
        super().__init__()
        added = rank - 1
        for name in ("first", "second"):
            thin = getattr(net, name)
            conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
            fat = conv(
                thin.in_channels,
                thin.out_channels,
                (*thin.kernel_size, *[1] * added),
                (*thin.stride, *[1] * added),
                (*thin.padding, *[0] * added),
            )
            fat.weight.data = thin.weight.data.reshape(*thin.weight.shape, *[1] * added)
            fat.bias.data = thin.bias.data
            setattr(self, name, fat)
        self.head, self.act, self.tail = net.head, net.act, lambda activation: Net.tail(self, activation)

    def forward(self, x):
        return self.tail(self.first(x))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_a_picture_of_width_one_and_a_volume_of_one_by_one(name, rank):
    net, x = Net(1), inputs(1)
    [flat] = maps(net, x, [name]).values()
    [lifted] = maps(Lifted(net, rank), x.reshape(*x.shape, *[1] * (rank - 1)), [name]).values()
    assert torch.allclose(lifted.reshape(flat.shape), flat, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_map_does_not_depend_on_its_batch_mates(name, rank):
    net, x = Net(rank), inputs(rank, 64)
    x[::3] *= 100  # loud mates must not matter
    [whole] = maps(net, x, [name]).values()
    for size in (1, 7):
        parts = [next(iter(maps(net, x[i : i + size], [name]).values())) for i in range(0, 64, size)]
        got = torch.cat(parts)
        largest = whole.abs().flatten(1).amax(1).reshape(-1, *[1] * (whole.ndim - 1))
        # A convolution may sum in another order for another batch size; nothing else may differ. (In float64, since
        # Grad-CAM++ has poles where 2 + G sum(A) is near 0, and there magnifies the last bits a hundredfold.)
        assert ((got - whole).abs() <= 1e-12 * largest).all()


@pytest.mark.parametrize("name", NAMES)
def test_several_layers_in_one_pass_equal_each_alone(name):
    net, x = Net(2), inputs(2)
    together = maps(net, x, [name], ["first", "second"])
    for (expression, layer), found in together.items():
        alone = maps(net, x, [expression], [layer] if layer else ["first"])
        assert torch.equal(alone[expression, layer], found)


@pytest.mark.parametrize("name", [n for n in NAMES if "relu" in METHODS[n].keys])
def test_relu_cuts_what_the_signed_map_has_below_zero(name):
    net, x = Net(2, smooth=True), inputs(2)
    [cut] = maps(net, x, [f"{name}:relu=on"]).values()
    [signed] = maps(net, x, [f"{name}:relu=off"]).values()
    assert torch.equal(cut, signed.relu())
    assert signed.min() < 0


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_tiny_gradients_give_finite_maps(name):
    x = inputs(2)
    net = Net(2)
    for scale in (0.0, 1e-12):
        with torch.no_grad():
            net.head.weight.mul_(scale)
        [found] = maps(net, x, [name], dtype="float32").values()
        assert torch.isfinite(found).all()
        if scale == 0.0 and "eigen" not in name:
            assert (found == 0).all()
        net = Net(2)


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "xgradcam", "layercam"])
def test_small_gradients_are_not_swamped(name):
    """Methods linear in the gradient keep the shape of their map at any scale of the score."""
    x, net, small = inputs(2), Net(2), Net(2)
    with torch.no_grad():
        small.head.weight.mul_(1e-10)
        small.head.bias.mul_(1e-10)
    [found] = maps(net, x, [name], target=1).values()
    [tiny] = maps(small, x, [name], target=1).values()
    assert torch.allclose(tiny * 1e10, found, rtol=1e-6, atol=0)


def test_hirescam_is_complete_behind_a_homogeneous_tail():
    net, x = Net(2, bias=False), inputs(2)
    [found] = maps(net, x, ["hirescam"], target=2).values()
    with torch.no_grad():
        score = net.double()(torch.from_numpy(x).double())[:, 2]
    assert torch.allclose(found.sum((1, 2)), score, rtol=1e-10)


def test_gradient_times_input_is_complete_in_a_homogeneous_net():
    for rank in RANKS:
        net, x = Net(rank, bias=False), inputs(rank)
        [found] = maps(net, x, ["grad+input"], target=0).values()
        with torch.no_grad():
            score = net.double()(torch.from_numpy(x).double())[:, 0]
        assert torch.allclose(found.flatten(1).sum(1), score, rtol=1e-10)


def test_shapes_follow_the_layer_and_the_input():
    for rank in RANKS:
        found = maps(Net(rank), inputs(rank), NAMES)
        for (expression, layer), values in found.items():
            method = METHODS[expression.partition(":")[0]]
            own = tuple(-(-size // 2) for size in SHAPES[rank][1:])
            assert values.shape == ((3, *SHAPES[rank]) if method.per_channel else (3, *own)), (expression, layer)
