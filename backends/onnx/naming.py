"""What layers are called: as in the model that was exported, where the file tells."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence

from onnx import NodeProto
from torch import nn

from .graph import Node

TORCH_SCOPES = "pkg.torch.onnx.name_scopes"
NAMESPACE = "namespace"
RESERVED = frozenset({"steps", "entries", "outputs", "alone", "steady", "chunk", "watched", "like", "halved", "batch"})
"""What a `network.Network` has under these names is something else."""


def path_of(proto: NodeProto, number: int) -> tuple[str, ...]:
    """Scopes and name of a node: ``layer1.0 / conv1 / Conv`` is told by each exporter in its own way."""
    noted = {each.key: each.value for each in proto.metadata_props}
    if TORCH_SCOPES in noted and (scopes := _literal(noted[TORCH_SCOPES])):
        return (*_pieces(scopes[-2:-1]), _clean(scopes[-1]))
    if NAMESPACE in noted:
        scopes = [each.partition(":")[0] for each in noted[NAMESPACE].split("/")]
        if len(scopes) > 1:
            return (*_pieces(scopes[-2:-1]), _clean(scopes[-1]))
    parts = [part for part in proto.name.partition(";")[0].split("/") if part]
    if not parts:
        told = next((name for name in proto.output if name), "")
        parts = [told if re.match(r"[A-Za-z_]", told) else f"{proto.op_type}_{number}"]
        parts = [part for part in parts[0].split("/") if part]
    *scopes, own = parts
    return (*_torch_scopes(scopes), _clean(own))


def names_of(nodes: Sequence[Node]) -> dict[Node, str]:
    """A dotted name for each: its scope where it is alone there, else the scope and its own name."""
    paths = {node: node.path for node in nodes}
    shared = _shared([path for path in paths.values() if len(path) > 1])
    paths = {node: path[shared:] if len(path) > 1 else path for node, path in paths.items()}
    alone = Counter(path[:-1] for path in paths.values())
    scopes = {path[:i] for path in paths.values() for i in range(1, len(path))}
    inner = {scope[:i] for scope in scopes for i in range(1, len(scope))}
    found: dict[Node, str] = {}
    seen: Counter[str] = Counter()
    taken = {".".join(scope) for scope in scopes}
    for node, path in paths.items():
        scope = path[:-1]
        whole = scope and alone[scope] == 1 and scope not in inner
        name = ".".join(scope if whole else path)
        while (not whole and name in taken) or seen[name]:  # a layer and a scope, or two layers, of one name
            seen[name] += 1
            name = f"{'.'.join(path)}_{seen[name]}"
            whole = False
        seen[name] += 1
        found[node] = name
    return found


def _literal(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(each) for each in found] if isinstance(found, list) and len(found) > 1 else []


def _pieces(scopes: Sequence[str]) -> list[str]:
    return [_clean(part) for scope in scopes for part in scope.split(".") if part]


def _torch_scopes(scopes: Sequence[str]) -> list[str]:
    """``layer1 / layer1.0 / conv1``, as torch tells the children of a container, without the repetition."""
    found: list[str] = []
    last = ""
    for scope in scopes:
        if last and scope.startswith(f"{last}."):
            found = found[: -len(last.split("."))]
        found += scope.split(".")
        last = scope
    return [_clean(part) for part in found if part]


def _clean(name: str) -> str:
    """A name that a module can have as an attribute."""
    name = re.sub(r"\W+", "_", name).strip("_") or "node"
    return f"{name}_" if hasattr(nn.Module, name) or name in RESERVED else name


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many scopes at the beginning say nothing, as every node has them."""
    if len(paths) < 2:
        return 0
    count = 0
    for parts in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
