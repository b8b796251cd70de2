"""Two-dimensional samples: the map over the input, and the map alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.axes import Axis
from ..grid import resize
from .colour import Floats, Pixels, Scale, overlay
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
    return pixels.repeat(times[0], 0).repeat(times[1], 1)


def levels(picture: NDArray[Any]) -> tuple[float, float]:
    """The values drawn black and white: 0 and 255 for bytes, else the least and the greatest."""
    if picture.dtype == np.uint8:
        return 0.0, 255.0
    finite = picture[np.isfinite(picture)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def shade(picture: NDArray[Any], black_white: tuple[float, float]) -> Pixels:
    """Grey or colour pixels (H, W, 3) of a picture (C, H, W); three channels are red, green, blue, others averaged."""
    black, white = black_white
    v = np.nan_to_num(picture.astype(np.float64), nan=black, posinf=white, neginf=black)
    v = v if len(v) == 3 else v.mean(0, keepdims=True).repeat(3, 0)
    grey = np.moveaxis((v - black) / (white - black) if white > black else np.full_like(v, 0.5), 0, -1)
    return np.asarray((255 * grey.clip(0, 1)).round(), np.uint8)


def layers(base: Pixels, values: Floats, scale: Scale, times: Sequence[int]) -> tuple[Pixels, Pixels]:
    """The overlay and the map alone, enlarged: ``base`` (H, W, 3) by repetition, ``values`` (h, w) linearly."""
    below = enlarge(base, times)
    fine = resize(values, below.shape[:2])
    return overlay(below, fine, scale), scale.colour(fine)


def panel(pixels: Pixels, axes: Sequence[Axis], shape: Sequence[int], caption: str = "") -> Panel:
    """Pixels with rulers, where the axes measure something."""
    left, below = (axis_ruler(axis, n, m) for axis, n, m in zip(axes, shape, pixels.shape[:2], strict=True))
    return Panel(pixels, caption, left, below)


def overlay_and_map(scene: Scene) -> Iterator[Image.Image]:
    """Two sheets: the map over the input, and the map alone."""
    shape = scene.input.shape[1:]
    base = shade(scene.input, levels(scene.input))
    for pixels in layers(base, scene.values, scene.scale, factors(shape, scene.axes)):
        yield scene.sheet([[panel(pixels, scene.axes, shape)]])
