"""Layers that onnxruntime's optimizer has joined with what follows them, taken apart again."""

from __future__ import annotations

from typing import Any

from .graph import Graph, Node, Unsupported

JOINED = {"com.microsoft.FusedConv": "Conv", "com.microsoft.FusedGemm": "Gemm"}
PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "Clip": ("min", "max")}
"""What the numbers of an activation are."""


def take_apart(graph: Graph) -> None:
    """A layer, a sum where a further tensor is added, and an activation, each a node."""
    nodes: list[Node] = []
    for node in graph.nodes:
        try:
            nodes += _parts(node) if node.op in JOINED else [node]
        except Unsupported:  # it is told with the others
            nodes.append(node)
    graph.nodes = nodes


def _parts(node: Node) -> list[Node]:
    own = {key: value for key, value in node.attributes.items() if not key.startswith("activation")}
    found = [_part(node, JOINED[node.op], node.inputs[:3], own)]
    if node.has(3):
        found.append(_part(node, "Add", [found[-1].outputs[0], node.inputs[3]], {}))
    kind = node.get("activation", "")
    if kind:
        names = PARAMETERS.get(kind, ())
        if kind not in {"Relu", "Tanh", "Sigmoid", *PARAMETERS}:
            raise Unsupported(f"{node.op} with the activation {kind}")
        numbers = node.get("activation_params", [node.get(f"activation_{name}") for name in names])
        given = {name: value for name, value in zip(names, numbers, strict=False) if value is not None}
        found.append(_part(node, kind, [found[-1].outputs[0]], given))
        if kind == "Clip":
            found[-1].version = 6  # whose bounds are attributes
    found[-1].outputs = list(node.outputs)
    return found


def _part(node: Node, op: str, inputs: list[str], attributes: dict[str, Any]) -> Node:
    path = (*(node.path[:-1] or node.path), op)
    output = f"{node.outputs[0]}/{op}"
    return Node(op, inputs, [output], attributes, 13, node.title, path, node.graph)
