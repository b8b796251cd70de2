"""From an ONNX model to a network: functions written out, constants folded, layers put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner
from torch import Tensor

from ...core.errors import NotImportedError, RequestError, first_line, nearest
from .building import build
from .checking import likely
from .contrib import take_apart
from .folding import fold
from .fusion import fuse
from .graph import ELEMENTS, Dims, Graph, Input, Node, Unsupported, tensor_of, value_of
from .lifting import lift
from .naming import path_of
from .network import Network
from .reading import ONNX_DOMAINS, opset
from .recognition import recognise
from .registry import HANDLERS

PASSED_ON = frozenset({"Identity", "Dropout"})
"""What gives back its first input."""


def network(model: ModelProto, output: str | None = None) -> Network:
    """The module of a model, or of the part of it that gives the one ``output``."""
    graph = graph_of(written_out(_light(model)), model.graph, output)
    fold(graph)
    recognise(graph)
    fuse(graph)
    fold(graph)
    alone = output is None and len(graph.outputs) == 1
    found = build(graph, alone)
    tensors = likely(found)
    if tensors is None or (batch := found.batch) is None:
        return found
    lift(graph, batch, measured(found, tensors))
    return build(graph, alone) if graph.lifts else found


def measured(found: Network, tensors: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    """The shapes of all values, by one forward; none where that fails."""
    shapes: dict[str, Sequence[int]] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found.watched = lambda name, value: shapes.update({name: tuple(value.shape)})
    try:
        with torch.no_grad():
            found(**tensors)
    except Exception:  # told when it is run in earnest
        return {}
    finally:
        found.watched = None
    return shapes


def written_out(model: ModelProto) -> ModelProto:
    """Functions replaced by what they are made of: the model's own, and those operators that ONNX defines by others."""
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:
            line = first_line(error)
            raise RequestError(f"the model's own functions cannot be written out: {line}") from None
    strange = {n.op_type for n in model.graph.node if n.domain in ONNX_DOMAINS} - {*HANDLERS, "Constant"}
    if any(_has_body(name, opset(model)) for name in strange):
        known = [("", name) for name in HANDLERS if "." not in name]
        with suppress(Exception):  # what is left is told with all that is not imported
            return inliner.inline_selected_functions(
                _inferred(model), known, exclude=True, inline_schema_functions=True
            )
    return model


def _inferred(model: ModelProto) -> ModelProto:
    """With what is known of types and shapes, which is a help, no more."""
    with suppress(Exception):
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    return model


