"""The trace: a batch goes forward once, and is then asked many questions.

A backend answers with a `Session`, which sends batches forward, and for each with a `Pass`: what the one forward gave,
and what can be asked of it afterwards. The `Trace` remembers the answers, so that thirteen methods on two layers cost
one forward and, for each target, one backward.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .grid import resize
from .methods.grammar import Expression
from .outputs import Outputs
from .targets import Resolved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

INPUT = ""
"""The tap that stands for the model's input."""
Rule = Literal["plain", "guided", "deconv"]
"""What a ReLU does to a gradient on its way back."""
RULES: Mapping[str, Rule] = {"u": "guided", "d": "deconv"}
GAINS = (1.0, 0.9, 1.1)
"""What ``smooth=aug`` multiplies the input with, each as it is and, where it `mirrors`, flipped."""


@dataclass(frozen=True)
class Layer:
    """One place in a model, as ``camsweep inspect`` shows it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of its output for one sample: (channel, *spatial), tokens brought to their grid."""
    calls: int
    rank: int
    """Number of spatial axes of its output; 0 where it has none, or where they have shrunk to one point."""
    grid: str = ""
    """How tokens or channels-last values were brought to (channel, *spatial), "" where nothing was to do."""
    doubt: str = ""
    """Why its tokens could not be brought to a grid."""

    @property
    def tappable(self) -> bool:
        """Whether a CAM can be taken here."""
        return self.rank > 0 and self.calls == 1 and not self.doubt


@dataclass(frozen=True)
class Structure:
    """What a model is made of, found by sending one sample through it."""

    layers: tuple[Layer, ...]
    """In the order in which they finish."""
    outputs: int
    places: tuple[int, ...]
    """Spatial axes of its output, where it scores each place."""
    detects: bool
    """Whether it gives boxes."""
    final: str | None
    """The activation at the very end ("softmax", "sigmoid", ..) that targets step behind."""
    auto: str | None
    """The layer that ``auto`` means: the last one with spatial axes."""
    parameters: int
    keys: tuple[str, ...] = ("",)
    """Of its outputs, where it gives several."""


@dataclass(frozen=True)
class Tapping:
    """What of a forward is kept, and for which questions."""

    layers: Sequence[str]
    rank: int
    """Number of spatial axes of the input."""
    questions: frozenset[str]
    """Letters of `core.methods.registry.QUESTIONS`."""

    @property
    def gradients(self) -> bool:
        """Whether a graph is needed."""
        return bool(self.questions & frozenset("GHgudb"))

    @property
    def inputs(self) -> bool:
        """Whether gradients go down to the input."""
        return bool(self.questions & frozenset("gudb"))


