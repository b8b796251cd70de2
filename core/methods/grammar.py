"""The grammar of methods: ``base[:key=value,..][+factor]``, shell-safe, one canonical spelling for each meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, nearest
from .registry import FACTORS, METHODS, NEEDS_BACKWARD, OF_TARGET, Method, find
from .spectrum import principal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Expression:
    """A method with its keys set, times its factors: what is computed, and the name it is stored under."""

    method: Method
    settings: Mapping[str, Any]
    factors: tuple[Method, ...] = ()

    def __str__(self) -> str:
        keys = self.method.keys
        shown = [f"{k}={keys[k].show(v)}" for k, v in sorted(self.settings.items()) if v != keys[k].default]
        return "+".join([self.method.name + (":" if shown else "") + ",".join(shown), *(f.name for f in self.factors)])

    @property
    def asks(self) -> frozenset[str]:
        """The letters asked of the trace."""
        return frozenset(self.method.asks).union(*(f.asks for f in self.factors))

    @property
    def needs_backward(self) -> bool:
        """Whether a gradient is asked for."""
        return bool(NEEDS_BACKWARD & self.asks)

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
        return self.method.signed and not self.settings.get("relu", False)

    @property
    def formula(self) -> str:
        """In one line."""
        steps = [self.method.formula, *(each.formula for each in self.factors)]
        return ", m = ".join(reversed(steps))

    @property
    def units(self) -> str:
        """What the map is measured in."""
        if self.fused:
            return "share of each layer's largest"
        return self.factors[-1].units if self.factors else self.method.units

    def __call__(self, answer: Callable[[str], Any]) -> Tensor:
        """The map at one layer, (batch, *s) for a CAM, (batch, channel, *s) for an input attribution."""
        settings = {k: v for k, v in self.settings.items() if k not in ("relu", "smooth", "fuse")}
        result: Tensor = self.method.function(*map(answer, self.method.asks), **settings)
        for each in self.factors:
            result = each.function(result, *map(answer, each.asks))
        if self.method.summands:
            result = principal(result) if self.settings["smooth"] in ("eigen", "both") else result.sum(1)
        return result.relu() if self.settings.get("relu", False) else result


def parse_expression(text: str) -> Expression:
    """Read ``gradcam``, ``gradcam++:relu=off``, ``grad+input``; `RequestError` names the nearest where it cannot."""
    # Names may hold a "+" (gradcam++), so the base is the longest registered name that the text begins with.
    fits = [name for name in METHODS if text.startswith(name) and text[len(name) :][:1] in ("", ":", "+")]
    name = max(fits, key=len) if fits else text.partition(":")[0].partition("+")[0]
    method = find(METHODS, name, "method")
    arguments, *factors = re.split(r"(?<!\+)\+(?!\+)", text[len(name) :])  # gradcam++ may also be a key's value
    if arguments == ":":
        raise RequestError(f"{text!r} ends in a colon: write {name}, or {name}:key=value")
    settings = {key: spec.default for key, spec in method.keys.items()}
    given = [part.partition("=") for part in arguments[1:].split(",")] if arguments else []
    for key, _, value in given:
        settings[key] = _setting(method, key, value)
    if len(given) != len({key for key, _, _ in given}):
        raise RequestError(f"{text!r} sets a key twice")
    found = tuple(find(FACTORS, each, "factor") for each in factors)
    if found and not method.per_channel:
        raise RequestError(f"{text!r}: factors multiply an input attribution such as grad, not the CAM {name}")
    return Expression(method, settings, found)


def _setting(method: Method, key: str, value: str) -> Any:
    if key not in method.keys:
        raise RequestError(f"{method.name} has no key {key!r}. {nearest(key, method.keys)}")
    spec = method.keys[key]
    try:
        return spec.parse(value)
    except ValueError:
        raise RequestError(f"{method.name}: {key}={value!r} given, expected {spec.expects}") from None
