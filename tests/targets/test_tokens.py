"""Transformers: tokens and channels-last values are brought to the grid that they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from . import models
from .conftest import known, of, same, samples

FIRST, LAST = "blocks.0", "blocks.1"
METHODS = ["hirescam", "gradcam:relu=off"]


def patches(prefix, grid):
    """Tokens (N, prefix + places, C) as (N, C, *grid), by hand."""
    return lambda tokens: tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), tokens.shape[2], *grid)


def last(values):
    """(N, *s, C) as (N, C, *s)."""
    return values.movedim(-1, 1)


def transformer(grid, prefix, **more):
    """Arguments of `models.Tokens` for inputs of patches of 2."""
    return {"count": math.prod(grid), "rank": len(grid), "prefix": prefix, **more}


def inputs(grid):
    return samples(*(2 * size for size in grid))


@pytest.mark.parametrize(
    ("grid", "prefix", "read", "blocks", "layer"),
    [
        ((3, 5), 1, "first", "own", FIRST),  # a class token; 16 tokens, which are no 4 x 4
        ((3, 5), 1, "first", "own", "blocks.1.norm1"),
        ((3, 5), 1, "first", "torch", FIRST),
        ((3, 5), 6, "first", "own", FIRST),  # with a distillation token and 4 registers
        ((3, 5), 0, "mean", "own", FIRST),
        ((3, 5), 0, "mean", "own", LAST),
        ((5, 3), 1, "mean", "own", FIRST),
        ((13,), 0, "mean", "own", FIRST),
        ((13,), 1, "first", "own", FIRST),
        ((2, 3, 5), 0, "mean", "own", FIRST),
        ((2, 3, 5), 1, "first", "own", FIRST),
    ],
)
def test_tokens_are_brought_to_their_grid_without_the_prefix(sweep, grid, prefix, read, blocks, layer):
    args, x = transformer(grid, prefix, read=read, blocks=blocks), inputs(grid)
    answer = sweep("Tokens", x, ["class:1", "class:0-vs-class:2"], args=args, methods=METHODS, layer=layer)
    for column, score in enumerate((of(1), lambda z: z[:, 0] - z[:, 2])):
        expected = known(models.Tokens(**args), x, score, layer, patches(prefix, grid))
        assert expected.A.shape[2:] == grid
        same(answer.maps[f"hirescam@{layer}"][:, column], expected.hirescam)
        same(answer.maps[f"gradcam:relu=off@{layer}"][:, column], expected.signed_gradcam)
        same(answer.score[:, column], expected.score)


@pytest.mark.parametrize(
    ("grid", "prefix"), [((3, 5), 0), ((3, 5), 1), ((3, 5), 6), ((5, 3), 1), ((13,), 0), ((13,), 1), ((2, 3, 5), 1)]
)
@pytest.mark.parametrize("token", [7, 0])
def test_a_head_that_reads_one_patch_lights_up_its_place_alone(sweep, grid, prefix, token):
    args, x = transformer(grid, prefix, read=token), inputs(grid)
    answer = sweep("Tokens", x, ["class:2"], args=args, layer=LAST)
    net = models.Tokens(**args)
    A = known(net, x, of(2), LAST).A
    place = np.unravel_index(token, grid)
    expected = np.zeros((len(x), *grid))
    expected[(slice(None), *place)] = A[:, prefix + token] @ net.head.weight[2].detach().numpy()
    found = answer.maps[f"hirescam@{LAST}"][:, 0]
    same(found, expected)
    assert [tuple(each[1:]) for each in np.argwhere(found)] == [place] * len(x)


@pytest.mark.parametrize("size", [(8, 12), (12, 8), (6, 14)])
@pytest.mark.parametrize("layer", [FIRST, "blocks.1.norm"])
def test_channels_last_are_brought_to_the_front(sweep, size, layer):
    x = samples(*size)
    answer = sweep("Swin", x, ["class:1"], methods=METHODS, layer=layer)
    expected = known(models.Swin(), x, of(1), layer, last)
    assert expected.A.shape[2:] == (size[0] // 2, size[1] // 2)
    same(answer.maps[f"hirescam@{layer}"][:, 0], expected.hirescam)
    same(answer.maps[f"gradcam:relu=off@{layer}"][:, 0], expected.signed_gradcam)


def test_channels_that_are_as_many_as_places_can_be_said_to_be_last_or_first(sweep):
    x = samples(12, 12)
    answer = sweep(
        "Swin", x, ["class:1"], args={"width": 6}, methods=METHODS, layer=FIRST, options={"tokens": "channels=last"}
    )
    expected = known(models.Swin(6), x, of(1), FIRST, last)
    same(answer.maps[f"hirescam@{FIRST}"][:, 0], expected.hirescam)
    same(answer.maps[f"gradcam:relu=off@{FIRST}"][:, 0], expected.signed_gradcam)
    answer = sweep(
        "Vector", x, ["class:1"], args={"channels": 6}, methods=METHODS, options={"tokens": "channels=first"}
    )
    expected = known(models.Vector(channels=6), x, of(1))
    same(answer.maps["hirescam@features"][:, 0], expected.hirescam)
    same(answer.maps["gradcam:relu=off@features"][:, 0], expected.signed_gradcam)


# what the number of tokens alone does not say

NO_GRID = ((14, 14), {"count": 30, "embed": "linear"}, 31)
"""Thirty of 49 patches and a class token."""
TWO_GRIDS = ((6, 6), {"count": 9, "embed": "linear"}, 10)
"""3 x 3 and a class token, or 2 x 2 and six."""


@pytest.mark.parametrize(("size", "args", "count"), [NO_GRID, TWO_GRIDS], ids=["none fits", "two fit"])
def test_a_number_of_tokens_without_one_grid_is_refused_by_number(refused, size, args, count):
    line = refused("Tokens", samples(*size), ["class:1"], args=args, layer=FIRST)
    assert str(count) in line
    assert "tokens" in line


@pytest.mark.parametrize(
    ("case", "prefix", "grid"),
    [(NO_GRID, 1, (5, 6)), (NO_GRID, 1, (6, 5)), (NO_GRID, 6, (5, 5)), (TWO_GRIDS, 1, (3, 3)), (TWO_GRIDS, 6, (2, 2))],
)
def test_tokens_can_be_said_what_they_are(sweep, case, prefix, grid):
    size, args, _ = case
    x, text = samples(*size), "x".join(map(str, grid))
    answer = sweep(
        "Tokens", x, ["class:1"], args=args, methods=METHODS, layer=FIRST, options={"tokens": f"prefix={prefix},grid={text}"}
    )  # fmt: skip
    expected = known(models.Tokens(**args), x, of(1), FIRST, patches(prefix, grid))
    same(answer.maps[f"hirescam@{FIRST}"][:, 0], expected.hirescam)
    same(answer.maps[f"gradcam:relu=off@{FIRST}"][:, 0], expected.signed_gradcam)


@pytest.mark.parametrize("tokens", ["prefix=2,grid=3x5", "prefix=1,grid=4x4", "prefix=0,grid=3x5"])
def test_tokens_said_to_be_what_they_are_not_are_refused_by_number(refused, tokens):
    line = refused(
        "Tokens", inputs((3, 5)), ["class:1"], args=transformer((3, 5), 1), layer=FIRST, options={"tokens": tokens}
    )
    assert "16" in line


@pytest.mark.parametrize("tokens", ["prefix=one,grid=3x5", "grid=3by5", "channels=middle", "15", "prefx=1,grid=3x5"])
def test_tokens_that_cannot_be_read_are_refused(refused, tokens):
    line = refused(
        "Tokens", inputs((3, 5)), ["class:1"], args=transformer((3, 5), 1), layer=FIRST, options={"tokens": tokens}
    )
    assert "tokens" in line


@pytest.mark.parametrize("grid", [(3, 5), (13,), (2, 3, 5)])
def test_ablationcam_on_tokens_is_the_closed_form_of_a_linear_head(sweep, grid):
    args, x = transformer(grid, 0, read="mean"), inputs(grid)
    answer = sweep("Tokens", x, ["class:1"], args=args, methods=["ablationcam", "ablationcam:relu=off"], layer=LAST)
    net = models.Tokens(**args)
    A = known(net, x, of(1), LAST, patches(0, grid)).A
    weight, bias = net.head.weight[1].detach().numpy(), net.head.bias[1].item()
    parts = weight * A.reshape(*A.shape[:2], -1).mean(2)  # z = b + sum_k w_k mean(A_k)
    drop = parts / np.abs(bias + parts.sum(1, keepdims=True))
    expected = np.einsum("nk,nk...->n...", drop, A)
    same(answer.maps[f"ablationcam:relu=off@{LAST}"][:, 0], expected)
    np.testing.assert_array_equal(
        answer.maps[f"ablationcam@{LAST}"], answer.maps[f"ablationcam:relu=off@{LAST}"].clip(0)
    )
