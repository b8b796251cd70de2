"""Render a results file: every chosen sample, map and target becomes its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from . import bars, clip, image, signal, spectrum
from .filenames import Entry, folders, stem, write_index
from .request import Request
from .saving import mark_of, save_gif, save_png
from .scene import Scene

if TYPE_CHECKING:
    from ..results import Results

Drawing = Callable[[Scene], Iterator[Image.Image]]


@dataclass(frozen=True)
class Rendered:
    """The pictures asked for, new and already there, and what has none: (sample, reason)."""

    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def render(
    results: Results,
    out: Path,
    *,
    maps: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    limit: int | None = None,
    targets: Sequence[str] | None = None,
    channels: Sequence[str | int] | None = None,
    norm: Literal["sample", "run"] = "sample",
    frames: bool = False,
    slices: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Draw ``OUT/<map>/<row>-<id>[.t<k>-<target>]<kind>`` for every choice, and list them in ``OUT/index.csv``.

    ``norm``: a colour scale for each picture, or one of each map for all ``rows``. ``frames``: a clip's frames as PNG
    too. ``slices``: a montage and three planes too, which volumes always get. A picture that is there and shows the
    same is kept, unless ``overwrite``. ``progress`` is told (done, total) samples.

    Raises RequestError for unknown names and rows before anything is written, and where the inputs are gone;
    StorageError where the disk refuses.
    """
    request = Request.of(results, maps, targets, channels)
    selected = request.rows(rows)[:limit]
    shared = [row for row in selected if norm == "run" and request.drawable(row)]
    common = {name: request.common_scale(name, shared) for name in request.maps if shared}
    folder, several = folders(results.maps), len(results.target_names) > 1
    files, skipped, entries = list[Path](), dict[tuple[str, str], None](), list[Entry]()
    try:
        for done, row in enumerate(selected, 1):
            for name, target, scene in request.scenes(row, common):
                line = Entry(row, results.ids[row], request.status(row), name, results.target_names[target], "")
                if isinstance(scene, str):
                    skipped[line.id, scene] = None
                    entries.append(line)
                    continue
                base = out / folder[name] / stem(row, line.id, (target, line.target) if several else None)
                for drawing, paths in _drawings(scene, base, frames=frames, slices=slices):
                    if overwrite or any(mark_of(path) != scene.mark for path in paths):
                        _write(drawing(scene), paths, scene)
                    files.extend(paths)
                    entries.extend(line._replace(file=path.relative_to(out).as_posix()) for path in paths)
            if progress:
                progress(done, len(selected))
    finally:
        if entries:
            write_index(out, entries)
    return Rendered(files, list(skipped))


def _drawings(scene: Scene, base: Path, *, frames: bool, slices: bool) -> Iterator[tuple[Drawing, list[Path]]]:
    """How a scene is drawn, and the files that come of it."""

    def files(*ends: str) -> list[Path]:
        return [base.parent / (base.name + end) for end in ends]

    if scene.layout:
        own = {"lines": spectrum.lines, "image": spectrum.images, "bars": bars.rows}
        yield own[scene.layout], files(".png")
        return
    match scene.axes:
        case [_]:
            yield signal.panels, files(".png")
        case [_, _]:
            yield image.overlay_and_map, files(".overlay.png", ".map.png")
        case [first, *_]:
            yield clip.frames, files(".gif")
            if slices or first.name != "time":
                yield clip.montage, files(".slices.png")
                yield clip.planes, files(".planes.png")
            if frames:
                yield clip.frames, files(*(f".frames/{k:04d}.png" for k in range(scene.input.shape[1])))


def _write(pictures: Iterable[Image.Image], files: Sequence[Path], scene: Scene) -> None:
    if files[0].suffix == ".gif":
        save_gif(pictures, clip.durations(scene.axes[0], scene.input.shape[1]), files[0], scene.mark)
        return
    for picture, file in zip(pictures, files, strict=True):
        save_png(picture, file, scene.mark)
