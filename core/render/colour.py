"""Values to colours. One scale serves a picture, a clip, or a whole run.

Non-negative methods take a uniform sequential map with 0 at its bottom, signed methods a diverging one with 0 at its
centre. Which of the two is a property of the method, so two samples of one method are always coloured alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .lettering import number

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]


MISSING = np.array([128, 128, 128], np.uint8)


@cache
def sequential() -> Pixels:
    """To orange: the last yellow is lost on white paper."""
    return _table("inferno", 256, stop=0.88)


@cache
def diverging() -> Pixels:
    """An odd number of them: the centre is a colour of its own."""
    return _table("RdBu_r", 511)


def _table(name: str, entries: int, stop: float = 1.0) -> Pixels:
    import matplotlib  # pictures that are there already are told without it

    colours = matplotlib.colormaps[name].resampled(entries)(np.linspace(0, stop, entries))
    return np.asarray((255 * colours[:, :3]).round(), np.uint8)


@cache
def _words(signed: bool) -> NDArray[np.uint32]:
    """A table as whole words, which are looked up much faster, with `MISSING` at the end."""
    table = diverging() if signed else sequential()
    four = np.zeros((len(table) + 1, 4), np.uint8)
    four[:, :3] = [*table, MISSING]
    return four.view(np.uint32)[:, 0]


ALPHA = 0.85
"""Opacity of the strongest value in an overlay; the others in proportion."""


@dataclass(frozen=True)
class Scale:
    """From values to colours. ``low`` and ``high`` are the true extremes of what is shown.

    signed:   v -> (1 + v / max(|low|, |high|)) / 2       unsigned:   v -> v / high
    """

    low: float
    high: float
    signed: bool
    most: float = np.inf
    """Magnitude of the last colour, which those beyond have too; else nothing is clipped."""

    @classmethod
    def of(cls, values: Floats, *, signed: bool) -> Scale:
        """The scale of the finite ``values``, of any shape."""
        finite = values[np.isfinite(values)]
        return cls(float(finite.min()), float(finite.max()), signed) if finite.size else cls(0.0, 0.0, signed)

    def __or__(self, other: Scale) -> Scale:
        return Scale(min(self.low, other.low), max(self.high, other.high), self.signed, max(self.most, other.most))

    @property
    def limits(self) -> tuple[float, float]:
        """The values of the first and the last colour. They are equal only when every value is zero."""
        reach = min(max(abs(self.low), abs(self.high)), self.most)
        return (-reach, reach) if self.signed else (max(min(self.low, 0.0), -reach), min(max(self.high, 0.0), reach))

    @property
    def ticks(self) -> tuple[float, ...]:
        """What the colour bar labels: the least value, zero, the greatest, or where the colours end."""
        return tuple(sorted({max(self.low, -self.most), 0.0, min(self.high, self.most)}))

    def label(self, tick: float) -> str:
        """A tick in words."""
        beyond = "≥ " if tick == self.most < self.high else "≤ " if -tick == self.most < -self.low else ""
        return beyond + number(tick)

    @property
    def table(self) -> Pixels:
        """The colours from the lower limit to the upper, (entries, 3)."""
        return diverging() if self.signed else sequential()

    def position(self, values: Any) -> Floats:
        """Where values lie between the limits, 0 to 1; NaN stays NaN."""
        bottom, top = self.limits
        v = _floats(values)
        if bottom == top:
            return np.where(np.isnan(v), v, v.dtype.type(0.5 if self.signed else 0.0))
        return np.clip((1 + v / top) / 2 if self.signed else (v - bottom) / (top - bottom), 0, 1)

    def level(self, values: Any) -> NDArray[np.int16]:
        """The entry of the table for each value; -1 where there is none (NaN)."""
        at = np.rint(self.position(values) * (len(self.table) - 1))
        return _without_nan(at, -1).astype(np.int16)

    def colour(self, values: Any) -> Pixels:
        """Colours (..., 3) of values (...)."""
        words = _words(self.signed).take(self.level(values), mode="wrap")
        return np.asarray(words)[..., None].view(np.uint8)[..., :3]

    def strength(self, values: Any) -> Floats:
        """|v| over the greatest |v| of the scale, 0 to 1; 0 for NaN and on a scale of zeros."""
        reach = max(map(abs, self.limits)) or np.inf
        return _without_nan(np.minimum(np.abs(_floats(values)) / reach, 1), 0)


def overlay(base: Pixels, values: Floats, scale: Scale, alpha: float = ALPHA) -> Pixels:
    """``(1 - a) base + a colour(v)`` with ``a = alpha |v| / max|v|``: what does not matter stays visible.

    ``base`` (..., 3), ``values`` (...).
    """
    return blend(base, scale.colour(values), alpha * scale.strength(values))


def blend(base: Pixels, colours: Pixels, opacity: Floats) -> Pixels:
    """``(1 - a) base + a colours``."""
    mixed = np.subtract(colours, base, dtype=np.float32)
    mixed *= opacity[..., None]
    mixed += base
    mixed += 0.5  # truncated below, which is faster than to be rounded
    return mixed.astype(np.uint8)


def _without_nan(values: Floats, instead: float) -> Floats:
    missing = np.isnan(values)
    return np.where(missing, values.dtype.type(instead), values) if missing.any() else values


def _floats(values: Any) -> Floats:
    found = np.asarray(values)
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)
