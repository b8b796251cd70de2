"""Places guessed from the ones around them, in any number of dimensions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Solve = Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.float64]]

EXACT = 1e-10
"""Of the right side: what the solution of conjugate gradients may miss."""
BAND = 1 << 24
"""Numbers of a band (128 MiB), which beats a sparse factor up to there: always for 224 x 224."""


SIDE_BY_SIDE = 8
"""Rows that are solved at once, at most: each has a band of its own in memory."""


def impute(x: Tensor, removed: Tensor) -> Tensor:
    """``x`` (row, channel, *s) in float64 with each place of ``removed`` (row, *s) the weighted mean of its neighbours.

    x_i = sum_j w_ij x_j / sum_j w_ij over the neighbours j of i within the input, w_ij = 2^-|i-j| / (2^d - 1), |i-j|
    the number of axes along which they differ by one: in two dimensions 1/6 beside and 1/12 across, as published. Along
    a line that is the straight line between the nearest places that are kept. Where nothing is kept all is the
    channel's mean.

    The system is symmetric, and positive as long as anything is kept. In two dimensions it is factored, once for all
    channels (SciPy), as a band; in more a factor would fill up (75 s for 16 x 64 x 64), and conjugate gradients solve
    all rows side by side, each until it is done, whatever the others do.
    """
    gone = removed.unsqueeze(1)
    mean = x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    known = (x - mean).masked_fill(gone, 0)  # so that where all is gone, 0 is the solution
    if x.ndim == 3:
        found = _each(_line, known, removed)
    elif x.ndim == 4 and x.device.type == "cpu" and _scipy():
        found = _each(_factored, around(known), removed)
    else:
        found = known + _iterated(around(known) * gone, gone)
    result: Tensor = (mean + found).where(gone, x)
    return result


def around(u: Tensor) -> Tensor:
    """sum_j w_ij u_j over the neighbours of each place of (row, channel, *s); beyond the edge is nothing."""
    total = u
    for axis in range(2, u.ndim):
        wider, size = total.clone(), u.shape[axis] - 1
        wider.narrow(axis, 1, size).add_(total.narrow(axis, 0, size), alpha=0.5)
        wider.narrow(axis, 0, size).add_(total.narrow(axis, 1, size), alpha=0.5)
        total = wider
    found: Tensor = (total - u) / ((1 << (u.ndim - 2)) - 1)
    return found


@lru_cache(8)
def _weights(sizes: tuple[int, ...]) -> Tensor:
    """The sum of each place's weights."""
    import torch

    return around(torch.ones(1, 1, *sizes, dtype=torch.float64))


def _iterated(right: Tensor, gone: Tensor) -> Tensor:
    """The u on the removed places with s u - around(u) = ``right`` there, s the sum of a place's weights."""
    s = _weights(gone.shape[2:]).to(right.device)
    inverse = gone / s.clamp(min=1e-300)  # s is 0 for an input of one place only
    u, rest = right.new_zeros(right.shape), right
    goal = _dot(right, right) * EXACT**2
    along = inverse * rest
    power = _dot(rest, along)
    for _ in range(10 * right[0, 0].numel()):
        unsolved = _dot(rest, rest) > goal
        if not unsolved.any():
            break
        image = gone * (s * along - around(along))
        step = unsolved * power / _dot(along, image).clamp(min=1e-300)
        u, rest = u + step * along, rest - step * image
        smooth = inverse * rest
        before, power = power, _dot(rest, smooth)
        along = smooth + power / before.clamp(min=1e-300) * along
    return u


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """Of each row and channel."""
    return (u * v).flatten(2).sum(2).reshape(*u.shape[:2], *[1] * (u.ndim - 2))


def _each(solve: Solve, given: Tensor, removed: Tensor) -> Tensor:
    """Each row by NumPy, some side by side; those where all or nothing goes stay as they are."""
    import torch

    found = given.cpu().numpy().copy()

    def fill(row: NDArray[np.float64], gone: NDArray[np.bool_]) -> None:
        if gone.any() and not gone.all():
            row[:, gone] = solve(row, gone)

    with _one_thread(), ThreadPoolExecutor(min(torch.get_num_threads(), SIDE_BY_SIDE)) as pool:
        for _ in pool.map(fill, found, removed.cpu().numpy()):
            pass
    return torch.from_numpy(found).to(given.device)


def _line(known: NDArray[np.float64], gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The removed values (channel, k) of (channel, place)."""
    import numpy as np

    kept = np.flatnonzero(~gone)
    return np.stack([np.interp(np.flatnonzero(gone), kept, line[kept]) for line in known])


def _factored(right: NDArray[np.float64], gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The u (channel, k) on the removed places with s u - around(u) = ``right`` (channel, *s) there."""
    import numpy as np
    from scipy.linalg import solveh_banded
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    lines, length = gone.shape
    if length > lines:  # the band is as wide as a line is long
        solved = np.empty_like(right)
        solved.swapaxes(1, 2)[:, gone.T] = _factored(right.swapaxes(1, 2), gone.T)
        return solved[:, gone]
    count = int(gone.sum())
    numbers = np.full((lines + 1, length + 2), -1)  # a frame where nothing is removed, below and beside
    numbers[:-1, 1:-1][gone] = np.arange(count)
    places, numbers = np.flatnonzero(numbers >= 0), numbers.ravel()
    below, columns, weights = [], [], []
    for step, weight in ((1, 2), (length + 1, 1), (length + 2, 2), (length + 3, 1)):
        near = numbers[places + step]
        inside = np.flatnonzero(near >= 0)
        below.append(near[inside] - inside)
        columns.append(inside)
        weights.append(np.full(len(inside), -weight / 12))
    down, column, entries = np.concatenate(below), np.concatenate(columns), np.concatenate(weights)
    wide = int(down.max(initial=0)) + 1
    own = _weights((lines, length)).numpy()[0, 0][gone]
    if wide * count <= BAND:
        band = np.zeros((wide, count))
        band[0] = own
        band[down, column] = entries
        answer: NDArray[np.float64] = solveh_banded(
            band, right[:, gone].T, lower=True, overwrite_ab=True, overwrite_b=True, check_finite=False
        )
        return answer.T
    half = coo_array((entries, (down + column, column)), shape=(count, count))
    both = (half + half.T + coo_array((own, (np.arange(count),) * 2), shape=(count, count))).tocsc()
    factors = splu(both, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    answer = factors.solve(right[:, gone].T)
    return answer.T


def _one_thread() -> AbstractContextManager[Any]:
    """A band is factored in small pieces: several threads of BLAS only wait for each other, up to ten times as long."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


@cache
def _scipy() -> bool:
    return find_spec("scipy") is not None
