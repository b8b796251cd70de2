"""Linear resampling of a regular grid, of any rank: the only resampling in the project."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = TypeVar("Array")
"""A numpy array or a torch tensor. Torch is never imported here: what is done to both is indexing and arithmetic."""


def resize(array: Array, size: Sequence[int], antialias: bool = False) -> Array:
    """``array`` (..., *old) on a grid of ``size``, over its trailing ``len(size)`` axes, linear along each.

    Pixel j of m stands for the interval [j, j + 1) / m: half-pixel centres, ``align_corners=False``. With ``antialias``
    the triangle is widened to the new pixel's size where the grid shrinks, as Pillow's BILINEAR and torch's
    ``interpolate(antialias=True)`` do. What lies beyond the edge has no weight.

    Floats keep their type, whole numbers become float32; equal sizes are returned as they came, without a copy.
    """
    values: Any = array
    numpy = isinstance(array, np.ndarray)
    if numpy and values.dtype.kind != "f":
        values = values.astype(np.float32)
    elif not numpy and not values.is_floating_point():
        values = values.float()
    for axis, new in zip(range(-len(size), 0), size, strict=True):
        old = values.shape[axis]
        if old == new:
            continue
        index, weights = taps(old, new, max(1.0, old / new) if antialias else 1.0)
        column = weights.reshape(len(weights), new, *(1,) * (-axis - 1))
        scale = column.astype(values.dtype) if numpy else values.new_tensor(column)
        behind = (slice(None),) * (-axis - 1)
        terms = (values[(..., at, *behind)] * weight for at, weight in zip(index, scale, strict=True))
        values = sum(terms, next(terms))
    result: Array = values
    return result


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
