"""A graph, and the parts of it that compute some of its values from others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from ..building import OF_SHAPES
from .quantised import meant


class Whole:
    """What the ``outputs`` of a model need of it."""

    def __init__(self, model: ModelProto, outputs: Sequence[str]) -> None:
        self.model, self.outputs = model, list(outputs)
        self.nodes: list[NodeProto] = []
        self.reads: list[list[str]] = []
        self.makers: dict[str, int] = {}
        """The place of the node that gives a value."""
        constants = model.graph.initializer
        self.constants: dict[str, TensorProto] = {each.name: each for each in constants}
        self._sparse = {each.values.name: each for each in model.graph.sparse_initializer}
        self.inputs: dict[str, ValueInfoProto] = {
            each.name: each for each in model.graph.input if each.name not in {*self.constants, *self._sparse}
        }
        self._set(model.graph.node)
        names = self._names((), outputs, {})
        needed = [name for name in self.inputs if name in names] or list(self.inputs)[:1]
        self.inputs = {name: _any_batch(self.inputs[name]) for name in needed}
        self._set([self.nodes[place] for place in self._needed(outputs)])
        self.meant = {each.value: each for each in meant(self.nodes)}
        """Values that stand behind those in 8 bits, by their names."""
        self.behind_codes = {each.code: each.value for each in self.meant.values()}
        self._set([*self.nodes, *(each.read for each in self.meant.values())])

    def _set(self, nodes: Iterable[NodeProto]) -> None:
        self.nodes = list(nodes)
        self.reads = [reads(node) for node in self.nodes]
        self.makers = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def fed(self) -> set[str]:
        """What depends on an input."""
        return self.depending(self.inputs)

    @cached_property
    def data(self) -> set[str]:
        """What depends on the values of an input, not on its shape alone."""
        return self.depending(self.inputs, blind=OF_SHAPES)

    def depending(self, names: Iterable[str], blind: Collection[str] = ()) -> set[str]:
        """What is computed from ``names``, these included; ``blind`` operators let nothing through."""
        found = set(names)
        found.update(self.meant[name].code for name in names if name in self.meant)
        for node, names_read in zip(self.nodes, self.reads, strict=True):
            if node.op_type not in blind and not found.isdisjoint(names_read):
                found.update(filter(None, node.output))
        return found

    def weighing(self, name: str) -> set[str]:
        """The values that ``name`` depends on, not on their shapes alone."""
        found: set[str] = set()
        ahead = [name]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.update({name, self.behind_codes.get(name, name)})
                node = self.nodes[self.makers[name]] if name in self.makers else None
                ahead += self.reads[self.makers[name]] if node is not None and node.op_type not in OF_SHAPES else []
        return found

    def crossing(self, cut: str, wanted: Sequence[str]) -> list[str]:
        """What must be known besides the value at ``cut`` to compute what is ``wanted``.

        That are the values beside it that are read behind it (of shortcuts, of masks), and what does not depend on it.
        """
        behind = self.depending([cut])
        read = [
            name
            for place in self._needed(wanted)
            if not behind.isdisjoint(self.reads[place])
            for name in self.reads[place]
        ]
        beside = [name for name in read if name in self.fed] + list(wanted)
        return [name for name in dict.fromkeys(beside) if name not in behind]

    def part(self, given: Mapping[str, int], wanted: Sequence[str]) -> ModelProto:
        """The model that computes ``wanted`` from the values ``given``, of some element types, and from the inputs."""
        write = {self.meant[name].code: self.meant[name].write for name in given if name in self.meant}
        names = self._names(given, wanted, write)
        places = sorted({self.makers[name] for name in names if name in self.makers and name not in given})
        own = [write.get(self.nodes[place].output[0]) or _without(self.nodes[place], given) for place in places]
        old = self.model.graph
        graph = GraphProto(
            name=old.name,
            node=own,
            input=[
                *(self.inputs[name] for name in self.inputs if name in names and name not in given),
                *(onnx.helper.make_tensor_value_info(n, kind, None) for n, kind in given.items() if n in names),
            ],
            output=[ValueInfoProto(name=name) for name in wanted],
            initializer=[each for name, each in self.constants.items() if name in names],
            sparse_initializer=[each for name, each in self._sparse.items() if name in names],
        )
        return ModelProto(
            ir_version=max(4, self.model.ir_version),  # from which on constants need not be inputs too
            opset_import=self.model.opset_import,
            functions=self.model.functions,
            graph=graph,
        )

    def _needed(self, wanted: Iterable[str]) -> list[int]:
        return sorted({self.makers[name] for name in self._names((), wanted, {}) if name in self.makers})

    def _names(self, given: Collection[str], wanted: Iterable[str], instead: Mapping[str, NodeProto]) -> set[str]:
        """All values on the way; ``instead``: nodes in the place of those that give some value."""
        found: set[str] = set()
        ahead = list(wanted)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                if name in self.makers and name not in given:
                    ahead += instead[name].input if name in instead else self.reads[self.makers[name]]
        return found


def _any_batch(declared: ValueInfoProto) -> ValueInfoProto:
    """An input without the size of its first axis: many graphs that are made for one can take others."""
    found = ValueInfoProto()
    found.CopyFrom(declared)
    for dim in found.type.tensor_type.shape.dim[:1]:
        dim.ClearField("value")
    return found


def _without(node: NodeProto, names: Collection[str]) -> NodeProto:
    """A node that gives nothing under these names."""
    if not any(name in names for name in node.output):
        return node
    other = NodeProto()
    other.CopyFrom(node)
    other.output[:] = [f"{name}/unused" if name in names else name for name in node.output]
    return other


def reads(node: NodeProto) -> list[str]:
    """What a node reads, what the graphs inside of it take from outside included."""
    captured = (name for graph in graphs_of(node) for name in _captured(graph))
    return list(dict.fromkeys(filter(None, (*node.input, *captured))))


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The branches and bodies of a node."""
    for each in node.attribute:
        yield from [each.g] if each.HasField("g") else each.graphs


def _captured(graph: GraphProto) -> Iterator[str]:
    own = {each.name for each in (*graph.input, *graph.initializer)}
    own |= {each.values.name for each in graph.sparse_initializer}
    own |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in reads(node)]
    yield from (name for name in (*read, *(each.name for each in graph.output)) if name not in own)
