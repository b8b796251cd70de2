"""Relevance at the first weighted operators, and the input rules that take it to the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.relevance.manner import AtInput, Manner
from .functions import Way
from .origins import remade
from .weighted import Weighted

if TYPE_CHECKING:
    from .interception import Relevances


@dataclass(eq=False)
class Entry:
    """A first weighted operator on the data path."""

    op: Weighted
    x: Tensor
    """Its input, in the graph."""
    z: Tensor


@dataclass
class Propagated:
    """See `core.backend.Propagated`."""

    mode: Relevances
    manner: Manner
    found: Sequence[tuple[Entry, Tensor]]
    rest: Tensor | None
    """What reached the input past all weighted operators."""

    def at_input(self, rule: AtInput | None = None) -> Tensor:
        """The relevance at the input, the first operators following ``rule``, or the composite."""
        way: Way = self.manner if rule is None else "carry"
        total = torch.zeros_like(self.mode.x) if self.rest is None else self.rest
        for entry, R in self.found:
            x, z = entry.x.detach(), entry.z.detach()
            if rule is None:
                own = self.manner(entry.op, x, z, R)
            else:
                own = self.manner.apply(rule, replace(entry.op, made=self._made(entry)), x, z, R)
            total = total + self._pulled(entry.x, own, way)
        return total

    def gradient(self, multiplier: AtInput) -> Tensor:
        """A `multiplier` of the first operators, brought to the input as a gradient is."""
        x = self.mode.x.detach()
        total = torch.zeros_like(x) if self.rest is None else (self.rest / x).where(x != 0, 0)
        for entry, R in self.found:
            own = self.manner.apply(multiplier, entry.op, entry.x.detach(), entry.z.detach(), R)
            total = total + self._pulled(entry.x, own, "gradient")
        return total

    def _made(self, entry: Entry) -> Callable[..., Tensor] | None:
        """What the model makes of other inputs before an operator."""
        if entry.x is self.mode.x:
            return None

        def made(values: Tensor, *, reach: bool = False) -> Tensor:
            values = values.expand_as(self.mode.x)
            return remade(entry.x, self.mode.step, values, self.mode.x, reach=reach)

        return made

    def _pulled(self, at: Tensor, values: Tensor, way: Way) -> Tensor:
        if at is self.mode.x:
            return values
        with self.mode.going(way):
            [found] = torch.autograd.grad(at, self.mode.x, values, retain_graph=True)
        return found
