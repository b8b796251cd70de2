"""Places guessed from the ones around them, in any number of dimensions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .multigrid import DOUBLE, SINGLE, blurred, mean_of_neighbours, weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

NARROW = 96
"""Places of the shorter side of a picture whose band is factored sooner than multigrid is done."""
BAND = 1 << 22
"""Numbers of the bands that are factored in one go (32 MiB)."""
CACHED = 3 << 19
"""Numbers of the rows that run through multigrid together on a CPU: what stays in its cache."""


def impute(x: Tensor, removed: Tensor) -> Tensor:
    """``x`` (row, channel, *s) in float64 with each place of ``removed`` (row, *s) the weighted mean of its neighbours.

    x_i = sum_j w_ij x_j / sum_j w_ij over the neighbours j of i within the input, w_ij = 2^-|i-j|, |i-j| the number of
    axes along which they differ by one: in two dimensions 1/6 beside and 1/12 across, as published. Along a line that
    is the straight line between the nearest places that are kept. Where nothing is kept all is the channel's mean.

    Small pictures are factored (SciPy); all else is iterated, float32 inputs to within 1e-6 of their range, float64
    ones to within 1e-9. Source: Rong et al. 2022, the noisy linear imputation without its noise.
    """
    import torch

    gone, turns = removed.unsqueeze(1), DOUBLE if x.dtype == torch.float64 else SINGLE
    x = x.double()
    mean = x.flatten(2).mean(2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    known = (x - mean).masked_fill(gone, 0)  # so that where all is gone, 0 is the solution
    if x.ndim == 3:
        found = _lines(known, removed)
    elif x.ndim == 4 and min(x.shape[2:]) <= NARROW and x.device.type == "cpu" and _scipy():
        found = _factored(known, removed)
    else:
        rows = max(1, CACHED // x[0].numel()) if x.device.type == "cpu" else len(x)
        parts = [slice(start, start + rows) for start in range(0, len(x), rows)]
        found = torch.cat([mean_of_neighbours(known[part], removed[part], turns) for part in parts])
    return found.add_(mean).where(gone, x)


def _lines(known: Tensor, removed: Tensor) -> Tensor:
    """The removed places of (row, channel, place) on straight lines."""
    import numpy as np
    import torch

    found = known.cpu().numpy().copy()
    for row, gone in zip(found, removed.cpu().numpy(), strict=True):
        if gone.any() and not gone.all():
            kept = np.flatnonzero(~gone)
            row[:, gone] = [np.interp(np.flatnonzero(gone), kept, line[kept]) for line in row]
    return torch.from_numpy(found).to(known.device)


def _factored(known: Tensor, removed: Tensor) -> Tensor:
    """As many rows in one go as fit `BAND`."""
    import numpy as np
    import torch

    if known.shape[3] > known.shape[2]:  # the band is as wide as a line is long
        return _factored(known.transpose(2, 3), removed.transpose(1, 2)).transpose(2, 3)
    some = ~removed.flatten(1).all(1)  # elsewhere 0 is the solution, and the system is singular
    places = removed[0].numel() * (removed.shape[2] + 2)
    known = known.contiguous(memory_format=torch.channels_last)  # the channels of a place are taken together
    gone, rows = (removed & some[:, None, None]).numpy(), max(1, BAND // places)
    values, right = (each.permute(0, 2, 3, 1).numpy() for each in (known, blurred(known, (2, 3))))
    with _one_thread():
        for start in range(0, len(gone), rows):
            part = slice(start, start + rows)
            if len(at := np.flatnonzero(gone[part])):
                flat = right[part].reshape(-1, right.shape[3])
                values[part].reshape(flat.shape)[at] = _banded(flat[at], at, gone[part].shape)
    return known


def _banded(right: NDArray[np.float64], at: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The u (place, channel) of the places ``at`` of (row, line, length), in one band: rows do not touch."""
    import numpy as np
    from scipy.linalg import solveh_banded

    rows, lines, length = shape
    row, line, place = np.unravel_index(at, shape)
    framed = (row * (lines + 1) + line) * (length + 1) + place + 1  # where nothing is removed, below and beside
    numbers = np.full(rows * (lines + 1) * (length + 1) + length + 2, -1)
    numbers[framed] = np.arange(len(at))
    diagonals = []
    for step, weight in ((1, 0.5), (length, 0.25), (length + 1, 0.5), (length + 2, 0.25)):
        near = numbers[framed + step]
        first = np.flatnonzero(near >= 0)
        diagonals.append((first, near[first], -weight))
    wide = 1 + max(int((second - first).max(initial=0)) for first, second, _ in diagonals)
    band = np.zeros((len(at), wide))  # its transpose is laid out as LAPACK wants it
    band[:, 0] = weights(shape[1:]).numpy().ravel()[at % (lines * length)] - 1
    for first, second, entry in diagonals:
        band.reshape(-1)[first * (wide - 1) + second] = entry
    solved: NDArray[np.float64] = solveh_banded(
        band.T, right, lower=True, overwrite_ab=True, overwrite_b=True, check_finite=False
    )
    return solved


def _one_thread() -> AbstractContextManager[Any]:
    """A band is factored in small pieces: several threads of BLAS only wait for each other, up to ten times as long."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    limits: AbstractContextManager[Any] = _threads().limit(limits=1, user_api="blas")
    return limits


@cache
def _threads() -> Any:
    import scipy.linalg  # noqa: F401  (its BLAS is to be there when looked for)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _scipy() -> bool:
    return find_spec("scipy") is not None
