"""A Keras model, walked node by node, becomes a `Graph` of torch modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...core.errors import RequestError
from . import activations, attention, convolution, merging, normalization, pooling, recurrent, shaping
from .framework import keras, quiet
from .graph import Graph, Leaf, Order, Value, leaves_of, mapped
from .hosted import Hosted, hosted, shapes_of
from .operations import operation
from .table import made, makes, named, refused

MAKERS = (activations, attention, convolution, merging, normalization, pooling, recurrent, shaping)
"""Modules that fill the table."""


def imported(model: Any, argument: str | None) -> Functional | Subclassed:
    """A whole model as a module. Its input ``argument``, or its first, is (batch, channel, *s)."""
    functional = getattr(model, "_functional", None) or model
    with quiet():
        graph = hasattr(functional, "_nodes_by_depth")
        module: Functional | Subclassed = Functional(functional, argument) if graph else Subclassed(model)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def sample_of(shape: Sequence[int | None], order: Order) -> tuple[int, ...] | None:
    """(channel, *s) of one sample of an input's ``shape`` in Keras, where all of it is known."""
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(sizes) < len(shape) - 1:
        return None
    return (sizes[-1], *sizes[:-1]) if order == "first" and sizes else sizes


def order_of(model: Any) -> Order:
    """Where a model has its channels: where its first layer that says so has them, else last."""
    said = [layer.data_format for layer in model._flatten_layers() if getattr(layer, "data_format", None)]
    return "keras" if said[:1] == ["channels_first"] else "first"


class Functional(Graph):
    """A model that Keras knows the graph of."""

    def __init__(self, model: Any, argument: str | None) -> None:
        names = [each.name for each in model.inputs]
        if argument is not None and argument not in names:
            raise RequestError(f"no input {argument!r} in the model; its inputs are {', '.join(names)}")
        self.order = order_of(model)
        super().__init__([len(each.shape) for each in model.inputs], self.order)
        self.names, self.explained = names, names.index(argument) if argument else 0
        self.sample = sample_of(model.inputs[self.explained].shape, self.order)
        found = _Walk(self, model, self.order).outputs()
        keys = list(model.output_names)
        unique = [key if keys.count(key) == 1 else f"{key}_{i}" for i, key in enumerate(keys)]
        self.end(found[0] if len(found) == 1 else dict(zip(unique, found, strict=True)), self.order)

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """Inputs in their order, or by name; but for the one that is explained they are as Keras wants them."""
        rest = iter(given)
        inputs = [named[name] if name in named else next(rest, None) for name in self.names]
        if missing := [name for name, each in zip(self.names, inputs, strict=True) if each is None]:
            raise TypeError(f"the model's input {missing[0]!r} is not given")
        return super().forward(*(self._own(i, x) for i, x in enumerate(inputs)))  # type: ignore[arg-type]

    def _own(self, index: int, x: Tensor) -> Tensor:
        """An input as the graph takes it."""
        value = self.inputs[index]
        if index == self.explained:
            if x.ndim != value.rank + 1 or x.shape[1] != 1:
                return x
            x = x[:, 0]  # a model of bare signals or images has no axis for a channel
        return x.movedim(-1, 1) if value.order == "first" else x


class Subclassed(Hosted):
    """A model that is somebody's own code, which runs as it is, on modules of torch."""

    def __init__(self, model: Any) -> None:
        self.order = order_of(model)
        super().__init__(model)
        self.prepare(shapes := shapes_of(model))
        self.sample = sample_of(shapes[0], self.order)

    def forward(self, x: Tensor) -> Any:
        """(batch, channel, *s)."""
        last = self.order == "first"
        given = super().forward(x.movedim(1, -1) if last and x.ndim > 2 else x)
        return mapped(given, lambda each: each.movedim(-1, 1) if last and each.ndim > 2 else each)


@makes("Functional", "Sequential", "Model")
def _nested(model: Any) -> Leaf:
    order = order_of(model)
    model = getattr(model, "_functional", None) or model
    graph = Graph([len(each.shape) for each in model.inputs], order)
    found = _Walk(graph, model, order).outputs()
    graph.end(found[0] if len(found) == 1 else found, order)
    return Leaf(graph, order)


