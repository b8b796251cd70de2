"""The layers of a graph: its nodes that compute with the data, each by the first of its values that is of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from ....core.backend import Layer
from ....core.errors import RequestError
from ...torch.grids import Grid, Order, Tokens, alike, settle
from ..entry import CHANNEL_SECOND
from ..graph import ELEMENTS, Graph, Node, Unsupported, tensor_of, value_of
from ..importing import declared
from ..naming import names_of, path_of
from ..reading import ONNX_DOMAINS, opset
from ..watching import MOVING, inside_attention
from .parts import Whole

PLUMBING = MOVING | {"Pad", "MatMul", "Softmax", "Einsum", "Where", "Identity", "Dropout", "If", "Loop", "Scan"}
"""Kinds of layers that ``auto`` never means: they move values, weigh them, or hold the layer that is meant."""
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
WEIGHTED = ("MatMul", "Gemm")


@dataclass(eq=False)
class Place:
    """A layer: where in the graph it is."""

    node: Node
    values: list[str]
    """What it reads that depends on values of the data."""
    value: str = ""
    """What it is tapped by, "" where it gives no numbers."""
    inside: bool = False
    """Whether it is a part of an attention, whose values no map can be made of."""

    @property
    def kind(self) -> str:
        """What operator it is; a product with weights is a linear layer."""
        weighted = any(each in self.node.op for each in WEIGHTED) and len(self.values) == 1
        return "Linear" if weighted else self.node.op.rpartition(".")[2]

    @property
    def recurrent(self) -> bool:
        """Whether it gives steps first, which are brought behind the batch later."""
        return self.kind.endswith(("LSTM", "GRU", "RNN"))

    @property
    def outputs(self) -> Sequence[str]:
        """The names of what it gives."""
        return self.node.outputs

    @property
    def order(self) -> Order | None:
        """Where a layer of this kind has its channels, None where it does not matter to it."""
        if self.kind == "LayerNormalization":
            return "last" if self.node.get("axis", -1) == -1 else "first"
        if self.kind == "Linear" or self.recurrent:
            return "last"
        pools = "Pool" in self.kind or "Norm" in self.kind or "Conv" in self.kind
        return "first" if self.kind in CHANNEL_SECOND or pools else None


@dataclass
class Places:
    """All layers of a graph, by name."""

    graph: Graph
    found: dict[str, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, whole: Whole) -> Places:
        """Those that compute with values of the data."""
        graph = _graph(whole)
        nodes = [node for node in graph.nodes if not whole.data.isdisjoint(node.outputs)]
        places = {node: Place(node, [name for name in node.inputs if name in whole.data]) for node in nodes}
        for each in inside_attention(list(places.values())):
            each.inside = True
        return cls(graph, {name: places[node] for node, name in names_of(nodes).items()})

    def settle(self, whole: Whole, element: Callable[[str], int]) -> None:
        """Choose the value of each, as the element types are known."""
        for place in self.found.values():
            meant = (whole.behind_codes.get(name, name) for name in place.outputs if name)
            place.value = next((name for name in meant if element(name) in FLOATS), "")

    def watchable(self, values: Mapping[str, NDArray[Any]], rows: int) -> dict[str, Place]:
        """Those that give a value for each of so many samples."""
        return {
            name: place
            for name, place in self.found.items()
            if not place.inside
            and place.value in values
            and values[place.value].ndim > 0
            and len(values[place.value]) == rows
        }


@dataclass
class Seen:
    """What a forward of one sample shows of the layers."""

    places: Mapping[str, Place]
    """Those that are shown, by name."""
    layers: list[Layer]
    grids: dict[str, Grid]

    @classmethod
    def of(
        cls,
        every: Mapping[str, Place],
        places: Mapping[str, Place],
        values: Mapping[str, NDArray[Any]],
        field: Sequence[int],
        tokens: Tokens,
    ) -> Seen:
        """By their values, for an input with the spatial sizes ``field``; ``every``: also those that are not shown."""
        layers, grids, order, sizes = list[Layer](), dict[str, Grid](), None, list[tuple[int, ...]]()
        for name, place in every.items():
            if name in places or place.recurrent:
                order = place.order or order
            if name not in places:
                continue
            dims = values[place.value].shape[1:]
            grid, doubt = Grid(), ""
            own = None if place.kind == "LayerNormalization" else place.order
            try:
                grid = settle(dims, field, order, sizes, tokens, own)
            except RequestError as error:
                doubt = str(error)
            shape = grid.shape(dims)
            rank = len(shape) - 1 if np.prod(shape[1:], dtype=int) > 1 else 0
            if rank == len(field) and not doubt:
                sizes.append(tuple(shape[1:]))
            grids[name] = grid
            layers.append(Layer(name, place.node.op.rpartition(".")[2], shape, 1, max(rank, 0), str(grid), doubt))
        return cls(places, layers, grids)

    def auto(
        self,
        graph: Graph,
        behind: set[str],
        field: Sequence[int],
        change: Callable[[str], float],
        least: Callable[[str], float],
    ) -> str | None:
        """The last layer with the input's spatial axes, of those that do more than move values.

        It is one of ``behind`` the scores. Of layers of tokens it is one by which these ``change`` more than ``least``:
        behind the last attention, a head that reads the class token leaves the patches nothing to say. Then a
        normalization rather than what follows it.
        """
        fits = [
            each
            for each in self.layers
            if each.tappable and each.rank == len(field) and self.places[each.name].value in behind
        ]
        does = _Doing(graph, {place.node for place in self.places.values()})
        meant = [each for each in fits if does(self.places[each.name]) and alike(each.shape[1:], field)] or fits
        names = [each.name for each in meant]
        if not names or self.grids[names[-1]].sizes is None:
            return names[-1] if names else None
        tokens = [name for name in names if self.grids[name].sizes is not None]
        bound = least(tokens[0])
        felt = (name for name in reversed(tokens) if change(name) > bound)
        last = next(felt, names[-1])
        norms = (name for name in chain([last], felt) if "Norm" in self.places[name].kind)
        return last if last == names[-1] else next(norms, last)


class _Doing:
    """Tells the layers that make values from those that only move them."""

    def __init__(self, graph: Graph, shown: set[Node]) -> None:
        self.makers, self.shown = graph.makers, shown

    def __call__(self, place: Place) -> bool:
        """A value made whole again from its 8 bits is what it was before; one moved may stand for what is not shown."""
        node: Node | None = place.node
        while node is not None and node.op == "DequantizeLinear":
            quantised = self.makers.get(node.inputs[0])
            if quantised is None or quantised.op != "QuantizeLinear":
                return quantised is not None and quantised.op not in PLUMBING
            node = self.makers.get(quantised.inputs[0])
        if node is None:
            return False
        if node.op not in PLUMBING or (node is place.node and place.kind == "Linear"):
            return True
        while node is not None and node.op in MOVING:
            node = self.makers.get(node.inputs[0])
        return node is not None and node not in self.shown and node.op not in PLUMBING


def _graph(whole: Whole) -> Graph:
    """The nodes as the importer has them, with no more of the constants than their shapes where they are large."""
    versions = {"": opset(whole.model), **{each.domain: each.version for each in whole.model.opset_import}}
    graph = Graph([], dict(_shapes(whole.constants.values())), [], {name: name for name in whole.outputs}, {})
    graph.inputs = [declared(each) for each in whole.model.graph.input if each.name in whole.inputs]
    added = {id(each.read) for each in whole.meant.values()}
    for number, (proto, reads) in enumerate(zip(whole.nodes, whole.reads, strict=True)):
        if id(proto) in added:
            continue
        own = proto.domain in ONNX_DOMAINS
        captured = [name for name in reads if name not in proto.input]
        graph.nodes.append(
            Node(
                proto.op_type if own else f"{proto.domain}.{proto.op_type}",
                [*proto.input, *captured],
                list(proto.output),
                dict(_attributes(proto)),
                versions.get("" if own else proto.domain, 1),
                proto.name or next(iter(proto.output), proto.op_type),
                path_of(proto, number),
                graph,
            )
        )
    return graph


def _attributes(proto: NodeProto) -> Iterable[tuple[str, Any]]:
    for each in proto.attribute:
        if each.type != onnx.AttributeProto.TENSOR:
            with suppress(Unsupported, ValueError):
                yield each.name, value_of(each)


def _shapes(constants: Iterable[TensorProto]) -> Iterable[tuple[str, torch.Tensor]]:
    for each in constants:
        if each.data_location == TensorProto.EXTERNAL or each.data_type not in ELEMENTS:
            yield each.name, torch.empty(tuple(each.dims), device="meta")
        else:
            yield each.name, tensor_of(each)
