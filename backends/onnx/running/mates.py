"""Whether what a graph gives for a sample depends on the others of its batch, by what operators it has."""

from __future__ import annotations

from collections.abc import Iterable, Set

from onnx import NodeProto

from ..building import OF_SHAPES
from .parts import Whole, graphs_of, reads


def mingled(whole: Whole) -> bool:
    """Whether a range is taken over the whole batch, or a way through the graph is chosen for all of it at once."""
    return _mingled(whole.nodes, whole.data)


def _mingled(nodes: Iterable[NodeProto], data: Set[str]) -> bool:
    """The same of some nodes, in which ``data`` depends on values of the samples."""
    data = set(data)
    for node in nodes:
        if data.isdisjoint(reads(node)):
            continue
        decisive = {"If": node.input[:1], "Loop": node.input[:2]}.get(node.op_type, ())
        if node.op_type.startswith("DynamicQuantize") or not data.isdisjoint(decisive):
            return True
        for graph in graphs_of(node):
            counted = 2 if node.op_type == "Loop" else 0  # of the inputs of a loop's body, number and condition
            inside = data | {each.name for each in graph.input[counted:]}
            if _mingled(graph.node, inside):
                return True
            if node.op_type == "Loop" and graph.output[0].name in _computed(graph.node, inside):
                return True
        if node.op_type not in OF_SHAPES:
            data.update(node.output)
    return False


def _computed(nodes: Iterable[NodeProto], names: Set[str]) -> set[str]:
    found = set(names)
    for node in nodes:
        if node.op_type not in OF_SHAPES and not found.isdisjoint(reads(node)):
            found.update(node.output)
    return found
