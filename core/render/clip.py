"""Three spatial axes: a video or a volume as a clip along its first axis, as a montage, and in three planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..data.axes import Axis
from ..grid import resize
from .image import factors, layers, levels, panel, shade
from .lettering import number
from .scene import Scene
from .sheet import Panel, sheets
from .signal import strongest

MOVING = 192
"""Pixels of a frame's height, at least; what moves is seen smaller than what stands, and drawn twice as fast."""
SLICES = 12
"""Slices of a montage."""


def place(axis: Axis, k: int, points: int) -> str:
    """Where slice ``k`` of ``points`` lies: ``frame 3/24 · 0.12 s``, counted from 1, never the same twice."""
    word = "frame" if axis.unit in ("s", "frame") else "slice"
    there = f" · {number(round(axis.start + axis.step * k, 9), 6)} {axis.unit}"
    return f"{word} {k + 1}/{points}" + (there if axis.unit not in ("", "px", "frame") else "")


def durations(axis: Axis, points: int) -> list[int]:
    """Milliseconds each frame is shown: the axis's own pace in seconds, else ten a second.

    GIF counts hundredths, so the *ends* are rounded and the clip keeps its length; viewers slow down below 20 ms.
    """
    each = min(1000.0, max(20.0, 1000 * abs(axis.step))) if axis.unit == "s" else 100.0
    ends = 10 * np.round(each * np.arange(points + 1) / 10)
    return [int(shown) for shown in np.diff(ends)]


def panels(
    scene: Scene, along: int = 0, at: Sequence[int] | None = None, least: int = 256
) -> Iterator[tuple[Panel, Panel]]:
    """Overlay and map of the slices ``at`` (all by default) across one axis of a clip (C, A, B, D), its map (a, b, d).

    One colour scale, one range of greys and one size for all of them.
    """
    picture, coarse = np.moveaxis(scene.input, 1 + along, 1), np.moveaxis(scene.values, along, 0)
    values = resize(coarse, (picture.shape[1], *coarse.shape[1:]))
    axes, times = list(scene.axes), list(factors(scene.input.shape[1:], scene.axes, least))
    del axes[along], times[along]
    black_white = levels(scene.input)
    for k in range(len(values)) if at is None else at:
        over, alone = layers(shade(picture[:, k], black_white), values[k], scene.scale, times, scene.look.alpha)
        yield panel(over, axes, picture.shape[2:]), panel(alone, axes, picture.shape[2:])


def frames(scene: Scene) -> Iterator[Image.Image]:
    """A sheet for each point of the axis that the clip runs along: overlay beside map, number and time above."""
    along = scene.look.along
    points = scene.input.shape[1 + along]
    captions = [place(scene.axes[along], k, points) for k in range(points)]
    longest = max(map(len, captions))
    shown = (
        [[replace(over, caption=caption.ljust(longest, "\u2007")), replace(alone, caption=" ")]]
        for caption, (over, alone) in zip(captions, panels(scene, along, least=MOVING), strict=True)
    )
    yield from sheets(shown, scene.heading, scene.scale, scene.units)


def montage(scene: Scene) -> Iterator[Image.Image]:
    """One sheet of overlays at evenly spaced points of the first axis, the first and the last among them."""
    points = scene.input.shape[1]
    at = np.unique(np.linspace(0, points - 1, SLICES).round().astype(int)).tolist()
    shown = [
        Panel(over.pixels, place(scene.axes[0], k, points))
        for k, (over, _) in zip(at, panels(scene, at=at, least=160), strict=True)
    ]
    yield scene.sheet([shown[k : k + 4] for k in range(0, len(shown), 4)])


def planes(scene: Scene) -> Iterator[Image.Image]:
    """One sheet of the middle slice across each axis, overlays above maps."""
    columns = []
    for along, axis in enumerate(scene.axes):
        points = scene.input.shape[1 + along]
        over, alone = next(panels(scene, along, [points // 2]))
        caption = f"{axis.name}: {place(axis, points // 2, points)}"
        columns.append((Panel(over.pixels, caption), Panel(alone.pixels)))
    yield scene.sheet(list(zip(*columns, strict=True)))


def projections(scene: Scene) -> Iterator[Image.Image]:
    """One sheet of the strongest value along each axis, over the greatest of the input there."""
    columns = []
    for along, axis in enumerate(scene.axes):
        shape = [n for k, n in enumerate(scene.input.shape[1:]) if k != along]
        flat = strongest(np.moveaxis(scene.values, along, 0), 1)[0]
        axes, times = list(scene.axes), list(factors(scene.input.shape[1:], scene.axes))
        del axes[along], times[along]
        base = shade(scene.input.max(1 + along), levels(scene.input))
        over, alone = layers(base, flat, scene.scale, times, scene.look.alpha)
        columns.append((panel(over, axes, shape, f"strongest along {axis.name}"), panel(alone, axes, shape)))
    yield scene.sheet(list(zip(*columns, strict=True)))
