"""Values taken from places, and put there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..graph import Node
from ..registry import operator


def _counted(index: Tensor, length: int) -> Tensor:
    """Indices from 0 on; negative ones count from the end."""
    index = index.long()
    return torch.where(index < 0, index + length, index)


@operator("Slice", numbers=[1, 2, 3, 4])
def slices(node: Node) -> Any:
    """Parts of axes, with steps of either sign."""
    own = node.get("starts"), node.get("ends"), node.get("axes")

    def run(x: Tensor, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Tensor:
        starts, ends, axes = (
            given if each is None else each for given, each in zip(own, (starts, ends, axes), strict=True)
        )
        axes = range(len(starts)) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            length = x.shape[axis]
            part = range(*slice(start, None if step < 0 and end < -length else end, step).indices(length))
            if step == 1:
                x = x.narrow(axis, part.start, len(part))
            else:
                x = x.index_select(axis, torch.tensor(list(part), dtype=torch.int64, device=x.device))
        return x

    return run


@operator("Gather")
def gather(node: Node) -> Any:
    """Slices at indices, whose axes stand where that axis was."""
    axis, fixed = node.get("axis", 0), node.constant(1)
    if fixed is not None and fixed.ndim == 0 and node.constant(0) is None:
        node.take(1)
        place = int(fixed)
        return lambda x, *_: x.select(axis, place)

    def run(x: Tensor, index: Tensor) -> Tensor:
        at = axis % x.ndim
        index = _counted(index, x.shape[at]).to(x.device)
        return x.index_select(at, index.flatten()).reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])

    return run


@operator("GatherElements")
def gather_elements(node: Node) -> Any:
    """An index for each element."""
    axis = node.get("axis", 0)
    return lambda x, index: x.gather(axis, _counted(index, x.shape[axis]))


@operator("GatherND")
def gather_nd(node: Node) -> Any:
    """Slices at places of several axes, for each of the first ``batch_dims`` axes its own."""
    batch = node.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        rows = [
            torch.arange(size, device=x.device).reshape(-1, *[1] * (index.ndim - 2 - i))
            for i, size in enumerate(x.shape[:batch])
        ]
        places = [_counted(each, x.shape[batch + i]) for i, each in enumerate(index.unbind(-1))]
        return x[(*rows, *places)]

    return run


@operator("ScatterND")
def scatter_nd(node: Node) -> Any:
    """Slices put at places, added to what is there, multiplied, or compared with it."""
    reduction = node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places = tuple(_counted(each, x.shape[i]) for i, each in enumerate(index.unbind(-1)))
        if reduction in ("none", "add"):
            return x.index_put(places, updates, accumulate=reduction == "add")
        length = torch.arange(x.numel(), device=x.device).reshape(x.shape)[places]  # where each update goes
        flat = x.flatten().scatter_reduce(0, length.flatten(), updates.flatten(), _REDUCTIONS[reduction])
        return flat.reshape(x.shape)

    return run


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Any:
    """An index for each update."""
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        index = _counted(index, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])

    return run


@operator("OneHot", numbers=[1])
def one_hot(node: Node) -> Any:
    """Two values, the second where the index is."""
    axis = node.get("axis", -1)

    def run(index: Tensor, depth: Any, values: Tensor) -> Tensor:
        depth = int(depth[0] if isinstance(depth, list) else depth)
        index = _counted(index, depth)
        hit = index[..., None] == torch.arange(depth, device=index.device)
        return torch.where(hit, values[1], values[0]).movedim(-1, axis)

    return run


@operator("NonZero", unsteady=True)
def non_zero(_: Node) -> Any:
    """Places, one in each column."""
    return lambda x: torch.nonzero(x).t()


@operator("Compress", unsteady=True)
def compress(node: Node) -> Any:
    """What is marked."""
    axis = node.get("axis")

    def run(x: Tensor, marks: Tensor) -> Tensor:
        x = x.flatten() if axis is None else x
        return x.index_select(axis or 0, torch.nonzero(marks).flatten())

    return run


@operator("TopK", numbers=[1])
def top_k(node: Node) -> Any:
    """The largest, or the smallest, and where they were."""
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    own, ordered = node.get("k"), bool(node.get("sorted", 1))

    def run(x: Tensor, count: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        values, places = torch.topk(x, int(own if count is None else count[0]), axis, largest, ordered)
        return values, places

    return run


@operator("ReverseSequence", numbers=[1])
def reverse_sequence(node: Node) -> Any:
    """The first so many steps of each sample from back to front."""
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)

    def run(x: Tensor, lengths: Sequence[int]) -> Tensor:
        moved = x.movedim((batch, time), (0, 1))
        rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(moved, lengths, strict=True)]
        return torch.stack(rows).movedim((0, 1), (batch, time))

    return run
