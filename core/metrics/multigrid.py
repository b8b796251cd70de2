"""Places that are the weighted mean of their neighbours, found by conjugate gradients and multigrid in any dimensions.

The system is c u - blurred(u) = 0 on the places that are sought, c = blurred(1); the others are given. It is symmetric,
and positive as long as anything is given. A cycle through ever coarser grids (Briggs, Henson and McCormick, A Multigrid
Tutorial, 2000) is the preconditioner: some 10 steps for any picture, where conjugate gradients alone take hundreds to
cross a large hole.

Numbers lie as (*s, lane), a lane being one channel of one row: neighbours along any axis are then long runs in memory,
and a step of a grid is a few passes over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SINGLE, DOUBLE = (1e-4, 1e-3), (1e-4, 1e-4, 1e-4)
"""What is left of the error after each turn, for inputs in single and in double precision.

A turn runs in single precision, on what the turns before it left over, which is taken in double precision.
"""
BLUR, HALF = (0.5, 1.0, 0.5), (0.25, 0.75, 0.75, 0.25)
"""Weights along each axis: of the neighbours, and of the places of twice as fine a grid."""
STEP = 4 / 3
"""Over c: of all that a coarser grid cannot see, whose part in what is left is c / 2 to c, a third stays."""
HELD = 16
"""Times the part that is not sought over the part that is, of a coarse place: of those tried 16 to 32 are best."""
COARSEST = 200
"""Places of a grid that is solved at once."""


def blurred(u: Tensor, axes: Sequence[int]) -> Tensor:
    """sum_j 2^-|i-j| u_j over each place i along ``axes`` and its neighbours j; beyond the edge is nothing.

    |i-j| is the number of axes along which they differ by one.
    """
    import torch

    if _convolved(u, axes):
        return _depthwise(u, BLUR)
    for axis in axes:
        wider, size = torch.empty_like(u), u.shape[axis] - 1
        wider.narrow(axis, 0, 1).copy_(u.narrow(axis, 0, 1))
        torch.add(u.narrow(axis, 1, size), u.narrow(axis, 0, size), alpha=0.5, out=wider.narrow(axis, 1, size))
        wider.narrow(axis, 0, size).add_(u.narrow(axis, 1, size), alpha=0.5)
        u = wider
    return u


@lru_cache(64)
def weights(sizes: tuple[int, ...]) -> Tensor:
    """Of each place, the c of the system: (*s) in float64."""
    import torch

    return blurred(torch.ones(sizes, dtype=torch.float64), range(len(sizes)))


def mean_of_neighbours(known: Tensor, gone: Tensor, turns: Sequence[float]) -> Tensor:
    """``known`` (row, channel, *s) in float64, 0 where ``gone`` (row, *s), with those places filled."""
    import torch

    with torch.inference_mode():
        channels, *sizes = known.shape[1:]
        u = known.flatten(0, 1).movedim(0, -1).clone(memory_format=torch.contiguous_format)
        sought = gone.movedim(0, -1).repeat_interleave(channels, -1)
        cycle, c = Cycle(sought.float(), channels), weights(tuple(sizes)).to(u)[..., None]
        for turn in turns:
            rest = blurred(u, range(len(sizes))).addcmul_(c, u, value=-1).mul_(sought)
            # Lanes are independent, whatever their range; single precision ends at 1e-38.
            scale = _lines(_over(torch.amax, rest.abs()).clamp(min=1e-300), u)
            u.addcmul_(scale, _solved(cycle, rest.div_(scale).float(), turn).double())
        found = u.movedim(-1, 0).reshape(known.shape)
    return found.clone()


def _solved(cycle: Cycle, rest: Tensor, exact: float) -> Tensor:
    """The u with c u - blurred(u) = ``rest`` where it is sought, to within ``exact`` of its energy.

    Each lane goes on until it is done, whatever the others do.
    """
    u, rest, along = rest.new_zeros(rest.shape), rest.clone(), cycle(rest)
    power = _dot(rest, along)
    goal = power * exact**2
    for _ in range(10 * rest[..., 0].numel()):
        unsolved = power > goal
        if not unsolved.any():
            break
        change = cycle.change(along)
        step = _lines(unsolved * power / -_dot(along, change).clamp(max=-1e-30), u)
        u.addcmul_(step, along)
        rest.addcmul_(step, change)
        smooth = cycle(rest)
        before, power = power, _dot(rest, smooth)
        along = along.mul_(_lines(power / before.clamp(min=1e-30), u)).add_(smooth)
    return u


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """Of each lane."""
    import torch

    return _over(torch.sum, u * v)


def _over(what: Callable[..., Tensor], u: Tensor) -> Tensor:
    """``what`` of each lane, axis by axis: by long runs."""
    for _ in range(u.ndim - 1):
        u = what(u, 0)
    return u


def _lines(lanes: Tensor, like: Tensor) -> Tensor:
    """A number of each lane, said again for each place of the last axis: long runs once more."""
    return lanes.expand(like.shape[-2:]).contiguous()


class Cycle:
    """What nearly solves for a rest, on this grid and ever coarser ones.

    ``share`` (*s, lane) is how much of each place is sought, the same for each ``channels`` lanes: all or nothing on
    the finest grid. On a coarser one it is sought from half up, and held fast by the rest of it.
    """

    def __init__(self, share: Tensor, channels: int) -> None:
        self.sizes = sizes = share.shape[:-1]
        self.axes, self.channels = range(len(sizes)), channels
        self.sought = (share >= 0.5).to(share)
        self.c = weights(tuple(sizes)).to(share)[..., None] + HELD * (1 / share.clamp(min=0.5) - 1)
        self._step = STEP * self.sought / self.c
        self._open = self.sought * _outermost(tuple(sizes)).to(share)
        small = sizes.numel() <= COARSEST
        self._inverse = _inverse(self.sought[..., ::channels], self.c[..., ::channels]) if small else share
        self._coarser = None if small else Cycle(_means(share), channels)
        # The mean of what is left, by the same stencil where places are twice as far apart.
        self._scale = 4 / 2 ** sum(size > 1 for size in sizes)

    def __call__(self, rest: Tensor) -> Tensor:
        """The u of a ``rest``, nearly: a step on this grid and what coarser ones find, side by side.

        On the finest grid, which takes most of the time, that is half the work of `_cycled`, and nearly as good.
        """
        if self._coarser is None:
            return self._cycled(rest)
        return (self._step * rest).addcmul_(self._open, self._found(rest * self._open))

    def change(self, u: Tensor) -> Tensor:
        """What ``u`` adds to a rest: blurred(u) - c u where it is sought."""
        return blurred(u, self.axes).addcmul_(self.c, u, value=-1).mul_(self.sought)

    def _found(self, rest: Tensor) -> Tensor:
        """By the coarser grid."""
        assert self._coarser is not None  # noqa: S101
        return _between(self._coarser._cycled(_sums(rest).mul_(self._scale)), self.sizes)

    def _cycled(self, rest: Tensor) -> Tensor:
        """A step on this grid, what the coarser one finds for what that leaves, and a step again."""
        if self._coarser is None:
            lanes = rest.reshape(-1, rest.shape[-1] // self.channels, self.channels).transpose(0, 1)
            return (self._inverse @ lanes).transpose(0, 1).reshape(rest.shape)
        u = self._step * rest
        left = blurred(u, self.axes).add_(rest, alpha=1 - STEP).mul_(self._open)  # as c u = STEP rest
        u.addcmul_(self._open, self._found(left))
        return u.mul(1 - STEP).addcmul_(self._step, blurred(u, self.axes).add_(rest))


def _inverse(sought: Tensor, c: Tensor) -> Tensor:
    """Of the whole system of a small grid (*s, row), (row, place, place); 0 for what is not sought."""
    import torch

    flat, c = (each.flatten(0, -2).T.double() for each in (sought, c))
    among = flat[:, :, None] * flat[:, None, :]
    # Where all is sought the system is singular, and its rest 0.
    whole = torch.diag_embed(flat * c + 1 - flat + 1e-9) - _blur(tuple(sought.shape[:-1])).to(flat) * among
    return (torch.cholesky_inverse(torch.linalg.cholesky(whole)) * among).to(sought)


@lru_cache(8)
def _blur(sizes: tuple[int, ...]) -> Tensor:
    """`blurred` as a matrix."""
    import torch

    each = torch.eye(math.prod(sizes), dtype=torch.float64).reshape(*sizes, -1)
    return blurred(each, range(len(sizes))).flatten(0, -2)


def _paired(u: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first and the second of each two places; where they are odd, the last is alone."""
    before = (slice(None),) * axis
    return u[(*before, slice(0, None, 2))], u[(*before, slice(1, None, 2))]


