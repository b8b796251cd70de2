"""Render a results file: every chosen sample, map and target becomes its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from . import bars, clip, concepts, contact, image, signal, spectrum
from .filenames import Entry, folders, slug, stem, write_index
from .look import PLAIN, Look
from .norm import OWN, Norm
from .request import Request
from .saving import mark_of, replacing, save_gif, save_png, save_video
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
    norm: Norm = OWN,
    look: Look = PLAIN,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Draw ``OUT/<map>/<row>-<id>[.t<k>-<target>]<kind>`` for every choice, and list them in ``OUT/index.csv``.

    ``norm``: which pictures share a scale of colours. ``look``: which pictures, and how they are drawn. A picture that
    is there and shows the same is kept, unless ``overwrite``. ``progress`` is told (done, total) samples.

    Raises RequestError for unknown names and rows before anything is written, and where the inputs are gone;
    StorageError where the disk refuses.
    """
    request = Request.of(results, maps, targets, channels, norm, look)
    if look.format != "png":
        from . import figure  # matplotlib is loaded where something is drawn, not for pictures that are there

        figure.check_style(look.style)
    selected = request.rows(rows)[:limit]
    if look.sheet:
        return _sheets(request, selected, out, overwrite=overwrite, progress=progress)
    common = request.common(selected)
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
                for drawing, paths in _drawings(scene, base):
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


def _sheets(
    request: Request, rows: Sequence[int], out: Path, *, overwrite: bool, progress: Callable[[int, int], None] | None
) -> Rendered:
    """``OUT/<map>/sheet-001[.t<k>-<target>].png`` and so on; no index: each picture says whose it is."""
    request = replace(request, norm=replace(request.norm, group="run"))
    folder, several = folders(request.results.maps), len(request.results.target_names) > 1
    files, done = list[Path](), dict[tuple[str, int], int]()
    total = len(request.maps) * len(request.targets)
    for name, target, page in contact.pages(request, rows, request.common(rows)):
        number = done[name, target] = done.get((name, target), 0) + 1
        of_target = f".t{target}-{slug(request.results.target_names[target], 40)}" if several else ""
        path = out / folder[name] / f"sheet-{number:03d}{of_target}.png"
        if overwrite or mark_of(path) != page.mark:
            save_png(page.drawn(), path, page.mark)
        files.append(path)
        if progress:
            progress(len(done), total)
    skipped = [(request.results.ids[row], request.status(row)) for row in rows if not request.drawable(row)]
    return Rendered(files, skipped)


def _drawings(scene: Scene, base: Path) -> Iterator[tuple[Drawing, list[Path]]]:
    """How a scene is drawn, and the files that come of it."""
    look = scene.look

    def files(*ends: str) -> list[Path]:
        return [base.parent / (base.name + end) for end in ends]

    if look.format != "png":
        yield _undrawn, files(f".{look.format}")
        return
    if scene.layout:
        own = {
            "lines": spectrum.lines,
            "image": spectrum.images,
            "bars": bars.rows,
            "concepts": concepts.sheets,
        }
        yield own[scene.layout], files(".png")
        return
    match scene.axes:
        case [_]:
            yield signal.panels, files(".png")
        case [_, _]:
            yield image.pictures, files(*(f".{kind}.png" for kind in look.kinds))
        case [first, *_]:
            yield clip.frames, files(".mp4" if look.video else ".gif")
            if look.slices or first.name != "time":
                yield clip.montage, files(".slices.png")
                yield clip.planes, files(".planes.png")
            if look.projection:
                yield clip.projections, files(".projection.png")
            if look.frames:
                points = scene.input.shape[1 + look.along]
                yield clip.frames, files(*(f".frames/{k:04d}.png" for k in range(points)))


def _undrawn(_: Scene) -> Iterator[Image.Image]:
    """A figure is drawn as it is written."""
    return iter(())


def _write(pictures: Iterable[Image.Image], files: Sequence[Path], scene: Scene) -> None:
    (first, *_), along = files, scene.look.along
    if first.suffix in (".svg", ".pdf"):
        from . import figure

        with replacing(first) as part:
            figure.save(scene, part, scene.look.format, scene.mark)
        return
    if first.suffix in (".gif", ".mp4"):
        shown = clip.durations(scene.axes[along], scene.input.shape[1 + along])
        if first.suffix == ".gif":
            save_gif(pictures, shown, first, scene.mark)
        else:
            save_video(pictures, sum(shown) / len(shown) / 1000, first, scene.mark)
        return
    for picture, file in zip(pictures, files, strict=True):
        save_png(picture, file, scene.mark)
