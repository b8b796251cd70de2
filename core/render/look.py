"""What is drawn of each map, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .colour import ALPHA

Kind = Literal["overlay", "map", "contour", "side"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Look:
    """A choice of pictures."""

    kinds: tuple[Kind, ...] = ("overlay", "map")
    """Of images: the map over the input, alone, as lines of equal importance, or beside the input."""
    sheet: bool = False
    """Pages of many samples on one scale, in place of a picture for each."""
    alpha: float = ALPHA
    """Opacity of the strongest value over an input; the others in proportion."""
    bare: bool = False
    """Images: pixels alone, one for each of the input, without words, rulers and colour bar."""
    along: int = 0
    """The axis that a clip runs along."""
    frames: bool = False
    """Each frame of a clip as a PNG too."""
    slices: bool = False
    """A montage and three planes of a clip too, which volumes always get."""
    projection: bool = False
    """The strongest value along each axis of a clip or volume too."""
    video: bool = False
    """An MP4 in place of the GIF."""
    format: Format = "png"
    """SVG and PDF are figures by matplotlib, for print."""
    dpi: int = 150
    """Of what is not lines in such a figure."""
    style: str | None = None
    """A matplotlib style, by name or file."""


PLAIN = Look()
