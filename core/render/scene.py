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

    def sheet(self, rows: Sequence[Sequence[Panel]]) -> Image.Image:
        """Lay out ``rows`` of panels under the scene's heading and beside its colour bar."""
        return sheet(rows, self.heading, self.scale, self.units)

    @property
    def mark(self) -> str:
        """A digest of all that is drawn. A picture on disk with another mark is out of date."""
        said = repr((self.values.shape, self.axes, self.scale, self.heading, self.units, self.names)).encode()
        digest = 0
        for part in (said, np.ascontiguousarray(self.values).tobytes(), np.ascontiguousarray(self.input).tobytes()):
            digest = zlib.crc32(part, digest)
        return f"camsweep {digest:08x}"
