"""The target grammar.

================================ ======================================================================================
``predicted``                    the class with the highest score (the default)
``2nd``                          the second highest
``top:K``                        the K highest, each a target of its own, named ``top:1`` .. ``top:K``
``label``                        the sample's label
``class:NAME|INDEX``             one class, by name or by number from 0
``all``                          every class
``output:I``                     output I of a regression
``A-vs-B``                       the score of A less that of B, of any two targets above or below that are one each;
                                 a bare name or number is a class (``cat-vs-dog``)
``A-vs-value:V``                 less a constant
``mask:CLASS``                   segmentation: the mean score of a class over the places where it is predicted
``mask:CLASS@FILE.npy``          over the places where a mask, (samples, *places) or (*places), is not 0
``pixel:CLASS@Y,X``              the score of a class, or of the ``predicted`` one, at one place
``box:I``                        detection: the score of the I-th most confident box, from 0
``box:CLASS@X0,Y0,X1,Y1``        the score of the box of a class that overlaps this one most
``cosine:ID``                    an embedding's cosine similarity to that of the dataset's sample ID
``FILE.py:FUNCTION``             the user's own (or ``package.module:function``): outputs -> (batch,)
================================ ======================================================================================

Where two classes tie, the lower number comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ..errors import RequestError, nearest
from ..outputs import Readout

Kind = Literal[
    "predicted", "2nd", "top", "label", "class", "all", "output", "value", "mask", "pixel", "box", "cosine", "function"
]  # fmt: skip
EXPECTED = {
    "top": "top:3",
    "class": "class:NAME or class:7",
    "output": "output:0",
    "value": "value:72.5",
    "mask": "mask:CLASS or mask:CLASS@FILE.npy",
    "pixel": "pixel:CLASS@Y,X",
    "box": "box:0 or box:CLASS@X0,Y0,X1,Y1",
    "cosine": "cosine:ID",
}
"""What to type for a kind that takes an argument."""
CLASSES = frozenset({"predicted", "2nd", "top", "label", "class", "all"})
VERSUS = "-vs-"


@dataclass(frozen=True)
class Target:
    """A parsed target; one gives one or more columns of the results file."""

    kind: Kind
    argument: str = ""
    """A class, a number, an id, a function's name."""
    place: tuple[float, ...] = ()
    """Of a pixel or a box."""
    file: str = ""
    """Of a mask or of the user's code."""
    foil: Target | None = field(default=None)

    def __str__(self) -> str:
        if self.foil is not None:
            return f"{replace(self, foil=None)}{VERSUS}{self.foil}"
        name = Path(self.file).name
        if self.kind == "function":
            return f"{name}:{self.argument}"
        where = name or ",".join(f"{number:g}" for number in self.place)
        return self.kind + (f":{self.argument}" if self.argument else "") + (f"@{where}" if where else "")

    @property
    def simple(self) -> bool:
        """Whether it is one class: what a method that compares classes can take."""
        return self.kind in CLASSES and self.foil is None

    @property
    def parts(self) -> tuple[Target, ...]:
        """Itself, or what it contrasts."""
        return (self,) if self.foil is None else (replace(self, foil=None), self.foil)

    def explains(self, readout: Readout) -> str:
        """Which score of the model it is about, in words."""
        match self.kind:
            case "output":
                return f"output behind the final {readout.final}" if readout.final else "output of the model"
            case "cosine":
                return "cosine similarity"
            case "function":
                return "the user's own function"
        return str(readout)

    def columns(self, readout: Readout) -> tuple[str, ...]:
        """The names of its columns for such a model; `RequestError` where the model has no such output."""
        for part in self.parts:
            part._check(readout)
        match self.kind:
            case "top":
                return tuple(f"top:{rank + 1}" for rank in range(int(self.argument)))
            case "all":
                return tuple(f"class:{_name(i, readout.names)}" for i in range(readout.classes))
        return (str(self),)

    def _check(self, readout: Readout) -> None:
        outputs, places = readout.outputs, readout.places
        if readout.detects and self.kind not in ("box", "value", "function"):
            raise RequestError(f"target {self}: the model gives detections; write box:0, or box:CLASS@X0,Y0,X1,Y1")
        if places and self.kind in CLASSES | {"output", "cosine"}:
            shape = " x ".join(map(str, (outputs, *places)))
            zeros = ",".join("0" * len(places))
            raise RequestError(
                f"target {self}: the model gives {shape} for each sample, a score at each place; "
                f"write mask:CLASS, or pixel:CLASS@{zeros}"
            )
        match self.kind:
            case "top" | "2nd":
                count = 2 if self.kind == "2nd" else int(self.argument)
                there = readout.classes if outputs > 1 or readout.binary else 1
                if count > there:
                    raise RequestError(f"target {self}: the model has {there} outputs; write top:{there} or less")
            case "class":
                index_of(self, readout)
            case "output":
                if int(self.argument) >= outputs:
                    raise RequestError(f"target {self}: the model has outputs 0..{outputs - 1}")
            case "mask" | "pixel":
                if not places:
                    raise RequestError(f"target {self}: the model's outputs have no places; it is for segmentation")
                if not (self.kind == "pixel" and self.argument == "predicted"):
                    index_of(self, readout)
                if self.kind == "pixel" and not (
                    len(self.place) == len(places) and all(0 <= p < n for p, n in zip(self.place, places, strict=True))
                ):
                    raise RequestError(f"target {self}: the model's outputs have places {places}")
            case "box":
                if not readout.detects:
                    raise RequestError(f"target {self}: the model gives no boxes; it is for detectors")
                if self.place:
                    index_of(self, readout)