def _means(u: Tensor) -> Tensor:
    """Of each two places along each axis; of one, where there is no second."""
    for axis in range(u.ndim - 1):
        first, second = _paired(u, axis)
        u = first.clone()
        u.narrow(axis, 0, second.shape[axis]).lerp_(second, 0.5)
    return u


def _sums(u: Tensor) -> Tensor:
    """The transpose of `_between`."""
    axes = range(u.ndim - 1)
    if _convolved(u, axes) and all(size % 2 == 0 for size in u.shape[:2]):
        return _depthwise(u, HALF, 2)
    for axis in axes:
        first, second = _paired(u, axis)
        size, pairs = first.shape[axis] - 1, second.shape[axis]
        sums = first * 0.75
        sums.narrow(axis, 0, pairs).add_(second, alpha=0.75)
        sums.narrow(axis, 0, size).add_(first.narrow(axis, 1, size), alpha=0.25)
        sums.narrow(axis, 1, size).add_(second.narrow(axis, 0, size), alpha=0.25)
        u = sums
    return u


def _between(u: Tensor, sizes: Sequence[int]) -> Tensor:
    """On a grid of ``sizes`` linear between the middles of coarse places; beyond the outermost is nothing."""
    import torch

    axes = range(u.ndim - 1)
    if _convolved(u, axes) and all(size % 2 == 0 for size in sizes):
        return _depthwise(u, HALF, 2, transposed=True)
    for axis in axes:
        size = u.shape[axis] - 1
        fine = u.new_empty((*u.shape[:axis], sizes[axis], *u.shape[axis + 1 :]))
        first, second = _paired(fine, axis)
        torch.mul(u, 0.75, out=first)
        torch.mul(u.narrow(axis, 0, second.shape[axis]), 0.75, out=second)
        first.narrow(axis, 1, size).add_(u.narrow(axis, 0, size), alpha=0.25)
        second.narrow(axis, 0, size).add_(u.narrow(axis, 1, size), alpha=0.25)
        u = fine
    return u


