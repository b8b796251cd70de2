"""A target settled for a batch: a number for each sample, as a function of what the model gives."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..outputs import Outputs, Readout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

UNDEFINED = -1
"""Index of a target that is no class, or that a sample does not have, such as ``label`` without one."""


@dataclass(frozen=True)
class Reading:
    """What targets are settled with, besides the outputs."""

    readout: Readout
    labels: Tensor
    """(batch,), `UNDEFINED` where unknown."""
    rows: NDArray[np.int64]
    """(batch,), of the dataset."""
    references: Mapping[str, Tensor] = field(default_factory=dict)
    """The outputs for the samples that targets name, by id."""


@dataclass(frozen=True, eq=False)
class Resolved:
    """One column of targets, settled on a batch's clean outputs.

    ``value`` can be asked of other outputs of the same samples, those of a masked input, say: the class stays the one
    that was settled.
    """

    index: Tensor
    """(batch,) int64: the class or output explained, `UNDEFINED` where it is none."""
    value: Callable[[Outputs], Tensor]
    """The score of each row of outputs, (n,), differentiable."""
    key: Hashable
    """Equal for targets that ask the same of every sample of the batch."""
    conditions: tuple[tuple[Tensor, str], ...] = ()
    """What a sample must have for such a target, (batch,) bool, and what to say where it has not."""
    foil: Tensor | None = None
    """(batch,) int64: the class it is held against."""
    same: Tensor | None = None
    """(batch,) bool: whether that is the class itself."""
    readout: Readout | None = None
    """Set where it is a class, which a method can compare with others."""

    @property
    def defined(self) -> Tensor:
        """(batch,) bool: whether the sample has such a target."""
        found = self.index == self.index
        for there, _ in self.conditions:
            found = found & there
        return found

    def score(self, outputs: Outputs) -> Tensor:
        """(n,), NaN where there is no such target."""
        value: Tensor = self.value(outputs)
        return value.where(self.defined[outputs.rows], float("nan"))

    def cotangents(self, outputs: Outputs) -> dict[str, Tensor]:
        """D sum(score) / d output, for each of the model's outputs: what a backward starts from."""
        import torch

        leaves = {k: t.detach().clone().requires_grad_() for k, t in outputs.named.items() if t.is_floating_point()}
        with torch.enable_grad():
            total = self.total(replace(outputs, scores=leaves[outputs.selected], named={**outputs.named, **leaves}))
            if not total.requires_grad:
                return {k: torch.zeros_like(leaf) for k, leaf in leaves.items()}
            found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(leaves, found, strict=True))

    def probability(self, outputs: Outputs) -> Tensor:
        """(n,): of the class, under the softmax or sigmoid that makes one of its score."""
        assert self.readout is not None  # noqa: S101
        found = replace(self.readout, score="probability").of(outputs.scores, self.index[outputs.rows])
        return found.where(self.defined[outputs.rows], float("nan"))

    def total(self, outputs: Outputs) -> Tensor:
        """The sum of the scores that are defined."""
        return self.value(outputs).where(self.defined[outputs.rows], 0).sum()
