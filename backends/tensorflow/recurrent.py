"""Recurrent layers: torch's own where its gates are Keras', else, and where steps are masked, step by step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..torch.relevance.composed import gru_step, lstm_step
from .activations import activation
from .graph import Leaf
from .table import made, makes, refused, values

F = nn.functional
States = tuple[Tensor, ...]
Step = Callable[[Tensor, States, Tensor, "Tensor | None"], States]
"""From the projection of one step's input, the states, and the recurrent weight and bias, to the new states."""


class Recurrence:
    """A torch layer that gives what a Keras layer is asked for. The first state is the output."""

    masks = True
    sequences = False
    """Whether it gives all steps rather than the last."""
    shows = False
    """Whether it gives the last states too."""
    backwards = False
    """Whether it begins with the last step; its outputs stay in that order, ..."""
    restores = False
    """... or are brought back into that of time."""
    zeroed = False
    """Whether the outputs of masked steps are 0, not those of the step before."""
    step: Step
    plain = True
    """Whether torch's own function does the same."""

    def forward(self: Any, x: Tensor, initial_state: Any = None, mask: Tensor | None = None) -> Any:
        """(batch, step, feature)."""
        if self.backwards:
            x, mask = x.flip(1), None if mask is None else mask.flip(1)
        count = 2 if isinstance(self, nn.LSTM) else 1
        if initial_state is None:
            states = (x.new_zeros(len(x), self.hidden_size),) * count
        else:
            states = tuple(initial_state) if isinstance(initial_state, list | tuple) else (initial_state,)
        if self.plain and mask is None:
            given = tuple(each[None] for each in states)
            outputs, last = super().forward(x, given if count > 1 else given[0])  # type: ignore[misc]
            states = tuple(each[0] for each in (last if count > 1 else (last,)))
        else:
            outputs, states = self._stepped(x, states, mask)
        outputs = (outputs.flip(1) if self.restores else outputs) if self.sequences else outputs[:, -1]
        return (outputs, *states) if self.shows else outputs

    def _stepped(self: Any, x: Tensor, states: States, mask: Tensor | None) -> tuple[Tensor, States]:
        bias, recurrent_bias = (self.bias_ih_l0, self.bias_hh_l0) if self.bias else (None, None)
        outputs, output = [], torch.zeros_like(states[0])
        for i, a in enumerate(F.linear(x, self.weight_ih_l0, bias).unbind(1)):
            new = self.step(a, states, self.weight_hh_l0, recurrent_bias)
            if mask is not None:
                there = mask[:, i, None]
                output = torch.where(there, new[0], 0.0 if self.zeroed else output)
                new = tuple(torch.where(there, after, before) for after, before in zip(new, states, strict=True))
            states = new
            outputs.append(new[0] if mask is None else output)
        return torch.stack(outputs, 1), states


class LSTM(Recurrence, nn.LSTM):  # type: ignore[misc]
    """See `Recurrence`."""


class GRU(Recurrence, nn.GRU):  # type: ignore[misc]
    """See `Recurrence`."""


class RNN(Recurrence, nn.RNN):  # type: ignore[misc]
    """See `Recurrence`."""


@makes("LSTM", "GRU", "SimpleRNN", "RNN")
def _recurrent(layer: Any) -> Leaf:
    cells = getattr(layer.cell, "cells", None)
    if cells is None:
        return Leaf(_of_cell(layer, layer.cell), "keras")
    if layer.return_state:
        raise refused(layer, "gives the states of several cells, which is not supported")
    parts = OrderedDict((cell.name, _of_cell(layer, cell)) for cell in cells)
    for part in list(parts.values())[:-1]:
        part.sequences = True
    for part in list(parts.values())[1:]:
        part.backwards = False
    return Leaf(nn.Sequential(parts), "keras")


