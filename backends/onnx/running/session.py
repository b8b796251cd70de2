"""A graph ready for batches: forwards, with what is tapped, and from a layer on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....core.backend import Tapping
from ....core.errors import RequestError
from ....core.outputs import Outputs
from ...torch.calling import Calling, Read
from ...torch.grids import Grid
from ...torch.structured import selected
from .ending import Ending
from .runner import Piece, Runner, joined
from .sessions import Values


@dataclass(frozen=True)
class Reading:
    """How the outputs of a graph are read."""

    outputs: Sequence[str]
    """Those that are numbers."""
    endings: Mapping[str, Ending]
    """Of those that end in an activation."""
    alone: bool
    """Whether there is one output, which then has no name."""
    wanted: str | None = None
    """The output that is explained."""

    @property
    def values(self) -> list[str]:
        """All that is fetched for them."""
        return list(dict.fromkeys([*self.outputs, *(each.value for each in self.endings.values())]))

    def __call__(self, value: Callable[[str], Tensor], rows: Tensor) -> Read:
        """What a forward gave, ready for targets."""
        named = {"": value(self.outputs[0])} if self.alone else {name: value(name) for name in self.outputs}
        key = selected(named, self.wanted, len(rows))
        end = self.endings.get(key or self.outputs[0])
        made, final = named[key], None
        if end is not None and end.fits(value(end.value).shape):
            made, final = value(end.value), end.kind
        return Calling(nn.Identity()).reread(named, key, made, rows, final)


class RunningSession:
    """See `core.backend.Session`."""

    def __init__(
        self,
        runner: Runner,
        reading: Reading,
        tapping: Tapping,
        layers: Mapping[str, tuple[str, Grid]],
        convert: Callable[[Any], Tensor],
        refusal: str,
    ) -> None:
        self.runner, self.reading, self.tapping, self.tensor = runner, reading, tapping, convert
        self.layers, self.refusal = layers, refusal
        """The tapped layers: value and grid of each."""
        self.passes: Counter[str] = Counter()
        """Forwards and tails that ran."""
        whole, sessions = runner.sessions.whole, runner.sessions
        self.beside: dict[str, list[str]] = {}
        """What a tail needs besides the layer's value. The inputs, where onnxruntime can hand over nothing else."""
        if "D" in tapping.questions:
            for layer, (value, _) in layers.items():
                crossing = whole.crossing(value, reading.values)
                known = all(sessions.element(name) for name in crossing)
                self.beside[layer] = crossing if known else list(whole.inputs)
        beside = [name for names in self.beside.values() for name in names]
        tapped = [value for value, _ in layers.values()]
        self._wanted = list(dict.fromkeys([*reading.values, *tapped, *beside]))

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor] | None = None) -> RunningPass:
        """One forward, and what is kept of it."""
        runner = self.runner
        values = runner.entered(inputs, extra or {})
        pieces = runner.pieces(values)
        given = [{name: piece.of(each) for name, each in values.items()} for piece in pieces]
        found = runner(given, self._wanted)
        self.passes["forward"] += 1
        rows = torch.arange(len(inputs), device=inputs.device)
        read = self.reading(lambda name: self.tensor(joined(pieces, found, name)), rows)
        taken = {
            layer: self._taken(layer, joined(pieces, found, value), len(inputs))
            for layer, (value, _) in self.layers.items()
        }
        return RunningPass(self, inputs.detach(), read, taken, pieces, found)

    def _taken(self, layer: str, value: NDArray[Any], rows: int) -> Tensor:
        if not value.ndim or len(value) != rows:
            given = len(value) if value.ndim else "no"
            raise RequestError(f"layer {layer!r} gives {given} rows for {rows} samples; choose another one")
        return self.tensor(value)

    def forward(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> Outputs:
        """One forward for the outputs alone."""
        values = self.runner.entered(inputs, extra or {})
        pieces = self.runner.pieces(values)
        found = self.runner([{name: p.of(each) for name, each in values.items()} for p in pieces], self.reading.values)
        self.passes["forward"] += 1
        return self.reading(lambda name: self.tensor(joined(pieces, found, name)), rows).outputs

    def forget(self) -> None:
        """Give up what runs only for what is tapped here."""
        sessions, wanted = self.runner.sessions, self._wanted
        sessions.forget(sessions.whole.inputs, wanted)
        for layer, beside in self.beside.items():
            sessions.forget([*beside, self.layers[layer][0]], self.reading.values)

    def bare(self, *_: Any) -> NoReturn:
        """There are no gradients."""
        raise RequestError(self.refusal)


@dataclass
class RunningPass:
    """One forward of a batch; see `core.backend.Pass`."""

    session: RunningSession = field(repr=False)
    inputs: Tensor
    read: Read = field(repr=False)
    taken: Mapping[str, Tensor] = field(repr=False)
    """The values of the tapped layers, as the graph has them."""
    pieces: Sequence[Piece] = field(repr=False)
    found: Sequence[Values] = field(repr=False)
    """Of each piece, all values that were fetched."""
    biases: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def outputs(self) -> Outputs:
        """Behind the final activation."""
        return self.read.outputs

    @property
    def raw(self) -> Tensor:
        """The output that is explained, as the graph gives it."""
        return self.read.raw

    @property
    def activations(self) -> Mapping[str, Tensor]:
        """Of the tapped layers, (batch, channel, *s)."""
        return {layer: self.session.layers[layer][1].read(value) for layer, value in self.taken.items()}

    def tail(self, layer: str, activation: Tensor) -> Outputs:
        """What lies behind the layer, run again; whatever else it needs is of this pass."""
        session = self.session
        value, grid = session.layers[layer]
        changed = session.runner.array(value, grid.write(activation, self.taken[layer]))
        given = [
            {**{name: found[name] for name in session.beside[layer]}, value: piece.of(changed)}
            for piece, found in zip(self.pieces, self.found, strict=True)
        ]
        results = session.runner(given, session.reading.values)
        session.passes["tail"] += 1
        rows = self.outputs.rows
        return session.reading(lambda name: session.tensor(joined(self.pieces, results, name)), rows).outputs

    def pullback(self, *_: Any, **__: Any) -> NoReturn:
        """There are no gradients."""
        raise RequestError(self.session.refusal)

    curved = relevance = pullback
