"""The weighted operators as relevance rules see them: weight, bias, W x and W^T s, for each of torch's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Kind = Literal["conv", "dense"]
WEIGHTED: Mapping[Any, Kind] = {
    F.linear: "dense",
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), "conv"),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), "conv"),
}
_DENSE = ("input", "weight", "bias")
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


@dataclass
class Weighted:
    """One call of a weighted operator; see `core.relevance.rules.Operator`."""

    func: Callable[..., Tensor]
    kind: Kind
    weight: Tensor
    added: Tensor | None
    """The bias, (channel,)."""
    settings: Mapping[str, Any]
    name: str = ""
    """Of the layer whose weight it is."""
    absorbs: bool = True
    """Whether the bias takes its share of the relevance."""
    _shape: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Weighted, Tensor]:
        """A call, and its input."""
        names = _DENSE if func is F.linear else _TRANSPOSED if "transpose" in func.__name__ else _CONV
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        bias = None if bias is None else bias.detach()
        return cls(func, WEIGHTED[func], weight.detach(), bias, given, _shape=tuple(x.shape)), x

    @property
    def bias(self) -> Tensor | None:
        """As it is added to z; None where it is to be ignored."""
        if self.added is None or not self.absorbs:
            return None
        return self.added if self.kind == "dense" else self.added.reshape(-1, *[1] * (self.weight.ndim - 2))

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x, without the bias."""
        return self.func(x, weight, None, **self.settings)

    def pull(self, s: Tensor, weight: Tensor) -> Tensor:
        """W^T s."""
        if self.kind == "dense":
            return s @ weight
        with torch.enable_grad():
            x = s.new_zeros((len(s), *self._shape[1:])).requires_grad_()
            z = self.func(x, weight, None, **self.settings)
        return torch.autograd.grad(z, x, s)[0]
