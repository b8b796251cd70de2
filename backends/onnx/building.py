"""From a graph to the module that computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...core.errors import CamsweepError, NotImportedError, RequestError, first_line
from . import operators  # noqa: F401  (registers them)
from .entry import Entry
from .graph import Graph, Node, Unsupported
from .modules import kind
from .naming import names_of
from .network import Network, Source, Step
from .registry import HANDLERS, Handler

OF_SHAPES = frozenset({"Shape", "Size"})
"""Operators that look at shapes alone, and give values that only these decide."""
LISTED = 8
"""So many operators that are not imported are named."""


def build(graph: Graph, alone: bool) -> Network:
    """The network of a graph; `NotImportedError` names all operators that are not imported."""
    hosts = hosted(graph)
    visible = [node for node in graph.nodes if not hosts.issuperset(filter(None, node.outputs))]
    names = names_of(visible)
    refused: Counter[str] = Counter()
    missing: set[str] = set()
    steps: list[Step] = []
    modules: dict[str, nn.Module] = {}
    constants: dict[str, str] = {}
    for node in graph.nodes:
        try:
            run, places = made(node)
        except Unsupported as reason:
            refused[str(reason)] += 1
            missing.update(node.outputs)
            continue
        sources = [_source(node, place, graph, hosts, constants) for place in places]
        host = node not in names
        steps.append(Step(run, sources, node.outputs, host))
        if not host:
            modules[names[node]] = run
    if refused:
        listed = [each if count == 1 else f"{each} ({count})" for each, count in refused.most_common()]
        more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
        way_out = f"; without them: --output {without[0]}" if (without := _without(graph, missing)) else ""
        raise NotImportedError(f"operators that are not imported: {', '.join(listed[:LISTED])}{more}{way_out}")
    entries = [Entry.of(each, graph) for each in graph.inputs]
    outputs = {
        name: constants.setdefault(value, f"constant_{len(constants)}") if value in graph.constants else value
        for name, value in graph.outputs.items()
    }
    _forget(steps, {*outputs.values(), *hosts})
    floats = [each.dtype for each in graph.inputs if each.dtype.is_floating_point] or [torch.float32]
    network = Network(steps, entries, outputs, alone, _steady(graph, hosts))
    network.like = torch.empty(0, dtype=floats[0])
    for value, name in constants.items():
        network.register_buffer(name, graph.constants[value])
    for name, module in modules.items():
        _attach(network, name, module)
    tensors = [*network.parameters(), *network.buffers()]
    network.halved = any(each.dtype in (torch.float16, torch.bfloat16) for each in tensors)
    return network.eval().requires_grad_(False)


def made(node: Node) -> tuple[nn.Module, list[int]]:
    """The module of a node, and the places of the inputs that it is given."""
    if node.op not in HANDLERS:
        raise Unsupported(node.op)
    handler = HANDLERS[node.op]
    try:
        result = handler.make(node)
    except (Unsupported, CamsweepError):
        raise
    except Exception as error:
        line = first_line(error, 120)
        raise RequestError(f"{node.op} {node.title!r} cannot be read: {type(error).__name__}: {line}") from error
    places = [i for i in range(len(node.inputs)) if node.has(i) and i not in node.taken]
    if isinstance(result, nn.Module):
        return result, places
    fixed = {i: _fixed(node, handler, i) for i in range(len(node.inputs)) if _is_fixed(node, i)}
    module = kind(node.op)(result, len(node.inputs), fixed)
    return module, module.open


def hosted(graph: Graph) -> set[str]:
    """Values that only the shapes of the inputs decide."""
    found: set[str] = set()
    for node in graph.nodes:
        known = all(name in found or name in graph.constants for name in node.inputs if name)
        if node.op in OF_SHAPES or (known and any(name in found for name in node.inputs)):
            found.update(name for name in node.outputs if name)
    return found


def _without(graph: Graph, missing: set[str]) -> list[str]:
    """The outputs that depend on none of the ``missing`` values."""
    for node in graph.nodes:
        if missing.intersection(filter(None, node.inputs)):
            missing.update(filter(None, node.outputs))
    return [name for name, value in graph.outputs.items() if value not in missing]


def _is_fixed(node: Node, place: int) -> bool:
    return not node.has(place) or place in node.taken or node.constant(place) is not None


def _fixed(node: Node, handler: Handler, place: int) -> Any:
    value = None if place in node.taken else node.constant(place)
    return value.tolist() if value is not None and place in handler.numbers else value


def _source(node: Node, place: int, graph: Graph, hosts: set[str], constants: dict[str, str]) -> Source:
    name = node.inputs[place]
    if name in graph.constants:
        return "constant", constants.setdefault(name, f"constant_{len(constants)}")
    if place in HANDLERS[node.op].numbers:
        return "numbers", name
    return ("host" if name in hosts else "value"), name


def _forget(steps: Sequence[Step], kept: set[str]) -> None:
    """Note with each step the values that are needed no more after it, but for those ``kept``."""
    seen = set(kept)
    for step in reversed(steps):
        read = [name for source, name in step.arguments if source in ("value", "numbers")]
        own = [] if step.host else [name for name in step.outputs if name]
        for name in dict.fromkeys([*read, *own]):
            if name not in seen:
                seen.add(name)
                step.done.append(name)


def _steady(graph: Graph, hosts: set[str]) -> bool:
    """Whether no shape depends on values of the data."""
    shaky: set[str] = set()
    for node in graph.nodes:
        if hosts.issuperset(filter(None, node.outputs)) and node.op not in OF_SHAPES:
            continue
        handler = HANDLERS[node.op]
        fed = any(
            place in handler.numbers and name and name not in hosts and name not in graph.constants
            for place, name in enumerate(node.inputs)
        )
        if any(name in shaky for name in node.inputs):
            if node.op in OF_SHAPES:
                return False
            fed = True
        if fed or handler.unsteady:
            shaky.update(node.outputs)
    return True


def _attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module under a dotted name, whatever its parts are."""
    *scopes, own = name.split(".")
    for scope in scopes:
        root = root._modules.setdefault(scope, nn.Module())  # type: ignore[assignment]
    root._modules[own] = module
