"""Whether every bit of a results file, or of the parts of an unfinished run, is what was written.

The seal is held against the bytes first, without HDF5. What HDF5 makes of the file is found out in a process of its
own, with a limit on its time: a damaged file can crash HDF5, or keep it busy for ever.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import h5py

from ..errors import CamsweepError, OutputError, RequestError, StorageError, first_line, nearest
from . import durable
from .metrics import MetricsSchema
from .parts import ROW, Parts
from .reader import damaged_rows, sealed
from .schema import CHECKSUM, Recorded, Schema

LIMIT = 60.0
"""Seconds that HDF5 is given for any file."""
SLOWEST = 2e6
"""Bytes of a file that it reads in a second, at the least."""
NAMED = 10
"""Damaged rows that are named one by one."""


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    path: Path
    kind: str
    """"results", or "parts" of an unfinished run."""
    faults: list[str]
    """One line each; none where every bit is what was written."""
    rows: int | None
    """Samples in the file, or done so far; None where that cannot be read."""
    size: int
    """Bytes that were read."""
    notes: list[str]
    """What is no fault, but worth a line."""


def verify_all(path: Path, *, limit: float = LIMIT) -> Verdict:
    """Verify a results file or the parts of an unfinished run. `RequestError` where there is neither."""
    if path.is_dir():
        return _parts(path)
    if not path.is_file():
        if Parts.folder_of(path).is_dir():
            raise RequestError(f"{path} is not finished yet; verify {Parts.folder_of(path)}")
        beside = [p.name for p in path.parent.glob("*.h5*")] if path.parent.is_dir() else []
        raise RequestError(f"not found: {path}. {nearest(path.name, beside)}")
    faults = _seal(path)
    size = path.stat().st_size
    count, rows = _rows(path, limit + size / SLOWEST)
    return Verdict(path, "results", faults + rows, count, size, [])


def _seal(path: Path) -> list[str]:
    """What a file's bytes say."""
    try:
        with durable.told(path), durable.Sealed(path) as file:
            found: list[range] = []
            for each in file.damage():
                if found and found[-1].stop == each.start:
                    found[-1] = range(found[-1].start, each.stop)
                else:
                    found.append(each)
            return [f"bytes {each.start} to {each.stop - 1} of {file.size} are not what was written" for each in found]
    except durable.UnsealedError:
        return ["its seal is missing or damaged: it was cut short, written into since, or not made by this version"]


def _rows(path: Path, limit: float) -> tuple[int | None, list[str]]:
    """How many rows HDF5 finds, and what is wrong with them; in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(path, there), daemon=True)
    child.start()
    there.close()
    try:
        if not here.poll(limit):
            return None, [f"HDF5 reads it for more than {limit:.0f} s without an end"]
        count, faults = here.recv()
        return count, faults
    except EOFError:
        child.join()
        return None, [f"HDF5 crashes over it (exit code {child.exitcode})"]
    finally:
        child.kill()
        child.join()
        here.close()


def _child(path: Path, answer: Connection) -> None:
    try:
        with h5py.File(sealed(path), "r", locking=False) as file:
            if "columns" not in file.attrs or CHECKSUM.path not in file:
                answer.send((None, ["it is HDF5, but not a camsweep results file"]))
                return
            count = len(file[CHECKSUM.path])
            rows = damaged_rows(file)
        named = ", ".join(map(str, rows[:NAMED])) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
        answer.send((count, [f"{len(rows)} of {count} rows are damaged: {named}"] if rows else []))
    except CamsweepError:
        answer.send((None, ["what describes its rows is damaged: it cannot be opened"]))
    except Exception as error:
        answer.send((None, [f"HDF5 cannot read it: {first_line(error, 120)}"]))


def _parts(folder: Path) -> Verdict:
    """The manifest and all parts by their seals; those that are damaged are not opened."""
    try:
        kind: type[Recorded] = MetricsSchema if folder.name.endswith(".metrics.h5.parts") else Schema
        parts = Parts.open(folder, kind)
    except (OutputError, StorageError) as error:
        return Verdict(folder, "parts", [str(error)], None, 0, [])
    if parts is None:
        raise RequestError(f"{folder} has no manifest: it is no unfinished run, or one that has only just begun")
    faults, done, size = [], set[int](), 0
    for path in parts.files():
        try:
            size += path.stat().st_size
            if durable.intact(path):
                with durable.reading(path) as part:
                    done.update(part[ROW.path][:].tolist())
            else:
                name = path.relative_to(folder)  # that of a shard is in its folder
                faults.append(f"{name} is damaged; its rows are done again by the next run")
        except (StorageError, OSError) as error:
            if path.exists():  # else a run is at work, which has put it into a larger one
                faults.append(str(error))
    aside = len(list(folder.rglob("*.bad")))
    notes = [f"{aside} parts were found damaged before, and set aside"] if aside else []
    return Verdict(folder, "parts", faults, len(done), size, [f"{len(done)} of {len(parts.schema)} rows done", *notes])
