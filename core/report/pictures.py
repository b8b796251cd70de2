"""Pictures as text: what an ``<img>`` shows without a file beside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from ..render.colour import Pixels

QUALITY = 80
"""Of what looks like a photograph, in WebP."""


@dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, and its size in pixels."""

    source: str
    width: int
    height: int

    @classmethod
    def of(cls, pixels: Pixels, *, drawn: bool) -> Picture:
        """WebP of (H, W, 3). What is ``drawn`` has few colours and sharp lines: 256 of them, kept to the bit."""
        image, file = Image.fromarray(pixels), io.BytesIO()
        if drawn:
            few = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")
            few.save(file, "WEBP", lossless=True, quality=20, method=1)
        else:
            image.save(file, "WEBP", quality=QUALITY, method=1)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return cls(f"data:image/webp;base64,{data}", image.width, image.height)
