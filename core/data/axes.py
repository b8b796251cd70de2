"""Physical axes: what one step along a spatial axis means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

NAMES = {"T": "time", "D": "depth", "H": "height", "W": "width", "Z": "z", "Y": "y", "X": "x", "F": "frequency"}


@dataclass(frozen=True)
class Axis:
    """Point i of the axis lies at ``start + i * step``, in ``unit``."""

    name: str
    unit: str
    step: float = 1.0
    start: float = 0.0
    labels: tuple[str, ...] = ()
    """Names of its points, where it is no regular grid: bands, levels, components."""

    def coordinates(self, size: int) -> NDArray[np.float64]:
        """Where its points lie."""
        return np.arange(size, dtype=np.float64) * self.step + self.start

    def resized(self, old: int, new: int) -> Axis:
        """The same extent in ``new`` points; half-pixel centres move the first one by half the change of a step."""
        step = self.step * old / new
        return Axis(self.name, self.unit, step, self.start + (step - self.step) / 2)

    def shifted(self, points: int) -> Axis:
        """Beginning ``points`` later."""
        return Axis(self.name, self.unit, self.step, self.start + points * self.step)


def axes_of(
    letters: str, *, rate: float | None, fps: float | None, spacing: Sequence[float] | None
) -> tuple[Axis, ...]:
    """The axes of a layout's spatial letters. ``rate`` (Hz) and ``fps`` are of T, ``spacing`` (mm) of all others."""
    if rate and fps:
        raise RequestError("data.rate and data.fps both say how fast T runs; give one")
    if (rate or fps) and "T" not in letters:
        raise RequestError(f"data.{'rate' if rate else 'fps'} is given, but the layout has no axis T")
    still = letters.replace("T", "")
    if spacing is not None and len(spacing) != len(still):
        raise RequestError(
            f"data.spacing has {len(spacing)} numbers, expected {len(still)}, for {' '.join(still) or 'none'}"
        )
    steps = iter(spacing or ())
    axes = []
    for letter in letters:
        if letter == "T" and (rate or fps):
            axes.append(Axis(NAMES[letter], "s", 1 / (rate or fps or 1)))
        elif letter == "T":
            axes.append(Axis(NAMES[letter], "frame" if len(letters) > 1 else "sample"))
        elif spacing is not None:
            axes.append(Axis(NAMES[letter], "mm", float(next(steps))))
        else:
            axes.append(Axis(NAMES[letter], "bin" if letter == "F" else "px"))
    return tuple(axes)
