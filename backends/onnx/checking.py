"""An imported network held against the file's own runtime, before anything is explained by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor

from ...core.errors import RequestError
from .network import Network
from .runtime import started

TOLERANCE = 1e-4
"""Relative to the largest value."""
HALF = 2e-2
"""The same where the file computes in half precision."""
ROWS = 2
Arrays = Mapping[str, NDArray[Any]]


def likely(network: Network) -> dict[str, Tensor] | None:
    """Inputs of the declared shapes, the same each time; None where sizes other than the batch are not declared."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for entry in network.entries:
        if entry.dims is None or any(size is None for size in entry.dims[1:]):
            return None
        shape = [entry.batch or ROWS, *(size or 1 for size in entry.dims[1:])] if entry.dims else []
        found[entry.name] = drawn(shape, entry.dtype, generator)
    return found


def first_rows(tensor: Tensor, count: int) -> Tensor:
    """So many samples, the last one repeated where there are fewer."""
    return tensor[torch.arange(count).clamp(max=len(tensor) - 1)] if tensor.ndim else tensor


def drawn(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Random values of a type; whole numbers are 0 or 1, which most tables have."""
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)


def check(model: ModelProto, network: Network, tensors: Mapping[str, Tensor], title: str) -> None:
    """`RequestError` names the first node whose value differs from onnxruntime's, where that is installed."""
    rows = network.chunk or network.batch
    tensors = {name: each if rows is None else first_rows(each, rows) for name, each in tensors.items()}
    feed = {name: _as_declared(name, network, tensor) for name, tensor in tensors.items()}
    session = _session(model)
    if session is None:
        return
    names = list(network.outputs)
    try:
        wanted = dict(zip(names, session.run(names, feed), strict=True))
    except Exception:  # it has no kernel, or cannot take these values: nothing to hold against
        return
    found = _given(network, tensors)
    floats = [name for name in names if found[name].is_floating_point()]  # the others may hang by a hair
    worst = max((_distance(found[name], wanted[name]) for name in floats or names), default=0.0)
    if worst <= (HALF if network.halved else TOLERANCE):
        return
    raise RequestError(
        f"{title} was imported, but computes other values than onnxruntime: they differ by {worst:.1e} of the largest"
        f"{_first(model, network, tensors, feed)}; please report it"
    )


def _given(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        found = network(**tensors)
    return {next(iter(network.outputs)): found} if isinstance(found, Tensor) else found


def _as_declared(name: str, network: Network, tensor: Tensor) -> NDArray[Any]:
    entry = next(each for each in network.entries if each.name == name)
    values = entry(tensor, network.get_buffer("like").dtype).to(entry.dtype)
    return np.ascontiguousarray(values.numpy())


def _session(model: ModelProto) -> Any:
    try:
        return started(model)
    except Exception:  # it is not here, the model is larger than 2 GB, newer than it, or has operators it lacks
        return None


def _distance(found: Tensor, wanted: Any) -> float:
    """The largest difference by the largest value; infinite where the shapes differ, or numbers from nan."""
    if tuple(found.shape) != np.shape(wanted):
        return float("inf")
    a, b = found.detach().double().numpy(), np.asarray(wanted, np.float64)
    strange = ~np.isfinite(b)
    if (strange != ~np.isfinite(a)).any():
        return float("inf")
    a, b = a[~strange], b[~strange]
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if b.size and np.abs(a - b).max() else 0.0


def _first(model: ModelProto, network: Network, tensors: Mapping[str, Tensor], feed: Arrays) -> str:
    """Where it begins, as far as it can be found."""
    found: dict[str, Tensor] = {}
    network.watched = found.__setitem__
    try:
        _given(network, tensors)
    finally:
        network.watched = None
    shown = ModelProto()
    shown.CopyFrom(model)
    own = {each.name for each in model.graph.output}
    made = {name: node for node in model.graph.node for name in node.output if name in found}
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made if name not in own)
    session = _session(shown)
    try:
        values = [] if session is None else session.run(list(made), dict(feed))
    except Exception:  # too much at once
        return ""
    for name, value in zip(made, values, strict=False):
        if _distance(found[name], value) > TOLERANCE:
            return f", first at {made[name].op_type} {made[name].name or name!r}"
    return ""