def _of_cell(layer: Any, cell: Any) -> Any:
    kind = type(cell).__name__
    if kind not in CELLS or not type(cell).__module__.startswith("keras.src."):
        raise refused(layer, f"has cells of the class {kind}, which are not supported")
    module = CELLS[kind](layer, cell)
    module.sequences, module.shows = layer.return_sequences, layer.return_state
    module.backwards, module.zeroed = layer.go_backwards, getattr(layer, "zero_output_for_mask", False)
    return module


def _functions(layer: Any, cell: Any, *names: str) -> dict[str, nn.Module]:
    """The modules of a cell's activations."""
    found = {}
    for name in names:
        leaf = activation(layer, getattr(cell, name), 2)
        found[name] = nn.Identity() if leaf is None else leaf[1].module
    return found


def _weights(cell: Any, module: Any, bias: Tensor | None, recurrent_bias: Tensor | None, order: list[int]) -> Any:
    """``module`` with the weights of ``cell``, the gates in another order."""

    def turned(tensor: Tensor) -> Tensor:
        parts = tensor.chunk(len(order), -1)
        return torch.cat([parts[i] for i in order], -1).movedim(-1, 0).contiguous()

    tensors = {"weight_ih_l0": turned(values(cell.kernel)), "weight_hh_l0": turned(values(cell.recurrent_kernel))}
    if bias is not None:
        tensors["bias_ih_l0"] = turned(bias)
        tensors["bias_hh_l0"] = torch.zeros_like(bias) if recurrent_bias is None else turned(recurrent_bias)
    for name, tensor in tensors.items():
        setattr(module, name, nn.Parameter(tensor, requires_grad=False))
    return module


def _lstm(layer: Any, cell: Any) -> Any:
    module: Any = LSTM(cell.kernel.shape[0], cell.units, bias=cell.use_bias, batch_first=True, device="meta")
    functions = _functions(layer, cell, "activation", "recurrent_activation")
    module.plain = _are(functions, nn.Tanh, nn.Sigmoid)
    if module.plain:
        module.step = lambda a, states, w, b: lstm_step(a, (states[0], states[1]), w, b)
    else:
        act, gate = functions.values()
        module.add_module("activation", act)
        module.add_module("recurrent_activation", gate)

        def step(a: Tensor, states: States, w: Tensor, b: Tensor | None) -> States:
            i, f, g, o = (a + F.linear(states[0], w, b)).chunk(4, -1)
            c = gate(f) * states[1] + gate(i) * act(g)
            return gate(o) * act(c), c

        module.step = step
    return _weights(cell, module, values(cell.bias) if cell.use_bias else None, None, [0, 1, 2, 3])


def _gru(layer: Any, cell: Any) -> Any:
    module: Any = GRU(cell.kernel.shape[0], cell.units, bias=cell.use_bias, batch_first=True, device="meta")
    functions = _functions(layer, cell, "activation", "recurrent_activation")
    module.plain = cell.reset_after and _are(functions, nn.Tanh, nn.Sigmoid)
    if module.plain:
        module.step = lambda a, states, w, b: (gru_step(a, states[0], w, b),)
    else:
        act, gate = functions.values()
        module.add_module("activation", act)
        module.add_module("recurrent_activation", gate)

        def step(a: Tensor, states: States, w: Tensor, b: Tensor | None) -> States:
            [h], (ar, az, an) = states, a.chunk(3, -1)
            wr, wz, wn = w.chunk(3)
            br, bz, bn = (None,) * 3 if b is None else b.chunk(3)
            r, z = gate(ar + F.linear(h, wr, br)), gate(az + F.linear(h, wz, bz))
            inner = r * F.linear(h, wn, bn) if cell.reset_after else F.linear(r * h, wn, bn)
            return (z * h + (1 - z) * act(an + inner),)

        module.step = step
    bias = values(cell.bias) if cell.use_bias else None
    own, again = (bias, None) if bias is None or bias.ndim == 1 else bias.unbind()
    return _weights(cell, module, own, again, [1, 0, 2])


