"""Figures for print, SVG and PDF by matplotlib: lines stay lines, words stay sharp, and a style file says the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from ..data.axes import Axis
from ..errors import RequestError, nearest
from . import clip, concepts, image
from .colour import Pixels, Scale
from .lettering import lines
from .scene import Scene
from .sheet import extent
from .signal import Strip, pieces, span, strips

WIDTH = 6.4
"""Inches."""


def check_style(name: str | None) -> None:
    """`RequestError` where there is no such style, or its file cannot be read."""
    with styled(name):
        pass


@contextmanager
def styled(name: str | None) -> Iterator[None]:
    """A matplotlib style, by name or file, while the block lasts; files are the same each time they are written."""
    if name and name not in style.available and not Path(name).is_file():
        raise RequestError(f"--style {name!r}: no such file. {nearest(name, style.available)}")
    try:
        context = style.context(name) if name else matplotlib.rc_context()
        with context:
            matplotlib.rcParams["svg.hashsalt"] = "camsweep"
            yield
    except OSError as error:
        raise RequestError(f"--style {name!r} cannot be read: {error}") from None


def save(scene: Scene, path: Path, kind: str, mark: str) -> None:
    """Draw ``scene`` and write it as ``svg`` or ``pdf``."""
    told = {"svg": {"Description": mark, "Date": None}, "pdf": {"Subject": mark, "CreationDate": None}}[kind]
    with styled(scene.look.style):
        figure(scene).savefig(path, format=kind, dpi=scene.look.dpi, metadata=told, bbox_inches="tight")


def figure(scene: Scene) -> Figure:
    """Signals as coloured lines, images and the middle planes of volumes as overlays, other maps on their own axes."""
    if scene.layout == "concepts" and len(scene.axes) == 1:
        made = _stacked(concepts.strips(scene), scene.axes[0], scene.scale, scene.units)
    elif scene.layout and scene.layout != "concepts":
        made = _own(scene)
    elif len(scene.axes) == 1:
        made = _stacked(strips(scene), scene.axes[0], scene.scale, scene.units)
    else:
        made = _panels(scene)
    made.suptitle("\n".join(lines(scene.heading, 560, 13)), x=0.02, ha="left", fontsize="small")
    return made


def _stacked(shown: Sequence[Strip], axis: Axis, scale: Scale, units: str) -> Figure:
    """A strip for each channel, on one axis."""
    made = Figure(figsize=(WIDTH, 0.5 + 1.1 * len(shown)), layout="constrained")
    column: Any = made.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, strip in zip(column, shown, strict=True):
        x = axis.coordinates(len(strip.curve))
        cut, starts = pieces(np.stack([x, strip.curve.astype(np.float64)], 1), scale.level(strip.values))
        begin = strip.values[starts]
        colours = np.column_stack([scale.colour(begin) / 255, np.sqrt(scale.strength(begin))])
        ax.plot(x, strip.curve, color="0.13", linewidth=0.6)
        ax.add_collection(LineCollection(cut, colors=colours, linewidths=2), autolim=False)
        ax.imshow(
            strip.tint(scale, 1, min(840, len(x))), extent=(*extent(axis, len(x)), strip.low, strip.high),
            aspect="auto",
            interpolation="nearest", zorder=0,
        )  # fmt: skip
        if strip.zero:
            ax.axhline(0, color="0.5", linewidth=0.5)
        ax.set_xlim(*extent(axis, len(x)))
        ax.set_ylim(strip.low, strip.high)
        ax.set_ylabel(strip.name)
    column[-1].set_xlabel(_named(axis))
    _bar(made, scale, units, column)
    return made


def _panels(scene: Scene) -> Figure:
    """The kinds wished of an image, the middle slice across each axis of a volume."""
    shown: list[tuple[Pixels, str, Sequence[Axis], tuple[int, ...]]] = []
    if scene.layout:
        shown = concepts.pictures(scene)
    elif len(scene.axes) == 2:
        shape = scene.input.shape[1:]
        base = image.shade(scene.input, image.levels(scene.input))
        times = image.factors(shape, scene.axes)
        over, alone = image.layers(base, scene.values, scene.scale, times, scene.look.alpha)
        plain = image.enlarge(base, times)
        each = {
            "overlay": [("", over)],
            "map": [("", alone)],
            "contour": [("", image.contours(plain, scene.values, scene.scale))],
            "side": [("input", plain), ("overlay", over)],
        }
        for kind in scene.look.kinds:
            shown += [(pixels, name, scene.axes, shape) for name, pixels in each[kind]]
    else:
        for along, axis in enumerate(scene.axes):
            points = scene.input.shape[1 + along]
            sliced, _ = next(clip.panels(scene, along, [points // 2]))
            rest = [k for k in range(3) if k != along]
            where = f"{axis.name}: {clip.place(axis, points // 2, points)}"
            shown.append(
                (sliced.pixels, where, [scene.axes[k] for k in rest], tuple(scene.input.shape[1 + k] for k in rest))
            )
    made = Figure(figsize=(WIDTH, 0.6 + WIDTH / len(shown)), layout="constrained")
    row: Any = made.subplots(1, len(shown), squeeze=False)[0]
    for ax, (pixels, name, axes, shape) in zip(row, shown, strict=True):
        down, right = (extent(axis, n) for axis, n in zip(axes, shape, strict=True))
        ratio = (pixels.shape[0] / abs(down[1] - down[0])) / (pixels.shape[1] / abs(right[1] - right[0]))
        ax.imshow(pixels, extent=(*right, down[1], down[0]), aspect=ratio, interpolation="nearest")
        ax.set_title(name, fontsize="small")
        _label(ax, axes[1], axes[0])
    _bar(made, scene.scale, scene.units, row)
    return made


def _own(scene: Scene) -> Figure:
    """A map on axes of its own: a line, an image or bars for each channel."""
    each = scene.each
    if scene.layout == "lines":
        shown = [Strip(name or "importance", v, v, *span(v, zero=True), zero=True) for name, v in each]
        return _stacked(shown, scene.own[0], scene.scale, scene.units)
    made = Figure(figsize=(WIDTH, 0.6 + 2.4 * len(each)), layout="constrained")
    column: Any = made.subplots(len(each), 1, squeeze=False)[:, 0]
    for ax, (name, values) in zip(column, each, strict=True):
        if scene.layout == "bars":
            flat = values.reshape(values.shape[0], -1).sum(1)
            names = scene.own[0].labels or [str(k) for k in range(len(flat))]
            ax.barh(list(names), flat, color=scene.scale.colour(flat) / 255, edgecolor="0.5", linewidth=0.4)
            ax.invert_yaxis()
            ax.axvline(0, color="0.5", linewidth=0.5)
            ax.set_xlabel(scene.units)
        else:
            while values.ndim > 2:
                values = values[values.shape[0] // 2]
            down, right = scene.own[-2:]
            signal = len(scene.axes) == 1
            (low, high), sides = extent(down, len(values)), extent(right, values.shape[1])
            ends = (low, high) if signal else (high, low)
            ax.imshow(
                scene.scale.colour(values), extent=(*sides, *ends), aspect="auto", interpolation="nearest",
                origin="lower" if signal else "upper",
            )  # fmt: skip
            _label(ax, right, down, points=len(values))
        ax.set_title(name, fontsize="small")
    if scene.layout != "bars":
        _bar(made, scene.scale, scene.units, column)
    return made


def _label(ax: Any, across: Axis, down: Axis, points: int = 0) -> None:
    ax.set_xlabel(_named(across))
    ax.set_ylabel(_named(down))
    if down.labels and points:
        first, last = extent(down, points)
        middles = first + (np.arange(points) + 0.5) * (last - first) / points
        ax.set_yticks(middles, down.labels)
    elif across.unit == down.unit == "px":
        ax.set_axis_off()


def _named(axis: Axis) -> str:
    return f"{axis.name} ({axis.unit})" if axis.unit else axis.name


def _bar(made: Figure, scale: Scale, units: str, axes: Any) -> None:
    """The colour bar, its ticks the true extremes and zero."""
    bottom, top = scale.limits
    colours = ScalarMappable(Normalize(bottom, top or 1.0), ListedColormap(scale.table / 255))
    bar = made.colorbar(colours, ax=list(axes), fraction=0.04, pad=0.02)
    bar.set_ticks(list(scale.ticks), labels=[scale.label(tick) for tick in scale.ticks])
    bar.set_label(units)
