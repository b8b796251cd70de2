"""Pictures from a finished results file: PNG for signals and images, GIF and slices for video and volumes."""

from __future__ import annotations

from .look import Look
from .norm import Norm
from .pictures import Rendered, render

__all__ = ["Look", "Norm", "Rendered", "render"]