@lru_cache(64)
def _outermost(sizes: tuple[int, ...]) -> Tensor:
    """What makes `_between` the same beyond the outermost of the coarse places: (*s, 1) in float64."""
    import torch

    coarse = torch.ones(*((size + 1) // 2 for size in sizes), 1, dtype=torch.float64)
    return 1 / _between(coarse, sizes)


def _convolved(u: Tensor, axes: Sequence[int]) -> bool:
    """Whether oneDNN does in one pass over a picture what takes many along its axes one after the other."""
    import torch

    return u.ndim == 3 and len(axes) == 2 and u.dtype == torch.float32 and u.device.type == "cpu"


def _depthwise(u: Tensor, line: tuple[float, ...], stride: int = 1, *, transposed: bool = False) -> Tensor:
    """Each lane of (height, width, lane) with ``line`` along both axes; beyond the edge is nothing."""
    import torch
    from torch.nn.functional import conv2d, conv_transpose2d

    lanes, along = u.shape[2], torch.tensor(line)
    picture, kernel = u[None].permute(0, 3, 1, 2), torch.outer(along, along).expand(lanes, 1, -1, -1).contiguous()
    change = conv_transpose2d if transposed else conv2d
    return change(picture, kernel, padding=1, stride=stride, groups=lanes)[0].permute(1, 2, 0)
