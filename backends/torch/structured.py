"""What modules give and take besides one tensor: tuples, dicts, lists of detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import RequestError, nearest


def named_tensors(given: Any, batch: int) -> dict[str, Tensor]:
    """All tensors of a model's output by key: "" for a tensor alone, 0, 1, .. in a tuple, names in a dict, ``a.b``
    deeper down. A list of one dict for each sample (detections), at the top, becomes a dict of padded batches.
    """
    if isinstance(given, Tensor):
        return {"": given}
    if is_dataclass(given) and not isinstance(given, type | Mapping):
        given = {each.name: getattr(given, each.name) for each in fields(given)}
    elif hasattr(given, "_asdict"):
        given = given._asdict()
    if isinstance(given, Sequence) and len(given) == batch and all(isinstance(each, Mapping) for each in given):
        given = _collated(given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = dict(enumerate(given))
    if not isinstance(given, Mapping):
        return {}
    found = {}
    for key, value in given.items():
        for rest, tensor in named_tensors(value, -1).items():
            found[f"{key}.{rest}" if rest else str(key)] = tensor
    return found


def selected(named: Mapping[str, Tensor], wanted: str | None, batch: int) -> str:
    """The key of the output that is explained; `RequestError` names them all where that is not clear."""
    if wanted is not None:
        if set(named) == {""}:
            raise RequestError(f"output {wanted!r} given, but the model gives one tensor; take it out")
        if wanted not in named:
            raise RequestError(f"the model gives no output {wanted!r}. {nearest(wanted, [k for k in named if k])}")
        return wanted
    if set(named) == {""}:
        return ""
    fit = [k for k, t in named.items() if t.is_floating_point() and t.ndim and len(t) == batch]
    if len(fit) == 1:
        return fit[0]
    if {"boxes", "scores"} <= named.keys():
        return "scores"
    if "logits" in fit:
        return "logits"
    if not named:
        raise RequestError("the model gives no tensor, expected (batch, outputs)")
    listed = ", ".join(f"{k or 'a tensor'} {tuple(t.shape)}" for k, t in named.items())
    raise RequestError(f"the model gives {listed} for a batch of {batch}; choose one with --output KEY")


def first_tensor(given: Any) -> Tensor | None:
    """The floating point tensor that a layer's output is, or that comes first in it."""
    if isinstance(given, Tensor):
        return given if given.is_floating_point() else None
    parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    return next((tensor for each in parts if (tensor := first_tensor(each)) is not None), None)


def replaced(given: Any, old: Tensor, new: Tensor) -> Any:
    """``given`` with one tensor in the place of another."""
    if given is old:
        return new
    if isinstance(given, Mapping):
        parts = {key: replaced(value, old, new) for key, value in given.items()}
        make: Callable[..., Any] = type(given)
        return make(**parts) if is_dataclass(given) else make(parts)
    if isinstance(given, list | tuple):
        values = [replaced(value, old, new) for value in given]
        return type(given)(*values) if hasattr(given, "_fields") else type(given)(values)
    return given


def _collated(samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Tensors of differing lengths, padded: floats with NaN, whole numbers with -1."""
    batches = {}
    for key in samples[0]:
        tensors = [each[key] for each in samples]
        if not all(isinstance(t, Tensor) and t.ndim for t in tensors):
            continue
        length = max(1, *map(len, tensors))
        rows = []
        for t in tensors:
            blank = t.new_full((length - len(t), *t.shape[1:]), float("nan") if t.is_floating_point() else -1)
            rows.append(torch.cat([t, blank]))
        batches[str(key)] = torch.stack(rows)
    return batches
