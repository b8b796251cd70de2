"""Maps on axes of their own: spectra as lines; spectrograms, wavelet levels and spectra of pictures as images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.axes import Axis
from .clip import SLICES
from .colour import Floats
from .image import enlarge, factors, levels, panel, shade
from .lettering import number, printable
from .scene import Scene
from .sheet import LETTERS, Panel, axis_ruler, extent
from .signal import WIDTH, Strip, drawn, plain, span, strongest

BESIDE, SPECTRUM = 360, 660
"""Pixels of the signal and of the spectrum beside it."""
STRIP = 76
"""Pixels of the signal above its spectrogram."""


def lines(scene: Scene) -> Iterator[Image.Image]:
    """One sheet: a row for each channel, its signal and beside it the map as a line over the map's axis."""
    height = 140 if len(scene.each) <= 4 else 84
    curves = [Strip(name or "importance", v, v, *span(v, zero=True), zero=True) for name, v in scene.each]
    if len(scene.axes) > 1:
        yield scene.sheet([[each] for each in drawn(scene.own[0], scene.scale, curves, height)])
        return
    unnamed = [replace(curve, name="importance") for curve in curves]
    both = zip_longest(plain(scene, height, BESIDE), drawn(scene.own[0], scene.scale, unnamed, height, SPECTRUM))
    yield scene.sheet([[each for each in row if each] for row in both])


def images(scene: Scene) -> Iterator[Image.Image]:
    """One sheet: a signal's spectrogram for each channel, a picture's or a volume's beside it."""
    if len(scene.axes) == 1 and len(scene.own) == 2:
        yield scene.sheet([[each] for each in _spectrograms(scene)])
    elif len(scene.axes) > 1 and len(scene.own) == 2:
        yield scene.sheet([[_input(scene, 384), _map(scene, scene.values, scene.own, " ", 384)]])
    else:
        alike = scene.own[-2:] == scene.axes[-2:]
        shown = [_input(scene, 256), *_slices(scene)] if alike else list(_slices(scene))
        yield scene.sheet([shown[k : k + 4] for k in range(0, len(shown), 4)])


def fit(values: Floats, axis: Axis, window: tuple[float, float], pixels: int) -> Floats:
    """``values`` (points, ..) along ``axis`` as (pixels, ..) over a ``window`` of it.

    The nearest, or the strongest of those that fall into a pixel: neighbouring levels have nothing between them.
    """
    edge, _ = extent(axis, len(values))
    ends = (np.linspace(*window, pixels + 1) - edge) / axis.step
    first = np.floor(ends + 1e-6).clip(0, len(values) - 1).astype(np.int64)
    return strongest(values[: max(first[-2], int(np.ceil(ends[-1] - 1e-6)) - 1) + 1], pixels, first[:-1])


def _spectrograms(scene: Scene) -> Iterator[Panel]:
    """Signal and map under one another, on one axis of time if the map has it; low frequencies at the bottom."""
    (up, along), time = scene.own, scene.axes[0]
    shared = (along.name, along.unit) == (time.name, time.unit)
    height = max(200 if len(scene.each) <= 4 else 150, (LETTERS + 4) * len(up.labels))
    signals = plain(scene, STRIP)
    below = signals[-1].below
    found = []
    for _, values in scene.each:
        rows, columns = values.shape
        window = extent(time, scene.input.shape[-1]) if shared else extent(along, columns)
        fine = fit(fit(values, up, extent(up, rows), height).T, along, window, WIDTH).T
        side = axis_ruler(up, rows, height)
        pixels = scene.scale.colour(fine[::-1])
        found.append(Panel(pixels, left=side and side.upwards(height)))
    end = below if shared else axis_ruler(along, scene.each[0][1].shape[1], WIDTH)
    signals[-1] = replace(signals[-1], below=None if shared else below)
    found[-1] = replace(found[-1], below=end)
    yield from chain(*zip(signals, found, strict=True)) if len(signals) == len(found) else [*signals, *found]


def _middle(array: NDArray[Any], kept: int) -> NDArray[Any]:
    """The middle of the axes before the last ``kept``, but for the first axis."""
    while array.ndim > 1 + kept:
        array = array[:, array.shape[1] // 2]
    return array


def _input(scene: Scene, least: int) -> Panel:
    """The sample as a picture; of a volume the middle slice."""
    axes, picture = scene.axes[-2:], _middle(scene.input, 2)
    pixels = enlarge(shade(picture, levels(scene.input)), factors(picture.shape[1:], axes, least))
    return panel(pixels, axes, picture.shape[1:], "input" if len(scene.axes) == 2 else "input, middle slice")


def _map(scene: Scene, values: Floats, axes: tuple[Axis, ...], caption: str, least: int) -> Panel:
    return panel(enlarge(scene.scale.colour(values), factors(values.shape, axes, least)), axes, values.shape, caption)


def _slices(scene: Scene) -> Iterator[Panel]:
    """The map across its first axis: each of its named points, or evenly spaced ones and the middle among them."""
    first, *between = scene.own[:-2]
    count = scene.values.shape[0]
    step = 1 if first.labels else -(-count // SLICES)
    note = f", middle {' and '.join(axis.name for axis in between)}" if between else ""
    for k in range(count // 2 % step, count, step):
        at = f"{first.name} {number(round(first.start + first.step * k, 9), 4)} {first.unit}"
        caption = printable(first.labels[k] if first.labels else at)
        yield _map(scene, _middle(scene.values, 2)[k], scene.own[-2:], caption + note, 256)
