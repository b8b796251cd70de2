"""The changed inputs that metrics ask about. Equal ones are one: whoever scores them may do so once.

A version makes the inputs of rows ``i``, ``t``, the numbers (row,) of a sample and of a target: (row, channel, *s).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ..keys import Baseline
from .case import NOISE, ROAD, SHAKE, SUBSET, Case
from .imputation import impute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ZERO = Baseline("zero")
First = Literal["most", "least"]
"""Which places are taken away: the most relevant or the least."""


class Version(Protocol):
    """A change of the input that may depend on the map; hashable."""

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Removed:
    """``count`` places, the ``first`` relevant, show the filling instead."""

    first: First
    count: int
    fill: Baseline = ZERO
    blur: float = 0.1

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        return case.kept(i, ~removed(case, i, t, self), self.fill, self.blur)


@dataclass(frozen=True)
class Imputed:
    """``count`` places, the ``first`` relevant, are guessed from those around them, with ``noise``."""

    first: First
    count: int
    noise: float = 0.01

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        x, gone = case.inputs[i], removed(case, i, t, self)
        drawn = _normal(case, i, ROAD, self.count) * (self.noise * case.spread[i])
        return impute(x, gone).add_(drawn.mul_(gone.unsqueeze(1))).to(x.dtype)


@dataclass(frozen=True)
class Masked:
    """Seen through the map, from its least value, 0, to its largest, 1. A constant map shows nothing."""

    fill: Baseline = ZERO
    blur: float = 0.1

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        return case.kept(i, minmax(case.a[i, t].unsqueeze(1))[:, 0], self.fill, self.blur)


@dataclass(frozen=True)
class Subset:
    """A random ``count`` of the places shows the filling, the ``draw``-th one; whatever the map."""

    draw: int
    count: int
    fill: Baseline = ZERO
    blur: float = 0.1

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        at = {sample: k for k, sample in enumerate(dict.fromkeys(i.tolist()))}
        gone = self.places(case, list(at))[[at[sample] for sample in i.tolist()]]
        return case.kept(i, ~gone, self.fill, self.blur)

    def places(self, case: Case, samples: Sequence[int] | None = None) -> Tensor:
        """Those that are replaced, (n, *s), of all the samples or of some."""
        import torch

        samples = range(len(case.a)) if samples is None else samples
        gone = torch.zeros(len(samples), case.places, dtype=torch.bool)
        for i, row in zip(samples, gone, strict=True):
            drawn = case.rng(i, SUBSET, self.count, self.draw).permutation(case.places)[: self.count]
            row[torch.as_tensor(drawn)] = True
        return gone.reshape(-1, *case.a.shape[2:]).to(case.a.device)


@dataclass(frozen=True)
class Noisy:
    """The input less normal noise, ``sd`` of the sample's range wide, the ``draw``-th; whatever the map."""

    draw: int
    sd: float

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        return case.inputs[i] - self.noise(case, i).to(case.inputs.dtype)

    def noise(self, case: Case, i: Tensor | None = None) -> Tensor:
        """(n, channel, *s), of all the samples or of those of the rows."""
        import torch

        i = torch.arange(len(case.inputs), device=case.inputs.device) if i is None else i
        return _normal(case, i, NOISE, self.draw) * self.sd * _range(case.inputs[i])


@dataclass(frozen=True)
class Shaken:
    """The input and uniform noise of at most ``r`` of the sample's range, the ``draw``-th; whatever the map."""

    draw: int
    r: float

    def __call__(self, case: Case, i: Tensor, t: Tensor) -> Tensor:
        """The inputs of the rows."""
        x = case.inputs[i]
        drawn = [case.rng(int(k), SHAKE, self.draw).uniform(-1, 1, x.shape[1:]) for k in i]
        return x + (_stack(drawn, x) * self.r * _range(x)).to(x.dtype)


def removed(case: Case, i: Tensor, t: Tensor, version: Removed | Imputed) -> Tensor:
    """Which places go, (row, *s): exactly as many as asked for."""
    ranks = case.ranks[i, t]
    return ranks < version.count if version.first == "most" else ranks >= case.places - version.count


def minmax(a: Tensor) -> Tensor:
    """Maps (n, target, *s) from 0 to 1; 0 where they are constant."""
    flat = a.flatten(2)
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    return ((flat - low) / (high - low).masked_fill(high == low, 1)).reshape(a.shape)


def scores(
    versions: Sequence[Version], case: Case, score: Callable[[Tensor, Tensor, Tensor], Tensor], batch: int
) -> Tensor:
    """``score`` of every version of every (sample, target), (n, target, k), in full batches.

    ``score`` takes inputs (row, channel, *s) and the numbers of their samples and targets, and gives (row,). Versions
    that are equal are scored once.
    """
    import torch

    n, targets = case.a.shape[:2]
    unique = list(dict.fromkeys(versions))
    rows = n * targets
    found = case.a.new_empty(len(unique) * rows)
    for start in range(0, len(found), batch):
        numbers = torch.arange(start, min(start + batch, len(found)), device=case.a.device)
        i, t = numbers % rows // targets, numbers % targets
        groups = [(numbers // rows == k).nonzero()[:, 0] for k in range(start // rows, int(numbers[-1]) // rows + 1)]
        parts = [unique[k](case, i[g], t[g]) for k, g in enumerate(groups, start // rows)]
        found[numbers] = score(torch.cat(parts), i, t).to(found.dtype)
    places = {version: k for k, version in enumerate(unique)}
    return found.reshape(len(unique), n, targets).movedim(0, 2)[:, :, [places[each] for each in versions]]


def _normal(case: Case, i: Tensor, *use: int) -> Tensor:
    """Normal numbers of each row's sample, (row, channel, *s)."""
    return _stack([case.normal(k, *use) for k in i.tolist()], case.inputs)


def _stack(drawn: Sequence[NDArray[np.float64]], x: Tensor) -> Tensor:
    import numpy as np
    import torch

    return torch.as_tensor(np.stack(drawn), device=x.device)


def _range(x: Tensor) -> Tensor:
    low, high = x.double().flatten(1).aminmax(dim=1)
    return (high - low).reshape(-1, *[1] * (x.ndim - 1))
