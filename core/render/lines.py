"""Lines drawn by array operations: hundreds of signals a second, each coloured by importance as `core.render` does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colour import Floats, Pixels, Scale
from .lettering import FAINT, INK
from .signal import Strip, strongest

THIN, THICK = 1.0, 2.6
"""Pixels of the line itself, and of its colour."""


@dataclass(frozen=True)
class Lines:
    """Panels (n, height, width) for n curves; ``ends`` (n, 2) are the values at the foot and the head of each."""

    ends: NDArray[np.float64]
    height: int
    width: int

    def draw(self, curves: Floats, values: Floats, scale: Scale, *, zero: bool = False) -> Pixels:
        """Pixels (n, height, width, 3) of ``curves`` (n, S), coloured by ``values`` (n, S); ``zero``: a line marks it.

        Behind everything the faint tint of `signal.Strip`; on it the line in ink; over it, as opaque as the value is
        strong, its colour. A column shows the strongest of the values that fall there.
        """
        strips = [
            Strip("", y, v, low, high) for y, v, (low, high) in zip(curves, values, self.ends.tolist(), strict=True)
        ]
        picture: Floats = np.stack([strip.tint(scale, self.height, self.width) for strip in strips]).astype(np.float32)
        if zero:
            low, high = self.ends[:, :1], self.ends[:, 1:]
            at = self.height * high / (high - low)
            picture = _over(picture, FAINT, self._band(at, at, 1.0))
        top, bottom = self.reach(curves)
        seen = np.stack([strongest(strip.values, self.width) for strip in strips])
        picture = _over(picture, INK, self._band(top, bottom, THIN))
        strength = np.sqrt(scale.strength(seen), dtype=np.float32)[:, None]
        picture = _over(picture, scale.colour(seen)[:, None], self._band(top, bottom, THICK) * strength)
        return np.asarray(picture.round(), np.uint8)

    def reach(self, curves: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The highest and the lowest place (n, width) of each curve within each column, in pixels from the top.

        Points are cells side by side, joined at their middles. NaN where a column holds a point that is none.
        """
        low, high = self.ends[:, :1], self.ends[:, 1:]
        y = self.height * (high - curves.astype(np.float64)) / (high - low)
        points = y.shape[1]
        x = (np.arange(points) + 0.5) * self.width / points
        edges = np.arange(self.width + 1.0)
        left = (np.searchsorted(x, edges) - 1).clip(0, max(points - 2, 0))
        share = ((edges - x[left]) * points / self.width).clip(0, 1)
        right = np.minimum(left + 1, points - 1)
        at_edges = y[:, left] * (1 - share) + y[:, right] * share
        first, last = at_edges[:, :-1], at_edges[:, 1:]
        top, bottom = np.minimum(first, last), np.maximum(first, last)
        column = x.astype(np.int64).clip(0, self.width - 1)
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        filled = column[starts]
        top[:, filled] = np.minimum(top[:, filled], np.minimum.reduceat(y, starts, axis=1))
        bottom[:, filled] = np.maximum(bottom[:, filled], np.maximum.reduceat(y, starts, axis=1))
        return top, bottom

    def _band(self, top: Floats, bottom: Floats, thick: float) -> Floats:
        """How much of each pixel (n, height, width) lies between ``top`` and ``bottom``, widened to ``thick``."""
        row = np.arange(self.height, dtype=np.float32)[:, None]
        head, foot = ((y[:, None] + by).astype(np.float32) for y, by in ((top, -thick / 2), (bottom, thick / 2)))
        covered = np.minimum(row + 1, foot) - np.maximum(row, head)
        share: Floats = np.nan_to_num(covered, nan=0.0).clip(0, 1)
        return share


def _over(below: Floats, colour: Pixels | tuple[int, int, int], alpha: Floats) -> Floats:
    mixed: Floats = np.subtract(colour, below, dtype=np.float32)
    mixed *= alpha[..., None]
    mixed += below
    return mixed
