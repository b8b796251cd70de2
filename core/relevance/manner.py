"""How a backward carries relevance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from .grammar import Composite

if TYPE_CHECKING:
    from torch import Tensor

    from .rules import Operator


class AtInput(Protocol):
    """What the first weighted operators do: (operator, x, z, R at z) -> R at x."""

    def __call__(self, op: Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """The relevance at ``x``, or a multiplier of it."""
        ...


@dataclass(frozen=True)
class Manner:
    """The rules of weighted operators, and what holds for all others."""

    composite: Composite
    absorbs: bool = True
    """Whether biases take their share of the relevance."""
    gates: bool = True
    """Whether gates and softmaxes carry relevance (AttnLRP), or pass by them all (CP-LRP)."""

    def apply(self, rule: AtInput, op: Any, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """By ``rule``, biases ignored where they are to be."""
        if not self.absorbs and op.bias is not None:
            op, z = replace(op, bias=None), z - op.bias
        return rule(op, x, z, R)

    def __call__(self, op: Any, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """By the composite."""
        return self.apply(self.composite.of(op), op, x, z, R)
