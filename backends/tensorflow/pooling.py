"""Pooling, over windows and over everything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .convolution import order, padded, same
from .graph import Leaf
from .table import makes, tupled

F = nn.functional
MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE: dict[str, dict[int, Any]] = {
    "Max": {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d},
    "Average": {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d},
}


class SameMax:
    """With TensorFlow's padding, which never is the largest."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(batch, channel, *s)."""
        pads = same(x.shape[2:], self.kernel_size, self.stride, (1,) * (x.ndim - 2))
        run: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(pads)]
        found: Tensor = run(padded(x, pads, -torch.inf), self.kernel_size, self.stride)
        return found


class SameMaxPool1d(SameMax, nn.MaxPool1d):
    """See `SameMax`."""


class SameMaxPool2d(SameMax, nn.MaxPool2d):
    """See `SameMax`."""


class SameMaxPool3d(SameMax, nn.MaxPool3d):
    """See `SameMax`."""


class SameAverage:
    """With TensorFlow's padding, which is left out of the averages."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(batch, channel, *s)."""
        pads = same(x.shape[2:], self.kernel_size, self.stride, (1,) * (x.ndim - 2))
        run: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(pads)]
        average: Tensor = run(padded(x, pads), self.kernel_size, self.stride)
        if not any(map(any, pads)):
            return average
        there = padded(x.new_ones(1, 1, *x.shape[2:]), pads)
        share: Tensor = run(there, self.kernel_size, self.stride)
        return average / share


class SameAvgPool1d(SameAverage, nn.AvgPool1d):
    """See `SameAverage`."""


class SameAvgPool2d(SameAverage, nn.AvgPool2d):
    """See `SameAverage`."""


class SameAvgPool3d(SameAverage, nn.AvgPool3d):
    """See `SameAverage`."""


SAME_MAX: dict[int, Any] = {1: SameMaxPool1d, 2: SameMaxPool2d, 3: SameMaxPool3d}
SAME_AVERAGE: dict[int, Any] = {1: SameAvgPool1d, 2: SameAvgPool2d, 3: SameAvgPool3d}
RANKS = (1, 2, 3)


def _of(form: str) -> list[str]:
    return [form.format(rank) for rank in RANKS]


@makes(*_of("MaxPooling{}D"), *_of("AveragePooling{}D"))
def _pool(layer: Any, rank: int) -> Leaf:
    axes = rank - 2
    size = tupled(layer.pool_size, axes)
    stride = size if layer.strides is None else tupled(layer.strides, axes)
    kinds = {("max", "valid"): MAX, ("max", "same"): SAME_MAX, ("average", "valid"): AVERAGE}
    kind = kinds.get((layer.pool_mode, layer.padding), SAME_AVERAGE)
    return Leaf(kind[axes](size, stride), order(layer))


@makes(*_of("AdaptiveMaxPooling{}D"), *_of("AdaptiveAveragePooling{}D"))
def _adaptive(layer: Any, rank: int) -> Leaf:
    kind = "Max" if "Max" in type(layer).__name__ else "Average"
    return Leaf(ADAPTIVE[kind][rank - 2](tupled(layer.output_size, rank - 2)), order(layer))


class GlobalAvgPool(nn.Module):
    """The mean over all places, or those a mask leaves."""

    masks = True

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.keeps = keeps

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, channel, *s) to (batch, channel), or with axes of 1 for the places."""
        axes = tuple(range(2, x.ndim))
        if mask is None:
            return x.mean(axes, keepdim=self.keeps)
        there = mask[:, None].to(x.dtype)
        return (x * there).sum(axes, keepdim=self.keeps) / there.sum(axes, keepdim=self.keeps)


class GlobalMaxPool(nn.Module):
    """The maximum over all places."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.keeps = keeps

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, *s) to (batch, channel), or with axes of 1 for the places."""
        found = F.max_pool1d(x.flatten(2), x[0, 0].numel())
        return found.reshape(*x.shape[:2], *[1] * (x.ndim - 2)) if self.keeps else found.flatten(1)


@makes(*_of("GlobalAveragePooling{}D"))
def _global_average(layer: Any) -> Leaf:
    return Leaf(GlobalAvgPool(layer.keepdims), order(layer))


@makes(*_of("GlobalMaxPooling{}D"))
def _global_max(layer: Any) -> Leaf:
    return Leaf(GlobalMaxPool(layer.keepdims), order(layer))
