"""The formats that results are handed on in. Common to all: files are whole, and none is written twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ..errors import OutputError, RequestError, nearest
from ..render.saving import replacing
from ..results import Results
from .choice import Choice

ABOUT = "export.json"
"""In each folder that an export made: what the folder is."""
MARK = "camsweep export"
"""The key under which each export says whose it is."""


@dataclass
class Task:
    """One export under way, and what became of it."""

    choice: Choice
    out: Path
    mark: str
    """What `Format.mark` is to find."""
    files: list[Path] = field(default_factory=list)
    """Those that are there now."""
    kept: int = 0
    """How many of them were there already."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why: a line each."""
    progress: Callable[[int, int], None] | None = None
    total: int = 0
    done: int = 0

    def advance(self, steps: int = 1) -> None:
        """So many more of ``total`` are done."""
        self.done += steps
        if self.progress:
            self.progress(self.done, self.total)

    def wanted(self, path: Path) -> bool:
        """Whether ``path`` is to be written; not where it is there, as the same export wrote it."""
        self.files.append(path)
        self.kept += (there := path.exists())
        return not there


@dataclass(frozen=True)
class Format:
    """One format: ``write`` makes ``task.out``, a file or a folder, and is told only where it is not there yet."""

    name: str
    end: str
    """Of the output's name where none is given: ``run.h5`` becomes ``run`` and this."""
    write: Callable[[Task], None]
    mark: Callable[[Path], str | None]
    """The mark of an export that is there, None where it is none of ours."""
    check: Callable[[Choice], object] | None = None
    """`RequestError` where the results do not fit, before anything is written."""
    growing: bool = False
    """Whether more rows and maps may be added to an export that is there."""
    needs: str | None = None
    """A package."""
    extra: str = ""
    """What installs it."""

    @property
    def folder(self) -> bool:
        """Whether it is a folder of files, each whole or not there."""
        return self.mark is folder_mark


FORMATS: dict[str, Format] = {}
"""By name."""


def register(each: Format) -> Format:
    """Add a format."""
    FORMATS[each.name] = each
    return each


def export(
    results: Results,
    to: str,
    out: Path | None = None,
    *,
    maps: Sequence[str] | None = None,
    samples: Sequence[str] | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Write the results, or some ``maps`` and ``samples`` of them, for other tools.

    The same export again writes only what is not there. ``progress`` is told (done, total).

    Raises
    ------
    RequestError
        For unknown names, results that do not fit the format, and a package that is not there; nothing was written.
    OutputError
        Where something else is at ``out``, or an export of other results, unless ``overwrite``.
    StorageError
        Where the disk refuses.
    """
    if to not in FORMATS:
        raise RequestError(f"no format {to!r}. {nearest(to, FORMATS)}")
    which = FORMATS[to]
    if which.needs and find_spec(which.needs) is None:
        raise RequestError(f"--to {to} needs {which.needs}: pip install 'camsweep[{which.extra}]'")
    choice = Choice.of(results, maps, samples, limit)
    if which.check:
        which.check(choice)
    path = out or results.path.with_name(results.path.stem + which.end)
    if path.resolve() == results.path.resolve():
        raise OutputError(f"{path} is the results file itself; give another --out")
    mark = f"{to} {choice.run if which.growing else choice.mark}"
    task = Task(choice, path, mark, progress=progress)
    found = _found(which, path, mark, overwrite=overwrite)
    if which.folder:
        if not found:
            write_text(path / ABOUT, json.dumps({MARK: mark}) + "\n")
        which.write(task)
    elif found:
        task.files, task.kept = [path], 1
    else:
        task.files = [path]
        which.write(task)
    return task


def _found(which: Format, path: Path, mark: str, *, overwrite: bool) -> bool:
    """Whether the same export is at ``path``, whole or in part; one that is to be replaced is taken away."""
    if not path.exists() or (path.is_dir() and which.folder and not any(path.iterdir())):
        return False
    found = which.mark(path)
    if found is None:
        raise OutputError(f"{path} is there, and is no {which.name} export of camsweep; give another --out")
    if found == mark and not overwrite:
        return True
    if not overwrite:
        raise OutputError(
            f"{path} is an export of other results, maps or samples; give another --out, or --overwrite to replace it"
        )
    if path.is_dir():
        shutil.rmtree(path)
    return False


def folder_mark(path: Path) -> str | None:
    """The mark of a folder that an export made."""
    try:
        about = json.loads((path / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return about.get(MARK) if isinstance(about, dict) else None


def write_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path``, whole."""
    with replacing(path) as part:
        part.write_text(text, "utf-8", "surrogateescape")