UNMASKED = frozenset({"BatchNormalization"})
"""To these a mask means nothing in evaluation."""


class _Walk:
    """The calls of a model put into a graph."""

    def __init__(self, graph: Graph, model: Any, order: Order) -> None:
        self.graph, self.model, self.order = graph, model, order
        self._values = {id(tensor): value for tensor, value in zip(model.inputs, graph.inputs, strict=True)}
        self._ends = {id(tensor) for tensor in model.outputs}
        self._leaves: dict[int, tuple[str, Leaf]] = {}

    def outputs(self) -> list[Value]:
        """Their values."""
        for depth in sorted(self.model._nodes_by_depth, reverse=True):
            for node in self.model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node)
        return [self._values[id(tensor)] for tensor in self.model.outputs]

    def _node(self, node: Any) -> None:
        if all(id(tensor) in self._values for tensor in node.outputs):
            return
        name, leaf = self._leaf(node)
        tensors = keras().KerasTensor
        results = self.graph.call(
            name,
            leaf,
            mapped(self._arguments(node, leaf), lambda each: self._value(each) if isinstance(each, tensors) else each),
            [len(tensor.shape) for tensor in node.outputs],
            single=len(node.outputs) == 1,
            wanted=self.order if any(id(tensor) in self._ends for tensor in node.outputs) else "any",
        )
        self._values.update((id(tensor), value) for tensor, value in zip(node.outputs, results, strict=True))

    def _value(self, tensor: Any) -> Value:
        """Of a tensor, or of a mask, which Keras makes beside the graph."""
        if id(tensor) not in self._values:
            layer, index, _ = tensor._keras_history
            self._node(layer._inbound_nodes[index])
        return self._values[id(tensor)]

    def _leaf(self, node: Any) -> tuple[str, Leaf]:
        layer = node.operation
        if id(layer) not in self._leaves:
            leaf = _leaf_of(layer, node.input_tensors)
            self._leaves[id(layer)] = named(layer.name, self.graph), leaf
            self.graph.add_module(self._leaves[id(layer)][0], leaf.module)
        return self._leaves[id(layer)]

    def _arguments(self, node: Any, leaf: Leaf) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a node is called with, but for what says nothing in evaluation."""
        layer, args = node.operation, node.arguments.args
        kwargs = {k: v for k, v in node.arguments.kwargs.items() if k != "training" and v is not None}
        if isinstance(leaf.module, Graph):
            if "mask" in kwargs:
                raise refused(layer, "is given a mask, which is not supported")
            return tuple(keras().tree.flatten((args, kwargs))), {}
        masks = {k: v for k, v in kwargs.items() if k.endswith("mask") and k != "use_causal_mask"}
        implied = [getattr(each, "_keras_mask", None) for each in leaves_of(args)]
        if "mask" not in masks and _masked(layer) and any(each is not None for each in implied):
            masks["mask"] = implied[0] if len(implied) == 1 else implied
        known = {"mask", "attention_mask"} if getattr(leaf.module, "masks", False) else {"attention_mask"}
        if masks.keys() - known and type(layer).__name__ not in UNMASKED:
            raise refused(layer, "is given a mask, which is not supported")
        kept = {k: v for k, v in (kwargs | masks).items() if k not in masks or k in known}
        return args, kept


def _masked(layer: Any) -> bool:
    """Whether Keras hands on to it the masks of what it is given."""
    signature = getattr(layer, "_call_signature", None)
    return signature is not None and not {"mask", "query_mask"}.isdisjoint(signature.parameters)


def _leaf_of(layer: Any, tensors: Sequence[Any]) -> Leaf:
    """The module in the place of a layer, a nested model or one of ``keras.ops``."""
    if not isinstance(layer, keras().Layer):
        return operation(layer, len(tensors[0].shape))
    return made(layer, len(tensors[0].shape)) or hosted(layer, [tensor.shape for tensor in tensors])
