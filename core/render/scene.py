"""What one picture shows: a sample, one map of it, and the scale and the words that go with them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.axes import Axis
from .colour import Floats, Scale
from .look import PLAIN, Look
from .sheet import Panel, sheet


@dataclass(frozen=True)
class Scene:
    """A sample and one map of it, both as stored; whoever draws resizes the values first and colours them last."""

    input: NDArray[Any]  # (C, *S)
    values: Floats  # (*s), or (C, *s) of a signal explained channel by channel
    axes: tuple[Axis, ...]  # one for each of S
    scale: Scale
    heading: tuple[str, ...]
    units: str
    names: tuple[str, ...]  # of the channels
    layout: str = ""  # "lines", "image" or "bars" of a map on axes of its own; "concepts", whose values are (K, *s)
    own: tuple[Axis, ...] = ()  # these axes; values are then (*own), or (C, *own)
    signals: NDArray[Any] | None = None  # (component, C or 1, *S), what the points of ``own`` are
    look: Look = PLAIN

    def sheet(self, rows: Sequence[Sequence[Panel]], size: int = 0) -> Image.Image:
        """Lay out ``rows`` of panels under the scene's heading and beside its colour bar."""
        return sheet(rows, self.heading, self.scale, self.units, size)

    @property
    def each(self) -> list[tuple[str, Floats]]:
        """Of a map on axes of its own, channel by channel: name and values; without a name where it has no channels."""
        if self.values.ndim == len(self.own):
            return [("", self.values)]
        return list(zip(self.names, self.values, strict=True))

    @property
    def mark(self) -> str:
        """A digest of all that is drawn. A picture on disk with another mark is out of date."""
        words: tuple[object, ...] = (
            self.values.shape,
            self.axes,
            self.scale,
            self.heading,
            self.units,
            self.names,
            self.layout,
            self.own,
            self.look,
        )
        arrays = [self.values, self.input, *([] if self.signals is None else [self.signals])]
        digest = zlib.crc32(repr(words).encode())
        for array in arrays:
            digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
        return f"camsweep {digest:08x}"
