"""Two-dimensional samples: the map over the input, alone, as contours, and beside the input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..data.axes import Axis
from ..grid import resize
from .colour import ALPHA, Floats, Pixels, Scale, blend
from .lettering import INK
from .look import Kind
from .scene import Scene
from .sheet import Panel, axis_ruler


def factors(shape: Sequence[int], axes: Sequence[Axis], least: int = 256, most: int = 1200) -> tuple[int, ...]:
    """How often to repeat a point along each axis: ``least`` pixels high, ``most`` wide, in true proportion.

    Axes of one unit keep the ratio of their steps (a voxel need not be a cube); others have nothing to compare.
    """
    finest = {axis.unit: min(abs(other.step) for other in axes if other.unit == axis.unit) for axis in axes}
    ratio = [min(8.0, abs(axis.step) / finest[axis.unit]) for axis in axes]
    times = max(1, min(math.ceil(least / (shape[-2] * ratio[-2])), int(most / (shape[-1] * ratio[-1]))))
    return tuple(round(times * each) for each in ratio)


def enlarge(pixels: Pixels, times: Sequence[int]) -> Pixels:
    """Each pixel of (H, W, 3) repeated: what the model was given, no smoother than it was."""
    for axis in (0, 1):
        pixels = pixels.repeat(times[axis], axis) if times[axis] > 1 else pixels
    return pixels


def levels(picture: NDArray[Any]) -> tuple[float, float]:
    """The values drawn black and white: 0 and 255 for bytes, else the least and the greatest."""
    if picture.dtype == np.uint8:
        return 0.0, 255.0
    finite = picture[np.isfinite(picture)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def shade(picture: NDArray[Any], black_white: tuple[float, float]) -> Pixels:
    """Grey or colour pixels (H, W, 3) of a picture (C, H, W); three channels are red, green, blue, others averaged."""
    black, white = black_white
    if picture.dtype == np.uint8 and black_white == (0, 255) and len(picture) in (1, 3):  # as they are
        return np.ascontiguousarray(np.moveaxis(picture, 0, -1).repeat(3 // len(picture), -1))
    v = np.nan_to_num(picture.astype(np.float64), nan=black, posinf=white, neginf=black)
    v = v if len(v) == 3 else v.mean(0, keepdims=True).repeat(3, 0)
    grey = np.moveaxis((v - black) / (white - black) if white > black else np.full_like(v, 0.5), 0, -1)
    return np.asarray((255 * grey.clip(0, 1)).round(), np.uint8)


def layers(
    base: Pixels, values: Floats, scale: Scale, times: Sequence[int], alpha: float = ALPHA
) -> tuple[Pixels, Pixels]:
    """The overlay and the map alone, enlarged: ``base`` (H, W, 3) by repetition, ``values`` (h, w) linearly."""
    below = enlarge(base, times)
    fine = resize(values, below.shape[:2])
    alone = scale.colour(fine)
    return blend(below, alone, alpha * scale.strength(fine)), alone


def panel(pixels: Pixels, axes: Sequence[Axis], shape: Sequence[int], caption: str = "") -> Panel:
    """Pixels with rulers, where the axes measure something."""
    left, below = (axis_ruler(axis, n, m) for axis, n, m in zip(axes, shape, pixels.shape[:2], strict=True))
    return Panel(pixels, caption, left, below)


def pictures(scene: Scene) -> Iterator[Image.Image]:
    """A picture for each of the kinds wished."""
    shape, look = scene.input.shape[1:], scene.look
    times = (1, 1) if look.bare else factors(shape, scene.axes)
    base = shade(scene.input, levels(scene.input))
    over, alone = layers(base, scene.values, scene.scale, times, look.alpha)

    def drawn(kind: Kind) -> Pixels:
        if kind == "contour":
            return contours(enlarge(base, times), scene.values, scene.scale)
        return over if kind == "overlay" else alone

    for kind in look.kinds:
        shown = [enlarge(base, times), over, alone] if kind == "side" else [drawn(kind)]
        if look.bare:
            yield Image.fromarray(np.concatenate(shown, axis=1) if len(shown) > 1 else np.ascontiguousarray(shown[0]))
        else:
            captions = ("input", "overlay", "map") if kind == "side" else ("",)
            yield scene.sheet([[panel(p, scene.axes, shape, c) for p, c in zip(shown, captions, strict=True)]])


LEVELS = (0.25, 0.5, 0.75)
"""Of the greatest magnitude, where lines of equal importance run."""


def contours(base: Pixels, values: Floats, scale: Scale) -> Pixels:
    """Lines of equal importance over ``base`` (H, W, 3), each in the colour of its value on a dark edge."""
    from contourpy import contour_generator

    height, width = base.shape[:2]
    times = height / values.shape[0], width / values.shape[1]
    # The value of a cell stands in its middle; at the border it goes on as it is.
    padded = np.pad(np.nan_to_num(values.astype(np.float64)), 1, mode="edge")
    y, x = (np.clip((np.arange(-1, n + 1) + 0.5) * t, 0, n * t) for n, t in zip(values.shape, times, strict=True))
    lines = contour_generator(x, y, padded)
    picture = Image.fromarray(base)
    draw = ImageDraw.Draw(picture)
    bottom, top = scale.limits
    for level in sorted({sign * share for share in LEVELS for sign in (bottom, top) if sign}):
        colour = tuple(scale.colour(level).tolist())
        for line in lines.lines(level):
            points = [tuple(point) for point in np.asarray(line).tolist()]
            draw.line(points, fill=INK, width=4, joint="curve")
            draw.line(points, fill=colour, width=2, joint="curve")
    return np.asarray(picture)
