"""Values at places that are computed, and blocks put together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..graph import Node
from ..registry import operator


@operator("GridSample")
def grid_sample(node: Node) -> Any:
    """At places between -1 and 1."""
    mode = node.get("mode", "linear" if node.version >= 20 else "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    beyond, corners = node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0))

    def run(x: Tensor, grid: Tensor) -> Tensor:
        if mode == "bicubic" and x.ndim == 5:
            raise RuntimeError("GridSample with mode cubic in space")
        return F.grid_sample(x, grid, mode, beyond, corners)

    return run


@operator("AffineGrid", numbers=[1])
def affine_grid(node: Node) -> Any:
    """The places of a grid, moved."""
    corners = bool(node.get("align_corners", 0))
    return lambda theta, size: F.affine_grid(theta, list(size), corners)


@operator("Col2Im", numbers=[1, 2])
def col2im(node: Node) -> Any:
    """Blocks added up where they lie."""
    strides, dilations, pads = (node.get(key) for key in ("strides", "dilations", "pads"))

    def run(x: Tensor, size: list[int], block: list[int]) -> Tensor:
        rank = len(size)
        around = pads or [0] * 2 * rank
        inside = [slice(around[i], around[i] + n) for i, n in enumerate(size)]
        full = [n + around[i] + around[rank + i] for i, n in enumerate(size)]
        found = _added(x, full, block, strides or [1] * rank, dilations or [1] * rank)
        return found[:, :, *inside]

    return run


def _added(x: Tensor, size: list[int], block: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """(batch, channel * points of a block, blocks) to (batch, channel, *size)."""
    places = torch.zeros(1, 1, dtype=torch.int64, device=x.device)
    for length, points, stride, dilation in zip(size, block, strides, dilations, strict=True):
        count = (length - dilation * (points - 1) - 1) // stride + 1
        at = torch.arange(points, device=x.device)[:, None] * dilation + torch.arange(count, device=x.device) * stride
        places = (places[:, None, :, None] * length + at[None, :, None, :]).flatten(2).flatten(0, 1)
    values = x.reshape(len(x), -1, places.numel())
    found = x.new_zeros(*values.shape[:2], math.prod(size)).index_add(2, places.flatten(), values)
    return found.reshape(*values.shape[:2], *size)