class Pass(Protocol):
    """What one forward of a batch gave."""

    inputs: Tensor
    raw: Tensor
    """The output that is explained, as the model gives it, (batch, output, *places)."""
    outputs: Outputs
    """All outputs, that one behind its final softmax or sigmoid: what targets are taken from."""
    activations: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]
    """Of the operators that ran, to be multiplied with the gradient of the same name."""

    def pullback(self, cotangents: Mapping[str, Tensor], *, rule: Rule = "plain") -> Mapping[str, Tensor]:
        """Gradient of sum(cotangent * output) at every tapped layer and bias, and at `INPUT` if that is tapped.

        By another rule than the plain one at `INPUT` only.
        """
        ...

    def curved(self, total: Callable[[Outputs], Tensor]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Gradients of a function of the outputs as by `pullback`; its Hessian at each layer times the activation."""
        ...

    def tail(self, layer: str, activation: Tensor) -> Outputs:
        """The outputs with another activation at the layer: only what lies behind it runs."""
        ...


class Session(Protocol):
    """A model ready for batches."""

    tapping: Tapping

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor] = ...) -> Pass:
        """One forward of (batch, channel, *s), with what was to be kept. ``extra``: further inputs, by name."""
        ...

    def tensor(self, values: NDArray[Any]) -> Tensor:
        """An array as the model takes it: on its device, floats in its type."""
        ...

    def forward(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] = ...) -> Outputs:
        """One forward for its outputs alone; ``rows`` says which sample of a batch each is."""
        ...


class Backend(Protocol):
    """A loaded model in some framework. Nothing done to the model outlasts the context managers."""

    name: str
    device: str
    answers: frozenset[str]
    """The letters of `core.methods.registry.QUESTIONS` that it can answer."""
    versions: Mapping[str, str]

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] = ...) -> Structure:
        """Send one batch through and look; raises `RequestError` where the model cannot take it."""
        ...

    def tapped(self, tapping: Tapping) -> AbstractContextManager[Session]:
        """The model, ready for batches."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help."""
        ...


@dataclass(frozen=True)
class Circumstances:
    """What a batch's questions need besides the model."""

    seed: int = 0
    ids: Sequence[str] = ()
    chunk: int = 32
    """Masked samples in one forward."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    concepts: Mapping[tuple[str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """(concept, channel) and offset, by expression and layer."""


class Trace:
    """One batch: what its forward gave, and every answer given since."""

    def __init__(
        self,
        session: Session,
        inputs: Tensor,
        settle: Callable[[Outputs], Sequence[Resolved]],
        around: Circumstances | None = None,
    ) -> None:
        self.session = session
        self.around = around or Circumstances()
        self.run = session(inputs, self.around.extra)
        self.targets = settle(self.run.outputs)
        self._memory: dict[Hashable, Any] = {}

    def map(self, expression: Expression, target: Resolved, layers: Sequence[str], grid: Sequence[int]) -> Tensor:
        """The map of a method, computed once for all targets where it does not depend on them.

        ``layers`` is one layer, none, or all that are fused. (batch, *s) at the layer's own resolution; a fused one at
        that of ``grid``.
        """
        if expression.method.aim is not None:
            aim, settings = expression.method.aim, expression.settings
            target = self._once(("aim", str(expression), target.key), lambda: aim(target, self.run.outputs, **settings))
        return self._aimed(expression, target, layers, grid)

    def _aimed(self, expression: Expression, target: Resolved, layers: Sequence[str], grid: Sequence[int]) -> Tensor:
        key = (str(expression), *layers, target.key if expression.of_target else None)
        return self._once(key, lambda: self._map(expression, target, layers, grid))  # type: ignore[no-any-return]

    def _map(self, expression: Expression, target: Resolved, layers: Sequence[str], grid: Sequence[int]) -> Tensor:
        if expression.augmented:
            rest = "eigen" if expression.settings["smooth"] == "both" else "off"
            plain = replace(expression, settings={**expression.settings, "smooth": rest})
            maps = [undo(trace._aimed(plain, target, layers, grid)) for trace, undo in self._augmented()]
            return sum(maps) / len(maps)  # type: ignore[return-value]

        def at(layer: str) -> Tensor:
            return expression(lambda letter: self.answer(letter, target, layer, expression))

        return fuse([at(layer) for layer in layers], expression, grid) if expression.fused else at((*layers, INPUT)[0])

    def answer(self, letter: str, target: Resolved, layer: str, expression: Expression) -> Any:
        """What a method calls by ``letter`` (`core.methods.registry.QUESTIONS`)."""
        run, settings = self.run, expression.settings
        match letter:
            case "A":
                return run.activations[layer]
            case "G":
                return self.gradients(target)[layer]
            case "H":
                return self._curved(target)[1][layer]
            case "D":
                fill = "compat" if settings["compat"] != "off" else settings["fill"]
                return self._scores(target, ("D", layer, fill), lambda: self._ablated(layer, fill))
            case "S":
                return self._scores(target, ("S", layer, settings["top"]), lambda: self._masked(layer, settings["top"]))
            case "R":
                return self._random(layer, settings["draw"])
            case "C":
                return self.around.concepts[str(expression), layer]
            case "x":
                return run.inputs
            case "g":
                return self.gradients(target)[INPUT]
            case "u" | "d":
                cotangents, rule = target.cotangents(run.outputs), RULES[letter]
                return self._once((letter, target.key), lambda: run.pullback(cotangents, rule=rule)[INPUT])
            case "b":
                gradients = self.gradients(target)
                return [gradients[name] * bias for name, bias in run.biases.items()]
            case "y":
                return target.score(run.outputs)
        raise ValueError(f"no question is called {letter!r}")

    def gradients(self, target: Resolved) -> Mapping[str, Tensor]:
        """One backward for each different target, at everything tapped."""
        if "H" in self.session.tapping.questions and any(target.key == each.key for each in self.targets):
            return self._curved(target)[0]
        return self._once(  # type: ignore[no-any-return]
            ("G", target.key), lambda: self.run.pullback(target.cotangents(self.run.outputs))
        )

    def forget(self, target: Resolved) -> None:
        """Give up what was remembered of one target, which with many of them is most of the memory."""
        for key in [key for key in self._memory if _concerns(key, target.key)]:
            del self._memory[key]
        for trace, _ in self._memory.get("augmented", ()):
            if trace is not self:
                trace.forget(target)

    def _curved(self, target: Resolved) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return self._once(("H", target.key), lambda: self.run.curved(target.total))  # type: ignore[no-any-return]

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._memory:
            self._memory[key] = compute()
        return self._memory[key]

    def _scores(self, target: Resolved, key: Hashable, compute: Callable[[], Sequence[Tensor]]) -> Tensor:
        """(batch, channel), out of the scores of all targets, which cost no more passes than those of one."""
        place = next(i for i, each in enumerate(self.targets) if each.key == target.key)
        return self._once(key, compute)[place]  # type: ignore[no-any-return]

    def _ablated(self, layer: str, fill: str) -> Sequence[Tensor]:
        """For each target the score without each channel."""
        A = self.run.activations[layer]
        flat = A.flatten(2)
        match fill:
            case "mean":
                value = flat.mean(2)
            case "zero":
                value = flat.new_zeros(flat.shape[:2])
            case _:
                low = flat.amin((1, 2))
                value = low.where(low == 0, low - 1e7)[:, None].expand(flat.shape[:2])
        found = [A.new_empty(A.shape[:2]) for _ in self.targets]
        ablated = A.clone()
        for k in range(A.shape[1]):
            ablated[:, k] = value[:, k].reshape(-1, *[1] * (A.ndim - 2))
            outputs = self.run.tail(layer, ablated)
            ablated[:, k] = A[:, k]
            for scores, target in zip(found, self.targets, strict=True):
                scores[:, k] = target.score(outputs)
        return found

    def _masked(self, layer: str, top: int) -> Sequence[Tensor]:
        """For each target the score of the input masked by each channel; -inf for a channel that is no mask.

        The masks are made as they are needed, those of all samples and channels packed into full batches.
        """
        import torch

        A, x = self.run.activations[layer], self.run.inputs
        flat = A.flatten(2)
        asked = flat.amax(2) > flat.amin(2)
        if 0 < top < A.shape[1]:
            largest = flat.var(2, correction=0).topk(top, 1).indices
            asked &= asked.new_zeros(asked.shape).scatter(1, largest, True)
        found = [A.new_full(A.shape[:2], float("-inf")) for _ in self.targets]
        for pairs in torch.split(asked.nonzero(), self.around.chunk):
            rows, channels = pairs.unbind(1)
            mask = resize(A[rows, channels].unsqueeze(1), x.shape[2:])
            low, high = mask.flatten(1).aminmax(dim=1)
            shape = (-1, *[1] * (x.ndim - 1))
            mask = (mask - low.reshape(shape)) / (high - low).where(high > low, 1).reshape(shape)
            extra = {name: values[rows] for name, values in self.around.extra.items()}
            outputs = self.session.forward(x[rows] * mask, rows, extra)
            for scores, target in zip(found, self.targets, strict=True):
                scores[rows, channels] = target.score(outputs)
        return found

    def _random(self, layer: str, draw: int) -> Tensor:
        import zlib

        import numpy as np

        A = self.run.activations[layer]
        seeds = [(self.around.seed, draw, zlib.crc32(layer.encode()), zlib.crc32(i.encode("utf-8", "surrogateescape")))
                 for i in self.around.ids]  # fmt: skip
        return A.new_tensor(np.stack([np.random.default_rng(s).uniform(-1, 1, A.shape[1]) for s in seeds]))

    def _augmented(self) -> list[tuple[Trace, Callable[[Tensor], Tensor]]]:
        """The traces of the augmented inputs, each with what brings its maps back."""
        return self._once("augmented", lambda: list(self._augment()))  # type: ignore[no-any-return]

    def _augment(self) -> Iterator[tuple[Trace, Callable[[Tensor], Tensor]]]:
        x, outputs = self.run.inputs, self.run.outputs
        flips: list[Callable[[Tensor], Tensor]] = [lambda t: t]
        if mirrors(x.ndim - 2, at_places=outputs.scores.ndim > 2 or "boxes" in outputs.named):
            flips.append(lambda t: t.flip(-1))
        for flip in flips:
            for gain in GAINS:
                if flip is flips[0] and gain == 1:
                    yield self, flip
                else:
                    yield Trace(self.session, flip(x) * gain, lambda _: self.targets, self.around), flip


def mirrors(rank: int, *, at_places: bool) -> bool:
    """Whether ``smooth=aug`` flips its inputs of ``rank`` axes too.

    A signal played backwards is another signal. Where the target is at a place (a mask, a box), the flipped input has
    it somewhere else.
    """
    return rank > 1 and not at_places


def _concerns(key: Hashable, target: Hashable) -> bool:
    return key == target or (isinstance(key, tuple) and any(_concerns(part, target) for part in key))


def fuse(maps: Sequence[Tensor], expression: Expression, grid: Sequence[int]) -> Tensor:
    """One map of several layers' maps (batch, *s), each resized to ``grid`` and brought to one scale.

    Maps cut at 0 are scaled to 0..1, signed ones by their largest size.
    """
    scaled = []
    for each in maps:
        values = resize(each, grid)
        flat = values.flatten(1)
        low = flat.amin(1) if expression.settings.get("relu", False) else flat.new_zeros(len(flat))
        size = (flat - low[:, None]).abs().amax(1)
        shape = (-1, *[1] * (values.ndim - 1))
        scaled.append((values - low.reshape(shape)) / size.where(size > 0, 1).reshape(shape))
    result = scaled[0]
    for each in scaled[1:]:
        match expression.settings["fuse"]:
            case "mean":
                result = result + each
            case "max":
                result = (
                    result.maximum(each) if not expression.signed else result.where(result.abs() >= each.abs(), each)
                )
            case _:
                result = result * each
    return result / len(maps) if expression.settings["fuse"] == "mean" else result