def index_of(target: Target, readout: Readout) -> int:
    """The number of the class that a target names."""
    names = [str(name) for name in readout.names or ()]
    if target.argument in names:
        found = names.index(target.argument)
    elif target.argument.isdecimal():
        found = int(target.argument)
    elif not names:
        raise RequestError(f"target {target}: the data name no classes; give data.classes, or the class by number")
    else:
        raise RequestError(f"target {target}: no such class. {nearest(target.argument, names)}")
    if not readout.detects and found >= readout.classes:
        raise RequestError(f"target {target}: the model has outputs 0..{readout.classes - 1}")
    return found


def parse_target(text: str) -> Target:
    """Read one target; `RequestError` says what to type where it cannot."""
    first, versus, second = text.partition(VERSUS)
    if not versus:
        target = _single(text)
        if target.kind == "value":
            raise RequestError(f"target {text!r} is a foil only: write output:0-vs-{text}")
        return target
    if VERSUS in second or not first or not second:
        raise RequestError(f"target {text!r} given, expected A-vs-B with one target on each side")
    sides = _operand(first), _operand(second)
    for side in sides:
        if side.kind == "all" or side.kind == "top":
            raise RequestError(f"target {text!r}: {side} is several targets; a contrast takes one on each side")
    if sides[0].kind == "value":
        raise RequestError(f"target {text!r}: the constant is the foil; write {second}-vs-{first}")
    if sides[0] == sides[1]:
        raise RequestError(f"target {text!r} holds {first} against itself, which is 0 everywhere")
    return replace(sides[0], foil=sides[1])


def located(text: str, base: Path) -> str:
    """A target with the relative path of its mask or its code taken from ``base``."""

    def one(part: str) -> str:
        head, at, tail = part.rpartition("@")
        if at and tail.endswith(".npy"):
            return f"{head}@{base / tail}"
        code, _, name = part.rpartition(":")
        return f"{base / code}:{name}" if code.endswith(".py") else part

    return VERSUS.join(map(one, text.split(VERSUS)))


def _operand(text: str) -> Target:
    """A side of a contrast, where a bare name or number is a class."""
    return _single(text if ":" in text or text in get_args(Kind) else f"class:{text}")


def _single(text: str) -> Target:
    kind, colon, argument = text.partition(":")
    if kind not in get_args(Kind) or kind == "function":
        where, _, name = text.rpartition(":")
        if where and name.isidentifier():
            return Target("function", name, file=where)
        raise RequestError(f"unknown target {text!r}. {nearest(kind, set(get_args(Kind)) - {'function'})}")
    takes = kind in EXPECTED
    if bool(argument) != takes or bool(colon) != takes:
        raise RequestError(f"target {text!r} given, expected {EXPECTED.get(kind, kind)}")
    if kind in ("top", "output") and not argument.isdecimal():
        raise RequestError(f"target {text!r}: {argument!r} is not a whole number from {'1' if kind == 'top' else '0'}")
    if kind == "top" and int(argument) == 0:
        raise RequestError("target 'top:0' explains nothing; write top:1 or more")
    if kind == "value":
        [constant] = _numbers(text, argument, kind)
        return Target("value", repr(constant).removesuffix(".0"))
    if kind in ("mask", "pixel", "box"):
        return _placed(text, kind, argument)
    return Target(kind, argument)  # type: ignore[arg-type]


def _placed(text: str, kind: str, argument: str) -> Target:
    """``mask:CLASS[@FILE]``, ``pixel:CLASS@PLACE``, ``box:I``, ``box:CLASS@BOX``; a class name may hold an ``@``."""
    name, at, where = argument.rpartition("@")
    if kind == "mask":
        return Target("mask", name, file=where) if at and where.endswith(".npy") else Target("mask", argument)
    if kind == "box" and argument.isdecimal():
        return Target("box", argument)
    place = _numbers(text, where, kind)
    if not name or (kind == "box" and len(place) % 2) or (kind == "pixel" and any(p != int(p) for p in place)):
        raise RequestError(f"target {text!r} given, expected {EXPECTED[kind]}")
    return Target(kind, name, place)  # type: ignore[arg-type]


def _numbers(text: str, argument: str, kind: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, argument.split(",")))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)) or (kind == "value" and len(numbers) > 1):
        raise RequestError(f"target {text!r} given, expected {EXPECTED[kind]}")
    return numbers


def _name(index: int, classes: Sequence[str] | None) -> str:
    return str(classes[index]) if classes is not None and index < len(classes) else str(index)
