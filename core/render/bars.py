"""Maps of a few named numbers, bands, levels or components: bars, or a table where channels are many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..grid import resize
from .colour import Floats, Pixels, Scale
from .image import factors, shade
from .lettering import FAINT, INK, font, number, printable
from .scene import Scene
from .sheet import LETTERS, Panel, Ruler, ruler
from .signal import Strip, drawn

WIDE, ROOM = 440, 88
"""Pixels of a panel of bars, and of the number beyond the longest."""
SEVERAL = 4
"""More channels make a table."""
PICTURE = 96
"""Pixels of a component's picture."""


def rows(scene: Scene) -> Iterator[Image.Image]:
    """One sheet: for each channel a row for each name, with its bar and, if it is a part of the input, that part."""
    if scene.signals is None and len(scene.each) > SEVERAL:
        yield scene.sheet([[_table(scene)]], LETTERS)
        return
    height = 26 if scene.signals is None else 56 if len(scene.axes) == 1 else PICTURE
    names = _names(scene)
    sides = reach(scene.scale, WIDE)
    made = []
    for c, (channel, values) in enumerate(scene.each):
        signals = scene.signals if scene.signals is None else scene.signals[:, c % scene.signals.shape[1]]
        parts = [] if signals is None else _parts(scene, signals, values, height)
        for k, (name, value) in enumerate(zip(names, values.tolist(), strict=True)):
            side = Ruler(((height / 2, name),), "")
            above = "" if k else printable(channel)
            made.append([Panel(bar(value, scene.scale, sides, (height, WIDE)), above, left=side)])
            made[-1].extend(replace(part, caption=" " if above else "") for part in parts[k : k + 1])
    below = ruler(scene.units, *sides, WIDE)
    made[-1][0] = replace(made[-1][0], below=below)
    yield scene.sheet([*([replace(each, below=None) for each in row] for row in made[:-1]), made[-1]])


def reach(scale: Scale, width: int) -> tuple[float, float]:
    """The values at the left and the right edge of a panel of bars: all of the scale, zero, and room for numbers."""
    low, high = min(scale.low, 0.0), max(scale.high, 0.0)
    if high - low < 1e-300:
        high = low + 1
    left, right = (ROOM if low < 0 else 12), (ROOM if high > 0 else 12)
    pixel = (high - low) / (width - left - right)
    return low - left * pixel, high + right * pixel


def bar(value: float, scale: Scale, sides: tuple[float, float], size: tuple[int, int]) -> Pixels:
    """A bar from zero to ``value``, between the values of the two ``sides``, its number beyond its end."""
    height, width = size
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    known = value if np.isfinite(value) else 0.0
    zero, end = ((v - sides[0]) / (sides[1] - sides[0]) * width for v in (0.0, known))
    thick = min(height - 8, 22)
    top = (height - thick) // 2
    if end != zero:
        colour = tuple(scale.colour(value).tolist())
        draw.rectangle((min(zero, end), top, max(zero, end), top + thick - 1), colour, FAINT)
    draw.line((zero, 0, zero, height), FAINT)
    text, before = number(value), value < 0
    draw.text((end + (-5 if before else 5), height / 2), text, INK, font(LETTERS), anchor="rm" if before else "lm")
    return np.asarray(image)


def _names(scene: Scene) -> list[str]:
    axis, count = scene.own[0], scene.values.shape[-1]
    return [printable(name, 24) for name in axis.labels or map(str, range(1, count + 1))]


def windows(parts: Floats) -> list[tuple[float, float]]:
    """For each part (part, ..) the values at its foot and head, around its own middle.

    They are equally far apart for all: a part that hardly changes must look so.
    """
    flat = np.where(np.isfinite(parts), parts, np.nan).reshape(len(parts), -1)
    known = [row[~np.isnan(row)] for row in flat]
    ends = [(float(row.min()), float(row.max())) if row.size else (0.0, 0.0) for row in known]
    half = 0.54 * max(high - low for low, high in ends) or 1.0
    return [((low + high) / 2 - half, (low + high) / 2 + half) for low, high in ends]


def _parts(scene: Scene, signals: NDArray[Any], values: Floats, height: int) -> list[Panel]:
    """What the points of the map are, (part, *S): a line coloured by the part's importance, or a small picture."""
    limits = windows(signals.astype(np.float64))
    if len(scene.axes) == 1:
        strips = [
            Strip("", curve, np.full(len(curve), v), *ends)
            for curve, v, ends in zip(signals, values, limits, strict=True)
        ]
        return drawn(scene.axes[0], scene.scale, strips, height)
    flat = signals[:, signals.shape[1] // 2] if len(scene.axes) == 3 else signals
    times = factors(flat.shape[1:], scene.axes[-2:])
    tall, wide = (n * t for n, t in zip(flat.shape[1:], times, strict=True))
    small = resize(flat, (height, max(1, round(wide * height / tall))), antialias=True)
    return [Panel(shade(each[None], ends)) for each, ends in zip(small, limits, strict=True)]


def _table(scene: Scene) -> Panel:
    """Channels under one another, names side by side, the numbers in the cells."""
    names, face = _names(scene), font(LETTERS)
    wide = int(max(88.0, *(face.getlength(name) + 14 for name in names)))
    tall = 26
    values = np.stack([each for _, each in scene.each])
    pixels = scene.scale.colour(values).repeat(tall, 0).repeat(wide, 1)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for (c, k), value in np.ndenumerate(values):
        dark = pixels[c * tall, k * wide] @ [0.2126, 0.7152, 0.0722] < 120
        at = ((k + 0.5) * wide, (c + 0.5) * tall)
        draw.text(at, number(float(value)), "white" if dark else INK, face, anchor="mm")
    left = tuple(((c + 0.5) * tall, printable(name, 24)) for c, (name, _) in enumerate(scene.each))
    below = tuple(((k + 0.5) * wide, name) for k, name in enumerate(names))
    return Panel(np.asarray(image), left=Ruler(left, ""), below=Ruler(below, scene.own[0].name))
