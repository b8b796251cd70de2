"""One page about a finished results file, or about several of the same samples: HTML that needs nothing beside it."""

from __future__ import annotations

from .page import Report, report

__all__ = ["Report", "report"]
