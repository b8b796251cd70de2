"""How a batch (N, channel, *s) is given to a graph: in its own order of axes, and of its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import RequestError
from .graph import Dims, Graph, Input, Node

PLAIN = frozenset(
    {"Cast", "Identity", "Dropout", "Add", "Sub", "Mul", "Div", "Clip", "Pad", "Relu"}
    | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
)
"""Operators through which axes stay where they are."""
CHANNEL_SECOND = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "MaxPool"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "QLinearConv", "ConvInteger"}
)
CHANNEL_LAST = frozenset({"MatMul", "Linear", "LayerNormalization", "LSTM", "GRU", "RNN"})


@dataclass
class Entry:
    """A declared input, and what is known of how it wants its values."""

    name: str
    dtype: torch.dtype
    dims: Dims | None
    channels_last: bool | None
    """What its users say, None where they say nothing."""
    keeps_float: bool
    """Whether whole numbers are asked for but made floating point at once: a gradient must find its way."""

    @classmethod
    def of(cls, declared: Input, graph: Graph) -> Entry:
        """An input of a graph."""
        users = graph.users.get(declared.name, [])
        whole = not declared.dtype.is_floating_point
        keeps = whole and bool(users) and all(each.op == "Cast" for each in users)
        return cls(declared.name, declared.dtype, declared.dims, _channels_last(declared, graph), keeps)

    def __call__(self, x: Tensor, floating: torch.dtype) -> Tensor:
        """The values as the graph takes them, in its precision where they were whole numbers."""
        x = self._arranged(x)
        if x.is_floating_point() == self.dtype.is_floating_point or (x.is_floating_point() and self.keeps_float):
            return x
        return x.to(floating if self.dtype.is_floating_point else self.dtype)

    @property
    def batch(self) -> int | None:
        """The declared size of a batch, None where it is open."""
        return self.dims[0] if self.dims else None

    @property
    def sample(self) -> tuple[int, ...] | None:
        """(channel, *s) of one sample, where all of it is declared."""
        sizes = [] if self.dims is None else [size for size in self.dims[1:] if size is not None]
        if not sizes or self.dims is None or len(sizes) < len(self.dims) - 1:
            return None
        return (*sizes[-1:], *sizes[:-1]) if self.channels_last else tuple(sizes)

    def _arranged(self, x: Tensor) -> Tensor:
        dims = self.dims
        if dims is None:
            return x.movedim(1, -1) if self.channels_last and x.ndim > 2 else x
        if len(dims) == x.ndim - 1 and x.ndim > 2 and x.shape[1] == 1 and fits(x.shape[2:], dims[1:]):
            return x.squeeze(1)  # a network of signals that knows no channels
        if len(dims) != x.ndim:
            raise self._other(x)
        given = tuple(x.shape[1:])
        moved = (*given[1:], *given[:1])
        first, last = fits(given, dims[1:]), x.ndim > 2 and fits(moved, dims[1:])
        if not first and not last:
            raise self._other(x)
        return x.movedim(1, -1) if last and (self.channels_last or not first) else x

    def _other(self, x: Tensor) -> RequestError:
        wanted = ", ".join("any" if each is None else str(each) for each in (self.dims or ())[1:])
        return RequestError(
            f"a sample of shape {tuple(x.shape[1:])} was given, but the model's input {self.name!r} "
            f"takes ({wanted}), or that with its last axis first"
        )


def entered(
    entries: Sequence[Entry], given: Sequence[Tensor], named: Mapping[str, Tensor], floating: torch.dtype
) -> dict[str, Tensor]:
    """What is given, the first inputs by their places and the others by name, as a graph takes it."""
    names = [entry.name for entry in entries]
    tensors = {**dict(zip(names, given, strict=False)), **named}
    if unknown := [name for name in tensors if name not in names]:
        raise RequestError(f"the model has no input {unknown[0]!r}; it has {', '.join(names)}")
    if missing := [name for name in names if name not in tensors]:
        raise RequestError(f"the model needs the input {missing[0]!r} too: give it in [data] by that name")
    return {entry.name: entry(tensors[entry.name], floating) for entry in entries}


def fits(shape: Sequence[int], dims: Dims) -> bool:
    """Whether sizes are the declared ones, where these are known."""
    return len(shape) == len(dims) and all(each is None or each == size for size, each in zip(shape, dims, strict=True))


def _channels_last(declared: Input, graph: Graph) -> bool | None:
    """Whether the channels come last, by what the first operator that cares for channels says."""
    rank = None if declared.dims is None else len(declared.dims)
    if rank is not None and rank < 3:
        return None
    name, axes = declared.name, None if rank is None else list[int | None](range(rank))
    for _ in range(12):
        users = graph.users.get(name, [])
        data = [each for each in users if each.op not in ("Shape", "Size")]
        if not data:
            return None
        node = data[0]
        if axes is None:
            axes = _first_axes(node)
        if axes is None:
            return None
        if node.op in CHANNEL_SECOND or node.op in CHANNEL_LAST:
            at = axes[1] if node.op in CHANNEL_SECOND else axes[-1]
            return None if at is None or at == 0 else at == max(a for a in axes if a is not None) and at != 1
        moved = _moved(node, axes)
        if moved is None or node.inputs[0] != name:
            return None
        name, axes = node.outputs[0], moved
    return None


def _first_axes(node: Node) -> list[int | None] | None:
    """The axes of an input of unknown rank, by its first user."""
    if node.op == "Transpose" and "perm" in node.attributes:
        return list(range(len(node.attributes["perm"])))
    weight = node.constant(1) if node.op in ("Conv", "ConvTranspose") else None
    return None if weight is None else list(range(weight.ndim))


def _moved(node: Node, axes: list[int | None]) -> list[int | None] | None:
    """Where the input's axes are behind a node, None where that is not known."""
    if node.op in PLAIN:
        return axes
    if node.op == "Transpose":
        return [axes[i] for i in node.get("perm", range(len(axes))[::-1])]
    if node.op in ("Unsqueeze", "Squeeze"):
        given = node.constant(1)
        places = node.get("axes") if given is None else given.tolist()
        if places is None:
            return None
        size = len(axes) + (len(places) if node.op == "Unsqueeze" else 0)
        at = {place % size for place in places}
        rest = iter(axes)
        if node.op == "Unsqueeze":
            return [None if i in at else next(rest) for i in range(size)]
        return [axis for i, axis in enumerate(axes) if i not in at]
    return None
