"""Which samples are shown where not all of them fit on a page."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(groups: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """``limit`` rows, rising: as many of each group as of any other, while it has some; evenly spaced within a group.

    ``groups`` (N, k) says what a row belongs to. The choice depends on nothing else, so it is the same every time.
    """
    if len(groups) <= limit:
        return np.arange(len(groups))
    _, member, sizes = np.unique(groups, axis=0, return_inverse=True, return_counts=True)
    quotas = shares(sizes, limit)
    members = np.split(np.argsort(member.reshape(-1), kind="stable"), np.cumsum(sizes)[:-1])
    chosen = [rows[(2 * np.arange(q) + 1) * len(rows) // (2 * q)] for rows, q in zip(members, quotas, strict=True) if q]
    return np.sort(np.concatenate(chosen))


def shares(sizes: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """How many each group gives: min(size, level), the same level for all; what is left over goes to the largest."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:  # the highest level that is not too high
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= limit else (low, middle - 1)
    quotas = np.minimum(sizes, low)
    larger = np.argsort(-sizes, kind="stable")[: int((sizes > low).sum())]
    quotas[larger[: limit - int(quotas.sum())]] += 1
    return quotas
