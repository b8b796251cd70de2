"""Arrays in a file: NPY and NPZ, memory-mapped, and HDF5."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, SampleError, first_line, nearest
from .readers import Reader, Rows, Stored, numbered, reader, text
from .section import DataSection

SAMPLED_BYTES = 1 << 20
"""Hashed at each end of a data file: a fingerprint must be cheap for a terabyte too."""


@reader("npy", [".npy"])
def open_npy(section: DataSection) -> Reader:
    """One array; labels and ids need NPZ or HDF5."""
    try:
        array = np.load(section.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RequestError(f"data {section.path} cannot be read as NPY: {_reason(error)}") from None
    return _reader(section.model_copy(update={"input": "array"}), {"array": array})


@reader("npz", [".npz"])
def open_npz(section: DataSection) -> Reader:
    """Named arrays; those stored without compression are mapped where they lie in the file."""
    try:
        return _reader(section, _Npz(section.path))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise RequestError(f"data {section.path} cannot be read as NPZ: {_reason(error)}") from None


@reader("hdf5", [".h5", ".hdf5", ".hdf"])
def open_hdf5(section: DataSection) -> Reader:
    """Named datasets, ``group/name`` where they lie in groups; read as they are asked for."""
    try:
        file = h5py.File(section.path, "r", locking=False)
    except OSError as error:
        raise RequestError(f"data {section.path} cannot be read as HDF5: {_reason(error)}") from None
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return _reader(section, {name: file[name] for name in names})


class _Npz(Mapping[str, Any]):
    """The arrays of an NPZ file, opened as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def __iter__(self) -> Any:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        with self.path.open("rb") as file:
            file.seek(info.header_offset + 26)
            lengths = file.read(4)
            start = 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            file.seek(info.header_offset + start)
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = header[version](file)
            if dtype.hasobject:
                raise ValueError("it holds pickled objects, which are refused")
            if file.tell() + math.prod(shape) * dtype.itemsize != info.header_offset + start + info.file_size:
                raise ValueError(f"{name} is truncated: its header says {shape} {dtype}")
            if not math.prod(shape):
                return np.empty(shape, dtype)
            start = file.tell()
        return np.memmap(self.path, dtype, "r", start, shape, "F" if fortran else "C")


def _reader(section: DataSection, arrays: Mapping[str, Any]) -> Reader:
    path = section.path
    name = _input_name(section, arrays)
    stored = arrays[name]
    if stored.dtype.kind not in "fiub":
        raise RequestError(f"{name} in {path} holds {stored.dtype}, expected numbers")
    if stored.ndim < 2:
        raise RequestError(f"{name} in {path} is {stored.shape}, expected samples with at least one axis of their own")
    if not len(stored):
        raise RequestError(f"{name} in {path} holds no samples: its shape is {stored.shape}")
    classes = section.classes
    if isinstance(classes, str):
        classes = [text(value) for value in _array(section, arrays, "classes", classes)]
    settled = None if classes is None else tuple(classes)
    labels = None
    if section.label is not None:
        labels = _array(section, arrays, "label", section.label)
        _same_length(section, "label", len(labels), len(stored))
        labels, settled = numbered(labels, settled)
    if section.id is not None:
        ids: Sequence[str] = [text(value) for value in _array(section, arrays, "id", section.id)]
        _same_length(section, "id", len(ids), len(stored))
    else:
        ids = [f"{row:06d}" for row in range(len(stored))]
    extra = {argument: _array(section, arrays, "extra", each) for argument, each in section.extra.items()}
    for values in extra.values():
        _same_length(section, "extra", len(values), len(stored))
        if values.dtype.kind not in "fiub":
            raise RequestError(f"data.extra holds {values.dtype}, expected numbers")
    fingerprint = _fingerprint(path, name, stored)
    return Reader(ids, partial(_read, stored), fingerprint, labels, settled, None, tuple(stored.shape), name, extra)


def _read(stored: Any, rows: Rows) -> list[Stored]:
    first = int(rows[0])
    try:
        if list(rows) == list(range(first, first + len(rows))):
            return list(stored[first : first + len(rows)])
        return [stored[int(row)] for row in rows]
    except OSError as error:
        if len(rows) == 1:
            return [SampleError(f"cannot be read: {_reason(error)}")]
        return [one for row in rows for one in _read(stored, [row])]


def _input_name(section: DataSection, arrays: Mapping[str, Any]) -> str:
    if section.input is not None:
        if section.input not in arrays:
            raise RequestError(f"no array {section.input!r} in {section.path}. {nearest(section.input, arrays)}")
        return section.input
    if "x" in arrays:
        return "x"
    others = [name for name in arrays if name not in (section.label, section.id, section.classes)]
    if len(others) == 1:
        return others[0]
    raise RequestError(f"{section.path} holds several arrays ({', '.join(others)}); name one with data.input (--input)")


def _array(section: DataSection, arrays: Mapping[str, Any], key: str, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise RequestError(f"data.{key}: no array {name!r} in {section.path}. {nearest(name, arrays)}")
    return np.asarray(arrays[name][...])


def _same_length(section: DataSection, key: str, found: int, expected: int) -> None:
    if found != expected:
        raise RequestError(f"data.{key} has {found} entries, there are {expected} samples in {section.path}")


def _fingerprint(path: Path, name: str, stored: Any) -> str:
    digest = hashlib.sha256(f"{name} {stored.shape} {stored.dtype} {path.stat().st_size}".encode())
    with path.open("rb") as file:
        digest.update(file.read(SAMPLED_BYTES))
        file.seek(max(0, path.stat().st_size - SAMPLED_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def _reason(error: BaseException) -> str:
    return first_line(error, 160) or type(error).__name__
