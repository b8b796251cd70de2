"""Which function makes the torch module of which Keras layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import NotImportedError
from .fallback import not_imported
from .graph import Leaf

Maker = Callable[..., Leaf]
"""From a built Keras layer, and the rank of its first input where it asks for that too."""
LAYERS: dict[str, Maker] = {}
"""By the name of Keras' own class."""


def makes(*names: str) -> Callable[[Maker], Maker]:
    """Register a `Maker` for the classes of these names."""

    def registered(maker: Maker) -> Maker:
        LAYERS.update(dict.fromkeys(names, maker))
        return maker

    return registered


def made(layer: Any, rank: int) -> Leaf | None:
    """The module for a layer; None where it is not one of Keras' own classes."""
    kind = type(layer)
    if not kind.__module__.startswith("keras.src."):
        return None
    if (maker := LAYERS.get(kind.__name__)) is None:
        raise refused(layer, "is not supported")
    if getattr(layer, "quantization_mode", None):
        raise refused(layer, f"is quantized to {layer.quantization_mode}, which is not supported")
    return maker(layer, rank) if len(inspect.signature(maker).parameters) == 2 else maker(layer)


def refused(layer: Any, why: str) -> NotImportedError:
    """The error that names a layer and its class."""
    return not_imported(f"layer {layer.name!r} ({type(layer).__name__}) {why}")


def named(name: str, within: nn.Module) -> str:
    """A name for a submodule, near to ``name``, that torch takes and that is free."""
    name = name.replace(".", "_").replace("/", "_") or "layer"
    while hasattr(within, name):
        name += "_"
    return name


def values(variable: Any) -> Tensor:
    """A copy of what a Keras variable holds, on the CPU."""
    tensor: Tensor = torch.as_tensor(getattr(variable, "value", variable))
    return tensor.detach().cpu().clone()


def filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """``module`` with these parameters, frozen; a bias of None stays away."""
    for name, tensor in tensors.items():
        parameter = None if tensor is None else nn.Parameter(tensor.contiguous(), requires_grad=False)
        module.register_parameter(name, parameter)
    return module


def tupled(value: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    """One number for each of ``rank`` axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)
