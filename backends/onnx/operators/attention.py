"""Attention as one operator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..graph import Node, Unsupported
from ..registry import operator
from .activations import masked_softmax


@operator("Attention")
def attention(node: Node) -> Any:
    """softmax(q k^T scale + mask) v for each head. Where everything is masked it gives 0, with a gradient."""
    if node.get("softmax_precision") not in (None, 1, 10, 11, 16):
        raise Unsupported("Attention with a softmax in a strange precision")
    return Attention(node)


class Attention:
    """(batch, head, token, feature), or with the heads among the features, with keys and values of the past."""

    def __init__(self, node: Node) -> None:
        self.heads, self.kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
        self.causal, self.scale = bool(node.get("is_causal", 0)), node.get("scale")
        self.cap, self.shown = node.get("softcap", 0.0), node.get("qk_matmul_output_mode", 0)
        self.left, self.right = node.get("left_window_size", -1), node.get("right_window_size", -1)
        self.whole = not any(map(node.wants, range(1, 4)))

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Any:
        """The result, the keys and values of past and present, and what is shown of the scores."""
        flat = query.ndim == 3
        q, k, v = self._split(query, self.heads), self._split(key, self.kv_heads), self._split(value, self.kv_heads)
        k = k if past_key is None else torch.cat([past_key, k], 2)
        v = v if past_value is None else torch.cat([past_value, v], 2)
        present = k, v
        if q.shape[1] != k.shape[1]:
            k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
        root = math.sqrt(1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale)
        scores = (q * root) @ (k * root).mT
        capped = torch.tanh(scores / self.cap) * self.cap if self.cap else scores
        bias = self._bias(scores, mask, past_key, lengths)
        masked = capped if bias is None else capped + bias
        weights = masked_softmax(masked, -1)
        seen = scores, capped, masked, weights
        result = weights @ v
        result = result.transpose(1, 2).flatten(2) if flat else result
        return result if self.whole else (result, *present, seen[self.shown])

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)

    def _bias(self, scores: Tensor, mask: Tensor | None, past: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        """What is added to the scores: -inf where nothing is to be seen."""
        rows, columns = scores.shape[-2:]
        bias = None
        if mask is not None:
            bias = scores.new_zeros(mask.shape).masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else mask
            if mask.shape[-1] < columns:
                bias = torch.nn.functional.pad(bias, (0, columns - mask.shape[-1]), value=-math.inf)
        at, now = torch.arange(columns, device=scores.device), torch.arange(rows, device=scores.device)[:, None]
        if past is not None:
            now = now + past.shape[2]
        elif lengths is not None:
            now = now + (lengths.reshape(-1, 1, 1, 1) - rows)
        hidden = [at > now] if self.causal else []
        hidden += [now - at > self.left] if self.left >= 0 else []
        hidden += [at - now > self.right] if self.right >= 0 else []
        hidden += [at >= lengths.reshape(-1, 1, 1, 1)] if lengths is not None else []
        for each in hidden:
            here = scores.new_zeros(each.shape).masked_fill(each, -math.inf)
            bias = here if bias is None else bias + here
        return bias
