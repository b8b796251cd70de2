"""The sheet every picture is laid out on: panels in rows, a heading above, the colour bar with true values beside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from PIL import Image, ImageDraw

from ..data.axes import Axis
from .colour import Pixels, Scale
from .lettering import FAINT, INK, font, lines, number, printable

GAP = 12
LETTERS = 13
"""Pixels of a letter, at least."""
_BAR = 14


@dataclass(frozen=True)
class Ruler:
    """Ticks of a panel's side: pixel and label each, and what they measure."""

    ticks: tuple[tuple[float, str], ...]
    label: str

    def upwards(self, pixels: int) -> Ruler:
        """The same from the other end."""
        return Ruler(tuple((pixels - at, text) for at, text in self.ticks), self.label)


def ruler(label: str, first: float, last: float, pixels: int) -> Ruler:
    """A ruler over ``pixels``, from the value at its first edge to the value at its last, whichever is greater."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(first, last), max(first, last)
    values = MaxNLocator(nbins=max(2, min(10, pixels // 50)), steps=[1, 2, 5, 10]).tick_values(low, high)
    digits = 4 + max(0, math.ceil(math.log10(max(abs(low), abs(high)) / (high - low))))  # enough to tell ticks apart
    ticks = (
        (float((v - first) / (last - first) * pixels), number(v if abs(v) > 1e-9 * (high - low) else 0.0, digits))
        for v in values
        if low <= v <= high
    )
    return Ruler(tuple(ticks), printable(label))


def axis_ruler(axis: Axis, points: int, pixels: int) -> Ruler | None:
    """The ruler of an axis whose ``points`` are cells side by side; None for plain pixels, which need none."""
    if axis.labels:
        names = enumerate(printable(name, 24) for name in axis.labels)
        return Ruler(tuple(((k + 0.5) * pixels / points, name) for k, name in names), axis.name)
    if axis.unit == "px":
        return None
    unit = f" ({axis.unit})" if axis.unit else ""
    return ruler(f"{axis.name}{unit}", *extent(axis, points), pixels)


def extent(axis: Axis, points: int) -> tuple[float, float]:
    """Where the first of its cells begins and the last one ends."""
    edge = axis.start - axis.step / 2
    return edge, edge + axis.step * points


@dataclass(frozen=True)
class Panel:
    """Pixels (H, W, 3) with a caption above and rulers at the left and below."""

    pixels: Pixels
    caption: str = ""
    left: Ruler | None = None
    below: Ruler | None = None


def _margin(panel: Panel, size: int) -> int:
    """Pixels that the ruler at the left takes."""
    if not panel.left:
        return 0
    widest = max((font(size).getlength(text) for _, text in panel.left.ticks), default=0)
    return int(widest) + 14 + max(size + 6, _short(panel.left.label, size))


def _short(text: str, size: int) -> int:
    """The width of a text short enough to stand beside a panel without being turned; 0 for longer ones."""
    width = int(font(size).getlength(text)) + 6
    return width if width <= 3 * size else 0


def _block(panel: Panel, size: int, margin: int) -> Image.Image:
    """A panel with its caption and rulers; its pixels begin ``margin`` from the left."""
    height, width = panel.pixels.shape[:2]
    face, step = font(size), size + 6
    top = step if panel.caption else 0
    bottom, right = top + height, margin + width
    label = face.getlength(panel.below.label) if panel.below else 0
    wide = max(right, margin + int(face.getlength(panel.caption)) + 1, margin + int((width + label) / 2) + 1)
    image = Image.new("RGB", (wide, bottom + (2 * step + 4 if panel.below else 0)), "white")
    image.paste(Image.fromarray(panel.pixels), (margin, top))
    draw = ImageDraw.Draw(image)
    draw.text((margin, 0), panel.caption, INK, face)
    if panel.below:
        draw.line((margin, bottom, right - 1, bottom), FAINT)
        for at, text in panel.below.ticks:
            x = margin + min(at, width - 1)
            draw.line((x, bottom, x, bottom + 4), FAINT)
            x = min(x, wide - face.getlength(text) / 2 - 1)  # labels stay on the sheet
            draw.text((x, bottom + 6), text, INK, face, anchor="ma")
        draw.text((margin + width / 2, bottom + step + 4), panel.below.label, INK, face, anchor="ma")
    if panel.left:
        draw.line((margin - 1, top, margin - 1, bottom - 1), FAINT)
        for at, text in panel.left.ticks:
            draw.line((margin - 5, top + at, margin - 2, top + at), FAINT)
            y = min(max(top + at, size / 2), image.height - size / 2)
            draw.text((margin - 8, y), text, INK, face, anchor="rm")
        if _short(panel.left.label, size):
            draw.text((0, (top + bottom) / 2), panel.left.label, INK, face, anchor="lm")
        else:
            _upwards(image, panel.left.label, size, (0, top), height)
    return image


def _upwards(image: Image.Image, text: str, size: int, at: tuple[int, int], height: int) -> None:
    """Write ``text`` upwards in the middle of ``height``, which it may exceed."""
    long = max(height, int(font(size).getlength(text)) + 2)
    label = Image.new("RGB", (long, size + 6), "white")
    ImageDraw.Draw(label).text((long / 2, 0), text, INK, font(size), anchor="ma")
    image.paste(label.rotate(90, expand=True), (at[0], at[1] - (long - height) // 2))


def _colour_bar(scale: Scale, height: int, units: str, size: int) -> Image.Image:
    """The bar, ``height`` pixels from limit to limit, its labels kept apart, the units alongside."""
    face, (bottom, top) = font(size), scale.limits
    at = {v: (1 - float(scale.position(v))) * (height - 1) for v in scale.ticks}
    shown: list[float] = []
    for v in sorted(scale.ticks, key=lambda v: (-abs(v), v) if v else (-np.inf, v)):  # zero first, then the extremes
        if all(abs(at[v] - at[other]) > size for other in shown):
            shown.append(v)
    labels = {v: scale.label(v) for v in shown}
    text_width = int(max(map(face.getlength, labels.values()))) + 1
    pad, units = _overhang(size), printable(units, 40)
    image = Image.new("RGB", (_BAR + 8 + text_width + (size + 6 if units else 0), height + 2 * pad), "white")
    values = np.linspace(top, bottom, height)[:, None].repeat(_BAR, 1)
    image.paste(Image.fromarray(scale.colour(values)), (0, pad))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, pad, _BAR - 1, pad + height - 1), outline=FAINT)
    for v, text in labels.items():
        draw.line((_BAR, pad + at[v], _BAR + 3, pad + at[v]), INK)
        draw.text((_BAR + 6, pad + at[v]), text, INK, face, anchor="lm")
    if units:
        _upwards(image, units, size, (_BAR + 8 + text_width, 0), image.height)
    return image


def sheet(
    rows: Sequence[Sequence[Panel]], heading: Sequence[str], scale: Scale, units: str = "", size: int = 0
) -> Image.Image:
    """Lay ``rows`` of panels under the ``heading``, whose parts are kept whole, with one colour bar for all.

    ``size``: of the letters, in pixels; 0 takes one that goes with the tallest panel.
    """
    return next(sheets([rows], heading, scale, units, size))


def sheets(
    series: Iterable[Sequence[Sequence[Panel]]], heading: Sequence[str], scale: Scale, units: str = "", size: int = 0
) -> Iterator[Image.Image]:
    """A `sheet` of each, all laid out as the first, whose heading and colour bar they share."""
    empty, places, margins = None, list[list[tuple[int, int]]](), list[int]()
    for rows in series:
        if empty is None:
            size = size or max(LETTERS, max(panel.pixels.shape[0] for row in rows for panel in row) // 36)
            margins = [max(_margin(p, size) for p in column if p) for column in zip_longest(*rows)]
        blocks = [[_block(panel, size, margin) for panel, margin in zip(row, margins, strict=False)] for row in rows]
        if empty is None:
            empty, places = _empty(rows, blocks, heading, scale, units, size)
        image = empty.copy()
        for row, at in zip(blocks, places, strict=True):
            for block, place in zip(row, at, strict=True):
                image.paste(block, place)
        yield image


def _empty(
    rows: Sequence[Sequence[Panel]],
    blocks: Sequence[Sequence[Image.Image]],
    heading: Sequence[str],
    scale: Scale,
    units: str,
    size: int,
) -> tuple[Image.Image, list[list[tuple[int, int]]]]:
    """A sheet without its panels, and where they go."""
    tops = np.cumsum([0, *(max(block.height for block in row) + GAP for row in blocks)]).tolist()
    above, last = (size + 6 if row[0].caption else 0 for row in (rows[0], rows[-1]))
    bar = _colour_bar(scale, tops[-2] + last + rows[-1][0].pixels.shape[0] - above, units, size)
    widths = [max(block.width + GAP for block in column if block) for column in zip_longest(*blocks)]
    across = sum(widths)
    parts = [printable(part, 64) for part in heading]
    inner = max(across + bar.width, 26 * size, *(int(font(size).getlength(part)) + 1 for part in parts))
    title = lines(parts, inner, size)
    head = GAP + len(title) * (size + 5) + GAP // 2
    image = Image.new("RGB", (inner + 2 * GAP, head + max(tops[-1], above + bar.height)), "white")
    draw = ImageDraw.Draw(image)
    for k, line in enumerate(title):
        draw.text((GAP, GAP + k * (size + 5)), line, INK, font(size))
    image.paste(bar, (GAP + across, head + above - _overhang(size)))
    starts = [GAP + sum(widths[:k]) for k in range(len(widths))]
    return image, [
        [(x, head + y) for x, _ in zip(starts, row, strict=False)] for y, row in zip(tops, blocks, strict=False)
    ]


def _overhang(size: int) -> int:
    """How far the labels of a colour bar's ends reach past it."""
    return size // 2 + 1
