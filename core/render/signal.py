"""One-dimensional samples: the signal as a line coloured by importance, one panel per channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.axes import Axis
from ..grid import resize
from .colour import Floats, Pixels, Scale
from .scene import Scene
from .sheet import Panel, axis_ruler, extent, ruler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 840
_DPI = 100
_TINT = 0.3
"""Opacity of the background behind the strongest value."""


def span(curve: Floats, *, zero: bool = False) -> tuple[float, float]:
    """The values at the foot and the head of a panel: the extremes, with zero if asked, and a little room."""
    finite = curve[np.isfinite(curve)].astype(np.float64)
    around = np.append(finite, 0.0) if zero or not finite.size else finite
    low, high = float(around.min()), float(around.max())
    room = 0.08 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def pieces(points: Floats, level: NDArray[np.integer[Any]]) -> tuple[list[Floats], NDArray[np.int64]]:
    """A line (n, 2) cut midway between neighbours of different level: the pieces (m, 2), and where each begins."""
    middle = (points[1:] + points[:-1]) / 2
    starts = np.flatnonzero(np.diff(level, prepend=level[0] - 1))
    ends = np.append(starts[1:], len(points))
    cut = [
        np.concatenate([middle[a - 1 : a] if a else points[:0], points[a:b], middle[b - 1 : b]])
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return cut, starts


def strongest(values: Floats, columns: int, first: NDArray[np.int64] | None = None) -> Floats:
    """For each column the value (n, ..) of greatest magnitude that falls there; the nearest where columns are finer.

    ``first``: with which value each column begins; evenly by default.
    """
    first = np.arange(columns) * len(values) // columns if first is None else first
    most, least = np.maximum.reduceat(values, first), np.minimum.reduceat(values, first)
    return np.where(most >= -least, most, least)


@dataclass(frozen=True)
class Strip:
    """One panel to be: a curve (S), the values (S) that colour it, and the values at its foot and head."""

    name: str
    curve: Floats
    values: Floats
    low: float
    high: float
    zero: bool = False
    """Whether a line marks zero."""

    def tint(self, scale: Scale, height: int, width: int = WIDTH) -> Pixels:
        """The background (height, width, 3): in each column the strongest value there, faintly."""
        v = strongest(self.values, width)
        a = _TINT * scale.strength(v)[:, None]
        return np.asarray((255 * (1 - a) + a * scale.colour(v)).round(), np.uint8)[None].repeat(height, 0)


def strips(scene: Scene) -> list[Strip]:
    """A strip for each channel; a map (s) without channels colours them all and has a last one to itself."""
    values = resize(scene.values, scene.input.shape[-1:])
    shared = values.ndim == 1
    each = [values] * len(scene.input) if shared else list(values)
    found = [Strip(name, y, v, *span(y)) for name, y, v in zip(scene.names, scene.input, each, strict=True)]
    return [*found, Strip("importance", values, values, *span(values, zero=True))] if shared else found


def figure(axis: Axis, scale: Scale, shown: Sequence[Strip], height: int, width: int = WIDTH) -> Figure:
    """All strips on one bare axes, ``height`` pixels each: x in the axis's unit, y in pixels from the top.

    One axes and no ticks, because those are what matplotlib takes its time for; the sheet has rulers.
    """
    points = len(shown[0].curve)
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width / _DPI, height * len(shown) / _DPI), dpi=_DPI, facecolor="none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(*extent(axis, points))
    ax.set_ylim(height * len(shown), 0)
    x = axis.coordinates(points)
    for k, strip in enumerate(shown):
        y = height * (k + (strip.high - strip.curve.astype(np.float64)) / (strip.high - strip.low))
        seen = strip.values if points <= width else strongest(strip.values, width)[np.arange(points) * width // points]
        cut, starts = pieces(np.stack([x, y], 1), scale.level(seen))
        begin = seen[starts]
        colour = np.column_stack([scale.colour(begin) / 255, np.sqrt(scale.strength(begin))])
        if strip.zero:
            ax.axhline(height * (k + strip.high / (strip.high - strip.low)), color="#787878", linewidth=0.6)
        ax.plot(x, y, color="#212121", linewidth=0.7)  # the signal itself, also where nothing matters
        ax.add_collection(LineCollection(cut, colors=colour, linewidths=2.4), autolim=False)
    return fig


def drawn(axis: Axis, scale: Scale, shown: Sequence[Strip], height: int, width: int = WIDTH) -> list[Panel]:
    """A panel for each strip, the axis below the last."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure(axis, scale, shown, height, width))
    canvas.draw()
    above = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    picture = Image.fromarray(np.concatenate([strip.tint(scale, height, width) for strip in shown]))
    picture.paste(above, mask=above)
    pixels = np.asarray(picture).reshape(len(shown), height, width, 3)
    column = [
        Panel(each, left=ruler(strip.name, strip.high, strip.low, height))
        for strip, each in zip(shown, pixels, strict=True)
    ]
    return [*column[:-1], replace(column[-1], below=axis_ruler(axis, len(shown[0].curve), width))]


def panels(scene: Scene) -> Iterator[Image.Image]:
    """One sheet: the strips under one another."""
    shown = strips(scene)
    column = drawn(scene.axes[0], scene.scale, shown, 140 if len(shown) <= 4 else 84)
    yield scene.sheet([[panel] for panel in column])


def plain(scene: Scene, height: int, width: int = WIDTH) -> list[Panel]:
    """The channels of a signal as lines without any importance."""
    none = np.zeros(scene.input.shape[-1])
    shown = [Strip(name, y, none, *span(y)) for name, y in zip(scene.names, scene.input, strict=True)]
    return drawn(scene.axes[0], scene.scale, shown, height, width)
