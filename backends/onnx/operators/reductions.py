"""Sums, means and extremes along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..graph import Node
from ..registry import operator


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keep)
    return x


def _extreme(name: str, empty: float) -> Callable[[Tensor, list[int], bool], Tensor]:
    def run(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.dtype == torch.bool:
            return run(x.to(torch.uint8), axes, keep).bool()
        if any(x.shape[axis] == 0 for axis in axes):
            return x.sum(axes, keep).to(x.dtype) + empty
        return getattr(x, name)(axes, keep)  # type: ignore[no-any-return]

    return run


REDUCE: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep).to(x.dtype),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep) if x.is_floating_point() else _whole_mean(x, axes, keep),
    "ReduceMax": _extreme("amax", -math.inf),
    "ReduceMin": _extreme("amin", math.inf),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep).to(x.dtype),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keep).sqrt().to(x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep).to(x.dtype),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}
OVER_NOTHING: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}


def _whole_mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.div(x.sum(axes, keep), math.prod(x.shape[axis] for axis in axes), rounding_mode="trunc").to(x.dtype)


@operator(*REDUCE, numbers=[1])
def reduction(node: Node) -> Any:
    """Over axes that are named, or over all."""
    function, keep = REDUCE[node.op], bool(node.get("keepdims", 1))
    own, nothing = node.get("axes"), node.get("noop_with_empty_axes", 0)

    def run(x: Tensor, axes: Any = None) -> Tensor:
        axes = own if axes is None else [axes] if isinstance(axes, int) else axes
        if not axes and nothing:
            return OVER_NOTHING.get(node.op, torch.clone)(x)
        return function(x, list(axes or range(x.ndim)), keep) if x.ndim else function(x[None], [0], False)

    return run


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Any:
    """The first place, or the last."""
    find: Callable[..., Tensor] = torch.argmax if node.op == "ArgMax" else torch.argmin
    axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), node.get("select_last_index", 0)
    return lambda x: x.shape[axis] - 1 - find(x.flip(axis), axis, keep) if last else find(x, axis, keep)


@operator("CumSum", "CumProd", numbers=[1])
def cumulative(node: Node) -> Any:
    """So far, or up to the one before; from the end with ``reverse``."""
    exclusive, reverse, name = node.get("exclusive", 0), node.get("reverse", 0), node.op.lower()
    start = 0 if name == "cumsum" else 1

    def run(x: Tensor, axis: Any) -> Tensor:
        axis = int(axis[0] if isinstance(axis, list) else axis)
        x = x.flip(axis) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), start)
            x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        found: Tensor = getattr(x, name)(axis).to(x.dtype)
        return found.flip(axis) if reverse else found

    return run
