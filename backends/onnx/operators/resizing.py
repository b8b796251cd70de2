"""Resizing: along each axis a matrix, so that every mode is exact and linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..graph import Node, Unsupported
from ..registry import operator

Floats = NDArray[np.float64]
LARGEST = 2**26
"""Elements of a matrix."""


@dataclass(frozen=True)
class Manner:
    """How values between the points of a grid are found."""

    mode: str
    places: str
    """Where the points of the result lie on the input's axis."""
    nearest: str
    cubic: float
    antialias: bool
    exclude: bool
    """Whether points outside count for nothing, not as the edge does."""
    extrapolation: float

    @classmethod
    def of(cls, node: Node) -> Manner:
        """As the attributes say; ``Upsample``, and ``Resize`` before opset 11, are asymmetric."""
        old = node.op == "Upsample" or node.version < 11
        mode = {"bilinear": "linear", "trilinear": "linear"}.get(
            node.get("mode", "nearest"), node.get("mode", "nearest")
        )
        return cls(
            mode,
            "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel"),
            "floor" if old else node.get("nearest_mode", "round_prefer_floor"),
            node.get("cubic_coeff_a", -0.75),
            bool(node.get("antialias", 0)),
            bool(node.get("exclude_outside", 0)),
            node.get("extrapolation_value", 0.0),
        )

    def at(self, length: int, count: int, scale: float, roi: tuple[float, float]) -> Floats:
        """Where the ``count`` points lie, in units of the input's."""
        i, full = np.arange(count, dtype=np.float64), scale * length
        match self.places:
            case "half_pixel":
                return (i + 0.5) / scale - 0.5
            case "half_pixel_symmetric":
                return length / 2 * (1 - count / full) + (i + 0.5) / scale - 0.5
            case "pytorch_half_pixel":
                return (i + 0.5) / scale - 0.5 if full > 1 else i * 0 - 0.5
            case "align_corners":
                return i * 0 if full == 1 else i * (length - 1) / (full - 1)
            case "asymmetric":
                return i / scale
            case "tf_half_pixel_for_nn":
                return (i + 0.5) / scale
            case "tf_crop_and_resize":
                start, end = roi
                step = (end - start) * (length - 1)
                return start * (length - 1) + (i * step / (full - 1) if full != 1 else i * 0 + step / 2)
        raise Unsupported(f"Resize with coordinates {self.places}")

    def matrix(self, length: int, count: int, scale: float, roi: tuple[float, float] = (0.0, 1.0)) -> Floats:
        """(count, length): what each point of the result is made of."""
        if length * count > LARGEST:
            raise RuntimeError(f"a resizing of {length} points to {count}")
        x = self.at(length, count, scale, roi)
        low = np.floor(x)
        ratio = np.where(x == low, 1.0, x - low)  # of two as near, the left one
        low = np.where(x == low, x - 1, low)
        if self.mode == "nearest":
            up = {
                "round_prefer_floor": ratio > 0.5,
                "round_prefer_ceil": ratio >= 0.5,
                "floor": ratio >= 1,
                "ceil": ratio > 0,
            }
            offsets, weights = np.zeros(1), np.ones((count, 1))
            low = low + up[self.nearest]
        else:
            offsets, weights = self._kernel(ratio, scale)
        points = low[:, None] + offsets
        if self.exclude:
            weights = weights * ((points >= 0) & (points < length))
            weights = weights / weights.sum(1, keepdims=True)
        found = np.zeros((count, length))
        rows = np.broadcast_to(np.arange(count)[:, None], points.shape)
        np.add.at(found, (rows, points.clip(0, length - 1).astype(int)), weights)
        return found

    def _kernel(self, ratio: Floats, scale: float) -> tuple[Floats, Floats]:
        """Offsets from the point to the left, and the weights (count, offset) there."""
        radius = 2 if self.mode == "cubic" else 1
        shrink = min(scale, 1.0) if self.antialias else 1.0
        first = int(np.floor(-radius / shrink)) + 1
        offsets = np.arange(first, 2 - first, dtype=np.float64)
        distance = np.abs(offsets - ratio[:, None]) * shrink
        if self.mode == "linear":
            weights = np.clip(1 - distance, 0, 1)
        elif self.mode == "cubic":
            a, d = self.cubic, distance
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
        else:
            raise Unsupported(f"Resize with mode {self.mode}")
        return offsets, weights / weights.sum(1, keepdims=True) if self.antialias else weights

    def outside(self, length: int, count: int, scale: float, roi: tuple[float, float]) -> NDArray[np.bool_] | None:
        """Points for which there is only the extrapolation value."""
        if self.places != "tf_crop_and_resize":
            return None
        x = self.at(length, count, scale, roi)
        found = (x < 0) | (x > length - 1)
        return found if found.any() else None


