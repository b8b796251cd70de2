"""Histograms: counts in bins, and the coordinates to draw them with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..render.colour import Floats
from ..render.lettering import number

BINS = 32
TAIL = 0.01
"""Share of the values at either end that may lie far out: they are counted in the first and the last bin."""
FAR = 2.0
"""How many times as wide as the others all values together must be for that."""


@dataclass(frozen=True)
class Histogram:
    """How often values fall into bins from ``low`` to ``high``; the rest is in the first and the last one."""

    name: str
    counts: tuple[int, ...]
    low: float
    high: float
    below: int
    above: int
    missing: int

    @classmethod
    def of(cls, name: str, values: Floats, like: Floats | None = None) -> Histogram | None:
        """The histogram of the finite ``values``, of any shape, over the span of ``like``; None where none is."""
        known = values[np.isfinite(values)].astype(np.float64)
        if not known.size:
            return None
        low, high = span(known if like is None else like[np.isfinite(like)].astype(np.float64))
        width = (high - low) or abs(high) or 1.0
        place = ((known - low) / width * BINS).astype(np.int64).clip(0, BINS - 1)
        counts = tuple(np.bincount(place, minlength=BINS).tolist())
        below, above = int((known < low).sum()), int((known > high).sum())
        return cls(name, counts, low, high, below, above, int(values.size - known.size))

    @property
    def path(self) -> str:
        """The outline as an SVG path, `BINS` wide and 1 high, y downwards."""
        most = max(self.counts)
        steps = (f"V{1 - count / most:.3g}H{k + 1}" for k, count in enumerate(self.counts))
        return f"M0 1{''.join(steps)}V1Z"

    @property
    def zero(self) -> float | None:
        """Where zero lies along the width of `BINS`, where it lies inside."""
        return BINS * -self.low / (self.high - self.low) if self.low < 0 < self.high else None

    @property
    def ends(self) -> tuple[str, str]:
        """What is written at the left and at the right."""
        return ("≤ " if self.below else "") + number(self.low), ("≥ " if self.above else "") + number(self.high)

    @property
    def words(self) -> str:
        """What it shows, for who does not see it."""
        most = int(np.argmax(self.counts))
        step = (self.high - self.low) / BINS
        where = f"{number(self.low + most * step)} to {number(self.low + (most + 1) * step)}"
        return (
            f"{self.name}: {sum(self.counts)} values from {self.ends[0]} to {self.ends[1]}, "
            f"most ({self.counts[most]}) in {where}"
        )


def span(values: Floats) -> tuple[float, float]:
    """From where to where: all, or all but the far tails."""
    low, high = float(values.min()), float(values.max())
    inner = np.quantile(values, [TAIL, 1 - TAIL])
    far = inner[1] > inner[0] and high - low > FAR * (inner[1] - inner[0])
    return (float(inner[0]), float(inner[1])) if far else (low, high)
