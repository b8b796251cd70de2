"""An unfinished run: a folder with a manifest and immutable parts."""

from __future__ import annotations

import glob
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ..errors import OutputError, Stopped, StorageError
from . import durable
from .deflate import crc32
from .locks import held
from .packing import Packing
from .schema import CHECKSUM, Column, Recorded, Schema

ROW = Column("row", "int64")
HELD = 16 << 20
"""Bytes of short rows that are gathered from several parts before they are written at once."""
COMPACT_HELD = 1 << 17
"""The same while a run goes on: these rows are in order, and what a run holds once it holds for good."""
COMPACT_FROM = 64
"""So many small parts are copied into one: a million samples should not need a hundred thousand files."""

Kind = TypeVar("Kind", bound=Recorded)
FORCED = "forced"


class Parts(Generic[Kind]):
    """The folder ``run.h5.parts``: what of a run is done, and where it is added to.

    A shard adds to a folder of its own in it, ``home``, so that no two processes tidy up after each other.
    """

    def __init__(
        self, folder: Path, schema: Kind, home: Path | None = None, stop: threading.Event | None = None
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.home = home or folder
        self._packing = Packing.parse(schema.compression)
        self.stop = stop or threading.Event()
        """Once it is set, what reads or copies much ends with `Stopped`; nothing of it was published."""

    @staticmethod
    def folder_of(output: Path) -> Path:
        """Where the parts of a results file lie while it is unfinished."""
        return output.with_name(output.name + ".parts")

    @classmethod
    def create(cls, folder: Path, schema: Kind, *, forced: bool = False) -> Parts[Kind]:
        """Write the manifest; from then on the run can be resumed, one that was ``forced`` by force again."""
        _unlink(folder / FORCED)
        for path in _anywhere(folder, "rows-*"):  # of a job whose removal was cut short
            _unlink(path)
        parts = cls(folder, schema)._noted()
        if forced:
            durable.write(folder / FORCED, b"")
        return parts

    def _noted(self) -> Parts[Kind]:
        # By the json module: file names can hold bytes that are not UTF-8, which pydantic does not write.
        manifest = json.dumps(self.schema, default=lambda each: {f.name: getattr(each, f.name) for f in fields(each)})
        durable.write(self.folder / "manifest.json", _checked(manifest.encode()))
        return self

    def split(self, shards: int) -> Parts[Kind]:
        """Say anew into how many shards the run is split; what is done is done."""
        return Parts(self.folder, replace(self.schema, shards=shards), stop=self.stop)._noted()  # type: ignore[type-var]

    def shard(self, index: int) -> Parts[Kind]:
        """The same parts, added to by one shard."""
        home = self.folder / f"shard-{index:04d}"
        with durable.told(home):
            home.mkdir(exist_ok=True)
            durable.sync_folder(self.folder)
        return Parts(self.folder, self.schema, home, self.stop)

    def heed(self) -> None:
        """`Stopped` where `stop` is set."""
        if self.stop.is_set():
            raise Stopped("stopped while parts were read or put together; all are kept, the same command goes on")

    @property
    def forced(self) -> bool:
        """Whether the run began anew although there was something already."""
        return (self.folder / FORCED).exists()

    @classmethod
    def open(cls, folder: Path, kind: type[Kind] = Schema) -> Parts[Kind] | None:  # type: ignore[assignment]
        """The parts in ``folder``, None where there is no manifest yet, `OutputError` where it cannot be read."""
        path = folder / "manifest.json"
        if not path.exists():
            return None
        try:
            with durable.told(path):
                data = path.read_bytes()
            body = data[len(_checked(b"")) - 1 : -1]
            # Of an older version it is the schema alone, which is no other however a bit of this one is flipped.
            given = json.loads(body if data == _checked(body) else data)
            return cls(folder, TypeAdapter(kind).validate_python(given))
        except (ValidationError, ValueError):
            raise OutputError(f"{path} is damaged or of another version; start anew with --force") from None

    @property
    def gone(self) -> bool:
        """Whether another has merged and removed them since they were opened."""
        return not (self.folder / "manifest.json").exists()

    def files(self, among: NDArray[np.bool_] | None = None) -> list[Path]:
        """All parts, those that were compacted last: where two hold a row, the later one counts.

        With ``among``, (N,), those that may hold one of these rows.
        """
        found = sorted(_anywhere(self.folder, "rows-*.h5"), key=lambda path: (path.stem.count("+"), path.name))
        return found if among is None else [path for path in found if among[_span(path)].any()]

    def owners(self, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """For each sample the place in `files` of the part that holds it, -1 where it is still to do.

        A part that is damaged or cannot be read is set aside (``.bad``) and its rows are done again. Reads them all:
        HDF5, which damage can crash or hang, is only given those in which no bit has changed.
        """
        owners = np.full(len(self.schema), -1, np.int64)
        place = 0
        for path in self.intact(self.files(among)):
            try:
                rows = _rows(path)
                if rows.min() < 0 or rows.max() >= len(owners):
                    raise ValueError("rows that the run does not have")
            except StorageError:
                if path.exists():
                    raise
                return self.owners(among)  # another shard has put its parts together
            except Exception:  # HDF5 says of damage whatever comes to it
                _set_aside(path)
                continue
            owners[rows] = place
            place += 1
        return owners

    def intact(self, paths: Sequence[Path]) -> list[Path]:
        """Those of ``paths`` in which no bit has changed; the others are set aside. Reads them all."""
        damaged = [path for path in paths if not durable.intact(path, self.heed)]
        for path in damaged:
            _set_aside(path)
        return [path for path in paths if path not in damaged]

    def commit(self, rows: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add ``rows`` as one part. When this returns they are done, whatever happens next."""
        contents = {ROW.path: rows, **columns, CHECKSUM.path: self.schema.checksums(columns)}
        with h5py.File("part", "w", driver="core", backing_store=False) as file:
            for column in (ROW, *self.schema.columns, CHECKSUM):
                values = contents[column.path]
                if not column.direct:
                    file.create_dataset(column.path, data=values.astype(_stored(column)), dtype=_stored(column))
                    continue
                dataset = create(file, column, len(rows), self._packing)
                self._packing.write(dataset, values.astype(dataset.dtype, copy=False))
            file.flush()
            image = file.id.get_file_image()
        durable.write(self.home / f"{_name(rows)}.h5", durable.sealed(image))

    def compact(self) -> None:
        """Copy the small parts into one, published before they are removed; not where it is to stop."""
        small = sorted(path for path in self.home.glob("rows-*.h5") if "+" not in path.stem)
        if len(small) < COMPACT_FROM:
            return
        with suppress(Stopped):
            if not (small := self.intact(small)):
                return
            rows = np.unique(np.concatenate([_rows(path) for path in small]))
            seal = partial(durable.seal, heed=self.heed)
            with durable.hdf5(self.home / f"{_name(rows)}+{len(rows)}.h5", seal) as file:
                gather(small, rows, (*self.schema.columns, CHECKSUM), file, self._packing, self.heed, COMPACT_HELD)
                create(file, ROW, len(rows), self._packing)[...] = rows
            for path in small:
                _unlink(path)

    def size(self) -> int:
        """Bytes that all parts take."""
        return sum(path.stat().st_size for path in self.files())

    def remove(self) -> None:
        """Away with the folder, once its rows are published elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed run left half written, its output too; of a shard, in its own folder only."""
        output = glob.escape(self.folder.name.removesuffix(".parts"))
        left = list(self.home.glob(".*.tmp"))
        if self.home == self.folder:
            left = [*_anywhere(self.folder, ".*.tmp"), *self.folder.parent.glob(f".{output}.*.tmp")]
        for path in left:
            _unlink(path)


def discard(folder: Path) -> None:
    """Away with parts that nobody needs any more, in whatever state; `Stopped` where a run is at work there."""
    if folder.is_dir():
        with held(folder):
            shutil.rmtree(folder, ignore_errors=True)


def create(file: h5py.File, column: Column, rows: int, packing: Packing) -> h5py.Dataset:
    """An empty dataset for a column."""
    layout = {"chunks": column.chunks(rows), **packing.filters} if rows else {}
    dataset: h5py.Dataset = file.create_dataset(column.path, (rows, *column.shape), _stored(column), **layout)
    return dataset


def _stored(column: Column) -> Any:
    kind = np.dtype(column.dtype)
    return h5py.string_dtype("utf-8", kind.itemsize) if kind.kind == "S" else kind


def gather(
    parts: Sequence[Path],
    rows: NDArray[np.int64],
    columns: Sequence[Column],
    file: h5py.File,
    packing: Packing,
    heed: Callable[[], None] = lambda: None,
    most: int = HELD,
) -> None:
    """Copy ``rows``, which rise, of the parts into ``file``; of two parts with a row the later one counts.

    Chunks of large rows are copied compressed, as they are (25 times faster than unpacking them); of short ones so many
    bytes (``most``) are held at once. ``heed`` is called again and again, and may raise.
    """
    owner = np.full(len(rows), -1)
    for k, path in enumerate(parts):
        heed()
        _, to = _places(_rows(path), rows)
        owner[to] = k
    targets = [create(file, column, len(rows), packing) for column in columns]
    short: list[list[tuple[NDArray[np.int64], NDArray[Any]]]] = [[] for _ in columns]
    held = 0
    for k, path in enumerate(parts):
        with durable.reading(path) as part:
            mine, to = _places(part[ROW.path][:], rows)
            mine, to = mine[owner[to] == k], to[owner[to] == k]
            for column, target, waiting in zip(columns, targets, short, strict=True):
                source = part[column.path]
                if column.direct:
                    for i, j in zip(mine, to, strict=True):
                        heed()
                        _copy_chunks(source, int(i), target, int(j))
                elif len(mine):
                    waiting.append((to, source[:][mine]))
                    held += waiting[-1][1].nbytes
        if held > most or path == parts[-1]:
            for target, waiting in zip(targets, short, strict=True):
                heed()
                _put(target, waiting)
            held = 0


def _places(here: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows of those that are ``here`` are among ``rows``, and where."""
    to = np.searchsorted(rows, here).clip(max=len(rows) - 1)
    mine = np.flatnonzero(rows[to] == here)
    return mine, to[mine]


def _copy_chunks(source: h5py.Dataset, row: int, target: h5py.Dataset, to: int) -> None:
    steps = [range(0, size, step) for size, step in zip(source.shape[1:], source.chunks[1:], strict=True)]
    for offset in np.ndindex(*map(len, steps)):
        inner = tuple(step[i] for step, i in zip(steps, offset, strict=True))
        mask, data = source.id.read_direct_chunk((row, *inner))
        target.id.write_direct_chunk((to, *inner), data, mask)


def _put(target: h5py.Dataset, waiting: list[tuple[NDArray[np.int64], NDArray[Any]]]) -> None:
    """Rows at their places, in one stroke: HDF5 takes longer to be asked than for short rows themselves."""
    if waiting:
        places = np.concatenate([to for to, _ in waiting])
        order = np.argsort(places)
        target[_index(places[order])] = np.concatenate([rows for _, rows in waiting])[order].astype(target.dtype)
        waiting.clear()


def _index(places: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """A slice where the places are in a row, which HDF5 writes far faster than a list."""
    if places[-1] - places[0] == len(places) - 1:
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _checked(body: bytes) -> bytes:
    """The manifest: JSON that carries the crc32 of what it says."""
    return b'{"crc32": "%08x",\n"run": %s}' % (crc32(body), body)


def _name(rows: NDArray[np.int64]) -> str:
    """Of a part, the same for the same rows only."""
    return f"rows-{rows.min():09d}-{rows.max():09d}-{crc32(np.sort(rows).tobytes()):08x}"


def _unlink(path: Path) -> None:
    with durable.told(path):
        path.unlink(missing_ok=True)


def _anywhere(folder: Path, pattern: str) -> list[Path]:
    """In the folder itself and in those of its shards."""
    return [*folder.glob(pattern), *folder.glob(f"shard-*/{pattern}")]


def _span(path: Path) -> slice:
    """From the first to the last row of a part, by its name; all rows where that does not say."""
    found = re.match(r"rows-(\d+)-(\d+)-", path.name)
    return slice(int(found[1]), int(found[2]) + 1) if found else slice(None)


def _set_aside(path: Path) -> None:
    with durable.told(path), suppress(FileNotFoundError):  # another shard was first
        path.rename(path.with_suffix(".bad"))


def _rows(path: Path) -> NDArray[np.int64]:
    with durable.told(path), durable.reading(path) as part:
        rows: NDArray[np.int64] = part[ROW.path][:]
        return rows
