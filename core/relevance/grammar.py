"""How relevance rules are written: ``eps=0.25std``, ``conv.a1b0,dense.eps=0.1``, ``A``; input rules too, ``sign=0``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from ..errors import RequestError, nearest
from ..keys import Text, Threshold, show
from . import rules

if TYPE_CHECKING:
    from torch import Tensor

_N = r"(\d+\.?\d*(?:e-?\d+)?|\.\d+)"
FORMS = {
    "z": "z",
    "eps": f"eps={_N}",
    "std": f"eps={_N}std",
    "alphabeta": f"a{_N}b{_N}",
    "gamma": f"gamma={_N}",
    "flat": "flat",
    "w2": "w2",
    "pass": "pass",
}
"""The spelling of each rule."""
SHARES = {
    "z": "x_i w_ij / z_j",
    "eps": "x_i w_ij / (z_j + {} s(z_j))",
    "std": "x_i w_ij / (z_j + {} std(x) s(z_j))",
    "alphabeta": "{} (x_i w_ij)+ / Z+_j - {} (x_i w_ij)- / Z-_j",
    "z+": "(x_i w_ij)+ / Z+_j",
    "gamma": "(x_i w_ij + {} (x_i w_ij)^s(z_j)) / sum_i",
    "flat": "1 / n_j",
    "w2": "w_ij^2 / sum_i",
    "pass": "1",
}
"""Of the relevance R_j, what goes to x_i."""
SPELT = "z, eps=0.1, eps=0.25std, a2b1, zplus, gamma=0.25, w2, flat or pass"
NAMED = {
    "A": "conv.a1b0,dense.eps=0.1",
    "B": "conv.a2b1,dense.eps=0.1",
    "epsilon-plus": "conv.a1b0,dense.eps=1e-06",
    "epsilon-plus-flat": "conv.a1b0,dense.eps=1e-06@flat",
    "epsilon-gamma": "conv.gamma=0.25,dense.eps=1e-06",
    "epsilon-gamma-box": "conv.gamma=0.25,dense.eps=1e-06@zbox=data",
    "epsilon-alpha2-beta1": "conv.a2b1,dense.eps=1e-06",
    "epsilon-alpha2-beta1-flat": "conv.a2b1,dense.eps=1e-06@flat",
    "excitation-backprop": "a1b0",
}
"""Composites that have a name, those of zennit's with its settings (Anders et al. 2021)."""
KINDS = ("conv", "dense")


@dataclass(frozen=True)
class Rule:
    """One rule with its numbers."""

    name: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule; ValueError where it is none."""
        text = {"zplus": "a1b0"}.get(text, text)
        for name, form in FORMS.items():
            if found := re.fullmatch(form, text):
                numbers = tuple(map(float, found.groups()))
                if name == "alphabeta" and abs(numbers[0] - numbers[1] - 1) > 1e-9:
                    raise ValueError(f"a - b is {show(numbers[0] - numbers[1])}, expected 1, as in a2b1")
                return cls(name, numbers) if any(numbers) or name not in ("eps", "std", "gamma") else cls("z")
        raise ValueError(f"{text!r} is no rule; expected {SPELT}")

    def __str__(self) -> str:
        form = {"eps": "eps={}", "std": "eps={}std", "alphabeta": "a{}b{}", "gamma": "gamma={}"}.get(
            self.name, self.name
        )
        return form.format(*map(show, self.numbers))

    @property
    def share(self) -> str:
        """Of the relevance R_j, what goes to x_i."""
        return SHARES["z+" if self.numbers[1:] == (0.0,) else self.name].format(*map(show, self.numbers))

    def size(self, op: rules.Operator, x: Tensor) -> Tensor | float:
        """The epsilon of an operator with input ``x``."""
        match self.name:
            case "eps":
                return self.numbers[0]
            case "std":
                return rules.deviations(x, self.numbers[0], op.axis)
        return 0.0

    def __call__(self, op: rules.Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
        """The relevance at ``x`` of ``R`` at ``z``."""
        match self.name:
            case "alphabeta":
                return rules.alphabeta(op, x, z, R, *self.numbers)
            case "gamma":
                return rules.gamma(op, x, z, R, *self.numbers)
            case "flat":
                return rules.flat(op, x, z, R)
            case "w2":
                return rules.wsquare(op, x, z, R)
            case "pass":
                return rules.unchanged(op, x, z, R)
        return rules.epsilon(op, x, z, R, self.size(op, x))


@dataclass(frozen=True)
class Composite:
    """Which operator follows which rule: the first whose place fits, else LRP-z."""

    parts: tuple[tuple[str, Rule], ...]
    """Places: a kind of operator, the beginning of a layer's name, a pattern of names; "" is everything."""

    def __str__(self) -> str:
        text = ",".join(f"{place}.{rule}" if place else str(rule) for place, rule in self.parts)
        return _NAMES.get(text, text)

    def of(self, op: rules.Operator) -> Rule:
        """The rule of an operator."""
        return next((rule for place, rule in self.parts if _fits(place, op)), Rule("z"))

    @property
    def share(self) -> str:
        """Of the relevance R_j, what goes to x_i, kind by kind."""
        return "; ".join(f"{place}: {rule.share}" if place else rule.share for place, rule in self.parts)

    @property
    def layers(self) -> list[str]:
        """The names and patterns of layers."""
        return [place for place, _ in self.parts if place not in ("", *KINDS)]


_NAMES = {text: name for name, text in NAMED.items() if "@" not in text and "," in text}


def _fits(place: str, op: rules.Operator) -> bool:
    if place in KINDS:
        return op.kind == place
    return not place or names(place, op.name)


