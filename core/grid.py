"""Linear resampling of a regular grid, of any rank: the only resampling in the project."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK = 2 << 20
"""Bytes that are resampled at once."""
Array = TypeVar("Array")
"""A NumPy array or a torch tensor."""


def resize(array: Array, size: Sequence[int], *, antialias: bool = False) -> Array:
    """``array`` (..., *old) on a grid of ``size``, over its trailing ``len(size)`` axes, linear along each.

    Point j of m stands for the interval [j, j + 1) / m: half-pixel centres, ``align_corners=False``. With ``antialias``
    the triangle is widened to the new point's size where the grid shrinks, as Pillow's BILINEAR does. What lies beyond
    the edge has no weight. Floats keep their type, whole numbers become float32; equal sizes come back as they are.
    Torch tensors go through ``torch.nn.functional.interpolate``, which agrees to the last bits.
    """
    values: Any = array
    if not isinstance(values, np.ndarray):
        return _torch(values, tuple(size), antialias)  # type: ignore[no-any-return]
    if values.dtype.kind != "f":
        values = values.astype(np.float32)
    several = values.ndim > len(size) and len(values) > 1 and values.shape[-len(size) :] != tuple(size)
    if several and values.nbytes > BLOCK:  # piece by piece it stays in the cache
        step = max(1, BLOCK * len(values) // values.nbytes)
        pieces = (resize(values[i : i + step], size, antialias=antialias) for i in range(0, len(values), step))
        result: Any = None
        for i, piece in enumerate(pieces):
            if result is None:
                result = np.empty_like(piece, shape=(len(values), *piece.shape[1:]))
            result[i * step : i * step + len(piece)] = piece
        return result  # type: ignore[no-any-return]
    for axis, new in zip(range(-len(size), 0), size, strict=True):
        old = values.shape[axis]
        if old == new:
            continue
        index, weights = taps(old, new, max(1.0, old / new) if antialias else 1.0)
        scale = weights.reshape(len(weights), new, *(1,) * (-axis - 1)).astype(values.dtype)
        total: Any = 0
        for at, weight in zip(index, scale, strict=True):
            part = values.take(at, axis)
            part *= weight
            total = np.add(part, total, out=part)
        values = total
    return values  # type: ignore[no-any-return]


@lru_cache(64)
def taps(old: int, new: int, width: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which old points make each new one, and their weights, both (K, new), K = ceil(2 width).

    With c = (i + 1/2) old / new - 1/2:  w_ij = max(0, 1 - |j - c_i| / width) / sum over the j of the grid.
    """
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centre - width).astype(np.int64) + 1
    index = first + np.arange(int(np.ceil(2 * width)))[:, None]
    weights = np.maximum(0.0, 1 - np.abs(index - centre) / width) * ((index >= 0) & (index < old))
    return index.clip(0, old - 1), weights / weights.sum(0)


def _torch(tensor: Any, size: tuple[int, ...], antialias: bool) -> Any:
    from torch.nn.functional import interpolate

    leading, old = tensor.shape[: tensor.ndim - len(size)], tuple(tensor.shape[tensor.ndim - len(size) :])
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    if old == size:
        return tensor
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(tensor.reshape(1, -1, *old), size, mode=mode, antialias=antialias).reshape(*leading, *size)
