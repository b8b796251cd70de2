"""Where the channels are, and what grid tokens make: `settle`, against layouts known by name."""

import math

import pytest
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.backends.torch.grids import Grid, Tokens, order_of, settle
from camsweep.core.errors import RequestError

from ..support import inputs

AS_IS, LAST = Grid(), Grid("last")


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("grid", "patch"),
    [((14, 14), 16), ((16, 16), 14), ((7, 7), 32), ((14, 21), 16), ((8, 4), 16), ((6, 5, 4), 8), ((31,), 16)],
)
@pytest.mark.parametrize("known", [False, True])
def test_tokens_of_a_vision_transformer(grid, patch, prefix, known):
    field, count = [size * patch for size in grid], prefix + math.prod(grid)
    seen = [tuple(field), grid] if known else []
    if len(grid) == 1 and not known:  # any number of tokens is a row of them
        return
    assert settle((count, 192), field, "last", seen, Tokens()) == Grid("last", prefix, grid)
    order = "last" if len(grid) == 1 else None
    assert settle((count, 192), field, order, seen, Tokens(sizes=grid)) == Grid("last", prefix, grid)


@pytest.mark.parametrize(
    ("dims", "field", "order", "seen", "expected"),
    [
        ((96, 56, 56), (224, 224), "first", [], AS_IS),
        ((56, 56, 96), (224, 224), "last", [], LAST),
        ((56, 56, 96), (224, 224), "first", [], LAST),  # Swin: permuted behind the patches' convolution
        ((96, 56, 56), (224, 224), "last", [], AS_IS),  # ConvNeXt: permuted back behind its Linear
        ((7, 7, 768), (224, 224), "last", [], LAST),
        ((768, 7, 7), (224, 224), "last", [], AS_IS),
        ((20, 30, 48), (160, 240), "last", [], LAST),
        ((48, 20, 30), (160, 240), "last", [], AS_IS),
        ((56, 56, 56), (224, 224), "last", [], LAST),  # only the layers can say
        ((56, 56, 56), (224, 224), "first", [], AS_IS),
        ((8, 16, 20, 20), (16, 80, 80), "first", [], AS_IS),  # of a video the planes alone have shrunk
        ((64, 16, 10, 12), (16, 80, 96), "first", [(16, 20, 24)], AS_IS),
        ((16, 10, 12, 64), (16, 80, 96), "last", [(16, 10, 12)], LAST),
        ((5, 6, 7, 32), (10, 12, 14), "last", [], LAST),
        ((32, 100), (400,), "first", [], AS_IS),
        ((3, 5, 10), (9, 14), "first", [(5, 10)], AS_IS),  # two convolutions without padding, and a ReLU
        ((3, 5, 10), (9, 14), "first", [(3, 5)], LAST),
        ((10,), (9, 14), "last", [], AS_IS),
    ],
)
def test_where_the_channels_are(dims, field, order, seen, expected):
    assert settle(dims, field, order, seen, Tokens()) == expected


def test_a_signal_is_channels_first_behind_a_convolution_and_tokens_behind_a_linear():
    assert settle((8, 50), (100,), "first", [(50,)], Tokens()) == AS_IS
    assert settle((50, 8), (100,), "last", [(50,)], Tokens()) == Grid("last", 0, (50,))
    assert settle((51, 8), (100,), "last", [(50,)], Tokens()) == Grid("last", 1, (50,))


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("dims", [(8, 10, 12), (10, 12, 8), (8, 8, 8)])
def test_what_is_said_is_believed(dims, order):
    for layers in ("first", "last", None):
        found = settle(dims, (10, 12), layers, [], Tokens(order=order))
        assert found.order == order