def names(place: str, layer: str) -> bool:
    """Whether a layer is meant: by its name, by that of what it lies in, or by a pattern."""
    return layer == place or layer.startswith(f"{place}.") or fnmatchcase(layer, place)


@lru_cache(maxsize=256)
def composite(text: str) -> Composite:
    """Read the rules of operators; ValueError says what is wrong."""
    text = NAMED.get(text, text).partition("@")[0]
    parts = []
    for part in text.split(","):
        # The rule begins behind the first dot from which on it is one: names of layers and numbers hold dots too.
        splits = [("", part), *((part[:i], part[i + 1 :]) for i, mark in enumerate(part) if mark == "." and i)]
        found = next(((place, rule) for place, text in splits if (rule := _rule(text))), None)
        if found is None and re.fullmatch("[A-Za-z][A-Za-z-]*", part):
            raise ValueError(f"{part!r} is no rule. {nearest(part, [*NAMED, 'zplus', *FORMS])}")
        parts.append(
            found or ("", Rule.parse([each for _, each in splits if not each[:1].isdigit()][-1]))
        )  # says why not
    places = [place for place, _ in parts]
    if len(set(places)) < len(places):
        raise ValueError(f"{text!r} gives two rules for one place")
    parts.sort(key=lambda each: each[0] == "")  # what is for everything is for the rest
    return Composite(tuple(parts))


def _rule(text: str) -> Rule | None:
    try:
        return Rule.parse(text)
    except ValueError:
        return None


class Rules(Text):
    """The rules of weighted operators, in their one spelling."""

    __slots__ = ()
    expects: ClassVar[str] = f"{SPELT}, several as conv.a1b0,dense.eps=0.1, or {', '.join(NAMED)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`RequestError` where they cannot be read."""
        try:
            return cls(composite(text))
        except ValueError as error:
            raise RequestError(f"lrp: {error}") from None

    @property
    def composite(self) -> Composite:
        """Read."""
        return composite(str(self))

    @property
    def file(self) -> None:
        """None."""


_SIGN = re.compile("sign=(.*?)(?:,(eps=[0-9.e-]+(?:std)?))?")


class InputRule(Text):
    """The rule of the first weighted operators on the data path: a `Rule`, SIGN, or zbox; "" is their own."""

    __slots__ = ()
    expects: ClassVar[str] = f"{SPELT}, sign=MU[,eps=0.1] or zbox=LOW:HIGH"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`RequestError` where it cannot be read."""
        try:
            return cls(cls._canonical(text))
        except ValueError as error:
            raise RequestError(f"lrp, behind the @: {error or repr(text)}") from None

    @staticmethod
    def _canonical(text: str) -> str:
        name, _, value = text.partition("=")
        match name:
            case "sign":
                mu, comma, rest = value.partition(",")
                epsilon = Rule.parse(rest) if comma else Rule("z")
                if epsilon.name not in ("z", "eps", "std"):
                    raise ValueError(f"{text!r}: sign takes eps=0.1 or eps=0.25std, not {rest}")
                try:
                    level = Threshold.parse(mu)
                except ValueError:
                    raise ValueError(f"sign={mu!r} given, expected {Threshold.expects}") from None
                return f"sign={level}{'' if epsilon.name == 'z' else f',{epsilon}'}"
            case "zbox":
                return f"zbox={_bounds(value)}"
        return str(Rule.parse(text))

    @property
    def rule(self) -> Rule | None:
        """It, where it is a `Rule`."""
        return Rule.parse(str(self)) if self and not self.startswith(("sign=", "zbox=")) else None

    @property
    def mu(self) -> Threshold | None:
        """What SIGN takes the sign against."""
        found = _SIGN.fullmatch(self)
        return Threshold(found[1]) if found else None

    @property
    def epsilon(self) -> Rule:
        """Of SIGN's denominator."""
        found = _SIGN.fullmatch(self)
        return Rule.parse(found[2]) if found and found[2] else Rule("z")

    @property
    def share(self) -> str:
        """Of the relevance R_j, what goes to x_i."""
        if self.rule is not None:
            return self.rule.share
        if self.box is not None:
            return "(x_i w_ij - l_i w_ij+ - h_i w_ij-) / sum_i"
        return self.epsilon.share.replace(
            "x_i", f"(1 where x_i >= {Threshold.show(self.mu or Threshold('0'))} else -1)", 1
        )

    @property
    def box(self) -> str | None:
        """The bounds of zbox."""
        return self[5:] if self.startswith("zbox=") else None

    @property
    def file(self) -> Path | None:
        """The array's or the bounds'."""
        if self.mu is not None:
            return self.mu.file
        return Path(self.box) if self.box and self.box.endswith(".npz") else None


def _bounds(text: str) -> str:
    """In their one spelling."""
    if text in BOXES or text == "data" or text.endswith(".npz"):
        return str(Text.parse(text))
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError(f"zbox={text!r} given, expected LOW:HIGH, {', '.join(BOXES)}, data or FILE.npz")
    try:
        ends = [Threshold.parse(each) for each in (low, high)]
    except ValueError:
        ends = []
    if not ends or not all(each.numbers for each in ends):
        raise ValueError(f"zbox={text!r} given, expected numbers, as -2:3 or 0/0/0:1/1/1")
    return ":".join(ends)


BOXES = {
    "caffe": "-123.68:151.061",
    "caffe-perchannel": "-103.939/-116.779/-123.68:151.061/138.221/131.32",
    "torchvision": "-2.117904/-2.035714/-1.804444:2.248908/2.428571/2.64",
}
"""The ranges of pixels 0..255 after the usual preprocessing: BGR less its mean, RGB 0..1 by mean and deviation."""
