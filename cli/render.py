"""``camsweep render``: pictures from a results file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import Progress, emit
from .explain import Json, Quiet


def render(
    results: Annotated[Path, typer.Argument(help="A results file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; the results file's name without suffix.")
    ] = None,
    map: Annotated[  # noqa: A002
        list[str] | None, typer.Option("--map", help="Only this map, as `camsweep info` names it. Repeatable.")
    ] = None,
    sample: Annotated[
        list[str] | None, typer.Option("--sample", help="Only the sample with this id. Repeatable.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|INDEX", help="Only this channel of a signal; numbers from 0. Repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    norm: Annotated[
        Literal["sample", "run"], typer.Option(help="A colour scale for each sample, or one for all.")
    ] = "sample",
    frames: Annotated[bool, typer.Option("--frames", help="Clips: each frame as a PNG too.")] = False,
    slices: Annotated[
        bool, typer.Option("--slices", help="Volumes: slices and orthogonal sections as a PNG too.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw again what is there.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw maps. Signals and images are PNG, as are spectra, spectrograms, levels and bars; video and volumes are GIF.
    Pictures that are there are kept.

    Example: camsweep render run.h5 --limit 20
    """
    folder = out or beside(results)
    pictures = draw(
        results, folder, maps=map, samples=sample, channels=channel, limit=limit, norm=norm, frames=frames,
        slices=slices, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip
    lines = [
        f"{pictures['folder']}: {pictures['files']} pictures",
        *(f"no picture of {i}: {why}" for i, why in pictures["skipped"]),
    ]
    emit(pictures, lines, as_json=as_json)


def beside(results: Path) -> Path:
    """Where the pictures of a results file go unless it is said: ``run.h5`` has them in ``run``."""
    return results.with_suffix("") if results.suffix else results.with_name(f"{results.name}-pictures")


def draw(
    results: Path,
    folder: Path,
    *,
    maps: list[str] | None = None,
    samples: list[str] | None = None,
    channels: list[str] | None = None,
    limit: int | None = None,
    norm: Literal["sample", "run"] = "sample",
    frames: bool = False,
    slices: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw into ``folder``, with progress; what was drawn, for ``--json``."""
    from ..core.errors import OutputError, RequestError, nearest
    from ..core.render import render as render_results
    from ..core.results import open_results

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"pictures go into a folder, {folder} is a file; give another --out")
    with open_results(results) as file, Progress("rendering", quiet=quiet) as progress:
        rows = None
        if samples:
            places = {name: row for row, name in enumerate(file.ids)}
            for name in samples:
                if name not in places:
                    raise RequestError(f"no sample {name!r} in {results}. {nearest(name, places)}")
            rows = [places[name] for name in samples]
        named = file.channels or ()
        chosen = [int(c) if c.isdecimal() and c not in named else c for c in channels] if channels else None

        def told(done: int, total: int) -> None:
            if progress.total != total:
                progress.start(0, total)
            progress.advance(done - progress.done)

        drawn = render_results(
            file, folder, maps=maps, rows=rows, channels=chosen, limit=limit, norm=norm, frames=frames, slices=slices,
            overwrite=overwrite, progress=told,
        )  # fmt: skip
    return {"folder": str(folder), "files": len(drawn.files), "skipped": [list(pair) for pair in drawn.skipped]}
