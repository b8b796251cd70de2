"""The grammar of methods: ``base[:key=value,..][@input-rule][+factor[=value][:key=value,..]]``, shell-safe, one
canonical spelling for each meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..domains import Choice, keys_of
from ..domains.domain import owner
from ..errors import RequestError, nearest
from ..keys import Key, Threshold, setting, show
from ..relevance.grammar import NAMED, InputRule
from .legacy import expanded
from .registry import FACTORS, METHODS, OF_TARGET, Method, find
from .spectrum import principal

if TYPE_CHECKING:
    from torch import Tensor

WRITTEN = ("rules", "first")
"""Keys of relevance that are written without their names: ``lrp:RULES@FIRST``."""
OURS = frozenset({"relu", "smooth", "fuse"})
"""Keys that every CAM has, and that its formula does not know of."""


@dataclass(frozen=True)
class Term:
    """A method or a factor with its keys set."""

    method: Method
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        keys, short = self.keys, self.method.short
        last = [*sorted(self.method.keys.keys() - {"domain"}), "domain", *sorted(keys.keys() - self.method.keys.keys())]
        given = {k: self.settings[k] for k in last if k in keys and self.settings[k] != keys[k].default}
        shown = [f"{k}={show(v)}" for k, v in given.items() if k not in (short, *WRITTEN)]
        value = f"={show(self.settings[short])}" if short else ""
        rules, first = (show(self.settings.get(key, "")) for key in WRITTEN)
        shown = [rules, *shown] if rules else shown
        return self.method.name + value + (":" if shown else "") + ",".join(shown) + (f"@{first}" if first else "")

    @property
    def keys(self) -> Mapping[str, Key]:
        """Its own, and those of its domain."""
        return {**self.method.keys, **(keys_of(self.settings["domain"]) if "domain" in self.settings else {})}

    @property
    def domain(self) -> Choice | None:
        """What its shares are taken in; None for the input itself."""
        if "domain" not in self.settings:
            return None
        name = self.settings["domain"]
        found = Choice(name, {key: self.settings[key] for key in keys_of(name)})
        return None if found.plain else found

    @property
    def own(self) -> dict[str, Any]:
        """The settings that its formula knows of."""
        return {k: v for k, v in self.settings.items() if k in self.method.keys and k not in OURS}


@dataclass(frozen=True)
class Expression(Term):
    """A method with its keys set, times its factors: what is computed, and the name it is stored under."""

    factors: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return "+".join([super().__str__(), *map(str, self.factors)])

    @property
    def terms(self) -> tuple[Term, ...]:
        """The method and the factors."""
        return (self, *self.factors)

    @property
    def asks(self) -> frozenset[str]:
        """The letters asked of the trace."""
        return frozenset(letter for term in self.terms for letter in term.method.asks)

    @property
    def of_target(self) -> bool:
        """Whether the map depends on the target."""
        return bool(OF_TARGET & self.asks)

    @property
    def layered(self) -> bool:
        """Whether it is taken at a layer."""
        return self.method.layered

    @property
    def fused(self) -> bool:
        """Whether it is one map of all layers."""
        return str(self.settings.get("fuse", "off")) != "off"

    @property
    def augmented(self) -> bool:
        """Whether it is a mean over augmented inputs."""
        return self.settings.get("smooth", "off") in ("aug", "both")

    @property
    def signed(self) -> bool:
        """Whether negative values can occur."""
        return (self.method.signed or bool(self.factors)) and not self.settings.get("relu", False)

    @property
    def per_channel(self) -> bool:
        """Whether the map has the input's channels, where no domain says otherwise."""
        return self.method.per_channel or self.settings.get("channels") == "each"

    @property
    def complete(self) -> bool:
        """Whether its maps sum to a difference of scores."""
        return self.method.complete and not self.factors and not self._against

    @property
    def _against(self) -> bool:
        """Whether it is LRP-SIGN, which sums to nothing."""
        return "first" in self.settings and self.settings["first"].mu is not None

    @property
    def place(self) -> Choice | None:
        """The domain that its map lies in; None for the input itself."""
        return self.terms[-1].domain

    @property
    def levels(self) -> Iterator[Threshold]:
        """The baselines and thresholds it names."""
        values = [value for term in self.terms for value in term.settings.values()]
        found = [value.mu if isinstance(value, InputRule) else value for value in values]
        return (value for value in found if isinstance(value, Threshold))

    @property
    def box(self) -> str | None:
        """The bounds of its input rule."""
        first = self.settings.get("first")
        return first.box if first else None

    @property
    def files(self) -> list[Path]:
        """The files it names."""
        named = [value for term in self.terms for value in term.settings.values()]
        return [path for value in named if (path := getattr(value, "file", None)) is not None]

    @property
    def formula(self) -> str:
        """In one line."""
        own = self.method.formula
        if rules := self.settings.get("rules"):
            first = self.settings["first"]
            parts = [rules.composite.share, *([f"first: {first.share}"] if first else [])]
            own = f"R_i = sum_j share_ij R_j, share_ij = {'; '.join(parts)}"
        steps = [own, *(each.method.formula for each in self.factors)]
        return ", m = ".join(reversed(steps))

    @property
    def units(self) -> str:
        """What the map is measured in."""
        if self.fused:
            return "share of each layer's largest"
        own = {"one": "share of 1", "probability": "probability"}.get(self.settings.get("init", ""), self.method.units)
        own += " / input" if self._against else ""
        return next((each.method.units for each in reversed(self.factors) if each.method.units), own)

    def __call__(self, answer: Callable[[str, Term], Any]) -> Tensor:
        """The map at one layer, (batch, *s) for a CAM, (batch, channel, *s) for an input attribution."""
        result: Tensor = self.method.function(*(answer(letter, self) for letter in self.method.asks), **self.own)
        for each in self.factors:
            result = each.method.function(result, *(answer(letter, each) for letter in each.method.asks), **each.own)
        if self.method.summands:
            result = principal(result) if self.settings["smooth"] in ("eigen", "both") else result.sum(1)
        return result.relu() if self.settings.get("relu", False) else result


