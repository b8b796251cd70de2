"""The trace: a batch goes forward once, and is then asked many questions.

A backend answers with two things for each batch: a `Pass` (what the one forward gave) and its ``pullback`` (one
backward from the outputs to everything tapped). The `Trace` remembers the answers, so that thirteen methods on two
layers cost one forward and, for each target, one backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .methods.grammar import Expression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

INPUT = ""
"""The tap that stands for the model's input."""


@dataclass(frozen=True)
class Layer:
    """One place in a model, as ``camsweep inspect`` shows it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of its output for one sample: (channel, *spatial)."""
    calls: int
    rank: int
    """Number of spatial axes of its output; 0 where it has none, or where they have shrunk to one point."""

    @property
    def tappable(self) -> bool:
        """Whether a CAM can be taken here."""
        return self.rank > 0 and self.calls == 1


@dataclass(frozen=True)
class Structure:
    """What a model is made of, found by sending one sample through it."""

    layers: tuple[Layer, ...]
    """In the order in which they finish."""
    outputs: int
    final: str | None
    """The activation at the very end ("softmax", "sigmoid", ..) that targets step behind."""
    auto: str | None
    """The layer that ``auto`` means: the last one with spatial axes."""
    parameters: int


class Pass(Protocol):
    """What one forward of a batch gave."""

    inputs: Tensor
    outputs: Tensor
    """The model's own outputs, (batch, outputs)."""
    scores: Tensor
    """The same behind a final softmax or sigmoid, if there is one: what targets are taken from."""
    activations: Mapping[str, Tensor]

    def pullback(self, cotangent: Tensor) -> Mapping[str, Tensor]:
        """Gradient of sum(cotangent * scores) at every tapped layer, and at `INPUT` if that is tapped."""
        ...


class Backend(Protocol):
    """A loaded model in some framework. Nothing done to the model outlasts the context managers."""

    name: str
    device: str
    answers: frozenset[str]
    """The letters of `core.methods.registry.QUESTIONS` that it can answer."""
    versions: Mapping[str, str]

    def structure(self, example: NDArray[np.float32]) -> Structure:
        """Send one batch through and look; raises `RequestError` where the model cannot take it."""
        ...

    def tapped(
        self, layers: Sequence[str], *, rank: int, inputs: bool, gradients: bool
    ) -> AbstractContextManager[Callable[[NDArray[np.float32]], Pass]]:
        """A function that sends (batch, channel, *s) of ``rank`` spatial axes forward and keeps what was asked for."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help."""
        ...


@dataclass(frozen=True)
class Resolved:
    """A target, settled for each sample of a batch."""

    index: Tensor
    """(batch,) int64, -1 where a sample has no such target."""
    score: Tensor
    """(batch,), NaN there."""
    cotangent: Tensor
    """d sum(score) / d scores, (batch, outputs): what the backward starts from."""

    @classmethod
    def of(cls, index: Tensor, scores: Tensor) -> Resolved:
        """The score of output ``index`` for each sample."""
        defined = (index >= 0)[:, None]
        column = index.clamp(min=0)[:, None]
        score = scores.gather(1, column).where(defined, float("nan"))
        return cls(index, score[:, 0], scores.new_zeros(scores.shape).scatter(1, column, defined.to(scores.dtype)))

    @property
    def key(self) -> tuple[int, ...]:
        """Equal for targets that ask the same of every sample."""
        return tuple(self.index.tolist())


class Trace:
    """One batch: what its forward gave, and every answer given since."""

    def __init__(self, run: Pass) -> None:
        self.run = run
        self._gradients: dict[tuple[int, ...], Mapping[str, Tensor]] = {}
        self._maps: dict[tuple[str, str | None, tuple[int, ...]], Tensor] = {}

    def gradients(self, target: Resolved) -> Mapping[str, Tensor]:
        """One backward for each different target, at everything tapped."""
        if target.key not in self._gradients:
            self._gradients[target.key] = self.run.pullback(target.cotangent)
        return self._gradients[target.key]

    def answer(self, letter: str, target: Resolved, layer: str | None) -> Tensor:
        """The tensor that a method calls by ``letter`` (`core.methods.registry.QUESTIONS`)."""
        match letter:
            case "A":
                return self.run.activations[layer or INPUT]
            case "G":
                return self.gradients(target)[layer or INPUT]
            case "x":
                return self.run.inputs
            case "g":
                return self.gradients(target)[INPUT]
        raise ValueError(f"no question is called {letter!r}")

    def map(self, expression: Expression, target: Resolved, layer: str | None) -> Tensor:
        """The map of a method, computed once for all targets where it does not depend on them."""
        key = (str(expression), layer, target.key if expression.needs_backward else ())
        if key not in self._maps:
            self._maps[key] = expression(lambda letter: self.answer(letter, target, layer))
        return self._maps[key]
