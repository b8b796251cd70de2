"""The keys that methods, factors and domains take: their kinds, their defaults, and the text that stands for them."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote, unquote

from .errors import RequestError

NUMBERS = "/"
"""Separates the numbers of a list."""
_FILE = re.compile(r"(?<==)[^,+=]+?\.(?:npy|npz|py(?=:))(?![^,+:])")


def located(text: str, base: Path) -> str:
    """A method, with the relative paths of files it names taken from ``base``; what the grammar uses is escaped."""
    return _FILE.sub(lambda found: quote(str(base / unquote(found[0])), safe="/ ~()'!@#$&;"), text)


class Count(int):
    """A whole number from 1."""

    expects: ClassVar[str] = "a whole number from 1"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The value; ValueError where there is none."""
        if int(text) < 1:
            raise ValueError(text)
        return cls(int(text))


class Share(float):
    """A part of a whole."""

    expects: ClassVar[str] = "more than 0, at most 1"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The value; ValueError where there is none."""
        if not 0 < float(text) <= 1:
            raise ValueError(text)
        return cls(float(text))


class Text(str):
    """Free text; a path in it is shown without its folder."""

    __slots__ = ()
    expects: ClassVar[str] = "a word"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The value; ValueError where there is none."""
        if not text:
            raise ValueError(text)
        return cls(unquote(text))

    @property
    def file(self) -> Path | None:
        """The file it names."""
        path = self.rpartition(":")[0] if ".py:" in self else str(self)
        return Path(path) if path.endswith((".npy", ".npz", ".py")) else None

    def show(self) -> str:
        """The text that `parse` reads back."""
        return str(self).replace(str(self.file), self.file.name, 1) if self.file else str(self)


class Code(Text):
    """Names a class or a function of the user's."""

    __slots__ = ()
    expects = "FILE.py:NAME"


class Threshold(Text):
    """What an input is held against: numbers (one, or one for each channel), ``mean``, or an array's file."""

    __slots__ = ()
    expects = "a number, one for each channel as 0.1/-0.2, mean, or FILE.npy"
    words: ClassVar[tuple[str, ...]] = ("mean",)

    @classmethod
    def parse(cls, text: str) -> Self:
        """As `Text`; numbers are brought to one spelling."""
        found = super().parse(text)
        if found in cls.words or found.endswith(".npy"):
            return found
        if re.match(r"-?0[0-9]", found):  # 000007 is a name
            raise ValueError(text)
        numbers = [float(part) for part in found.split(NUMBERS)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(text)
        return cls(NUMBERS.join(map(show, numbers)))

    @property
    def numbers(self) -> tuple[float, ...]:
        """One, or one for each channel; empty where it is none."""
        try:
            found = () if re.match(r"-?0[0-9]", self) else tuple(map(float, self.split(NUMBERS)))
        except ValueError:
            return ()
        return found if all(map(math.isfinite, found)) else ()

    @property
    def sample(self) -> str | None:
        """The id of another sample, where that may be meant."""
        return None


class Baseline(Threshold):
    """Where a path begins, or what is put in a place: a `Threshold`, a word, or another sample's id."""

    __slots__ = ()
    expects = "zero, mean, blur, uniform, numbers as 0.1/-0.2, FILE.npy, or a sample's id (id:7 where that is a number)"
    words = ("zero", "mean", "blur", "uniform")

    @property
    def sample(self) -> str | None:
        """The id of another sample."""
        itself = self.numbers or self in self.words or self.file is not None
        return None if itself else self.removeprefix("id:")

    @classmethod
    def parse(cls, text: str) -> Self:
        """As `Threshold`; what is none is an id."""
        try:
            return super().parse(text)
        except ValueError:
            named = Text.parse(text).removeprefix("id:")
        try:
            super().parse(named)
        except ValueError:
            return cls(named)
        return cls(f"id:{named}")  # it could be taken for something else


@dataclass(frozen=True)
class Key:
    """A setting: its default, and the values it may take."""

    default: Any
    kind: type
    choices: tuple[str, ...] = ()

    @property
    def expects(self) -> str:
        """What to type."""
        if self.choices:
            return " or ".join(self.choices)
        if issubclass(self.kind, Count | Share | Text):
            return self.kind.expects
        return {bool: "on or off", int: "a whole number from 0", float: "a number from 0"}.get(
            self.kind, "numbers joined by dots"
        )

    def parse(self, text: str) -> Any:
        """The value that ``text`` stands for; ValueError where it stands for none."""
        if issubclass(self.kind, Count | Share | Text):
            return self.kind.parse(text)
        choices = ("on", "off") if self.kind is bool else self.choices
        if choices and text not in choices:
            raise ValueError(text)
        if self.kind is str and not choices and not all(part.isdecimal() for part in text.split(".")):
            raise ValueError(text)
        if self.kind is bool:
            return text == "on"
        number: Any = self.kind  # int or float, else str
        value = number(text)
        if self.kind is not str and not 0 <= value < float("inf"):
            raise ValueError(text)
        return value

    @staticmethod
    def show(value: Any) -> str:
        """The text that `parse` reads back."""
        return show(value)


def show(value: Any) -> str:
    """A setting's text, the same for equal values and different for different ones."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    return value.show() if isinstance(value, Text) else str(value)


def signature(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Key]]:
    """What a function takes: the names of its positional arguments, and its keyword-only ones as keys."""
    asks, keys = [], {}
    parameters = inspect.signature(function).parameters
    kinds = {name: each.annotation for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
    hints = typing.get_type_hints(SimpleNamespace(__annotations__=kinds), function.__globals__)
    for name, parameter in parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            asks.append(name)
        elif typing.get_origin(hints[name]) is Literal:
            keys[name] = Key(parameter.default, str, typing.get_args(hints[name]))
        else:
            keys[name] = Key(parameter.default, hints[name])
    return tuple(asks), keys


def setting(owner: str, key: str, spec: Key, text: str) -> Any:
    """The value of ``owner``'s key; `RequestError` says what it expects."""
    try:
        return spec.parse(text)
    except ValueError:
        raise RequestError(f"{owner}: {key}={text!r} given, expected {spec.expects}") from None