def parse_expression(text: str) -> Expression:
    """Read ``gradcam``, ``gradcam++:relu=off``, ``grad+sign=0.5``, ``lrp:eps=0.1@flat``, ``lrpsign_z`` (of SIGN-XAI).

    `RequestError` names the nearest where it cannot.
    """
    # Names may hold a "+" (gradcam++), so the base is the longest registered name that the text begins with.
    fits = [name for name in METHODS if text.startswith(name) and text[len(name) :][:1] in ("", ":", "+", "@")]
    name = max(fits, key=len) if fits else text.partition(":")[0].partition("+")[0]
    if not fits and (meant := expanded(text)):
        return parse_expression(meant)
    method = find(METHODS, name, "method")
    arguments, *behind = re.split(r"(?<!\+)\+(?!\+)", text[len(name) :])  # gradcam++ may also be a key's value
    if arguments.startswith("@") and "rules" not in method.keys:
        raise RequestError(f"{text!r}: only lrp takes an input rule behind an @")
    if arguments == ":":
        raise RequestError(f"{text!r} ends in a colon: write {name}, or {name}:key=value")
    settings = _settings(method, arguments[1:], text) if "rules" not in method.keys else _ruled(method, arguments, text)
    factors = tuple(_factor(each, text) for each in behind)
    if factors and not method.per_channel:
        raise RequestError(f"{text!r}: factors multiply an input attribution such as grad, not {name}")
    found = Expression(method, settings, factors)
    if any(term.domain for term in found.terms[:-1]):
        raise RequestError(f"{text!r}: a factor multiplies at the input's places; a domain can only come last")
    return found


def _ruled(method: Method, arguments: str, text: str) -> dict[str, Any]:
    """The settings of ``:RULES,key=value@FIRST``."""
    arguments, mark, first = arguments.removeprefix(":").partition("@")
    parts = arguments.split(",") if arguments else []
    keys = [part for part in parts if part.partition("=")[0] in method.keys or owner(part.partition("=")[0])]
    rules = ",".join(part for part in parts if part not in keys)
    if mark and not first:
        raise RequestError(f"{text!r} ends in an @: write an input rule behind it, such as @sign=0")
    own = NAMED.get(rules, "").partition("@")[2]
    given = {"rules": rules or method.keys["rules"].default, **({"first": first or own} if first or own else {})}
    return _settings(method, ",".join(keys), text, given)


def _factor(text: str, whole: str) -> Term:
    """``input``, ``sign=0.5``, ``input:domain=fourier``."""
    name, mark, _ = re.fullmatch(r"([^:=]*)([:=]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    method, rest = find(FACTORS, name, "factor"), text[len(name) + len(mark) :]
    value, _, arguments = rest.partition(":") if mark == "=" else ("", "", rest)
    if mark == "=" and method.short is None:
        raise RequestError(f"+{name} takes no value: write +{name}")
    if (mark == "=" and not value) or (mark == ":" and not rest):
        raise RequestError(f"{whole!r}: +{text} breaks off; write +{name} or say what it takes")
    return Term(method, _settings(method, arguments, whole, {str(method.short): value} if value else {}))


def _settings(method: Method, arguments: str, text: str, given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The method's settings as given, its domain's too, and defaults for the others."""
    parts = [part.partition("=") for part in arguments.split(",")] if arguments else []
    given = {**(given or {}), **{key: value for key, _, value in parts}}
    if len({key for key, _, _ in parts}) != len(parts):
        raise RequestError(f"{text!r} sets a key twice")
    keys = dict(method.keys)
    if "domain" in keys:
        keys |= keys_of(setting(method.name, "domain", keys["domain"], given.get("domain", keys["domain"].default)))
    for key in given:
        if key not in keys:
            other = owner(key) if "domain" in method.keys else None
            hint = f"It is a key of domain={other}." if other else nearest(key, keys)
            raise RequestError(f"{method.name} has no key {key!r}. {hint}")
    settings = {key: spec.default for key, spec in keys.items()}
    return settings | {key: setting(method.name, key, keys[key], value) for key, value in given.items()}
