"""What a backend answers.

It gives a `Session`, which sends batches forward, and for each a `Pass`: what the one forward gave, and what can be
asked of it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .outputs import Outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .relevance.manner import AtInput, Manner

INPUT = ""
"""The tap that stands for the model's input."""
Rule = Literal["plain", "guided", "deconv"]
"""What a ReLU does to a gradient on its way back."""
APART = frozenset("GHgudbDS")
"""Questions for which a forward that carries relevance is of no use: beside them it has one of its own."""
RULES: Mapping[str, Rule] = {"u": "guided", "d": "deconv"}


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


Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Execution:
    """How a model runs. Only the precision changes numbers by more than their last digits."""

    channels_last: bool | None = None
    """Whether images and volumes lie in memory channel by channel for each place; None where that is mostly faster."""
    precision: Precision = "float32"
    compiled: bool = False
    """Whether forwards for outputs alone go through the framework's compiler."""


@dataclass(frozen=True)
class Tapping:
    """What of a forward is kept, and for which questions."""

    layers: Sequence[str]
    rank: int
    """Number of spatial axes of the input."""
    questions: frozenset[str]
    """Letters of `core.methods.registry.QUESTIONS`."""
    execution: Execution = Execution()

    @property
    def gradients(self) -> bool:
        """Whether a graph is needed."""
        return bool(self.questions & frozenset("GHgudb"))

    @property
    def relevance(self) -> bool:
        """Whether the one forward carries relevance."""
        return "r" in self.questions and self.questions.isdisjoint(APART)

    @property
    def inputs(self) -> bool:
        """Whether gradients go down to the input."""
        return bool(self.questions & frozenset("gudb"))


class Propagated(Protocol):
    """Relevance at the first weighted operators on the data path."""

    def at_input(self, rule: AtInput | None = None) -> Tensor:
        """The relevance at the input, these operators following ``rule``, or the rules of all."""
        ...

    def gradient(self, multiplier: AtInput) -> Tensor:
        """What the operators' multiplier comes to at the input, as a gradient does."""
        ...


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

    def relevance(self, start: Mapping[str, Tensor], manner: Manner) -> Propagated:
        """The relevance ``start`` at the outputs, handed down to the first weighted operators."""
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

    def bare(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] = ...) -> Pass:
        """One forward for its outputs and the gradients at the input."""
        ...


class Backend(Protocol):
    """A loaded model in some framework. Nothing done to the model outlasts the context managers."""

    name: str
    device: str
    answers: frozenset[str]
    """The letters of `core.methods.registry.QUESTIONS` that it can answer."""
    switches: frozenset[str]
    """What of an `Execution` it heeds."""
    versions: Mapping[str, str]
    notes: Sequence[str]
    """What its user must know of how the model runs, a line each."""

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """(channel, *s) of one sample, where the model says it."""
        ...

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] = ...) -> Structure:
        """Send one batch through and look; raises `RequestError` where the model cannot take it."""
        ...

    def tapped(self, tapping: Tapping) -> AbstractContextManager[Session]:
        """The model, ready for batches."""
        ...

    def redrawn(self, share: float, seed: int) -> AbstractContextManager[None]:
        """The last ``share`` of its layers with other weights, drawn by chance, meanwhile."""
        ...

    def unruled(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] = ...) -> Mapping[str, int]:
        """The operators that have no rule of relevance, and how often they run."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether a smaller batch may help."""
        ...
