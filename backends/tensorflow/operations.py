"""``keras.ops`` in a functional graph."""

from __future__ import annotations

from typing import Any

from torch import nn

from .activations import MODULES, placed
from .functions import Function
from .graph import Leaf
from .table import makes, refused

ELEMENTWISE = frozenset({
    "Absolute", "Add", "Cast", "Clip", "Cos", "Divide", "DivideNoNan", "Erf", "Exp", "Exp2", "Expm1", "FloorDivide",
    "Log", "Log1p", "Log2", "Log10", "Logaddexp", "Maximum", "Minimum", "Multiply", "Negative", "Power", "Reciprocal",
    "Rsqrt", "Sign", "Sin", "Sqrt", "Square", "Subtract", "TrueDivide", "Where", "Relu", "Relu6", "LeakyRelu", "Elu",
    "Selu", "Celu", "Gelu", "Silu", "HardSilu", "Sigmoid", "LogSigmoid", "HardSigmoid", "Tanh", "HardTanh",
    "TanhShrink", "HardShrink", "SoftShrink", "Softplus", "Softsign", "SparsePlus", "SparseSigmoid", "Squareplus",
    "Threshold", "Mish", "Identity", "StopGradient",
})  # fmt: skip
"""The same whatever the order of the axes."""
PLAIN = {"Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSigmoid": "hard_sigmoid",
         "HardSilu": "hard_silu", "Silu": "silu", "Softplus": "softplus", "Selu": "selu"}  # fmt: skip
"""Those that torch has as modules, and have no settings."""


@makes("Lambda")
def _lambda(layer: Any) -> Leaf:
    return Leaf(Function("Lambda", layer.call), "keras")  # which is there only where the file is trusted


def operation(op: Any, rank: int) -> Leaf:
    """The module in the place of one of ``keras.ops``: torch's own, or Keras' function."""
    name = type(op).__name__
    if not type(op).__module__.startswith("keras.src.ops."):
        raise refused(op, "is an operation of somebody's own, which is not in the file")
    if name in PLAIN:
        return Leaf(MODULES[PLAIN[name]]())
    if name in ("Softmax", "LogSoftmax") and isinstance(op.axis, int):
        order, axis = placed(op.axis, rank)
        return Leaf(nn.Softmax(axis) if name == "Softmax" else nn.LogSoftmax(axis), order)
    return Leaf(Function(name, op.call), "any" if name in ELEMENTWISE else "keras")
