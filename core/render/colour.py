"""Values to colours. One scale serves a picture, a clip, or a whole run.

Non-negative methods take a uniform sequential map with 0 at its bottom, signed methods a diverging one with 0 at its
centre. Which of the two is a property of the method, so two samples of one method are always coloured alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]


def _table(name: str, entries: int, stop: float = 1.0) -> Pixels:
    colours = matplotlib.colormaps[name].resampled(entries)(np.linspace(0, stop, entries))
    return np.asarray((255 * colours[:, :3]).round(), np.uint8)


SEQUENTIAL = _table("inferno", 256, stop=0.88)  # to orange: its last yellow is lost on white paper
DIVERGING = _table("RdBu_r", 511)  # an odd number: the centre is a colour of its own
MISSING = np.array([128, 128, 128], np.uint8)
ALPHA = 0.85
"""Opacity of the strongest value in an overlay; the others in proportion."""


@dataclass(frozen=True)
class Scale:
    """From values to colours. ``low`` and ``high`` are the true extremes of what is shown; nothing is clipped.

    signed:   v -> (1 + v / max(|low|, |high|)) / 2       unsigned:   v -> v / high
    """

    low: float
    high: float
    signed: bool

    @classmethod
    def of(cls, values: Floats, *, signed: bool) -> Scale:
        """The scale of the finite ``values``, of any shape."""
        finite = values[np.isfinite(values)]
        return cls(float(finite.min()), float(finite.max()), signed) if finite.size else cls(0.0, 0.0, signed)

    def __or__(self, other: Scale) -> Scale:
        return Scale(min(self.low, other.low), max(self.high, other.high), self.signed)

    @property
    def limits(self) -> tuple[float, float]:
        """The values of the first and the last colour. They are equal only when every value is zero."""
        reach = max(abs(self.low), abs(self.high))
        return (-reach, reach) if self.signed else (min(self.low, 0.0), max(self.high, 0.0))

    @property
    def ticks(self) -> tuple[float, ...]:
        """What the colour bar labels: the least value, zero, the greatest."""
        return tuple(sorted({self.low, 0.0, self.high}))

    @property
    def table(self) -> Pixels:
        """The colours from the lower limit to the upper, (entries, 3)."""
        return DIVERGING if self.signed else SEQUENTIAL

    def position(self, values: Any) -> NDArray[np.float64]:
        """Where values lie between the limits, 0 to 1; NaN stays NaN."""
        bottom, top = self.limits
        v = np.asarray(values, np.float64)
        if bottom == top:
            return np.where(np.isnan(v), np.nan, 0.5 if self.signed else 0.0)
        return np.clip((1 + v / top) / 2 if self.signed else (v - bottom) / (top - bottom), 0, 1)

    def level(self, values: Any) -> NDArray[np.int64]:
        """The entry of the table for each value; -1 where there is none (NaN)."""
        at = self.position(values) * (len(self.table) - 1)
        return np.where(np.isnan(at), -1, np.nan_to_num(at).round()).astype(np.int64)

    def colour(self, values: Any) -> Pixels:
        """Colours (..., 3) of values (...)."""
        return np.vstack([self.table, MISSING])[self.level(values)]

    def strength(self, values: Any) -> NDArray[np.float64]:
        """|v| over the greatest |v| of the scale, 0 to 1; 0 for NaN and on a scale of zeros."""
        reach = max(map(abs, self.limits)) or np.inf
        return np.nan_to_num(np.abs(np.asarray(values, np.float64)) / reach, nan=0, posinf=1).clip(0, 1)


def overlay(base: Pixels, values: Floats, scale: Scale) -> Pixels:
    """``(1 - a) base + a colour(v)`` with ``a = ALPHA |v| / max|v|``: what does not matter stays visible.

    ``base`` (..., 3), ``values`` (...).
    """
    a = ALPHA * scale.strength(values)[..., None]
    return np.asarray(((1 - a) * base + a * scale.colour(values)).round(), np.uint8)
