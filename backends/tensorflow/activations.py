"""Activations: layers of their own, and those that other layers end with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from .functions import Function
from .graph import Leaf, Order, lies
from .table import made, makes, refused, values

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "log_sigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_tanh": nn.Hardtanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}
"""Elementwise functions of ``keras.activations``, with the settings they have there."""
ALONG = {"softmax": nn.Softmax, "log_softmax": nn.LogSoftmax}
"""Those over the channels."""
LAST = ("sparsemax", "glu")
"""Over the last axis as Keras has it."""


def activation(layer: Any, function: Any, rank: int) -> tuple[str, Leaf] | None:
    """The activation ``function`` of ``layer``, and its name; None for the one that changes nothing."""
    if function is None:
        return None
    if not isinstance(function, FunctionType):
        leaf = made(function, rank) if hasattr(function, "get_config") else None  # a layer can be one
        if leaf is None:
            raise refused(layer, f"ends with an activation of the class {type(function).__name__}, which is unknown")
        return function.name, leaf
    name = function.__name__
    if not function.__module__.startswith(("keras.src.activations", str(__package__))):
        raise refused(layer, f"ends with the activation {name!r}, which is not one of Keras' own")
    if name == "linear":
        return None
    if name in ALONG:
        return name, Leaf(ALONG[name](1), "first")
    if name in MODULES:
        return name, Leaf(MODULES[name]())
    return name, Leaf(Function(name, function), "keras" if name in LAST else "any")


def ended(layer: Any, leaf: Leaf, own: str, rank: int) -> Leaf:
    """``leaf`` and the activation that ``layer`` ends with, as one; the modules are ``own`` and the activation's name.

    So the layer's name is that of its output as Keras means it.
    """
    if (found := activation(layer, layer.activation, rank)) is None:
        return leaf
    name, last = found
    gives = leaf.gives or leaf.takes
    parts: OrderedDict[str, nn.Module] = OrderedDict([(own, leaf.module)])
    if rank > 2 and gives == "keras" and name in FINAL:
        # What ends a model must be its last operator for the targets to step behind it, so no turn may follow.
        parts["turn"], gives = Turn(-1, 1), "first"
    if rank > 2 and last.takes not in ("any", gives):
        parts["turn"], gives = Turn(*((-1, 1) if last.takes == "first" else (1, -1))), last.takes
    lies(leaf.module, leaf.gives or leaf.takes)
    parts[name if name != own else f"{name}_"] = last.module
    return Leaf(nn.Sequential(parts), leaf.takes, gives)


FINAL = ("softmax", "log_softmax", "sigmoid")


class Turn(nn.Module):
    """Channels moved from one axis to another."""

    def __init__(self, source: int, destination: int) -> None:
        super().__init__()
        self.source, self.destination = source, destination

    def forward(self, x: Tensor) -> Tensor:
        """A view."""
        return x.movedim(self.source, self.destination)


@makes("Activation")
def _activation(layer: Any, rank: int) -> Leaf:
    found = activation(layer, layer.activation, rank)
    return found[1] if found else Leaf(nn.Identity())


@makes("ReLU")
def _relu(layer: Any) -> Leaf:
    slope, top, threshold = float(layer.negative_slope or 0), layer.max_value, float(layer.threshold or 0)
    if threshold == 0 and top is None:
        return Leaf(nn.LeakyReLU(slope) if slope else nn.ReLU())
    if threshold == 0 and slope == 0:
        return Leaf(nn.ReLU6() if top == 6 else nn.Hardtanh(0.0, float(top)))
    return Leaf(Function("ReLU", layer.call))


@makes("LeakyReLU")
def _leaky_relu(layer: Any) -> Leaf:
    return Leaf(nn.LeakyReLU(float(layer.negative_slope)))


@makes("ELU")
def _elu(layer: Any) -> Leaf:
    return Leaf(nn.ELU(float(layer.alpha)))


@makes("Softmax")
def _softmax(layer: Any, rank: int) -> Leaf:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if len(axes) > 1:
        raise refused(layer, f"is over the axes {tuple(axes)}; only one axis is supported")
    order, axis = placed(axes[0], rank)
    return Leaf(nn.Softmax(axis), order)


def placed(axis: int, rank: int) -> tuple[Order, int]:
    """The order in which a layer over one axis of Keras' runs best, and where the axis is then."""
    axis %= rank
    return ("first", 1) if axis == rank - 1 else ("keras", axis)


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0), a slope for each place where they are not shared."""

    slope: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.where(x >= 0, x, self.slope * x)


@makes("PReLU")
def _prelu(layer: Any, rank: int) -> Leaf:
    slope = values(layer.alpha)
    if slope.numel() == slope.shape[-1]:  # for each channel, whichever other axes there are
        module = nn.PReLU(slope.numel())
        module.weight = nn.Parameter(slope.flatten(), requires_grad=False)
        return Leaf(module, "first")
    return Leaf(PReLU(slope.movedim(-1, 0) if rank > 2 else slope), "first")
