"""An ONNX graph as plain data: its nodes, its constants as tensors, what is known of shapes, and changes to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, numpy_helper
from torch import Tensor

Dims = tuple[int | None, ...]
ELEMENTS: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.int32,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
}
"""What holds the values of each element type; torch computes with no unsigned ones of more than 8 bits."""


class Unsupported(Exception):  # noqa: N818  (it is collected, and told as one error)
    """An operator, or a way of using it, that is not imported; the message names it."""


@dataclass(frozen=True)
class Input:
    """A declared input."""

    name: str
    dtype: torch.dtype
    dims: Dims | None


@dataclass(eq=False)
class Node:
    """One operator of the graph."""

    op: str
    """Its type, with its domain before it where that is not ONNX's own."""
    inputs: list[str]
    """Names of values, "" where an optional one is left out."""
    outputs: list[str]
    attributes: dict[str, Any]
    version: int
    """Of the operator set it is written in."""
    title: str
    """As the file calls it, for messages."""
    path: tuple[str, ...]
    """Scopes and its own name, as layers are named."""
    graph: Graph = field(repr=False)
    taken: set[int] = field(default_factory=set)
    """Places of the inputs that a handler has built into what it made."""

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(key, default)

    def has(self, place: int) -> bool:
        """Whether an optional input is given."""
        return place < len(self.inputs) and self.inputs[place] != ""

    def wants(self, place: int) -> bool:
        """Whether somebody has a use for an output."""
        return place < len(self.outputs) and self.outputs[place] != ""

    def constant(self, place: int) -> Tensor | None:
        """An input's value, where that is known."""
        return self.graph.constants.get(self.inputs[place]) if self.has(place) else None

    def take(self, *places: int) -> list[Tensor | None] | None:
        """Constant inputs, from now on built in; absent ones are None. None if one of them is no constant."""
        found = [self.constant(place) for place in places]
        if any(each is None and self.has(place) for place, each in zip(places, found, strict=True)):
            return None
        self.taken.update(places)
        return found

    def setting(self, key: str, place: int, default: Any = None) -> Any:
        """What old versions say in an attribute and new ones in a constant input, as numbers."""
        if key in self.attributes:
            return self.attributes[key]
        if not self.has(place):
            return default
        found = self.take(place)
        if found is None or found[0] is None:
            raise Unsupported(f"{self.op} with {key} computed from the data")
        return found[0].tolist()

    def dims(self, place: int) -> Dims | None:
        """An input's shape as far as it is known."""
        return self.graph.shapes.get(self.inputs[place]) if self.has(place) else None

    def rank(self, place: int) -> int | None:
        """Number of axes of an input, where that is known."""
        dims = self.dims(place)
        return None if dims is None else len(dims)

    def among_constants(self) -> bool:
        """Whether all that it reads is known."""
        return all(name in self.graph.constants for name in self.inputs if name)


@dataclass
class Graph:
    """Nodes in an order in which they can run."""

    nodes: list[Node]
    constants: dict[str, Tensor]
    inputs: list[Input]
    outputs: dict[str, str]
    """What each output is called, and the value that it is."""
    shapes: dict[str, Dims]
    lifts: dict[Node, Callable[[Sequence[int]], list[int]]] = field(default_factory=dict)
    """For a reshape in a graph of a fixed batch, its result's shape by that of its input."""

    @property
    def makers(self) -> dict[str, Node]:
        """The node of each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @property
    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def rename(self, old: str, new: str) -> None:
        """Whoever reads ``old`` reads ``new``."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = {name: new if value == old else value for name, value in self.outputs.items()}

    def prune(self) -> None:
        """Drop what no output needs, and blank outputs that nobody reads."""
        needed, kept = set(self.outputs.values()), []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs):
                node.outputs = [name if name in needed else "" for name in node.outputs]
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}

    def replace(self, nodes: Iterable[Node], by: Node) -> None:
        """One node in the place of others, where the last of them stood. What they alone needed goes."""
        gone = list(nodes)
        last = max(self.nodes.index(each) for each in gone)
        self.nodes.insert(last + 1, by)
        self.nodes = [each for each in self.nodes if each not in gone]


def node_of(graph: Graph, op: str, like: Node, inputs: list[str], output: str, **attributes: Any) -> Node:
    """A node that stands for others, named as ``like`` is."""
    return Node(op, inputs, [output], attributes, like.version, like.title, like.path, graph)


def tensor_of(proto: TensorProto) -> Tensor:
    """The values of a constant; `Unsupported` where it holds no numbers that torch has."""
    kind = proto.data_type
    if kind not in ELEMENTS:
        raise Unsupported(f"constants of type {TensorProto.DataType.Name(kind)}")
    try:
        if kind == TensorProto.BFLOAT16:
            words = np.frombuffer(proto.raw_data, np.int16) if proto.raw_data else np.array(proto.int32_data)
            values = torch.from_numpy(words.astype(np.int16)).view(torch.bfloat16).reshape(tuple(proto.dims))
        else:
            array = numpy_helper.to_array(proto)
            wide = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}
            values = torch.from_numpy(np.array(array, dtype=wide.get(array.dtype, array.dtype), order="C"))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"constant {proto.name!r} of shape {tuple(proto.dims)} is damaged: {error}") from None
    return values


def value_of(attribute: AttributeProto) -> Any:
    """An attribute as Python has it; a tensor as `tensor_of`."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return tensor_of(value)
    if attribute.type == AttributeProto.STRINGS:
        return [each.decode("utf-8", "replace") for each in value]
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value
