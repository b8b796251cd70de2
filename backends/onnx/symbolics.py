"""Operators that torch's older exporter does not know, or writes so that it loses the rank of their results.

``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` become one operator each when they are traced without
gradients, and take their projections apart by ``unflatten`` otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx import symbolic_helper

EXPORTER: Any = torch.onnx
HELPER: Any = symbolic_helper
"""Without the types that it does not have."""
OPSET = 20
"""From which on they are written so."""


@contextmanager
def known() -> Iterator[None]:
    """The exporter knows them meanwhile."""
    names = []
    try:
        for name, written in WRITTEN.items():
            EXPORTER.register_custom_op_symbolic(name, written, OPSET)
            names.append(name)
        yield
    finally:
        for name in names:
            EXPORTER.unregister_custom_op_symbolic(name, OPSET)


def unflatten(g: Any, x: Any, dim: Any, sizes: Any) -> Any:
    """One axis in the place of several."""
    rank = HELPER._get_tensor_rank(x)
    at = HELPER._get_const(dim, "i", "dim") % rank
    if HELPER._is_packed_list(sizes):
        one = _constant(g, [1])
        parts = [g.op("Reshape", each, one) for each in HELPER._unpack_list(sizes)]
        count = len(parts)
    else:
        parts, count = [sizes], len(HELPER._get_const(sizes, "is", "sizes"))
    shape = g.op("Shape", x)
    before = [g.op("Slice", shape, _constant(g, [0]), _constant(g, [at]))] if at else []
    behind = [g.op("Slice", shape, _constant(g, [at + 1]), _constant(g, [rank]))] if at + 1 < rank else []
    found = g.op("Reshape", x, g.op("Concat", *before, *parts, *behind, axis_i=0))
    found.setType(x.type().with_sizes([None] * (rank + count - 1)))
    return found


def attention(
    g: Any, query: Any, key: Any, value: Any, width: Any, heads: Any, into: Any, offset: Any, out: Any, last: Any,
    mask: Any = None, *_: Any,
) -> Any:  # fmt: skip
    """``aten::_native_multi_head_attention`` of a sequence to itself."""
    if not query == key == value or not (mask is None or HELPER._is_none(mask)):
        return HELPER._unimplemented("_native_multi_head_attention", "of several sequences, or with a mask")
    size, count = (HELPER._get_const(each, "i", "size") for each in (width, heads))
    mixed = _linear(g, query, into, offset)
    q, k, v = g.op("Split", mixed, _constant(g, [size] * 3), axis_i=-1, outputs=3)
    apart = _constant(g, [0, -1, count, size // count])
    q, v = (g.op("Transpose", g.op("Reshape", each, apart), perm_i=[0, 2, 1, 3]) for each in (q, v))
    k = g.op("Transpose", g.op("Reshape", k, apart), perm_i=[0, 2, 3, 1])
    scale = g.op("CastLike", _constant(g, (size // count) ** -0.5), q)
    weights = g.op("Softmax", g.op("MatMul", g.op("Mul", q, scale), k), axis_i=-1)
    joined = g.op("Transpose", g.op("MatMul", weights, v), perm_i=[0, 2, 1, 3])
    found = _linear(g, g.op("Reshape", joined, _constant(g, [0, -1, size])), out, last)
    found.setType(query.type())
    return found, g.op("ReduceMean", weights, _constant(g, [1]), keepdims_i=0)


def encoder_layer(
    g: Any, x: Any, width: Any, heads: Any, into: Any, offset: Any, out: Any, last: Any, gelu: Any, first: Any,
    eps: Any, *weights: Any,
) -> Any:  # fmt: skip
    """``aten::_transformer_encoder_layer_fwd``."""
    scale1, shift1, scale2, shift2, wide, wide_bias, narrow, narrow_bias, mask, *_ = weights
    norm_first, small = (HELPER._get_const(e, k, "norm") for e, k in ((first, "b"), (eps, "f")))

    def norm(y: Any, scale: Any, shift: Any) -> Any:
        return g.op("LayerNormalization", y, scale, shift, axis_i=-1, epsilon_f=small)

    def attend(y: Any) -> Any:
        return attention(g, y, y, y, width, heads, into, offset, out, last, mask)[0]

    def mix(y: Any) -> Any:
        y = _linear(g, y, wide, wide_bias)
        y = g.op("Gelu", y) if HELPER._get_const(gelu, "b", "gelu") else g.op("Relu", y)
        return _linear(g, y, narrow, narrow_bias)

    if norm_first:
        y = g.op("Add", x, attend(norm(x, scale1, shift1)))
        y = g.op("Add", y, mix(norm(y, scale2, shift2)))
    else:
        y = norm(g.op("Add", x, attend(x)), scale1, shift1)
        y = norm(g.op("Add", y, mix(y)), scale2, shift2)
    y.setType(x.type())
    return y


def _linear(g: Any, x: Any, weight: Any, bias: Any) -> Any:
    return g.op("Add", g.op("MatMul", x, g.op("Transpose", weight, perm_i=[1, 0])), bias)


def _constant(g: Any, value: Any) -> Any:
    return g.op("Constant", value_t=torch.tensor(value))


WRITTEN = {
    "aten::unflatten": unflatten,
    "aten::_native_multi_head_attention": attention,
    "aten::_transformer_encoder_layer_fwd": encoder_layer,
}
