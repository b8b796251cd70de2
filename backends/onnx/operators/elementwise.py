"""Arithmetic, comparisons and element types, with broadcasting as in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from ..graph import ELEMENTS, Node, Unsupported
from ..modules import Cast
from ..registry import operator


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _both(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of any number of tensors, from left to right."""
    return lambda *given: reduce(function, given)


BINARY: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divided,
    "Pow": _power,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
PLAIN: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Erf": torch.erf,
    "Erfc": torch.erfc,  # which there is not, but tf2onnx writes it
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
    "IsNaN": torch.isnan,
    "Where": torch.where,
    "Sum": _both(torch.add),
    "Max": _both(torch.maximum),
    "Min": _both(torch.minimum),
    "Mean": lambda *given: reduce(torch.add, given) / len(given),
    "Identity": torch.clone,
    "CastLike": lambda x, like: x.to(like.dtype),
}


@operator(*PLAIN)
def plain(node: Node) -> Any:
    """A function of torch."""
    return PLAIN[node.op]


@operator(*BINARY)
def binary(node: Node) -> Any:
    """A function of two; before opset 7 the second is put where ``axis`` says."""
    function, axis = BINARY[node.op], node.get("axis")
    if node.version >= 7 or not node.get("broadcast", 0) or axis is None:
        return function

    def run(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b.reshape(*b.shape, *[1] * (a.ndim - axis % a.ndim - b.ndim)))

    return run


@operator("Mod")
def mod(node: Node) -> Any:
    """The rest, with the sign of the second, or with ``fmod`` of the first."""
    return torch.fmod if node.get("fmod", 0) else torch.remainder


@operator("IsInf")
def is_inf(node: Node) -> Any:
    """Of either sign, or of one."""
    high, low = node.get("detect_positive", 1), node.get("detect_negative", 1)
    if high and low:
        return torch.isinf
    return torch.isposinf if high else torch.isneginf if low else lambda x: torch.zeros_like(x, dtype=torch.bool)


@operator("Cast")
def cast(node: Node) -> Any:
    """Another element type."""
    kind = node.get("to")
    if isinstance(kind, str):  # before opset 6
        kind = TensorProto.DataType.Value(kind)
    if kind not in ELEMENTS:
        raise Unsupported(f"Cast to {TensorProto.DataType.Name(kind)}")
    return Cast(ELEMENTS[kind])


@operator("Dropout")
def dropout(node: Node) -> Any:
    """In evaluation: what is given, and a mask that keeps all."""
    mode = node.constant(2)
    if node.has(2) and (mode is None or bool(mode)):
        raise Unsupported("Dropout in training mode")
    return lambda x, *_: (x.clone(), torch.ones_like(x, dtype=torch.bool))


@operator("com.microsoft.FusedMatMul")
def fused_matmul(node: Node) -> Any:
    """A product of transposes with a factor, as onnxruntime's optimizer writes it."""
    alpha, first, second = node.get("alpha", 1.0), node.get("transA", 0), node.get("transB", 0)

    def run(a: Tensor, b: Tensor) -> Tensor:
        product = torch.matmul(a.mT if first else a, b.mT if second else b)
        return product if alpha == 1 else product * alpha

    return run
