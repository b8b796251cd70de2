"""Recurrent layers: torch's own where it has them, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..graph import Node, Unsupported
from ..modules import frozen
from ..registry import operator

LAYERS: dict[str, type[nn.RNNBase]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
GATES: dict[str, list[int]] = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
"""Where torch's gates stand among ONNX's: i o f c, z r h."""
USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
WEIGHTS = {1: "weight", 2: "hidden", 3: "bias", 7: "peep"}
"""By the places of the inputs that they are given in."""
Function = Callable[[Tensor], Tensor]


def _function(name: str, alpha: float | None, beta: float | None) -> Function:
    """An activation by its name in small letters."""
    a, b = alpha, 0.0 if beta is None else beta
    match name:
        case "affine":
            return lambda x: x * (1.0 if a is None else a) + b
        case "leakyrelu":
            return lambda x: F.leaky_relu(x, 0.01 if a is None else a)
        case "thresholdedrelu":
            return lambda x: F.threshold(x, 1.0 if a is None else a, 0.0)
        case "scaledtanh":
            return lambda x: torch.tanh(x * (1.0 if beta is None else beta)) * (1.0 if a is None else a)
        case "hardsigmoid":
            return lambda x: F.hardsigmoid(x * (1.2 if a is None else 6 * a) + (0.0 if beta is None else 6 * beta - 3))
        case "elu":
            return lambda x: F.elu(x, 1.0 if a is None else a)
    return PLAIN[name]


PLAIN: dict[str, Function] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
}
FIRST = frozenset({"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"})
SECOND = frozenset({"affine", "scaledtanh", "hardsigmoid"})
"""Those that take one number, and a second one."""


@operator("LSTM", "GRU", "RNN", numbers=[4])
def recurrent(node: Node) -> nn.Module:
    """(step, batch, feature) to (step, direction, batch, hidden), and the last states."""
    known = {place: node.constant(place) for place in WEIGHTS}
    if all(value is not None or not node.has(place) for place, value in known.items()):
        node.take(*WEIGHTS)
    else:
        known = {}
    for place in (5, 6):
        state = node.constant(place)
        if state is not None and bool((state == state[:, :1]).all()) and not node.get("layout", 0):
            node.graph.constants[f"{node.inputs[place]}/row"] = state[:, :1]  # for any number of samples
            node.inputs[place] = f"{node.inputs[place]}/row"
    directions = 2 if node.get("direction") == "bidirectional" else 1
    names = [each.lower() for each in node.get("activations", USUAL[node.op] * directions)]
    settings = {
        "kind": node.op,
        "size": node.get("hidden_size"),
        "backwards": [node.get("direction", "forward") == "reverse", True][:directions],
        "batch_first": bool(node.get("layout", 0)),
        "places": [i for i in range(1, len(node.inputs)) if node.has(i) and i not in node.taken],
    }
    usual = names == USUAL[node.op] * directions or (node.op == "RNN" and set(names) == {"relu"})
    usual = usual and bool(known) and known[7] is None and not node.get("clip") and not node.get("input_forget", 0)
    usual = usual and (not node.has(4) or settings["backwards"] != [True])
    if usual and (node.op != "GRU" or node.get("linear_before_reset", 0)):
        return Native(settings, known, names)
    alphas, betas = iter(node.get("activation_alpha", [])), iter(node.get("activation_beta", []))
    try:
        functions = [
            _function(n, next(alphas, None) if n in FIRST else None, next(betas, None) if n in SECOND else None)
            for n in names
        ]
    except KeyError as name:
        raise Unsupported(f"{node.op} with the activation {name.args[0]}") from None
    switches = (node.get("clip"), bool(node.get("input_forget", 0)), bool(node.get("linear_before_reset", 0)))
    return Unrolled(settings, known, functions, switches)


class Recurrent(nn.Module):
    """What the two below share: the order of axes, and states to begin with."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, x: Tensor, *given: Any) -> tuple[Tensor, ...]:
        """All states, the last, and of an LSTM the last cells; ``given`` are lengths and first states."""
        first, kind = self.settings["batch_first"], self.settings["kind"]
        found = dict(zip(self.settings["places"], given, strict=True))
        sequence = x if first else x.transpose(0, 1)
        states = []
        for place in (5, 6) if kind == "LSTM" else (5,):
            state = found.get(place)
            if state is None:
                state = x.new_zeros(len(self.settings["backwards"]), len(sequence), self.settings["size"])
            elif first:
                state = state.transpose(0, 1)
            states.append(state.to(x.dtype).expand(-1, len(sequence), -1))
        y, *last = self.run(sequence, states, found)
        if first:
            return y, *(each.transpose(0, 1) for each in last)
        return y.permute(1, 2, 0, 3), *last

    def run(self, x: Tensor, states: Sequence[Tensor], given: dict[int, Any]) -> tuple[Tensor, ...]:
        """Of (batch, step, feature): (batch, step, direction, hidden), and the last states."""
        raise NotImplementedError


def _lengths(given: dict[int, Any], steps: int) -> Tensor | None:
    """The samples' lengths, where one is shorter than all steps."""
    lengths = None if given.get(4) is None else torch.as_tensor(given[4], device="cpu")
    return None if lengths is None or bool((lengths >= steps).all()) else lengths


