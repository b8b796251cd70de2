"""Modules for what has no layer of its own in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Amounts = Sequence[tuple[int, int]]
"""How much is put before and behind, for each spatial axis."""


class Operator(nn.Module):
    """A function of tensors; those of its arguments that are constants are its buffers, and follow its dtype."""

    def __init__(self, function: Callable[..., Any], count: int, fixed: Mapping[int, Any]) -> None:
        super().__init__()
        self.function = function
        self.template = [None if isinstance(fixed.get(i), Tensor) else fixed.get(i) for i in range(count)]
        self.open = [i for i in range(count) if i not in fixed]
        self.bound = {i: f"constant_{i}" for i, value in fixed.items() if isinstance(value, Tensor)}
        for i, name in self.bound.items():
            self.register_buffer(name, fixed[i])

    def forward(self, *given: Any) -> Any:
        """The function of its constants and of what is given, each in its place."""
        arguments = list(self.template)
        for i, name in self.bound.items():
            arguments[i] = self._buffers[name]
        for i, value in zip(self.open, given, strict=True):
            arguments[i] = value
        return self.function(*arguments)


@cache
def kind(op: str) -> type[Operator]:
    """`Operator` under the name of a type of operator, as layers are listed by the names of their classes."""
    return type(op.rpartition(".")[2], (Operator,), {})


class Padded(nn.Module):
    """A layer behind a padding that torch's own cannot have."""

    def __init__(
        self, layer: nn.Module, amounts: Callable[[Sequence[int]], Amounts], value: float = 0.0, name: str = "layer"
    ) -> None:
        super().__init__()
        self.add_module(name, layer)
        self.name, self.amounts, self.value = name, amounts, value

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, channel, *s)."""
        result: Tensor = self._modules[self.name](padded(x, self.amounts(x.shape[2:]), self.value))  # type: ignore[misc]
        return result


def padded(x: Tensor, amounts: Amounts, value: float = 0.0) -> Tensor:
    """``x`` with the last axes padded, or cut where an amount is negative."""
    if not any(amount for pair in amounts for amount in pair):
        return x
    return F.pad(x, [amount for pair in reversed(amounts) for amount in pair], value=value)


class Cast(nn.Module):
    """Another element type. A floating point one is that of this module, which may have been made another."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("like", torch.empty(0, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Values of the type."""
        return x.to(self.get_buffer("like").dtype)


def frozen(values: Tensor) -> nn.Parameter:
    """A weight."""
    return nn.Parameter(values.contiguous(), requires_grad=False)


def filled(layer: nn.Module, **weights: Tensor | None) -> nn.Module:
    """A layer that was made on no device, with its weights."""
    for name, values in weights.items():
        if values is not None:
            setattr(layer, name, frozen(values))
    return layer
