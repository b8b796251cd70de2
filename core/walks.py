"""Many versions of a batch: along a path, under noise, behind masks. Each goes through the model once for all targets.

Versions are packed: as many of each sample at once as fit into ``chunk`` rows, and always whole ones, so that what is
summed over the versions of a sample never meets another sample.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backend import INPUT
from .errors import RequestError
from .grid import resize
from .outputs import Outputs
from .targets import Resolved

if TYPE_CHECKING:
    from torch import Tensor

    from .backend import Session
    from .domains import Domain


MOST = 1000
"""Steps of Gauss-Legendre, whose nodes are eigenvalues of a matrix of that size."""


@dataclass(frozen=True)
class Walker:
    """Sends versions (k, batch, channel, *s) of a batch through the model."""

    session: Session
    extra: Mapping[str, Tensor]
    targets: Sequence[Resolved]
    chunk: int
    seed: int = 0

    def at_once(self, batch: int) -> int:
        """How many versions of each sample go through together."""
        return max(1, self.chunk // batch)

    def _rows(self, versions: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        import torch

        count, batch = versions.shape[:2]
        rows = torch.arange(batch, device=versions.device).repeat(count)
        return rows, {name: values[rows] for name, values in self.extra.items()}

    def gradients(self, versions: Tensor) -> Iterator[Tensor]:
        """For each target the gradients at the versions, of their shape."""
        rows, extra = self._rows(versions)
        run = self.session.bare(versions.flatten(0, 1), rows, extra)
        for target in self.targets:
            yield run.pullback(target.cotangents(run.outputs))[INPUT].reshape(versions.shape)

    def outputs(self, versions: Tensor) -> Outputs:
        """What the model gives for them."""
        rows, extra = self._rows(versions)
        return self.session.forward(versions.flatten(0, 1), rows, extra)

    def read(self, outputs: Outputs) -> Tensor:
        """The scores of all targets, (target, row)."""
        import torch

        return torch.stack([target.score(outputs) for target in self.targets])

    def path(self, x: Tensor, o: Tensor, rule: str, steps: int, domain: Domain | None = None) -> list[Tensor]:
        """For each target the mean gradient on the path from ``o`` to ``x``.

        At the input, on its straight line; or, with a domain that is not linear, at the domain's coefficients, on
        theirs.
        """
        places, weights = nodes(rule, steps)
        start, end = (o, x) if domain is None else (domain.forward(o), domain.forward(x))
        size = self.at_once(len(x))
        totals: list[Any] = [0] * len(self.targets)
        for first in range(0, steps, size):
            a, w = (x.new_tensor(each[first : first + size]) for each in (places, weights))
            z = start + a.reshape(-1, *[1] * start.ndim) * (end - start)
            for t, g in enumerate(self.gradients(z) if domain is None else self._pulled(domain, z)):
                totals[t] = totals[t] + (w.to(g.dtype) @ g.flatten(1)).reshape(g.shape[1:])
        return totals

    def _pulled(self, domain: Domain, z: Tensor) -> Iterator[Tensor]:
        """`gradients` at the inputs of coefficients, pulled back to these."""
        import torch

        with torch.enable_grad():
            z = z.detach().requires_grad_()
            versions = torch.stack([domain.inverse(each) for each in z])
        for g in self.gradients(versions.detach()):
            yield torch.autograd.grad(versions, [z], g, retain_graph=True)[0]

    def noisy(self, x: Tensor, n: int, sd: float, seeds: Sequence[tuple[int, ...]]) -> list[tuple[Tensor, Tensor]]:
        """For each target mean and variance of the gradient at ``n`` noisy versions (Chan et al. 1979)."""
        import torch

        low, high = x.flatten(1).aminmax(dim=1)
        width = (sd * (high - low)).reshape(-1, *[1] * (x.ndim - 1))
        streams = [np.random.default_rng(seed) for seed in seeds]
        size, done = self.at_once(len(x)), 0
        moments: list[tuple[Any, Any]] = [(0, 0)] * len(self.targets)
        while done < n:
            count = min(size, n - done)
            drawn = [each.standard_normal((count, *x.shape[1:]), np.float32) for each in streams]
            noise = torch.as_tensor(np.stack(drawn, 1), dtype=x.dtype, device=x.device)
            for t, g in enumerate(self.gradients(noise.mul_(width).add_(x))):
                (mean, spread), own = moments[t], g.mean(0)
                shift = own - mean
                spread = (g - own).square_().sum(0) + spread + shift.square() * (done * count / (done + count))
                moments[t] = mean + shift * (count / (done + count)), spread
            done += count
        return [(mean, spread / n) for mean, spread in moments]


@dataclass(frozen=True)
class Scorer:
    """What a method that changes its input is given; see the letter ``f`` in `core.methods.registry`."""

    walker: Walker
    x: Tensor

    @property
    def at_once(self) -> int:
        """How many versions of each sample it takes best."""
        return self.walker.at_once(len(self.x))

    def __call__(self, versions: Tensor) -> Tensor:
        """Their scores, (target, k, batch)."""
        return self.walker.read(self.walker.outputs(versions)).reshape(-1, *versions.shape[:2])

    def masks(self, n: int, cells: int, p: float) -> Iterator[Tensor]:
        """``n`` random masks (k, *s) in 0..1, the same for every sample: a grid of cells, enlarged and shifted."""
        sizes = self.x.shape[2:]
        stream = np.random.default_rng((self.walker.seed, zlib.crc32(b"rise")))
        for first in range(0, n, self.at_once):
            count = min(self.at_once, n - first)
            yield self.x.new_tensor(np.stack([_mask(stream, cells, p, sizes) for _ in range(count)]))


def _mask(stream: np.random.Generator, cells: int, p: float, sizes: Sequence[int]) -> NDArray[np.float64]:
    """An axis of one point has nothing to mask."""
    long = [axis for axis, size in enumerate(sizes) if size > 1]
    mask = (stream.random((cells + 1,) * len(long)) < p).astype(np.float64)
    for place, (axis, shift) in enumerate(zip(long, stream.random(len(long)), strict=True)):
        u = np.arange(sizes[axis]) * (cells / sizes[axis]) + shift
        below = np.floor(u).astype(np.int64)
        share = (u - below).reshape(-1, *[1] * (len(long) - 1 - place))
        mask = mask.take(below, place) * (1 - share) + mask.take(np.minimum(below + 1, cells), place) * share
    return mask.reshape(tuple(sizes))


@cache
def nodes(rule: str, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places in 0..1 and weights of a quadrature."""
    if rule == "gauss":
        if steps > MOST:
            raise RequestError(f"rule=gauss takes {MOST} steps at most, {steps} given; more would not be nearer")
        places, weights = np.polynomial.legendre.leggauss(steps)
        return (places + 1) / 2, weights / 2
    if rule == "riemann":
        return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    if steps < 2:
        raise RequestError("rule=trapezoid needs steps=2 or more: it goes from end to end")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, steps), weights