class Native(Recurrent):
    """A layer of torch, which gives (batch, step, direction * hidden) and can be watched."""

    def __init__(self, settings: dict[str, Any], weights: dict[int, Tensor | None], names: Sequence[str]) -> None:
        super().__init__(settings)
        kind, size, weight, hidden, bias = settings["kind"], settings["size"], weights[1], weights[2], weights[3]
        assert weight is not None  # noqa: S101
        assert hidden is not None  # noqa: S101
        two = len(weight) == 2
        more: dict[str, Any] = {"nonlinearity": names[0]} if kind == "RNN" else {}
        more |= {"bidirectional": two, "batch_first": True, "bias": bias is not None, "device": "meta"}
        self.layer = layer = LAYERS[kind](weight.shape[2], size, **more)  # type: ignore[arg-type]
        for i in range(len(weight)):
            parts = {"weight_ih": weight[i], "weight_hh": hidden[i]}
            if bias is not None:
                parts |= dict(zip(("bias_ih", "bias_hh"), bias[i].chunk(2), strict=True))
            for name, values in parts.items():
                gates = values.reshape(len(GATES[kind]), size, *values.shape[1:])[GATES[kind]]
                setattr(layer, f"{name}_l0{'_reverse' if i else ''}", frozen(gates.reshape(values.shape)))

    def run(self, x: Tensor, states: Sequence[Tensor], given: dict[int, Any]) -> tuple[Tensor, ...]:
        """See `Recurrent.run`."""
        backwards, lengths = self.settings["backwards"], _lengths(given, x.shape[1])
        flips = backwards == [True]
        hx: Any = tuple(each.contiguous() for each in states)
        hx = hx if len(hx) == 2 else hx[0]
        if lengths is None:
            y, last = self.layer(x.flip(1) if flips else x, hx)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, last = self.layer(packed, hx)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        y = (y.flip(1) if flips else y).reshape(*y.shape[:2], len(backwards), -1)
        return y, *(last if isinstance(last, tuple) else (last,))


class Unrolled(Recurrent):
    """Any of them, one step after the other."""

    def __init__(
        self,
        settings: dict[str, Any],
        weights: dict[int, Tensor | None],
        functions: Sequence[Function],
        switches: tuple[float | None, bool, bool],
    ) -> None:
        super().__init__(settings)
        self.functions = functions
        self.clip, self.coupled, self.late_reset = switches
        for place, name in WEIGHTS.items():
            values = weights.get(place)
            self.register_parameter(name, None if values is None else frozen(values))

    def run(self, x: Tensor, states: Sequence[Tensor], given: dict[int, Any]) -> tuple[Tensor, ...]:
        """See `Recurrent.run`."""
        steps = x.shape[1]
        own = {name: given.get(place, self._parameters[name]) for place, name in WEIGHTS.items()}
        lengths = _lengths(given, steps)
        until = None if lengths is None else lengths.to(x.device)[:, None]
        found, last = [], []
        for i, backwards in enumerate(self.settings["backwards"]):
            part: dict[str, Any] = {name: None if values is None else values[i] for name, values in own.items()}
            state = tuple(each[i] for each in states)
            ahead, part["bias"] = (None, None) if part["bias"] is None else part["bias"].chunk(2)
            drawn = F.linear(x, part["weight"], ahead).unbind(1)
            ways: list[Any] = [None] * steps
            for t in range(steps - 1, -1, -1) if backwards else range(steps):
                new = self.step(i, drawn[t], state, part)
                ways[t] = new[0]
                if until is not None:
                    there = t < until
                    ways[t] = torch.where(there, new[0], torch.zeros_like(new[0]))
                    new = tuple(torch.where(there, n, o) for n, o in zip(new, state, strict=True))
                state = new
            found.append(torch.stack(ways, 1))
            last.append(state)
        return torch.stack(found, 2), *(torch.stack(each) for each in zip(*last, strict=True))

    def step(self, i: int, a: Tensor, state: tuple[Tensor, ...], own: dict[str, Any]) -> tuple[Tensor, ...]:
        """The next state in direction ``i``, from the input's projection ``a``."""
        kind, h, w, bias, peep = self.settings["kind"], state[0], own["hidden"], own["bias"], own["peep"]
        per = len(USUAL[kind])
        f, *others = self.functions[i * per : (i + 1) * per]
        if kind == "RNN":
            return (f(self._clipped(a + F.linear(h, w, bias))),)
        if kind == "GRU":
            return (self._gru(a, h, w, bias, f, others[0]),)
        c = state[1]
        p_i, p_o, p_f = (None, None, None) if peep is None else peep.chunk(3)
        gate_i, gate_o, gate_f, cell = (a + F.linear(h, w, bias)).chunk(4, -1)
        gate_i = f(self._clipped(gate_i if p_i is None else gate_i + p_i * c))
        gate_f = 1 - gate_i if self.coupled else f(self._clipped(gate_f if p_f is None else gate_f + p_f * c))
        c = gate_f * c + gate_i * others[0](self._clipped(cell))
        return f(self._clipped(gate_o if p_o is None else gate_o + p_o * c)) * others[1](c), c

    def _gru(self, a: Tensor, h: Tensor, w: Tensor, bias: Tensor | None, f: Function, g: Function) -> Tensor:
        size = h.shape[-1]
        b = (None, None) if bias is None else (bias[: 2 * size], bias[2 * size :])
        az, ar, ah = a.chunk(3, -1)
        hz, hr = F.linear(h, w[: 2 * size], b[0]).chunk(2, -1)
        z, r = f(self._clipped(az + hz)), f(self._clipped(ar + hr))
        inner = r * F.linear(h, w[2 * size :], b[1]) if self.late_reset else F.linear(r * h, w[2 * size :], b[1])
        return (1 - z) * g(self._clipped(ah + inner)) + z * h

    def _clipped(self, x: Tensor) -> Tensor:
        return x if not self.clip else x.clamp(-self.clip, self.clip)
