"""The weighted operators as relevance rules see them: weight, bias, W x and W^T s, for each of torch's functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn import grad

Kind = Literal["conv", "dense"]
WEIGHTED: Mapping[Any, Kind] = {
    F.linear: "dense",
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), "conv"),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), "conv"),
}
_DENSE = ("input", "weight", "bias")
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_BACK: Mapping[Any, Callable[..., Tensor]] = {
    torch.conv1d: grad.conv1d_input,
    torch.conv2d: grad.conv2d_input,
    torch.conv3d: grad.conv3d_input,
}
_FORTH: Mapping[Any, Callable[..., Tensor]] = {
    torch.conv_transpose1d: torch.conv1d,
    torch.conv_transpose2d: torch.conv2d,
    torch.conv_transpose3d: torch.conv3d,
}
Memo = dict[Hashable, Tensor]


@dataclass(frozen=True)
class Weighted:
    """One call of a weighted operator; see `core.relevance.rules.Operator`."""

    func: Callable[..., Tensor]
    kind: Kind
    weight: Tensor
    bias: Tensor | None
    settings: Mapping[str, Any]
    shape: tuple[int, ...]
    """Of its input."""
    name: str = ""
    memo: Memo | None = field(default=None, repr=False)
    """Outlasts the batch, where the weight does."""
    key: Hashable = None
    axis: int | None = 0
    """That counts the samples, of input and output."""
    border: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    """Makes of anything like the input 1 where something is, 0 in a border put around it; None where there is none."""
    made: Callable[..., Tensor] | None = field(default=None, repr=False)
    """What the model makes of other inputs before this operator; None where it gets the input itself."""

    @classmethod
    def of(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Weighted, Tensor]:
        """A call, and its input."""
        names = _DENSE if func is F.linear else _TRANSPOSED if func in _FORTH else _CONV
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x, weight, bias = given.pop("input"), given.pop("weight").detach(), given.pop("bias", None)
        bias = None if bias is None else bias.detach().reshape(-1, *[1] * (weight.ndim - 2))
        key = id(weight), str(given)
        return cls(func, WEIGHTED[func], weight, bias, given, tuple(x.shape), key=key), x

    def of_layer(self, name: str, memo: Memo | None, parameter: Tensor) -> Weighted:
        """It, where its weight is made of a layer's ``parameter``; with a memory where it is that itself."""
        return replace(self, name=name, memo=memo, key=(id(parameter), str(self.settings)))

    def normed(self, scale: Tensor, shift: Tensor, source: Tensor) -> Weighted:
        """It and an affine map of its channels behind it as one operator; ``source`` tells such maps apart."""
        if self.func in _FORTH:
            groups = int(self.settings.get("groups", 1))
            per_weight = scale.reshape(groups, 1, -1).expand(groups, self.weight.shape[0] // groups, -1)
            per_weight = per_weight.reshape(self.weight.shape[0], -1, *[1] * (self.weight.ndim - 2))
        else:
            per_weight = scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        key = (self.key, id(source)) if self.memo is not None else None
        both = replace(self, bias=None, key=key)
        channels = (-1, *[1] * (self.weight.ndim - 2))
        bias = shift.reshape(channels)
        bias = bias if self.bias is None else bias + self.bias * scale.reshape(channels)
        return replace(both, weight=both.once("W", lambda: self.weight * per_weight), bias=bias)

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x, without the bias."""
        return self.func(x, weight, None, **self.settings)

    def pull(self, s: Tensor, weight: Tensor) -> Tensor:
        """W^T s."""
        if self.kind == "dense":
            return s @ weight
        settings, shape = self.settings, (len(s), *self.shape[1:])
        if forth := _FORTH.get(self.func):
            found = forth(s, weight, None, **{k: v for k, v in settings.items() if k != "output_padding"})
            for axis, size in enumerate(shape[2:], 2):  # an output padding may have made it longer
                found = found.narrow(axis, 0, size)
            return found
        if not isinstance(settings.get("padding", 0), str) and s.ndim == weight.ndim:
            return _BACK[self.func](shape, weight, s, **settings)
        with torch.enable_grad():
            x = s.new_zeros(shape if s.ndim == weight.ndim else self.shape).requires_grad_()
            z = self.func(x, weight, None, **settings)
        return torch.autograd.grad(z, x, s)[0]

    def ones(self, x: Tensor) -> Tensor:
        """See `core.relevance.rules.Operator.ones`."""
        if self.made is not None:
            return self.made(x.new_ones(()), reach=True)
        return torch.ones_like(x[:1]) if self.border is None else self.border(x)

    def box(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """See `core.relevance.rules.Operator.box`."""
        if self.made is None:
            return low.expand_as(x[:1]), high.expand_as(x[:1])
        one, other = self.made(low), self.made(high)
        return one.minimum(other), one.maximum(other)

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """See `core.relevance.rules.Operator.once`."""
        if self.memo is None or self.made is not None:
            return compute()
        if (self.key, key) not in self.memo:
            self.memo[self.key, key] = compute()
        return self.memo[self.key, key]
