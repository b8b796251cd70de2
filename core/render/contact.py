"""Contact sheets: many samples of one map on a page, on one scale."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from .colour import Scale
from .lettering import font, printable
from .request import Request
from .scene import Scene
from .sheet import LETTERS, Panel, sheet
from .thumbnails import moments, thumbnail

WIDE, HIGH = 1280, 1400
"""Pixels that the pictures of a page take, at most."""


@dataclass(frozen=True)
class Page:
    """A sheet to be: scenes of one map and target."""

    scenes: Sequence[Scene]
    captions: Sequence[str]
    heading: tuple[str, ...]

    @property
    def mark(self) -> str:
        """As `Scene.mark`."""
        return f"camsweep {zlib.crc32(repr(([s.mark for s in self.scenes], self.captions, self.heading)).encode()):08x}"

    def drawn(self) -> Image.Image:
        """The page."""
        small = [thumbnail(scene, moments([scene])) for scene in self.scenes]
        across = columns(small[0].shape[1])
        panels = [
            Panel(pixels, _short(caption, pixels.shape[1]))
            for pixels, caption in zip(small, self.captions, strict=True)
        ]
        rows = [panels[k : k + across] for k in range(0, len(panels), across)]
        first = self.scenes[0]
        return sheet(rows, self.heading, first.scale, first.units, LETTERS)


def columns(width: int) -> int:
    """Pictures beside one another."""
    return max(1, WIDE // (width + 12))


def pages(
    request: Request, rows: Sequence[int], common: Mapping[tuple[str, int], Scale]
) -> Iterator[tuple[str, int, Page]]:
    """Map, target and page, as many pages as the drawable of ``rows`` need; ``common`` has the scale of each map."""
    drawable = [row for row in rows if request.drawable(row)]
    for name in request.maps:
        for target in request.targets:
            one = replace(request, maps=[name], targets=[target])
            size, found = 0, list[tuple[int, Scene]]()
            for row in drawable:
                [(_, _, scene)] = one.scenes(row, common)
                if isinstance(scene, str):
                    continue
                if not size:
                    height, width = thumbnail(scene, moments([scene])).shape[:2]
                    size = columns(width) * max(1, HIGH // (height + LETTERS + 18))
                found.append((row, scene))
                if len(found) == size:
                    yield name, target, _page(request, name, target, found)
                    found = []
            if found:
                yield name, target, _page(request, name, target, found)


def _page(request: Request, name: str, target: int, found: Sequence[tuple[int, Scene]]) -> Page:
    rows = [row for row, _ in found]
    span = f"rows {rows[0]} to {rows[-1]}"
    return Page(
        [scene for _, scene in found],
        [request.caption(row) for row in rows],
        (name, f"target {request.results.target_names[target]}", span, "one scale"),
    )


def _short(text: str, pixels: int) -> str:
    """As many letters as fit over a picture."""
    shown = printable(text, 64)
    face = font(LETTERS)
    while len(shown) > 4 and face.getlength(shown) > pixels:
        shown = shown[:-2].rstrip("…") + "…"
    return shown
