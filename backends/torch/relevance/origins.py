"""What a model does with its input before the first weighted operator, to do it with other values too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """An operator that ran before any weighted one."""

    run: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]
    place: int
    """Which of its results the tensor is."""
    moves: bool
    """Whether it moves values or mixes them, and changes none place by place."""


def remade(
    tensor: Tensor, steps: Callable[[Tensor], Step | None], values: Tensor, start: Tensor, *, reach: bool = False
) -> Tensor:
    """``tensor`` as it would be had the input ``start`` been ``values``.

    With ``reach`` what changes values place by place is left out: of ones, 1 where the input gets, and 0 in a border.
    """
    if tensor is start:
        return values
    step = steps(tensor)
    if step is None:
        return tensor
    if reach and not step.moves:
        source = next(each for each in tensors(step.args) if each is start or steps(each) is not None)
        if source.shape == tensor.shape:
            return remade(source, steps, values, start, reach=True)

    def again(each: Tensor) -> Tensor:
        return remade(each, steps, values, start, reach=reach)

    with torch.no_grad():
        found = step.run(*mapped(step.args, again), **mapped(step.kwargs, again))
    return tensors(found)[step.place]


def tensors(nest: Any) -> list[Tensor]:
    """All in a nest of tuples, lists and dicts."""
    if isinstance(nest, Tensor):
        return [nest]
    if isinstance(nest, dict):
        nest = list(nest.values())
    return [each for part in nest for each in tensors(part)] if isinstance(nest, list | tuple) else []


def mapped(nest: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The nest with its tensors changed."""
    if isinstance(nest, Tensor):
        return change(nest)
    if type(nest) in (list, tuple):
        return type(nest)(mapped(each, change) for each in nest)
    if type(nest) is dict:
        return {key: mapped(each, change) for key, each in nest.items()}
    return nest