def masked(walker: Walker, A: Tensor, x: Tensor, top: int) -> Sequence[Tensor]:
    """For each target the score of ``x`` masked by each channel of ``A``; -inf for a channel that is no mask.

    The masks are made as they are needed, those of all samples and channels packed into full batches.
    """
    import torch

    flat = A.flatten(2)
    asked = flat.amax(2) > flat.amin(2)
    if 0 < top < A.shape[1]:
        largest = flat.var(2, correction=0).topk(top, 1).indices
        asked &= asked.new_zeros(asked.shape).scatter(1, largest, True)
    found = [A.new_full(A.shape[:2], float("-inf")) for _ in walker.targets]
    for pairs in torch.split(asked.nonzero(), walker.chunk):
        rows, channels = pairs.unbind(1)
        mask = resize(A[rows, channels].unsqueeze(1), x.shape[2:])
        low, high = mask.flatten(1).aminmax(dim=1)
        shape = (-1, *[1] * (x.ndim - 1))
        mask = (mask - low.reshape(shape)) / (high - low).where(high > low, 1).reshape(shape)
        extra = {name: values[rows] for name, values in walker.extra.items()}
        outputs = walker.session.forward(x[rows] * mask, rows, extra)
        for scores, target in zip(found, walker.targets, strict=True):
            scores[rows, channels] = target.score(outputs)
    return found
