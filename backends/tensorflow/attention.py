"""Attention, out of linear layers and the one function of torch's for the rest; and linear layers by an equation."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .activations import ended
from .graph import Leaf
from .table import filled, makes, refused, values

F = nn.functional


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V for each head, over ``axes`` of the inputs."""

    def __init__(self, parts: dict[str, nn.Module], heads: tuple[int, int], axes: Sequence[int]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.heads, self.axes = heads, tuple(axes)
        """Of queries, and of keys and values; which may be fewer."""

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """(batch, *places, feature)."""
        named = {"query": query, "key": value if key is None else key, "value": value}
        q, k, v = (
            self._modules[name](self._flat(each)).unflatten(-1, (heads, -1)).transpose(-3, -2)  # type: ignore[misc]
            for (name, each), heads in zip(named.items(), (self.heads[0], self.heads[1], self.heads[1]), strict=True)
        )
        if self.heads[0] != self.heads[1]:
            k, v = (each.repeat_interleave(self.heads[0] // self.heads[1], -3) for each in (k, v))
        mask = None if attention_mask is None else attention_mask.bool()
        if mask is not None:
            mask = mask.unsqueeze(-3)
            if use_causal_mask:
                mask = mask & mask.new_ones(mask.shape[-2:]).tril()
        scores = None
        if return_attention_scores:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if mask is None and use_causal_mask:
                mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), -1)
            found = scores @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v, mask, is_causal=use_causal_mask and mask is None)
        found = found.transpose(-3, -2).flatten(-2)
        if (gate := self._modules.get("gate")) is not None:
            found = found * torch.sigmoid(gate(self._flat(query)))
        found = self._modules["attention_output"](found)  # type: ignore[misc]
        found = found.unflatten(-2, [query.shape[axis] for axis in self.axes]) if len(self.axes) > 1 else found
        found = found.movedim(tuple(range(-1 - len(self.axes), -1)), self.axes)
        return found if scores is None else (found, scores)

    def _flat(self, x: Tensor) -> Tensor:
        """(batch, *others, place, feature)."""
        turned = x.movedim(self.axes, tuple(range(-1 - len(self.axes), -1)))
        return turned.flatten(-1 - len(self.axes), -2)


def _linear(dense: Any, inputs: int) -> nn.Module:
    """An EinsumDense over the first ``inputs`` axes of its kernel."""
    kernel = values(dense.kernel)
    weight = kernel.reshape(math.prod(kernel.shape[:inputs]), -1).t()
    bias = None if dense.bias is None else values(dense.bias).flatten()
    module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return filled(module, weight=weight, bias=bias)


@makes("MultiHeadAttention", "GroupedQueryAttention")
def _multi_head(layer: Any) -> Leaf:
    if getattr(layer, "_sliding_window", getattr(layer, "sliding_window", None)) is not None:
        raise refused(layer, "has a sliding window, which is not supported")
    grouped = hasattr(layer, "num_query_heads")
    heads = (layer.num_query_heads, layer.num_key_value_heads) if grouped else (layer.num_heads, layer.num_heads)
    parts = {name: _linear(getattr(layer, f"_{name}_dense"), 1) for name in ("query", "key", "value")}
    if getattr(layer, "_gate_dense", None) is not None:
        parts["gate"] = _linear(layer._gate_dense, 1)
    parts["attention_output"] = _linear(layer._output_dense, 2)
    if values(layer._output_dense.kernel).ndim > 3:
        raise refused(layer, "gives several axes of features, which is not supported")
    return Leaf(MultiHeadAttention(parts, heads, (1,) if grouped else layer.attention_axes), "keras")


class Attention(nn.Module):
    """Of one head, queries and keys as they come: scored by their product (Luong), or by tanh of their sum (Bahdanau).

    That has a weight for each feature; Luong's too can be scored by ``weight`` sum tanh(scale (q + k)).
    """

    def __init__(self, scale: Tensor | None, weight: Tensor | None, additive: bool) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("weight", weight)
        self.additive = additive

    def forward(
        self, inputs: Sequence[Tensor], return_attention_scores: bool = False, use_causal_mask: bool = False
    ) -> Any:
        """(query, value[, key]), each (batch, place, feature)."""
        query, value, *rest = inputs
        key = rest[0] if rest else value
        scale, weight = self._buffers["scale"], self._buffers["weight"]
        if self.additive:
            spread = torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3))
            scores = (spread if scale is None else spread * scale).sum(-1)
        elif weight is None:
            scores = query @ key.transpose(-2, -1)
            scores = scores if scale is None else scores * scale
        else:
            sums = query.unsqueeze(-2) + key.unsqueeze(-3)
            scores = torch.tanh(sums if scale is None else sums * scale).sum(-1) * weight
        if use_causal_mask:
            scores = scores.masked_fill(~scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        weights = torch.softmax(scores, -1)
        found = weights @ value
        return (found, weights) if return_attention_scores else found


@makes("Attention", "AdditiveAttention")
def _attention(layer: Any) -> Leaf:
    additive = type(layer).__name__ == "AdditiveAttention"
    scale, weight = layer.scale, getattr(layer, "concat_score_weight", None)
    found = [None if each is None else values(each) for each in (scale, weight)]
    return Leaf(Attention(found[0], found[1], additive), "keras")


class Contraction(nn.Module):
    """torch.einsum with a constant, and a bias."""

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, equation: str, kernel: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.equation = equation
        filled(self, kernel=kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """As the equation has it."""
        found = torch.einsum(self.equation, x, self.kernel)
        return found if self.bias is None else found + self.bias


@makes("EinsumDense")
def _einsum_dense(layer: Any, rank: int) -> Leaf:
    given, own, result = (list(part.replace("...", ".")) for part in layer.equation.replace("->", ",").split(","))
    kernel, bias = values(layer.kernel), None if layer.bias is None else values(layer.bias)
    summed, free = [a for a in own if a not in result], [a for a in own if a in result]
    kept = given[: len(given) - len(summed)]
    sizes = tuple(kernel.shape[own.index(axis)] for axis in free)
    fits = given[len(kept) :] == summed and result == kept + free and not set(kept) & set(free)
    if not fits or (bias is not None and bias.ndim > len(sizes)):
        return ended(layer, Leaf(Contraction(layer.equation, kernel, bias), "keras"), "einsum", rank)
    weight = kernel.permute([own.index(axis) for axis in (*free, *summed)]).reshape(math.prod(sizes), -1)
    wide = None if bias is None else bias.broadcast_to(sizes).flatten()
    linear = nn.Linear(weight.shape[1], len(weight), bias is not None, device="meta")
    parts: list[tuple[str, nn.Module]] = [("linear", filled(linear, weight=weight, bias=wide))]
    if len(summed) > 1:
        parts.insert(0, ("flat", nn.Flatten(-len(summed))))
    if len(sizes) > 1:
        parts.append(("split", nn.Unflatten(-1, sizes)))
    module = parts[0][1] if len(parts) == 1 else nn.Sequential(OrderedDict(parts))
    return ended(layer, Leaf(module, "keras"), "linear", rank)
