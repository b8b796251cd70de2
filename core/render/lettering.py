"""Text on pictures: the one font, what it can write, numbers and lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import ImageFont

INK, FAINT = (33, 33, 33), (120, 120, 120)


@cache
def _file() -> str:
    """Of the font, which comes with matplotlib, everywhere alike."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font, ``size`` pixels high."""
    return ImageFont.truetype(_file(), size)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_file()).get_charmap())


def printable(text: str, length: int = 48) -> str:
    """``text`` with a box for each character the font lacks, shortened in its middle to ``length``."""
    shown = "".join(c if c.isprintable() and ord(c) in _glyphs() else "□" for c in text)
    return shown if len(shown) <= length else f"{shown[: length - 12]}…{shown[-11:]}"


def number(value: float, digits: int = 3) -> str:
    """A number in few characters, with a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def lines(parts: Sequence[str], width: int, size: int) -> list[str]:
    """``parts`` joined by dots, broken between them where ``width`` pixels are full."""
    broken = [parts[0]] if parts else []
    for part in parts[1:]:
        longer = f"{broken[-1]} · {part}"
        if font(size).getlength(longer) <= width:
            broken[-1] = longer
        else:
            broken.append(part)
    return broken
