"""Values that a graph holds in 8 bits, and the scale and zero point that say what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto

SCALES = {
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), (6, 7)),
    **dict.fromkeys(("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu"), (3, 4)),
    **dict.fromkeys(("QLinearSigmoid", "QLinearSoftmax", "QLinearReduceMean"), (3, 4)),
    **dict.fromkeys(("QuantizeLinear",), (1, 2)),
    "QLinearConcat": (0, 1),
    "QLinearWhere": (8, 9),
    "QGemm": (7, 8),
}
"""Of each operator that gives such values: the places of their scale and zero point among its inputs."""
MOVING = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split"}
    | {"Expand", "DepthToSpace", "SpaceToDepth", "Clip", "Relu", "Resize", "Pad", "Tile"}
)
"""Operators whose values have the scale of what they are given."""


@dataclass(frozen=True)
class Meant:
    """A value in 8 bits, and the one that it stands for: the nodes that bring one to the other."""

    code: str
    value: str
    read: NodeProto
    write: NodeProto


def meant(nodes: Sequence[NodeProto]) -> Iterator[Meant]:
    """All values in 8 bits, but for those that were made of others only for the next operator."""
    known: dict[str, tuple[str, str]] = {}
    for node in nodes:
        if node.op_type in SCALES:
            names = [node.input[i] if i < len(node.input) else "" for i in SCALES[node.op_type]]
            scale = (names[0], names[1]) if all(names) else None
        else:
            scale = known.get(node.input[0]) if node.op_type in MOVING and node.input else None
        if scale is None:
            continue
        for code in filter(None, node.output):
            known[code] = scale
            if node.op_type != "QuantizeLinear":
                value = f"{code}/value"
                yield Meant(
                    code,
                    value,
                    onnx.helper.make_node("DequantizeLinear", [code, *scale], [value]),
                    onnx.helper.make_node("QuantizeLinear", [value, *scale], [code]),
                )
