"""Operators that torch runs as one, taken apart into those that have a rule: attention and recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention`, without its dropout."""
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = query.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    return torch.softmax(_masked(scores, attn_mask), -1) @ value


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """True of a boolean mask stays; any other is added."""
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def multi_head(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward`, without its dropout."""
    given = {**dict(zip(_MULTI_HEAD, args, strict=False)), **kwargs}
    inputs = [given[name] for name in ("query", "key", "value")]
    itself, batched = all(each is inputs[0] for each in inputs), inputs[0].ndim == 3
    inputs = [each.transpose(0, 1) if batched else each[None] for each in inputs]  # (batch, token, feature)
    biases = [None] * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    if given.get("use_separate_proj_weight"):
        matrices = [given[f"{name}_proj_weight"] for name in "qkv"]
        q, k, v = (F.linear(*each) for each in zip(inputs, matrices, biases, strict=True))
    elif itself:
        q, k, v = F.linear(inputs[0], given["in_proj_weight"], given["in_proj_bias"]).chunk(3, -1)
    else:
        q, k, v = (F.linear(*each) for each in zip(inputs, given["in_proj_weight"].chunk(3), biases, strict=True))
    batch, heads, tokens = len(q), given["num_heads"], k.shape[1]
    if given.get("bias_k") is not None:
        k, v = (torch.cat([each, given[f"bias_{n}"].expand(batch, 1, -1)], 1) for n, each in (("k", k), ("v", v)))
    if given.get("add_zero_attn"):
        k, v = (F.pad(each, (0, 0, 0, 1)) for each in (k, v))
    more = k.shape[1] - tokens  # of which no mask speaks
    q, k, v = (each.reshape(*each.shape[:2], heads, -1).transpose(1, 2) for each in (q, k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(batch, heads, *mask.shape[1:])
    for each in (mask, None if padding is None else padding.reshape(batch, 1, 1, tokens)):
        if each is not None:
            each = F.pad(each, (0, more))
            scores = _masked(scores, ~each if each.dtype == torch.bool else each)  # here True is left out
    weights = torch.softmax(scores, -1)
    found = F.linear((weights @ v).transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    seen = weights.mean(1) if given.get("average_attn_weights", True) else weights
    seen = seen if batched else seen[0]
    return found.transpose(0, 1) if batched else found[0], seen if given.get("need_weights", True) else None


_MULTI_HEAD = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
    "average_attn_weights", "is_causal",
)  # fmt: skip


def lstm_step(a: Tensor, hc: tuple[Any, Any], w: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step from the input's projection ``a``."""
    h, c = hc
    i, f, g, o = (a + F.linear(h, w, b)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(a: Tensor, h: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """One step; 1 - sigmoid(z) is written as sigmoid(-z), whose relevance is all z's."""
    ar, az, an = a.chunk(3, -1)
    hr, hz, hn = F.linear(h, w, b).chunk(3, -1)
    z = az + hz
    n = torch.tanh(an + torch.sigmoid(ar + hr) * hn)
    return torch.sigmoid(-z) * n + torch.sigmoid(z) * h


def _unrolled(kind: str) -> Callable[..., Any]:
    step = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu}.get(kind)

    def run(
        x: Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,  # noqa: ARG001
        bidirectional: bool, batch_first: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        h0, c0 = hx if kind == "lstm" else (hx, None)
        each = len(params) // (num_layers * (2 if bidirectional else 1))
        projects = each - (4 if has_biases else 2) == 1
        values = x.transpose(0, 1) if batch_first else x  # (step, batch, feature)
        last_h, last_c = [], []
        for layer in range(num_layers):
            ways = []
            for way in range(2 if bidirectional else 1):
                place = layer * (2 if bidirectional else 1) + way
                own = params[place * each : (place + 1) * each]
                w_in, w = own[:2]
                b_in, b = own[2:4] if has_biases else (None, None)
                projections = F.linear(values, w_in, b_in).unbind(0)
                h, c, found = h0[place], None if c0 is None else c0[place], []
                for a in reversed(projections) if way else projections:
                    if kind == "lstm":
                        h, c = lstm_step(a, (h, c), w, b)
                        h = F.linear(h, own[-1]) if projects else h
                    else:
                        h = gru_step(a, h, w, b) if kind == "gru" else step(a + F.linear(h, w, b))  # type: ignore[misc]
                    found.append(h)
                ways.append(torch.stack(found[::-1] if way else found))
                last_h.append(h)
                last_c.append(c)
            values = torch.cat(ways, -1) if bidirectional else ways[0]
        result = values.transpose(0, 1) if batch_first else values
        if kind == "lstm":
            return result, torch.stack(last_h), torch.stack(last_c)  # type: ignore[arg-type]
        return result, torch.stack(last_h)

    return run


def _lstm_cell(x: Tensor, hx: Any, w_in: Tensor, w: Tensor, b_in: Any = None, b: Any = None) -> tuple[Tensor, Tensor]:
    return lstm_step(F.linear(x, w_in, b_in), hx, w, b)


def _gru_cell(x: Tensor, h: Tensor, w_in: Tensor, w: Tensor, b_in: Any = None, b: Any = None) -> Tensor:
    return gru_step(F.linear(x, w_in, b_in), h, w, b)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * torch.sigmoid(gate)


def _plus_product(start: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = one @ other
    return (start if beta == 1 else start * beta) + (product if alpha == 1 else product * alpha)


def _plus_factors(start: Tensor, one: Tensor, other: Tensor, *, value: float = 1) -> Tensor:
    product = one * other
    return start + (product if value == 1 else product * value)


_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
COMPOSED: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head,
    torch.lstm: _unrolled("lstm"),
    torch.gru: _unrolled("gru"),
    torch.rnn_tanh: _unrolled("rnn_tanh"),
    torch.rnn_relu: _unrolled("rnn_relu"),
    torch.lstm_cell: _lstm_cell,
    torch.gru_cell: _gru_cell,
    F.glu: _glu,
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm, torch.addmm, Tensor.addmm), _plus_product),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), _plus_factors),
}


def can_unroll(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call is of the kind above: recurrent layers over packed sequences are not."""
    return func in COMPOSED and not (func in _RECURRENT and isinstance(args[3], list | tuple))
