"""Small pictures of scenes, without letters: what the report's page is made of. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from ..grid import resize
from . import concepts
from .bars import SEVERAL
from .clip import place
from .colour import Floats, Pixels, Scale, overlay
from .image import enlarge, factors, layers, levels, shade
from .lettering import FAINT
from .lines import Lines
from .scene import Scene
from .sheet import extent
from .signal import span
from .spectrum import fit

SIDE, FRAME = 128, 84
"""Pixels of the side of a picture, and of a frame of a clip: of a square one, others have as many in all."""
LONG = 256
"""Pixels of the longer side, at most."""
WIDE = 320
"""Pixels of a signal, a spectrum, a table of bars."""
FRAMES = 5
"""Of a clip, side by side."""
GAP = 2
"""White pixels between frames, and between channels."""
_BAR = 16


def thumbnail(scene: Scene, at: Sequence[int] = (), *, alone: bool = False) -> Pixels:
    """The map over the sample, (H, W, 3), in the colours of `core.render`; ``alone``: the map without it.

    ``at``: which points of a clip's first axis are shown, as `moments` tells.
    """
    if scene.layout:
        return {"lines": _curves, "image": _heat, "bars": _bars, "concepts": _concepts}[scene.layout](scene)
    if len(scene.axes) == 1:
        return _curves(scene) if alone else _signal(scene)
    if len(scene.axes) == 2:
        return _picture(scene.input, scene.values, scene, SIDE, levels(scene.input), alone=alone)
    values = resize(scene.values, (scene.input.shape[1], *scene.values.shape[1:]))
    grey = levels(scene.input)
    return beside(_picture(scene.input[:, k], values[k], scene, FRAME, grey, alone=alone) for k in at)


def sample(scene: Scene, at: Sequence[int] = ()) -> Pixels:
    """The sample itself, as large as `thumbnail` draws a map over it."""
    if len(scene.axes) == 1:
        return _signal(scene, plain=True)
    if len(scene.axes) == 2:
        return _picture(scene.input, None, scene, SIDE, levels(scene.input))
    return beside(_picture(scene.input[:, k], None, scene, FRAME, levels(scene.input)) for k in at)


def moments(scenes: Sequence[Scene]) -> list[int]:
    """Points of a clip's first axis to show: of each of `FRAMES` equal shares of it the one where maps are strongest.

    So the strongest of all is among them. Every map counts as much as any other: |v| / max|v|, summed over ``scenes``.
    """
    scenes = [scene for scene in scenes if not scene.layout and len(scene.axes) == 3]
    if not scenes:
        return []
    points = scenes[0].input.shape[1]
    course = sum(resize(scene.scale.strength(scene.values).max((1, 2)), (points,)) for scene in scenes)
    shares = np.array_split(np.arange(points), min(FRAMES, points))
    return [int(share[np.argmax(np.asarray(course)[share])]) for share in shares]


def moments_in_words(scene: Scene, at: Sequence[int]) -> str:
    """``frame 2/12 · 0.083 s, frame 4/12 · 0.25 s, ..``."""
    return ", ".join(place(scene.axes[0], k, scene.input.shape[1]) for k in at)


def beside(pictures: Any) -> Pixels:
    """Pictures of one height in a row, a little apart."""
    row = list(pictures)
    gap = np.full((row[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for each in row for part in (gap, each)][1:], axis=1)


def times(shape: Sequence[int], axes: Sequence[Axis], side: int) -> tuple[float, float]:
    """How much larger a picture (.., H, W) is drawn along each axis, for about ``side`` squared pixels.

    In true proportion where the axes measure the same. A small picture is enlarged a whole number of times.
    """
    high, wide = factors(shape[-2:], axes[-2:], least=1)
    tall, long = shape[-2] * high, shape[-1] * wide
    most = min(side / math.sqrt(tall * long), LONG / max(tall, long))
    zoom = float(int(most)) if most >= 1 else most
    return high * zoom, wide * zoom


def _picture(
    picture: NDArray[Any],
    values: Floats | None,
    scene: Scene,
    side: int,
    grey: tuple[float, float],
    *,
    alone: bool = False,
) -> Pixels:
    """A picture (C, H, W) and, over it, its map (h, w)."""
    high, wide = times(picture.shape, scene.axes, side)
    if high >= 1 and wide >= 1:
        whole = (int(high), int(wide))
        base = shade(picture, grey)
        return enlarge(base, whole) if values is None else layers(base, values, scene.scale, whole)[alone]
    size = tuple(max(1, round(n * t)) for n, t in zip(picture.shape[1:], (high, wide), strict=True))
    base = shade(resize(picture, size, antialias=True), grey)
    if values is None:
        return base
    small = resize(values, size, antialias=True)
    return scene.scale.colour(small) if alone else overlay(base, small, scene.scale)


def _signal(scene: Scene, *, plain: bool = False) -> Pixels:
    """The channels under one another, each a line with its importance as colour."""
    curves = scene.input.astype(np.float64)
    values = np.zeros((1, 1)) if plain else resize(scene.values, scene.input.shape[-1:])
    values = np.broadcast_to(values, curves.shape)
    return _stack(curves, values, Scale(0.0, 0.0, True) if plain else scene.scale, [span(curve) for curve in curves])


def _curves(scene: Scene) -> Pixels:
    """A map along one axis as a line, zero marked; one for each channel."""
    each = [values for _, values in scene.each] if scene.layout else list(np.atleast_2d(scene.values))
    curves = np.stack(each).astype(np.float64)
    return _stack(curves, curves, scene.scale, [span(curve, zero=True) for curve in curves], zero=True)


def _stack(
    curves: Floats, values: Floats, scale: Scale, ends: Sequence[tuple[float, float]], *, zero: bool = False
) -> Pixels:
    height = {1: 96, 2: 60, 3: 44, 4: 36}.get(len(curves), 24)
    drawn = Lines(np.asarray(ends), height, WIDE).draw(curves, values, scale, zero=zero)
    return _under(list(drawn))


def _under(rows: Sequence[Pixels]) -> Pixels:
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for each in rows for part in (gap, each)][1:])


def _heat(scene: Scene) -> Pixels:
    """A map on two axes of its own or more: of a third one evenly spaced points side by side, the middle of others."""
    axes = scene.own[-2:]
    of_signal = len(scene.axes) == 1 and len(scene.own) == 2
    if of_signal:
        height = {1: 96, 2: 72}.get(len(scene.each), 56)
        return _under([_cells(values, axes, (height, WIDE), scene.scale)[::-1] for _, values in scene.each])
    values = scene.values
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    if values.ndim == 2:
        return _cells(values, axes, _size(values.shape, axes, SIDE), scene.scale)
    kept = np.unique(np.linspace(0, len(values) - 1, min(FRAMES, len(values))).round().astype(int))
    size = _size(values.shape, axes, FRAME)
    return beside(_cells(values[k], axes, size, scene.scale) for k in kept)


def _size(shape: Sequence[int], axes: Sequence[Axis], side: int) -> tuple[int, int]:
    high, wide = times(shape, axes, side)
    return max(1, round(shape[-2] * high)), max(1, round(shape[-1] * wide))


def _cells(values: Floats, axes: Sequence[Axis], size: tuple[int, int], scale: Scale) -> Pixels:
    """Cells side by side: the nearest, or the strongest of those that share a pixel."""
    up, along = (extent(axis, n) for axis, n in zip(axes, values.shape, strict=True))
    tall = fit(values, axes[0], up, size[0])
    return scale.colour(fit(tall.T, axes[1], along, size[1]).T)


def _concepts(scene: Scene) -> Pixels:
    """Each concept alone, beside one another, at most `FRAMES`; of a signal a line for each."""
    if len(scene.axes) == 1:
        curves = np.stack([resize(v, scene.input.shape[-1:]) for v in scene.values]).astype(np.float64)
        return _stack(curves, curves, scene.scale, [span(curve, zero=True) for curve in curves], zero=True)
    shown = [one for _, one in concepts.each(scene)][:FRAMES]
    if len(scene.axes) == 3:
        at = [concepts.strongest(one) for one in shown]
        shown = [
            replace(
                one,
                axes=one.axes[1:],
                input=one.input[:, k],
                values=resize(one.values, one.input.shape[1:2] + one.values.shape[1:])[k],
            )
            for one, k in zip(shown, at, strict=True)
        ]
    grey = levels(scene.input)
    return beside(_picture(one.input, one.values, one, FRAME, grey) for one in shown)


def _bars(scene: Scene) -> Pixels:
    """A bar from zero for each number, those of a channel together; of many channels a table of colours."""
    values = np.stack([values for _, values in scene.each]).astype(np.float64)
    if len(values) > SEVERAL:
        return enlarge(scene.scale.colour(values), (_BAR, max(1, WIDE // values.shape[1])))
    low, high = min(scene.scale.low, 0.0), max(scene.scale.high, 0.0)
    x = low + (np.arange(WIDE) + 0.5) / WIDE * ((high - low) or 1.0)
    flat = np.nan_to_num(values).reshape(-1, 1)
    inside = (x >= np.minimum(flat, 0)) & (x <= np.maximum(flat, 0)) & (flat != 0)
    rows = np.where(inside[..., None], scene.scale.colour(flat), 255).astype(np.uint8)[:, None].repeat(_BAR, 1)
    rows[:, [0, 1, -2, -1]] = 255
    rows[:, :, np.argmin(np.abs(x))] = FAINT
    return _under(list(rows.reshape(len(values), -1, WIDE, 3)))
