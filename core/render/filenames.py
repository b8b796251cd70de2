"""Names of files and folders, safe on every file system, and the index that says what is where."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .saving import replacing


def slug(text: str, length: int = 80) -> str:
    """ASCII letters, digits and ``+=@,_-`` of ``text``, at most ``length`` bytes; everything else is one ``_``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9+=@,_-]+", "_", plain)[:length].strip("_")


def stem(row: int, sample: str, target: tuple[int, str] | None = None) -> str:
    """The name of a picture without its kind: ``000012-patient_7`` or ``000012-patient_7.t1-class_3``.

    The row number (and the target's) makes it unique, also where upper and lower case are one, and no device name.
    """
    name = f"{row:06d}-{slug(sample)}".rstrip("-")
    return name if target is None else f"{name}.t{target[0]}-{slug(target[1], 40)}".rstrip("-")


def folders(names: Iterable[str]) -> dict[str, str]:
    """A folder for each map name. Two names that would share one get a digest of the name at the end."""
    plain = {name: slug(name) or "map" for name in names}
    shared = Counter(folder.casefold() for folder in plain.values())
    return {
        name: f"{folder}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if shared[folder.casefold()] > 1 else folder
        for name, folder in plain.items()
    }


class Entry(NamedTuple):
    """A line of ``index.csv``. ``file`` is relative to the index, and empty where there is no picture."""

    row: int
    id: str
    status: str
    map: str
    target: str
    file: str


def write_index(out: Path, entries: Sequence[Entry]) -> Path:
    """Bring ``OUT/index.csv`` up to date: lines of other pictures stay as long as their files are there."""
    path, drawn = out / "index.csv", {(e.row, e.map, e.target) for e in entries}
    stay = [e for e in _read(path) if ((out / e.file).is_file() if e.file else (e.row, e.map, e.target) not in drawn)]
    lines = {(e.row, e.map, e.target, e.file): e for e in [*stay, *entries]}
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(Entry._fields)
        table.writerows(sorted(lines.values()))
    return path


def _read(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [Entry(int(line[0]), *line[1:]) for line in csv.reader(file) if len(line) == 6 and line[0].isdecimal()]