def _has_body(name: str, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(name, version, "")
    except onnx.defs.SchemaError:
        return False
    return any(getattr(schema, each, False) for each in ("has_function", "has_context_dependent_function"))


def graph_of(model: ModelProto, constants: GraphProto, output: str | None = None) -> Graph:
    """A model without functions as a graph of what its outputs need; ``constants`` are what it was made without."""
    outputs = asked(model, output)
    graph = Graph([], {}, [], {name: name for name in outputs}, _shapes(model))
    held: dict[str, str] = {}
    held.update(_constants(constants, graph.constants))
    graph.inputs = [declared(each) for each in model.graph.input if each.name not in {*graph.constants, *held}]
    version = {"": opset(model), **{each.domain: each.version for each in model.opset_import}}
    known = {*graph.constants, *held, *(each.name for each in graph.inputs)}
    for number, proto in enumerate(model.graph.node):
        title = proto.name or next(iter(proto.output), proto.op_type)
        for name in proto.input:
            if name and name not in known:
                raise RequestError(f"{proto.op_type} {title!r} reads {name!r}, which nothing gives: a damaged model")
        known.update(name for name in proto.output if name)
        _add(graph, proto, number, title, version, held)
    if missing := [name for name in outputs if name not in known]:
        raise RequestError(f"nothing gives the output {missing[0]!r}: a damaged model")
    graph.prune()
    needed = {*graph.outputs.values(), *(name for node in graph.nodes for name in node.inputs)}
    if told := [reason for name, reason in held.items() if name in needed]:
        raise NotImportedError(f"not imported: {told[0]}")
    graph.inputs = [each for each in graph.inputs if each.name in needed] or graph.inputs[:1]
    if not graph.inputs:
        raise RequestError("the model takes no input")
    _pass_on(graph)
    take_apart(graph)
    return graph


def asked(model: ModelProto, output: str | None) -> list[str]:
    """The one output, or all of them."""
    outputs = [each.name for each in model.graph.output]
    if output is None:
        return outputs
    if output not in outputs:
        raise RequestError(f"the model gives no output {output!r}. {nearest(output, outputs)}")
    return [output]


def _add(
    graph: Graph, proto: NodeProto, number: int, title: str, version: dict[str, int], held: dict[str, str]
) -> None:
    own = proto.domain in ONNX_DOMAINS
    try:
        attributes = {each.name: value_of(each) for each in proto.attribute}
    except (Unsupported, ValueError) as error:
        held.update((name, f"{proto.op_type} {title!r}: {error}") for name in proto.output)
        return
    if own and proto.op_type == "Constant":
        try:
            graph.constants[proto.output[0]] = _constant(attributes)
        except Unsupported as error:
            held[proto.output[0]] = str(error)
        return
    graph.nodes.append(
        Node(
            proto.op_type if own else f"{proto.domain}.{proto.op_type}",
            list(proto.input),
            list(proto.output),
            attributes,
            version["" if own else proto.domain] if own or proto.domain in version else 1,
            title,
            path_of(proto, number),
            graph,
        )
    )


def _constants(proto: GraphProto, found: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Put the initializers into ``found``; those that torch cannot hold come back, with the reason."""
    for each in proto.initializer:
        try:
            found[each.name] = tensor_of(each)
        except Unsupported as error:
            yield each.name, str(error)
        except ValueError as error:
            raise RequestError(str(error)) from None
    for sparse in proto.sparse_initializer:
        yield sparse.values.name, "sparse constants"


def _constant(attributes: dict[str, object]) -> Tensor:
    [(key, value)] = attributes.items()
    if key == "value" and isinstance(value, Tensor):
        return value
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if key not in kinds:
        raise Unsupported(f"constants of {key.removeprefix('value_').removeprefix('sparse_')}s")
    return torch.from_numpy(np.array(value, kinds[key]))


def declared(info: ValueInfoProto) -> Input:
    """An input as the file says it; `RequestError` where that is no tensor of numbers."""
    kind = info.type.tensor_type.elem_type
    if not info.type.HasField("tensor_type") or kind not in ELEMENTS:
        name = TensorProto.DataType.Name(kind) if info.type.HasField("tensor_type") else info.type.WhichOneof("value")
        raise RequestError(f"the model's input {info.name!r} is of type {name}, expected a tensor of numbers")
    return Input(info.name, ELEMENTS[kind], _dims(info))


def _shapes(model: ModelProto) -> dict[str, Dims]:
    """What is known of the shapes of values."""
    graph = _inferred(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {each.name: dims for each in values if (dims := _dims(each)) is not None}


def _light(model: ModelProto) -> ModelProto:
    """A copy without what fills the memory: constants become inputs of known shape, but for those that are shapes."""
    old = model.graph
    graph = GraphProto(name=old.name, node=old.node, input=old.input, output=old.output, value_info=old.value_info)
    names = {each.name for each in graph.input}
    for each in old.initializer:
        if len(each.dims) < 2 and each.data_type == TensorProto.INT64:
            graph.initializer.append(each)
        if each.name not in names:
            graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)))
    return ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )


def _dims(info: ValueInfoProto) -> Dims | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else None
        for each in info.type.tensor_type.shape.dim
    )


def _pass_on(graph: Graph) -> None:
    """Take out what gives back its input."""
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op in PASSED_ON and not any(map(node.wants, range(1, len(node.outputs)))) and not _trains(node):
            graph.rename(node.outputs[0], node.inputs[0])
        else:
            kept.append(node)
    graph.nodes = kept


def _trains(node: Node) -> bool:
    """Whether a dropout is not switched off."""
    mode = node.constant(2)
    return node.has(2) and (mode is None or bool(mode))
