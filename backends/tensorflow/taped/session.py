"""A Keras model ready for batches: one forward, taped; one backward from the outputs to the taps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor

from ....core.backend import INPUT, Propagated, Rule, Tapping
from ....core.errors import RequestError
from ....core.outputs import Outputs
from ....core.relevance.manner import Manner
from ...torch.grids import Grid
from .calling import Calling, Found, Read
from .compiling import Compiled
from .framework import tensorflow, to_tensorflow, to_torch
from .layers import Finished, first_tensor, hooked, replaced
from .watching import LastActivation, NoActivation, rectified


class NativeSession:
    """See `core.backend.Session`.

    A tape sees nothing but what follows the taps: TensorFlow's backward does not stop where it is told to, but where
    its tape began. The layers' calls are wrapped for the length of one forward.
    """

    def __init__(
        self,
        calling: Calling,
        tapping: Tapping,
        layers: Mapping[str, Any],
        grids: Mapping[str, Grid],
        convert: Callable[[Any], Tensor],
    ) -> None:
        self.calling, self.tapping, self.tensor = calling, tapping, convert
        self.passes: Counter[str] = Counter()
        """Forwards, backwards and tails that really ran."""
        self._layers, self._grids = layers, grids
        self._bare_end = False

    def grid(self, layer: str) -> Grid:
        """How the layer's output is read."""
        return self._grids.get(layer, Grid("last"))

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor] | None = None) -> NativePass:
        """One forward of a batch, tapped."""
        tapping, taps = self.tapping, dict[str, Any]()
        finished = Finished() if "D" in tapping.questions else None
        tape = _tape() if tapping.gradients else None
        x = self.calling.own(inputs)

        def tap(name: str, _layer: Any, run: Callable[[], Any]) -> Any:
            def tapped() -> Any:
                output = run()
                if name not in tapping.layers:
                    return output
                raw = first_tensor(output)
                if raw is None:
                    raise RequestError(f"layer {name!r} gives no tensor of floats; choose one inside it")
                if not raw.shape.rank or len(raw) != len(inputs):
                    given = len(raw) if raw.shape.rank else "no"
                    raise RequestError(
                        f"layer {name!r} gives {given} rows for {len(inputs)} samples; choose another one"
                    )
                if name in taps:
                    raise RequestError(f"layer {name!r} runs more than once in a forward; choose one that runs once")
                taps[name] = activation = tensorflow().identity(raw)
                if tape is not None:
                    tape.watch(activation)
                if finished is not None:
                    finished.mark(name)
                return replaced(output, raw, activation)

            return tapped() if finished is None else finished.run(name, tapped)

        wanted = self._layers if finished is not None else {name: self._layers[name] for name in tapping.layers}
        last = LastActivation()
        with self.calling.on_device(), tape or nullcontext(), last, hooked(wanted, tap):
            if tapping.inputs:
                taps[INPUT] = x
                tape.watch(x)  # type: ignore[union-attr]
            given = self.calling(x, extra or {})
        self.passes["forward"] += 1
        if missing := [layer for layer in tapping.layers if layer not in taps]:
            raise RequestError(f"layer {missing[0]!r} does not run in the model's forward; choose one that does")
        read = self.calling.read(given, last, torch.arange(len(inputs), device=inputs.device))
        self._bare_end = read.final is None
        return NativePass(self, inputs.detach(), extra or {}, read, taps, tape, finished)

    def forward(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> Outputs:
        """One forward for the outputs alone."""
        with self.calling.on_device():
            given, last = self._called(self.calling.own(inputs), extra or {})
        self.passes["forward"] += 1
        return self.calling.read(given, last, rows).outputs

    def bare(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> NativePass:
        """One forward with nothing tapped but the input."""
        tape, x = _tape(), self.calling.own(inputs)
        with self.calling.on_device(), tape:
            tape.watch(x)
            given, last = self._called(x, extra or {})
        self.passes["forward"] += 1
        return NativePass(
            self, inputs.detach(), extra or {}, self.calling.read(given, last, rows), {INPUT: x}, tape, None
        )

    def instead(self, layer: str, activation: Tensor, run: NativePass) -> Outputs:
        """A forward with another activation at a layer; what had finished before it is not computed again."""
        raw = to_torch(run.taps[layer])
        other = to_tensorflow(self.grid(layer).write(activation, raw).to(raw.dtype))
        known = run.finished.before(layer) if run.finished is not None else {}

        def given(name: str, _layer: Any, run: Callable[[], Any]) -> Any:
            if name in known:
                return known[name]
            output = run()
            return replaced(output, first_tensor(output), other) if name == layer else output

        last = self._watch()
        with self.calling.on_device(), last, hooked({name: self._layers[name] for name in (*known, layer)}, given):
            found = self.calling(self.calling.own(run.inputs), run.extra)
        self.passes["tail"] += 1
        return self.calling.read(found, last, run.outputs.rows).outputs

    def _called(self, x: Any, extra: Mapping[str, Tensor]) -> tuple[Any, Found]:
        """A forward that nothing taps, and its final activation; as a graph from the first on: all are alike."""
        if not extra:
            return self._compiled(x)
        last = self._watch()
        with last:
            return self.calling(x, extra), last

    @cached_property
    def _compiled(self) -> Compiled:
        return Compiled(lambda x: self.calling(x, {}), xla=self.tapping.execution.compiled)

    def _watch(self) -> LastActivation | NoActivation:
        """What finds the final activation; nothing once a forward has shown that there is none."""
        return NoActivation() if self._bare_end else LastActivation()


@dataclass
class NativePass:
    """One forward of a batch; see `core.backend.Pass`. The tape is freed with it."""

    session: NativeSession = field(repr=False)
    inputs: Tensor
    extra: Mapping[str, Tensor] = field(repr=False)
    read: Read = field(repr=False)
    taps: Mapping[str, Any] = field(repr=False)
    """TensorFlow's own tensors."""
    tape: Any = field(repr=False)
    finished: Finished | None = field(repr=False)

    @property
    def outputs(self) -> Outputs:
        """See `core.backend.Pass`."""
        return self.read.outputs

    @property
    def raw(self) -> Tensor:
        """See `core.backend.Pass`."""
        return self.read.raw

    @property
    def activations(self) -> Mapping[str, Tensor]:
        """The tapped activations."""
        return {name: self._on_grid(name, self.taps[name]) for name in self.session.tapping.layers}

    @property
    def biases(self) -> Mapping[str, Tensor]:
        """None are known."""
        return {}

    def pullback(self, cotangents: Mapping[str, Tensor], *, rule: Rule = "plain") -> Mapping[str, Tensor]:
        """Gradient of sum(cotangent * output) at all taps, in one backward that goes no lower than the lowest."""
        tf, calling, read = tensorflow(), self.session.calling, self.read
        keys = [key for key in cotangents if key in read.sources]
        names = [INPUT] if rule != "plain" else list(self.taps)
        with calling.on_device():
            outputs = [read.sources[key] for key in keys]
            starts = [calling.cotangent(cotangents[key], read.sources[key], read.outputs.named) for key in keys]
            with rectified(rule):
                found = self.tape.gradient(outputs, [self.taps[name] for name in names], starts)
            if all(each is None for each in found):
                named = " and ".join(repr(name) if name else "the input" for name in self.taps)
                raise RequestError(
                    f"the outputs do not depend on {named} by a gradient (they end in it, or are not differentiable)"
                )
            gradients = {
                name: tf.zeros_like(self.taps[name]) if each is None else tf.convert_to_tensor(each)
                for name, each in zip(names, found, strict=True)
            }
        self.session.passes["backward"] += 1
        return {name: self._on_grid(name, each) for name, each in gradients.items()}

    def _on_grid(self, name: str, values: Any) -> Tensor:
        """(batch, channel, *s)."""
        if name == INPUT:
            return self.session.calling.back(values, self.inputs)
        return self.session.grid(name).read(to_torch(values).to(self.session.calling.dtype))

    def tail(self, layer: str, activation: Tensor) -> Outputs:
        """See `core.backend.Pass.tail`."""
        return self.session.instead(layer, activation, self)

    def curved(self, total: Callable[[Outputs], Tensor]) -> NoReturn:
        """Not answered."""
        raise _unanswered("curvature", total)

    def relevance(self, start: Mapping[str, Tensor], manner: Manner) -> Propagated:
        """Not answered."""
        raise _unanswered("relevance", start, manner)


def _unanswered(what: str, *_: object) -> RequestError:
    return RequestError(f"TensorFlow itself gives no {what}; leave out --native")


def _tape() -> Any:
    return tensorflow().GradientTape(persistent=True, watch_accessed_variables=False)
