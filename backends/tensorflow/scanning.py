"""A SavedModel looked through before anything of it is loaded: to load it is to run a part of what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SAVING = ("Save", "MergeV2Checkpoints")
"""Operators that are in every model, to save it again; what it computes has no use for them."""
WITHIN = re.compile(
    r"_?(Assert|Case|If|While|StatefulPartitionedCall|Arg|Retval|CheckNumerics|CudnnRNN|DestroyResourceOp|DeviceIndex"
    r"|DisableCopyOnRead|DummySeedGenerator|Empty|GuaranteeConst|IsResourceHandleRefCounting|VarHandleOp"
    r"|VarIsInitializedOp|Variable|ReadVariable|Assign(Add|Sub)?VariableOp|Resource(Gather|Scatter|StridedSlice|Apply)"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable|InitializeTable(V2)?$|LookupTable|TensorArray|Stack(Pop|Push|Close)?V2$"
    r"|Multinomial|NonDeterministicInts|(Parameterized)?TruncatedNormal|Random|Rng|Stateful|StatelessRandomGetAlg"
    r"|Restore|Save(Slices|V2)?$|MergeV2Checkpoints)"
)
"""Operators that have a state or an effect, but none outside of the graph; others of that sort are refused."""
BEYOND = re.compile(
    r"ReadFile|MatchingFiles|Reader|.*Dataset|InitializeTableFrom|GenerateVocabRemapping|(De|En)codeProto|.*PyFunc"
    r"|Debug|Copy(Host)?$|Abort"
)
"""Operators that reach out of the graph though TensorFlow says that they have no effect."""


TRUST = "give --trust-checkpoint if you trust where it came from"


class Refused(Exception):  # noqa: N818  (it is an answer, not a fault)
    """One line for the user."""


def parsed(path: Path) -> Any:
    """What the folder ``path`` stores, not loaded."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception:
        raise Refused(f"{path / 'saved_model.pb'} is damaged or cut short") from None
    return saved


def scanned(saved: Any, path: Path) -> None:
    """`Refused` names an operator that reaches out of one of its graphs, and where it is."""
    from tensorflow.python.framework import op_def_registry

    def reaches_out(kind: str) -> bool:
        known = op_def_registry.get(kind)  # the graph's own functions are looked into themselves
        return known is not None and (BEYOND.match(kind) is not None or (known.is_stateful and not WITHIN.match(kind)))

    for meta in saved.meta_graphs:
        for place, node in nodes_of(meta.graph_def):
            if reaches_out(node.op):
                raise Refused(f"{path} has the operator {node.op} ({place}), which reaches out of the graph; {TRUST}")
        for place, node in _run(meta):
            if node.op.startswith(SAVING):
                raise Refused(f"{path} has the operator {node.op} in what it computes ({place}); {TRUST}")


def nodes_of(graph: Any) -> Iterator[tuple[str, Any]]:
    """All nodes, and where they are."""
    yield from ((node.name, node) for node in graph.node)
    yield from ((function.signature.name, node) for function in graph.library.function for node in function.node_def)


def _run(meta: Any) -> Iterator[tuple[str, Any]]:
    """The nodes that loading and calling can run, those in functions too: all but what saves the model again."""
    graph = meta.graph_def
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    waiting = [each.name for signature in meta.signature_def.values() for each in signature.outputs.values()]
    waiting += [meta.saver_def.restore_op_name]
    waiting += [name for each in meta.collection_def.values() for name in each.node_list.value]
    called = [name for name in meta.object_graph_def.concrete_functions if name in functions]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield name, nodes[name]
        waiting += nodes[name].input
        called += _called(nodes[name], functions)
    seen.clear()
    while called:
        name = called.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield name, node
            called += _called(node, functions)


def _called(node: Any, functions: Mapping[str, Any]) -> Iterable[str]:
    """The functions that a node calls."""
    named = [node.op, *(attr.func.name for attr in node.attr.values())]
    named += [each.name for attr in node.attr.values() for each in attr.list.func]
    return [name for name in named if name in functions]
