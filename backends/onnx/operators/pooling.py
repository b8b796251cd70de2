"""Pooling over windows and over all places."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..graph import Node
from ..modules import Padded, padded
from ..registry import operator
from .windows import Window

MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MAX_WITH_PLACES = (F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices)
MEAN = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
GLOBAL = {3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}


def _fits(window: Window) -> bool:
    """Whether torch's layer can pad as the graph wants."""
    return window.even and all(2 * pad <= size for pad, size in zip(window.pads, window.size * 2, strict=True))


@operator("MaxPool")
def max_pool(node: Node) -> Any:
    """The largest, and where it was, counted over the whole tensor."""
    window = Window.of(node, node.get("kernel_shape"))
    if node.wants(1):
        by_columns = bool(node.get("storage_order", 0))
        return lambda x: _max_with_places(x, window, by_columns)
    layer = MAX[window.rank - 1](
        window.size,
        window.stride,
        window.pads[: window.rank] if _fits(window) else 0,
        window.dilation,
        ceil_mode=window.ceil and _fits(window),
    )
    return layer if _fits(window) else Padded(layer, window.reaching, -math.inf, "pool")


def _max_with_places(x: Tensor, window: Window, by_columns: bool) -> tuple[Tensor, Tensor]:
    amounts = window.reaching(x.shape[2:])
    wide = padded(x, amounts, -math.inf)
    none = (0,) * window.rank
    values, at = MAX_WITH_PLACES[window.rank - 1](wide, window.size, window.stride, none, window.dilation)
    along: list[Tensor] = []
    for axis in reversed(range(window.rank)):
        along.insert(0, at % wide.shape[2 + axis] - amounts[axis][0])
        at = at // wide.shape[2 + axis]
    places, step = torch.zeros_like(at), 1
    for axis in range(window.rank) if by_columns else reversed(range(window.rank)):
        places, step = places + along[axis] * step, step * x.shape[2 + axis]
    maps = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * window.rank)
    return values, places + maps * step


@operator("AveragePool")
def average_pool(node: Node) -> Any:
    """The mean, with or without the padding."""
    window, all_count = Window.of(node, node.get("kernel_shape")), bool(node.get("count_include_pad", 0))
    flat = all(each == 1 for each in window.dilation)
    if flat and _fits(window) and not (window.ceil and all_count and any(window.pads)):
        return MEAN[
            window.rank - 1
        ](
            window.size,  # type: ignore[arg-type]
            window.stride,  # type: ignore[arg-type]
            window.pads[: window.rank],  # type: ignore[arg-type]
            window.ceil,
            all_count,
        )

    def run(x: Tensor) -> Tensor:
        declared, reaching = window.amounts(x.shape[2:]), window.reaching(x.shape[2:])
        there = padded(torch.ones_like(x[:1, :1]), declared, float(all_count))
        there = padded(there, [(a - c, b - d) for (a, b), (c, d) in zip(reaching, declared, strict=True)])
        return _summed(padded(x, reaching), window) / _summed(there, window)

    return run


def _summed(x: Tensor, window: Window) -> Tensor:
    """The mean over each window of an input that was padded, or a sum: a common factor does not matter here."""
    if all(each == 1 for each in window.dilation):
        return AVERAGE[window.rank - 1](x, window.size, window.stride)
    counts = [
        (size - reach) // stride + 1
        for size, reach, stride in zip(x.shape[2:], window.reach, window.stride, strict=True)
    ]
    parts = []
    for offsets in product(*(range(size) for size in window.size)):
        part = x
        for axis, (at, d, s, n) in enumerate(zip(offsets, window.dilation, window.stride, counts, strict=True), 2):
            part = part[(slice(None),) * axis + (slice(at * d, at * d + s * (n - 1) + 1, s),)]
        parts.append(part)
    return torch.stack(parts).mean(0)


@operator("LpPool")
def lp_pool(node: Node) -> Any:
    """The norm over each window."""
    window, p = Window.of(node, node.get("kernel_shape")), node.get("p", 2)
    points = math.prod(window.size)
    return lambda x: (_summed(padded(x.abs() ** p, window.reaching(x.shape[2:])), window) * points) ** (1 / p)


@operator("GlobalAveragePool")
def global_average_pool(node: Node) -> Any:
    """The mean over all places."""
    layer = GLOBAL.get(node.rank(0) or 0)
    return layer(1) if layer else lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Node) -> Any:
    """The largest of all places."""
    return lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node) -> Any:
    """The norm over all places."""
    p = node.get("p", 2)
    return lambda x: (x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1 / p)