@pytest.mark.parametrize(
    ("count", "field", "seen", "tokens", "says"),
    [
        (13, (224, 224), [], Tokens(), "13 in a layer are no grid of an input of 224 x 224"),
        (50, (224, 224), [(7, 7), (5, 10)], Tokens(), "prefix=0,grid=5x10 or prefix=1,grid=7x7"),
        (49, (224, 224), [], Tokens(prefix=1), "no grid"),
        (50, (224, 224), [], Tokens(sizes=(5, 11)), "prefix=-5"),
        (50, (224, 224), [], Tokens(prefix=2, sizes=(7, 7)), "prefix=2,grid=7x7"),
        (50, (224, 224), [], Tokens(prefix=1, sizes=(49,)), "grid=49"),
        (1, (224, 224), [], Tokens(), "no grid"),
    ],
)
def test_counts_that_cannot_be_told_are_refused_in_one_line(count, field, seen, tokens, says):
    with pytest.raises(RequestError) as caught:
        settle((count, 8), field, "last", seen, tokens)
    assert says in str(caught.value)
    assert str(count) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("grid", "raw"),
    [
        (Grid(), (2, 3, 4, 5)), (Grid("last"), (2, 4, 5, 3)), (Grid("last"), (2, 7, 3)), (Grid("last", 0, (4, 5)), (2, 20, 3)),
        (Grid("last", 3, (4, 5)), (2, 23, 3)), (Grid("last", 1, (2, 3, 4)), (2, 25, 3)), (Grid("last", 2, (9,)), (2, 11, 3)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strided", [False, True])
def test_what_is_read_is_written_back(grid, raw, strided):
    given = torch.randn(*raw[::-1]).permute(*reversed(range(len(raw)))) if strided else torch.randn(raw)
    values = grid.read(given)
    assert tuple(values.shape[1:]) == grid.shape(raw[1:])
    assert values.shape[1] == 3
    back = grid.write(values, given)
    assert torch.equal(back, given)
    changed = grid.write(values * 2, given)
    assert torch.equal(grid.read(changed), values * 2)
    assert torch.equal(changed[:, : grid.prefix], given[:, : grid.prefix] if grid.sizes else changed[:, :0])
    back.add_(1)  # a copy, which what comes next may write on
    assert torch.equal(grid.read(given), values)
    if grid.sizes is not None:  # token by token, row by row
        place = tuple(size - 1 for size in grid.sizes)
        assert torch.equal(values[(0, slice(None), *place)], given[0, -1])
        assert torch.equal(values[(0, slice(None), *[0] * len(place))], given[0, grid.prefix])


@pytest.mark.parametrize(
    "text", ["prefix=1,grid=14x14", "grid=3x4x5", "prefix=0", "channels=last", "channels=first", ""]
)
def test_tokens_are_parsed(text):
    said = Tokens.parse(text)
    assert said == Tokens.parse(",".join(reversed(text.split(","))))
    assert (said.prefix, said.sizes, said.order) == {
        "prefix=1,grid=14x14": (1, (14, 14), None), "grid=3x4x5": (None, (3, 4, 5), None), "prefix=0": (0, None, None),
        "channels=last": (None, None, "last"), "channels=first": (None, None, "first"), "": (None, None, None),
    }[text]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["prefix", "prefix=-1", "grid=3x", "grid=0x3", "grid=axb", "channels=middle", "prefix=1;grid=3", "rows=2"]
)
def test_tokens_that_cannot_be_parsed_are_refused(text):
    with pytest.raises(RequestError, match="expected prefix=1"):
        Tokens.parse(text)


@pytest.mark.parametrize(
    ("module", "order"),
    [
        (nn.Conv3d(1, 1, 1), "first"), (nn.ConvTranspose1d(1, 1, 1), "first"), (nn.BatchNorm2d(1), "first"), (nn.GroupNorm(1, 1), "first"),
        (nn.AdaptiveAvgPool2d(1), "first"), (nn.Linear(1, 1), "last"), (nn.LayerNorm(3), "last"), (nn.LayerNorm([3, 4, 5]), "first"),
        (nn.LSTM(1, 1), "last"), (nn.MultiheadAttention(2, 1), "last"), (nn.ReLU(), None), (nn.Sequential(nn.Conv2d(1, 1, 1)), None),
    ],
)  # fmt: skip
def test_what_layers_say(module, order):
    assert order_of(module) == order


class Unpadded(nn.Module):
    """Its activations shrink by as much along both axes, and so are no smaller copies of the input."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)
        self.end = nn.ReLU()

    def forward(self, x):
        return self.end(self.second(self.relu(self.first(x)))).mean((2, 3))


def test_a_convolution_has_its_channels_first_whatever_its_shape():
    structure = TorchBackend(Unpadded(), device=torch.device("cpu")).structure(inputs(2)[:1])
    assert {each.name: each.shape for each in structure.layers} == {
        "first": (3, 7, 12), "relu": (3, 7, 12), "second": (3, 5, 10), "end": (3, 5, 10),
    }  # fmt: skip
