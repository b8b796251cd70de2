"""Shapes: asked for, changed, and filled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import ELEMENTS, Node, Unsupported
from ..registry import operator


@operator("Shape")
def shape(node: Node) -> Any:
    """Of the axes from ``start`` to ``end``."""
    part = slice(node.get("start", 0), node.get("end"))
    return lambda x: torch.tensor(list(x.shape)[part], dtype=torch.int64)


@operator("Size")
def size(_: Node) -> Any:
    """The number of elements."""
    return lambda x: torch.tensor(x.numel())


@operator("Reshape", numbers=[1])
def reshape(node: Node) -> Any:
    """0 keeps a size, -1 takes what is left. Sizes of a batch for which the graph was made are what the batch has."""
    zero, own = bool(node.get("allowzero", 0)), node.get("shape")
    lift = node.graph.lifts.get(node)

    def run(x: Tensor, wanted: Sequence[int] | None = None) -> Tensor:
        wanted = own if wanted is None else wanted
        if lift is not None:
            return x.reshape(lift(x.shape))
        return x.reshape([x.shape[i] if v == 0 and not zero else v for i, v in enumerate(wanted or [])])

    return run


@operator("Flatten")
def flatten(node: Node) -> Any:
    """To two axes."""
    axis = node.get("axis", 1)
    if axis == 1 and (node.rank(0) or 0) >= 2:
        return nn.Flatten()
    return lambda x: x.reshape(math.prod(x.shape[: axis if axis >= 0 else x.ndim + axis]), -1)


@operator("Transpose")
def transpose(node: Node) -> Any:
    """Axes in another order, by default the opposite one."""
    order = node.get("perm")
    return lambda x: x.permute(order if order is not None else list(range(x.ndim))[::-1])


@operator("Concat")
def concat(node: Node) -> Any:
    """Along an axis. A constant that is the same for each sample is repeated for those that there are."""
    axis = node.get("axis", 1)
    constants = [node.constant(place) for place in range(len(node.inputs))]
    if axis != 0 and not node.among_constants():
        for place, value in enumerate(constants):
            if value is not None and value.ndim > 1 and len(value) > 1 and bool((value == value[:1]).all()):
                node.graph.constants[(name := f"{node.inputs[place]}/row")] = value[:1]
                node.inputs[place] = name

    def run(*parts: Tensor) -> Tensor:
        rows = max(len(part) if part.ndim else 1 for part in parts)
        if axis % max(parts[0].ndim, 1):
            parts = tuple(p.expand(rows, *p.shape[1:]) if len(p) == 1 != rows else p for p in parts)
        return torch.cat(parts, axis)

    return run


@operator("Squeeze", numbers=[1])
def squeeze(node: Node) -> Any:
    """Without axes of size 1: those that are named, or all."""
    own = node.get("axes")

    def run(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
        axes = own if axes is None else axes
        axes = [i for i, v in enumerate(x.shape) if v == 1] if axes is None else axes
        if any(x.shape[axis] != 1 for axis in axes):
            raise RuntimeError(f"Squeeze of axes {list(axes)} of {tuple(x.shape)}")
        return x.squeeze(tuple(axes))

    return run


@operator("Unsqueeze", numbers=[1])
def unsqueeze(node: Node) -> Any:
    """With axes of size 1 at the places that they will have."""
    own = node.get("axes")

    def run(x: Tensor, axes: Sequence[int] | int | None = None) -> Tensor:
        axes = own if axes is None else [axes] if isinstance(axes, int) else axes
        for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Split", numbers=[1])
def split(node: Node) -> Any:
    """In parts of given sizes, or as equal as can be."""
    own, axis = node.get("split"), node.get("axis", 0)
    count = node.get("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        sizes = own if sizes is None else sizes
        if sizes is None:
            each = -(-x.shape[axis] // count)
            sizes = [*[each] * (count - 1), x.shape[axis] - each * (count - 1)]
        return torch.split(x, list(sizes), axis)

    return run


@operator("Expand", numbers=[1])
def expand(_: Node) -> Any:
    """Broadcast with a shape."""

    def run(x: Tensor, wanted: Sequence[int]) -> Tensor:
        shape = [1] * (len(wanted) - x.ndim) + list(x.shape)
        rest = [1] * (len(shape) - len(wanted)) + list(wanted)
        return x.expand([b if a == 1 else a for a, b in zip(shape, rest, strict=True)])

    return run


@operator("Tile", numbers=[1, 2])
def tile(node: Node) -> Any:
    """Repeated along each axis; before opset 6 along one."""
    if node.version < 6:
        raise Unsupported("Tile of opset 1")
    return lambda x, repeats: x.repeat(*repeats)


@operator("ConstantOfShape", numbers=[0])
def constant_of_shape(node: Node) -> Any:
    """One value everywhere."""
    value = node.get("value", torch.zeros(1))
    return Filled(value.reshape(-1)[:1])


class Filled(nn.Module):
    """A tensor of one value, whatever its type has become."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, wanted: Sequence[int]) -> Tensor:
        """Of the shape."""
        return self.get_buffer("value").expand(tuple(wanted)) if wanted else self.get_buffer("value").reshape(())


@operator("Range", numbers=[0, 1, 2], unsteady=True)
def arange(node: Node) -> Any:
    """From, to and in steps of."""
    known = next((each.dtype for place in range(3) if (each := node.constant(place)) is not None), None)

    def run(start: float, end: float, step: float) -> Tensor:
        whole = all(isinstance(each, int) for each in (start, end, step))
        return torch.arange(start, end, step, dtype=known or (torch.int64 if whole else torch.float32))

    return run


@operator("EyeLike")
def eye_like(node: Node) -> Any:
    """Ones on a diagonal."""
    kind, k = node.get("dtype"), node.get("k", 0)

    def run(x: Tensor) -> Tensor:
        dtype = x.dtype if kind is None else ELEMENTS[kind]
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
        hit: Tensor = columns - k == rows[:, None]
        return hit.to(dtype)

    return run


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Any:
    """Channels to blocks in the plane."""
    block, rows_first = node.get("blocksize"), node.get("mode", "DCR") == "DCR"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if rows_first:
            spread = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            spread = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return spread.reshape(n, c // block**2, h * block, w * block)

    return run


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Any:
    """Blocks in the plane to channels."""
    block, rows_first = node.get("blocksize"), node.get("mode", "DCR") == "DCR"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        spread = x.reshape(n, c, h // block, block, w // block, block)
        spread = spread.permute(0, 3, 5, 1, 2, 4) if rows_first else spread.permute(0, 1, 3, 5, 2, 4)
        return spread.reshape(n, c * block**2, h // block, w // block)

    return run


@operator("Trilu", numbers=[1])
def trilu(node: Node) -> Any:
    """One side of a diagonal."""
    keep = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=0: keep(x, k[0] if isinstance(k, list) else k or 0)
