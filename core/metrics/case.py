"""A batch of maps and what metrics may know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..keys import Baseline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ..domains import Domain

TIES, ROAD, NOISE, SUBSET, SHAKE, CONTROL, OTHER = range(7)
"""What a sample's random numbers are drawn for: no two uses share them."""


@dataclass(frozen=True, eq=False)
class Case:
    """Maps of a batch and what they were made from.

    ``maps`` (n, target, [channel,] *s) in any float; ``x`` (n, channel, *s) as the model sees it; ``y`` (n, target);
    ``masks`` (n, *s), not 0 where the ground truth is; ``residual`` (n, target). ``seeds`` are numbers of each sample's
    own, so that what is random does not depend on the batch. ``baseline`` gives the ``fill`` of a place, (n, channel,
    *s), by its key and the width of its blur; without it only numbers and ``zero`` are known. In a ``domain`` it is
    the coefficients of the fill that take a place.
    """

    maps: Tensor
    per_channel: bool = False
    seeds: Sequence[tuple[int, ...]] = ()
    x: Tensor | None = None
    y: Tensor | None = None
    masks: Tensor | None = None
    residual: Tensor | None = None
    baseline: Callable[[Baseline, float], Tensor] | None = None
    domain: Domain | None = None
    """What the places are coefficients of, where they are not the input's own; fitted to the samples."""

    @cached_property
    def whole(self) -> Tensor:
        """The maps in float64."""
        return self.maps.double()

    @cached_property
    def a(self) -> Tensor:
        """The maps over places, (n, target, *s)."""
        return self.whole.sum(2) if self.per_channel else self.whole

    @cached_property
    def places(self) -> int:
        """How many."""
        return self.a[0, 0].numel()

    @cached_property
    def inputs(self) -> Tensor:
        """``x``, which must be there."""
        if self.x is None:
            raise ValueError("this metric needs the inputs")
        return self.x

    @cached_property
    def spread(self) -> Tensor:
        """The standard deviation of each input, (n, 1, *1)."""
        x = self.inputs
        return x.double().flatten(1).std(1, correction=0).reshape(-1, *[1] * (x.ndim - 1))

    @cached_property
    def ranks(self) -> Tensor:
        """Of every place, 0 for the most relevant, (n, target, *s): equal ones in an order that the seed draws."""
        import torch

        flat = self.a.flatten(2)
        orders = [torch.as_tensor(self.rng(i, TIES).permutation(self.places)) for i in range(len(flat))]
        drawn = torch.stack(orders).to(flat.device)[:, None].expand_as(flat)
        order = drawn.gather(2, flat.gather(2, drawn).argsort(dim=2, descending=True, stable=True))
        ranks = torch.empty_like(order)
        return ranks.scatter_(2, order, torch.arange(self.places, device=flat.device).expand_as(order)).reshape(
            self.a.shape
        )

    def rng(self, sample: int, *use: int) -> Any:
        """The random numbers of a sample for one use."""
        import numpy as np

        return np.random.default_rng((*self.seeds[sample], *use))

    def normal(self, sample: int, *use: int) -> NDArray[np.float64]:
        """Normal numbers in the shape of a sample; those of the last use stay, the next version may want them again."""
        if use not in self._normal:
            self._normal.clear()
            self._normal[use] = {}
        drawn = self._normal[use]
        if sample not in drawn:
            drawn[sample] = self.rng(sample, *use).standard_normal(self.inputs.shape[1:])
        return drawn[sample]

    def letter(self, name: str) -> Any:
        """The answer to a metric's question; `ValueError` where it is not known."""
        if name == "c":
            return self
        if name == "m":
            found = None if self.masks is None else (self.masks != 0)[:, None]
        else:
            found = {"a": self.a, "A": self.whole, "y": self.y, "r": self.residual}.get(name)
            found = None if found is None else found.double()
        if found is None:
            raise ValueError(f"nobody has answered the question {name}")
        return found

    def filling(self, fill: Baseline, blur: float) -> Tensor:
        """What takes the place of the input, (n, channel, *s), made once."""
        from ..baselines import level

        if (fill, blur) not in self._fillings:
            made = self.baseline(fill, blur) if self.baseline else level(fill, blur, self.inputs, {}, self.seeds)
            self._fillings[fill, blur] = made
        return self._fillings[fill, blur]

    @cached_property
    def _normal(self) -> dict[tuple[int, ...], dict[int, NDArray[np.float64]]]:
        return {}

    @cached_property
    def _fillings(self) -> dict[tuple[Baseline, float], Tensor]:
        return {}

    def kept(self, i: Tensor, keep: Tensor, fill: Baseline, blur: float) -> Tensor:
        """The inputs of rows ``i`` with the part ``keep`` (row, *places), 0 to 1 or a mask, and else the filling."""
        x, o = self.inputs[i], self.filling(fill, blur)[i]
        if self.domain is not None:
            return self.domain.rows(i).kept(x, o, keep)
        keep = keep.unsqueeze(1)
        return o + keep.to(x.dtype) * (x - o) if keep.is_floating_point() else x.where(keep, o)