@operator("Resize", numbers=[1, 2, 3])
def resize(node: Node) -> Any:
    """To sizes, or by factors."""
    if node.version < 11:
        return _resizer(node, lambda given: (None, given[0], None))
    return _resizer(node, lambda given: (*given, None, None, None)[:3])


@operator("Upsample", numbers=[1])
def upsample(node: Node) -> Any:
    """By factors."""
    own = node.get("scales")
    return _resizer(node, lambda given: (None, given[0] if given else own, None))


def _resizer(node: Node, sorted_out: Any) -> Any:
    manner, named = Manner.of(node), node.get("axes")
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    declared = node.dims(0)
    matrices: dict[tuple[Any, ...], tuple[Tensor, Tensor | None]] = {}

    def matrix(length: int, count: int, scale: float, roi: tuple[float, float]) -> tuple[Tensor, Tensor | None]:
        key = length, count, scale, roi
        if key not in matrices:
            outside = manner.outside(*key)
            matrices[key] = (
                torch.from_numpy(manner.matrix(*key)),
                None if outside is None else torch.from_numpy(outside),
            )
        return matrices[key]

    def run(x: Tensor, *given: Any) -> Tensor:
        roi, scales, sizes = sorted_out(given)
        axes = list(range(x.ndim)) if named is None else [axis % x.ndim for axis in named]
        lengths = [x.shape[axis] for axis in axes]
        if sizes:
            factors = [n / length for n, length in zip(sizes, lengths, strict=True)]
            if policy != "stretch":
                one = min(factors) if policy == "not_larger" else max(factors)
                sizes, factors = [int(one * length + 0.5) for length in lengths], [one] * len(axes)
            elif declared is not None:  # the size of a batch for which the graph was made is no wish
                same = [declared[axis] == n for axis, n in zip(axes, sizes, strict=True)]
                sizes = [length if s else n for s, n, length in zip(same, sizes, lengths, strict=True)]
                factors = [1.0 if s else f for s, f in zip(same, factors, strict=True)]
        else:
            factors, sizes = scales, [math.floor(s * length) for s, length in zip(scales, lengths, strict=True)]
        edges = [(roi[i], roi[len(axes) + i]) for i in range(len(axes))] if roi else [(0.0, 1.0)] * len(axes)
        todo = [
            (axis, n, f, edge)
            for axis, n, length, f, edge in zip(axes, sizes, lengths, factors, edges, strict=True)
            if n != length or f != 1 or (manner.places == "tf_crop_and_resize" and edge != (0.0, 1.0))
        ]
        fast = _as_torch(x, todo, manner)
        if fast is not None:
            return fast
        for axis, n, f, edge in todo:
            weights, outside = matrix(x.shape[axis], n, float(f), edge)
            kind = x.dtype if x.is_floating_point() else torch.float64
            moved = torch.einsum("...i,oi->...o", x.movedim(axis, -1).to(kind), weights.to(x.device, kind))
            moved = moved if outside is None else moved.masked_fill(outside.to(x.device), manner.extrapolation)
            x = moved.to(x.dtype).movedim(-1, axis)
        return x

    return run


def _as_torch(x: Tensor, todo: Sequence[tuple[int, int, float, Any]], manner: Manner) -> Tensor | None:
    """By torch's own function where that is the same, as it mostly is; it is faster."""
    if not 3 <= x.ndim <= 5 or any(axis < 2 for axis, *_ in todo) or not todo or not x.is_floating_point():
        return None
    exact = all(abs(n - f * x.shape[axis]) < 1e-6 for axis, n, f, _ in todo)
    sizes = [*x.shape[2:]]
    for axis, n, *_ in todo:
        sizes[axis - 2] = n
    if manner.antialias or manner.exclude or not exact:
        return None
    if manner.mode == "nearest" and manner.places == "asymmetric" and manner.nearest == "floor":
        whole = all(n % x.shape[axis] == 0 for axis, n, *_ in todo)
        return F.interpolate(x, sizes, mode="nearest") if whole else None
    aligned = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}.get(manner.places)
    if manner.mode != "linear" or aligned is None or 1 in sizes:
        return None
    return F.interpolate(x, sizes, mode=("linear", "bilinear", "trilinear")[x.ndim - 3], align_corners=aligned)
