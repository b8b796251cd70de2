"""What a graph computes from constants alone, computed once; in a small file there may stand a very large sum."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from ...core.errors import RequestError, first_line
from .building import made
from .graph import Graph, Node, Unsupported
from .registry import HANDLERS

LARGEST = 2**24
"""Elements of a constant that may be made of smaller ones: 64 MiB of float32."""
TOTAL = 2**28
"""Elements of all of them."""
NEVER_GROW = frozenset(
    {"Cast", "CastLike", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Slice", "Flatten", "Shape", "Size", "Sqrt"}
    | {"Neg", "Floor", "Ceil", "Reciprocal", "Abs", "Exp", "Log", "Not", "Split", "ReduceProd", "ReduceSum"}
)
GROWING = ("pads", "paddings", "strides", "output_shape", "output_padding", "scales", "shape")
"""Attributes that may make a result larger than what it is made of."""
UNFOLDED = frozenset({"LSTM", "GRU", "RNN"})


def fold(graph: Graph) -> None:
    """Every node that reads nothing but constants becomes constants."""
    total, kept = 0, []
    for node in graph.nodes:
        if not node.inputs or not node.among_constants() or node.op in UNFOLDED:
            kept.append(node)
            continue
        try:
            found = _folded(node)
        except Unsupported:  # it is told with the others
            kept.append(node)
            continue
        for name, value in zip(node.outputs, found, strict=False):
            if name:
                graph.constants[name] = value
                graph.shapes[name] = tuple(value.shape)
        total += sum(value.numel() for value in found)
        if total > TOTAL:
            raise RequestError(f"{node.op} {node.title!r}: constants made of constants come to {_size(total)}")
    graph.nodes = kept
    graph.prune()


def _folded(node: Node) -> list[torch.Tensor]:
    module, places = made(node)
    numbers = HANDLERS[node.op].numbers
    given = {place: node.graph.constants[node.inputs[place]] for place in places}
    values = [each.tolist() if place in numbers else each for place, each in given.items()]
    largest = max([LARGEST, *(node.graph.constants[name].numel() for name in node.inputs if name)])
    if node.op not in NEVER_GROW and _bound(node) > largest and (count := _count(module, values)) > largest:
        raise RequestError(f"{node.op} {node.title!r} would make a constant of {_size(count)} elements out of nothing")
    try:
        with torch.no_grad():
            result = module(*values)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        line = first_line(error, 160)
        raise RequestError(f"{node.op} {node.title!r} cannot be computed of its constants: {line}") from error
    return list(result) if isinstance(result, tuple | list) else [result]


def _bound(node: Node) -> float:
    """More elements than a node can give, however it uses the numbers that it is given."""
    constants = {i: each for i in range(len(node.inputs)) if (each := node.constant(i)) is not None}
    if node.op == "Range":
        start, end, step = (float(constants[i]) for i in range(3))
        return abs((end - start) / step) if step else 0
    factors = [1 + abs(float(v)) for key in GROWING for v in node.get(key) or []]
    for place, value in constants.items():
        if place in HANDLERS[node.op].numbers:
            factors += [1 + abs(float(v)) for v in value.flatten().tolist()]
        else:
            factors.append(max(value.numel(), 1))
    return math.prod(factors)


def _count(module: torch.nn.Module, values: list[Any]) -> int:
    """Elements that a module would give, found without computing any; 0 where that cannot be."""
    try:
        with torch.device("meta"), torch.no_grad():
            result = copy.deepcopy(module).to("meta")(
                *(value.to("meta") if isinstance(value, torch.Tensor) else value for value in values)
            )
    except Exception:  # one that looks at values; such give no more than they are given
        return 0
    results = result if isinstance(result, tuple | list) else (result,)
    return sum(math.prod(each.shape) for each in results)


def _size(count: int) -> str:
    return f"{count:.1e}" if count > 10**6 else str(count)
