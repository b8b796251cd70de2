"""Assembling the page: one HTML file, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..render.colour import diverging, sequential
from ..render.saving import replacing
from . import about
from .gallery import Gallery
from .pictures import Picture
from .samples import Samples
from .selection import spread

if TYPE_CHECKING:
    from ..results import Results

HERE = Path(__file__).parent
MARK = "<!doctype html>\n<!-- camsweep report -->\n"
"""How every report begins. Another file is not written over."""


@dataclass(frozen=True)
class Report:
    """What was written: samples in all and on the page, pictures, samples whose status is not ok, bytes."""

    path: Path
    samples: int
    shown: int
    pictures: int
    troubled: int
    size: int


def report(
    files: Sequence[Results],
    out: Path,
    *,
    title: str | None = None,
    limit: int = 1000,
    maps: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Write a page about one results file, or about several of the same samples, told by their ids.

    ``limit``: samples with pictures; of more they are chosen by `spread` over class, outcome and status, and counts and
    histograms are of all. ``progress`` is told (done, total) samples.

    Raises RequestError for unknown names and files that share no sample, OutputError where ``out`` is something else
    than a report (``overwrite`` allows it, but for the results themselves), StorageError where the disk refuses.
    """
    if any(out.resolve() == file.path.resolve() for file in files):
        raise OutputError(f"{out} is the results file itself; give another --out")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; give a file as --out")
    if out.exists() and not overwrite and not _is_report(out):
        raise OutputError(f"{out} is there and is no report; give another --out, or --overwrite")
    samples = Samples.of(files, maps, methods, targets)
    shown = spread(samples.groups, limit)
    gallery = Gallery(samples, shown)
    pages = _templates()
    card = pages.get_template("card.html.j2")
    pictures, tile = 0, (1, 1)
    with replacing(out) as part, _spool(out.parent) as spool:
        for done, each in enumerate(gallery.cards(), 1):  # aside: what comes before them is known after them
            spool.write(card.render(card=each, columns=samples.columns))
            drawn = [figure.picture for figure in each.figures if figure.picture]
            pictures += len(drawn)
            tile = max([tile[0], *(p.width for p in drawn)]), max([tile[1], *(p.height for p in drawn)])
            if progress:
                progress(done, len(shown))
        spool.seek(0)
        troubled, count = about.troubles(samples, shown)
        means = gallery.means()
        pictures += sum(len(group.figures) for group in means)
        script = (HERE / "gallery.js").read_text("utf-8")
        text = pages.get_template("report.html.j2").generate(
            title=title or " · ".join(source.name or source.results.path.stem for source in samples.sources),
            files=[about.file(source) for source in samples.sources],
            samples=samples,
            tile=tile,
            shown=len(shown),
            troubles=troubled,
            troubled=count,
            maps=about.maps(samples),
            metrics=about.metrics(samples),
            means=means,
            cards=iter(lambda: spool.read(1 << 16), ""),
            filters=about.options(samples, shown),
            data=_data(samples, shown),
            scales={"diverging": _bar(diverging()), "sequential": _bar(sequential())},
            style=(HERE / "style.css").read_text("utf-8"),
            script=script,
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        with part.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="") as page:
            page.write(MARK)
            page.writelines(text)
    return Report(out, len(samples), len(shown), pictures, count, out.stat().st_size)


def _spool(folder: Path) -> IO[str]:
    """A file without a name, on the disk the page goes to."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="xmlcharrefreplace", newline="", dir=folder)


def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    def breakable(text: str) -> Markup:
        """A long name that may be broken after its signs."""
        return Markup(re.sub(r"(?<=[:@,=/·])(?=.)|(?<=\w)(?=\+\w)", "<wbr>", escape(text)))  # noqa: S704  (it is escaped)

    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["breakable"] = breakable
    return pages


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _bar(table: NDArray[np.uint8]) -> Picture:
    """A colour map as a picture, from its first colour to its last."""
    return Picture.of(table[None].repeat(8, 0), drawn=True)


def _data(samples: Samples, shown: NDArray[np.int64]) -> dict[str, Any]:
    """What the script filters and sorts by: for each sample on the page a number for each key."""
    first = samples.first
    keys = {"score": first.score(), "margin": first.margin()}
    columns = []
    for column, largest in zip(samples.columns, about.strongest(samples), strict=True):
        source = samples.sources[column.source]
        metrics = source.metrics.get(column.map, {})
        numbers = {"largest": largest} | {
            f"metric {name}": values[source.rows, column.target] for name, values in metrics.items()
        }
        columns.append(
            {"file": column.file, "method": column.method, "layer": column.layer, "goal": column.goal}
            | {"keys": {name: _numbers(values[shown]) for name, values in numbers.items()}}
        )
    return {
        "label": first.labels[shown].tolist(),
        "predicted": first.predicted[shown].tolist(),
        "outcome": samples.outcome[shown].tolist(),
        "status": samples.status[shown].tolist(),
        "keys": {name: _numbers(values[shown]) for name, values in keys.items() if values is not None},
        "columns": columns,
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers for JSON, which has none that are not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]
