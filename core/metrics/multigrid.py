"""Places that are the weighted mean of their neighbours, found by conjugate gradients and multigrid in any dimensions.

The system is c u - blurred(u) = 0 on the places that are sought, c = blurred(1); the others are given. It is symmetric,
and positive as long as anything is given. A cycle through ever coarser grids (Briggs, Henson and McCormick, A Multigrid
Tutorial, 2000) is the preconditioner: some 10 steps for any picture, where conjugate gradients alone take hundreds to
cross a large hole. A coarse place is sought where all the places in it are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SINGLE, DOUBLE = (1e-4, 1e-3), (1e-4, 1e-4, 1e-4)
"""What is left of the error after each turn, for inputs in single and in double precision.

A turn runs in single precision, on what the turns before it left over, which is taken in double precision.
"""
STEP = 4 / 3
"""Over c: of all that a coarser grid cannot see, whose part in what is left is c / 2 to c, a third stays."""
COARSEST = 200
"""Places of a grid that is solved at once."""


def blurred(u: Tensor) -> Tensor:
    """sum_j 2^-|i-j| u_j over each place i of (row, channel, *s) and its neighbours j; beyond the edge is nothing.

    |i-j| is the number of axes along which they differ by one.
    """
    for axis in range(2, u.ndim):
        wider, size = u.clone(), u.shape[axis] - 1
        wider.narrow(axis, 1, size).add_(u.narrow(axis, 0, size), alpha=0.5)
        wider.narrow(axis, 0, size).add_(u.narrow(axis, 1, size), alpha=0.5)
        u = wider
    return u


@lru_cache(64)
def weights(sizes: tuple[int, ...]) -> Tensor:
    """Of each place, the c of the system: (1, 1, *s) in float64."""
    import torch

    return blurred(torch.ones(1, 1, *sizes, dtype=torch.float64))


def mean_of_neighbours(known: Tensor, gone: Tensor, turns: Sequence[float]) -> Tensor:
    """``known`` (row, channel, *s) in float64, 0 where ``gone`` (row, 1, *s), with those places filled."""
    cycle = Cycle(gone.float())
    c, u = weights(known.shape[2:]).to(known.device), known
    for turn in turns:
        rest = gone * (blurred(u) - c * u)
        # Rows are independent, whatever their range; single precision ends at 1e-38.
        scale = rest.abs().flatten(2).amax(2).clamp(min=1e-300).reshape(*rest.shape[:2], *[1] * (rest.ndim - 2))
        u = u + scale * _solved(cycle, (rest / scale).float(), turn)
    return u


def _solved(cycle: Cycle, rest: Tensor, exact: float) -> Tensor:
    """The u with c u - blurred(u) = ``rest`` where it is sought, to within ``exact`` of its energy.

    Each row and channel goes on until it is done, whatever the others do.
    """
    u, along = rest.new_zeros(rest.shape), cycle(rest)
    power = _dot(rest, along)
    goal = power * exact**2
    for _ in range(10 * rest[0, 0].numel()):
        unsolved = power > goal
        if not unsolved.any():
            break
        taken = cycle.left(0, along).mul_(cycle.sought)
        step = unsolved * power / -_dot(along, taken).clamp(max=-1e-30)
        u.addcmul_(step, along)
        rest = rest.addcmul(step, taken)
        smooth = cycle(rest)
        before, power = power, _dot(rest, smooth)
        along.mul_(power / before.clamp(min=1e-30)).add_(smooth)
    return u


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """Of each row and channel."""
    return (u * v).flatten(2).sum(2).reshape(*u.shape[:2], *[1] * (u.ndim - 2))


class Cycle:
    """What nearly solves for a rest: a step on this grid, what is left from the coarser one, and a step again."""

    def __init__(self, sought: Tensor) -> None:
        self.sought = sought
        self.c = weights(sought.shape[2:]).to(sought)
        self._step = STEP * sought / self.c
        small = sought[0].numel() <= COARSEST
        self._inverse = _inverse(sought) if small else sought
        self._coarser = None if small else Cycle(_coarse(sought))
        # The mean of what is left, by the same stencil where places are twice as far apart.
        self._scale = 4 / 2 ** sum(size > 1 for size in sought.shape[2:])

    def __call__(self, rest: Tensor) -> Tensor:
        """The u of a ``rest`` (row, channel, *s), nearly."""
        if self._coarser is None:
            return (rest.flatten(2) @ self._inverse).reshape(rest.shape)
        u = self._step * rest
        left = self.left(rest, u).mul_(self.sought)
        u.addcmul_(self.sought, _fine(self._coarser(_sums(left) * self._scale), u.shape))
        return u.addcmul_(self._step, self.left(rest, u))

    def left(self, rest: Tensor | float, u: Tensor) -> Tensor:
        """``rest`` - (c u - blurred(u)), at places that are not sought too."""
        return blurred(u).addcmul_(self.c, u, value=-1).add_(rest)


def _inverse(sought: Tensor) -> Tensor:
    """Of the whole system of a small grid, (row, place, place); 0 for what is not sought."""
    import torch

    flat = sought.flatten(1).double()
    among = flat[:, :, None] * flat[:, None, :]
    whole = _system(sought.shape[2:]).to(flat) * among + torch.diag_embed(1 - flat)
    # Where all is sought the system is singular, and its rest 0.
    whole = whole + 1e-9 * torch.eye(flat.shape[1]).to(flat)
    return (torch.cholesky_inverse(torch.linalg.cholesky(whole)) * among).to(sought)


@lru_cache(8)
def _system(sizes: tuple[int, ...]) -> Tensor:
    import torch

    places = weights(sizes).numel()
    each = torch.eye(places, dtype=torch.float64).reshape(places, 1, *sizes)
    return (weights(sizes) * each - blurred(each)).reshape(places, places)


def _paired(u: Tensor, axis: int, beyond: float) -> tuple[Tensor, Tensor]:
    """The first and the second of each two places; where they are odd, the last is alone with what is ``beyond``."""
    from torch.nn.functional import pad

    if u.shape[axis] % 2:
        u = pad(u, (*[0] * (2 * (u.ndim - axis) - 1), 1), value=beyond)
    pairs = u.reshape(*u.shape[:axis], -1, 2, *u.shape[axis + 1 :])
    return pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)


def _coarse(sought: Tensor) -> Tensor:
    for axis in range(2, sought.ndim):
        first, second = _paired(sought, axis, beyond=1)
        sought = first * second
    return sought


def _sums(u: Tensor) -> Tensor:
    """The transpose of `_fine`."""
    for axis in range(2, u.ndim):
        first, second = _paired(u, axis, beyond=0)
        size = first.shape[axis] - 1
        sums = (first + second).mul_(0.75)
        sums.narrow(axis, 0, size).add_(first.narrow(axis, 1, size), alpha=0.25)
        sums.narrow(axis, 1, size).add_(second.narrow(axis, 0, size), alpha=0.25)
        sums.narrow(axis, 0, 1).add_(first.narrow(axis, 0, 1), alpha=0.25)
        sums.narrow(axis, size, 1).add_(second.narrow(axis, size, 1), alpha=0.25)
        u = sums
    return u


def _fine(u: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear between the middles of coarse places, the same beyond the outermost."""
    import torch

    for axis in range(2, u.ndim):
        size = u.shape[axis] - 1
        near, far = u * 0.75, u * 0.25
        first, second = near.clone(), near
        first.narrow(axis, 1, size).add_(far.narrow(axis, 0, size))
        first.narrow(axis, 0, 1).add_(far.narrow(axis, 0, 1))
        second.narrow(axis, 0, size).add_(far.narrow(axis, 1, size))
        second.narrow(axis, size, 1).add_(far.narrow(axis, size, 1))
        u = torch.stack((first, second), axis + 1).flatten(axis, axis + 1).narrow(axis, 0, shape[axis])
    return u