def _simple(layer: Any, cell: Any) -> Any:
    module: Any = RNN(cell.kernel.shape[0], cell.units, bias=cell.use_bias, batch_first=True, device="meta")
    [act] = _functions(layer, cell, "activation").values()
    module.plain = type(act) is nn.Tanh
    if not module.plain:
        module.add_module("activation", act)
    module.step = lambda a, states, w, b: (act(a + F.linear(states[0], w, b)),)
    return _weights(cell, module, values(cell.bias) if cell.use_bias else None, None, [0])


def _are(functions: dict[str, nn.Module], *kinds: type[nn.Module]) -> bool:
    return all(type(each) is kind for each, kind in zip(functions.values(), kinds, strict=True))


CELLS: dict[str, Callable[[Any, Any], Any]] = {"LSTMCell": _lstm, "GRUCell": _gru, "SimpleRNNCell": _simple}
MERGED: dict[str | None, Callable[[Tensor, Tensor], Any]] = {
    "concat": lambda a, b: torch.cat([a, b], -1),
    "sum": torch.add,
    "ave": lambda a, b: (a + b) / 2,
    "mul": torch.mul,
    None: lambda a, b: (a, b),
}


class Bidirectional(nn.Module):
    """One layer from the first step on, one from the last."""

    masks = True

    def __init__(self, forth: Any, back: Any, mode: str | None) -> None:
        super().__init__()
        self.ahead, self.back, self.mode = forth, back, mode

    def forward(self, x: Tensor, initial_state: Any = None, mask: Tensor | None = None) -> Any:
        """(batch, step, feature)."""
        half = len(initial_state) // 2 if initial_state is not None else 0
        starts = (initial_state[:half], initial_state[half:]) if half else (None, None)
        found = [each(x, start, mask) for each, start in zip((self.ahead, self.back), starts, strict=True)]
        (a, *states), (b, *more) = found if self.ahead.shows else ([found[0]], [found[1]])
        merged = MERGED[self.mode](a, b)
        if not self.ahead.shows:
            return merged
        return *(merged if self.mode is None else (merged,)), *states, *more


@makes("Bidirectional")
def _bidirectional(layer: Any) -> Leaf:
    ways: list[Any] = []
    for each in (layer.forward_layer, layer.backward_layer):
        leaf = made(each, 3)
        if leaf is None or not isinstance(leaf.module, Recurrence):
            raise refused(each, "is not a recurrent layer that can be run both ways")
        ways.append(leaf.module)
    ways[1].restores = True
    return Leaf(Bidirectional(ways[0], ways[1], layer.merge_mode), "keras")


class TimeDistributed(nn.Module):
    """One layer at each step."""

    def __init__(self, name: str, leaf: Leaf) -> None:
        super().__init__()
        self.add_module(name, leaf.module)
        self.name, self.takes, self.gives = name, leaf.takes, leaf.gives or leaf.takes
        self.masks = not getattr(leaf.module, "masks", False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002  (to what it runs it means nothing)
        """(batch, step, *), in Keras' order."""
        each = x.flatten(0, 1)
        each = each.movedim(-1, 1) if self.takes == "first" else each
        each = self._modules[self.name](each)  # type: ignore[misc]
        each = each.movedim(1, -1) if self.gives == "first" else each
        spread: Tensor = each.unflatten(0, x.shape[:2])
        return spread


@makes("TimeDistributed")
def _time_distributed(layer: Any, rank: int) -> Leaf:
    leaf = made(layer.layer, rank - 1)
    if leaf is None:
        raise refused(layer.layer, "is a class of somebody's own inside a TimeDistributed, which is not supported")
    return Leaf(TimeDistributed(layer.layer.name.replace(".", "_"), leaf), "keras")


class Masking(nn.Module):
    """Steps that are all one value become 0."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """(batch, step, feature)."""
        return torch.where((x != self.value).any(-1, keepdim=True), x, 0.0)


@makes("Masking")
def _masking(layer: Any) -> Leaf:
    return Leaf(Masking(layer.mask_value), "keras")
