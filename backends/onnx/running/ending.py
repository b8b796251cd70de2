"""The softmax or sigmoid at the very end of a graph, which targets step behind."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from .parts import Whole

FINAL = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "QLinearSoftmax": "softmax",
    "QLinearSigmoid": "sigmoid",
}
UNCHANGED = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear"}
)
"""What may follow it, and changes values by no more than their rounding."""
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Ending:
    """The activation that makes an output, and the value that it is given."""

    kind: str
    value: str
    axis: int | None
    """Over which it goes, None for one of each element."""
    flattens: bool
    """Whether it takes all axes from there on as one."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it goes over the outputs of each sample, given its shape, and not over places or features."""
        if self.axis is None:
            return True
        return self.axis % len(shape) == 1 and not (self.flattens and any(size > 1 for size in shape[2:]))


def ending(whole: Whole, output: str, version: int) -> Ending | None:
    """Of an output, where there is one; ``version`` is that of the operators."""
    name = output
    while name in whole.makers:
        node = whole.nodes[whole.makers[name]]
        if node.op_type in FINAL:
            source = node.input[0]
            value = whole.behind_codes.get(source, "") if node.op_type.startswith("QLinear") else source
            return _ending(node, value, version) if value else None
        if node.op_type not in UNCHANGED and not (node.op_type == "Cast" and _attributes(node).get("to") in FLOATS):
            return None
        name = node.input[0]
    return None


def _ending(node: NodeProto, value: str, version: int) -> Ending:
    settings = _attributes(node)
    if "oftmax" not in node.op_type:
        return Ending(FINAL[node.op_type], value, None, False)
    old = settings.get("opset", version) < 13
    return Ending(FINAL[node.op_type], value, settings.get("axis", 1 if old else -1), old)


def _attributes(node: NodeProto) -> dict[str, int]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
