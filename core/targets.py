"""The target grammar: what of a model's output is explained.

========================= =========================================================================
``predicted``             the class with the highest score (the default)
``top:K``                 the K highest, each a target of its own, named ``top:1`` .. ``top:K``
``label``                 the sample's label
``class:NAME|INDEX``      one class, by name or by number from 0
``all``                   every class
``output:I``              output I of a regression
========================= =========================================================================

Where two classes tie, the lower number comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .errors import RequestError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["predicted", "top", "label", "class", "all", "output"]
UNDEFINED = -1
"""Index of a target that a sample does not have, such as ``label`` without one."""


@dataclass(frozen=True)
class Target:
    """A parsed target; one gives one or more columns of the results file."""

    kind: Kind
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    def columns(self, classes: Sequence[str] | None, outputs: int) -> tuple[str, ...]:
        """The names of its columns for a model of ``outputs`` outputs; `RequestError` where it has no such class."""
        match self.kind:
            case "top":
                count = int(self.argument)
                if count > outputs:
                    raise RequestError(f"target {self}: the model has {outputs} outputs; write top:{outputs} or less")
                return tuple(f"top:{rank + 1}" for rank in range(count))
            case "all":
                return tuple(f"class:{_name(i, classes)}" for i in range(outputs))
            case "class" | "output":
                self._fixed(classes, outputs)
        return (str(self),)

    def index(self, scores: Tensor, labels: Tensor, classes: Sequence[str] | None) -> Tensor:
        """The output that each column explains, (batch, columns) int64, from scores (batch, outputs).

        ``labels`` is (batch,); where it is `UNDEFINED` or no output of the model, so is the target ``label``.
        """
        batch, outputs = scores.shape
        match self.kind:
            case "predicted":
                return scores.argmax(1, keepdim=True)
            case "top":
                return scores.argsort(dim=1, descending=True, stable=True)[:, : int(self.argument)]
            case "label":
                return labels.where((labels >= 0) & (labels < outputs), UNDEFINED)[:, None]
            case "all":
                return scores.new_tensor(range(outputs)).long().expand(batch, -1)
            case "class" | "output":
                return scores.new_full((batch, 1), self._fixed(classes, outputs)).long()

    def _fixed(self, classes: Sequence[str] | None, outputs: int) -> int:
        names = [str(name) for name in classes or ()]
        if self.kind == "class" and self.argument in names:
            found = names.index(self.argument)
        elif self.argument.isdecimal():
            found = int(self.argument)
        elif not names:
            raise RequestError(f"target {self}: the data names no classes; give data.classes, or class:INDEX")
        else:
            raise RequestError(f"target {self}: no such class. {nearest(self.argument, names)}")
        if found >= outputs:
            raise RequestError(f"target {self}: the model has outputs 0..{outputs - 1}")
        return found


def parse_target(text: str) -> Target:
    """Read one target; `RequestError` says what to type where it cannot."""
    kind, colon, argument = text.partition(":")
    if kind not in get_args(Kind):
        raise RequestError(f"unknown target {text!r}. {nearest(kind, get_args(Kind))}")
    takes = kind in ("top", "class", "output")
    if bool(argument) != takes or bool(colon) != takes:
        example = {"top": "top:3", "class": "class:NAME or class:7", "output": "output:0"}.get(kind, kind)
        raise RequestError(f"target {text!r} given, expected {example}")
    if kind in ("top", "output") and not argument.isdecimal():
        raise RequestError(f"target {text!r}: {argument!r} is not a whole number from {'1' if kind == 'top' else '0'}")
    if kind == "top" and int(argument) == 0:
        raise RequestError("target 'top:0' explains nothing; write top:1 or more")
    return Target(kind, argument)  # type: ignore[arg-type]


def _name(index: int, classes: Sequence[str] | None) -> str:
    return str(classes[index]) if classes is not None and index < len(classes) else str(index)
