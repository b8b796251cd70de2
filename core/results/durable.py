"""Files that are whole or not there: written beside, fsynced, renamed, their folder fsynced.

HDF5 writing straight to a disk that fills up takes the process down with it, so no HDF5 file here is opened by name for
writing: small ones are built in memory, large ones go through `SafeFile`.
"""

from __future__ import annotations

import errno
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

from ..errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
SEAL_BYTES = 4


def write(path: Path, data: bytes | memoryview) -> None:
    """Put ``data`` at ``path``, durably; `StorageError` where that fails, with nothing left behind."""
    with beside(path) as temporary, told(path), temporary.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:  # a raw write may take a part only, and says so by its count alone
            view = view[file.write(view) :]
        os.fsync(file.fileno())


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to ``path`` when the block ends well, removed when it does not."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        yield temporary
        with told(path):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn an OSError into a `StorageError` of one line."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # HDF5 itself, not the disk
            raise
        full = error.errno in FULL
        what = "no space left" if full else os.strerror(error.errno).lower()
        do = "free some space" if full else "see to it"
        raise StorageError(f"{path}: {what}; {do}, then run the same command again: finished rows are kept") from error


class SafeFile(io.RawIOBase):
    """A file for h5py that never fails in HDF5's hands: it keeps the first error, and raises it on `sync`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file: IO[bytes] = path.open("w+b", buffering=0)
        self._error: OSError | None = None
        self._position = self._size = 0

    def readinto(self, buffer: Any) -> int:
        """As of `io.RawIOBase`."""
        self._file.seek(self._position)
        count = self._file.readinto(buffer) or 0  # type: ignore[attr-defined]
        self._position += count
        if self._error is not None and count < len(buffer):
            buffer[count:] = bytes(len(buffer) - count)
            return len(buffer)
        return int(count)

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        view = memoryview(data).cast("B")
        size = len(view)
        if self._error is None:
            try:
                self._file.seek(self._position)
                rest = view
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        self._position += size
        self._size = max(self._size, self._position)
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of `io.IOBase`."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """As of `io.IOBase`."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Truncate, or pretend to."""
        self._size = self._position if size is None else size
        if self._error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self._error = error
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""

    def check(self) -> None:
        """Raise the first error that any call met."""
        if self._error is not None:
            raise self._error

    def sync(self) -> None:
        """fsync, after `check`."""
        self.check()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """As of `io.IOBase`."""
        self._file.close()
        super().close()


@contextmanager
def hdf5(path: Path, check: Callable[[Path], None] | None = None) -> Iterator[h5py.File]:
    """An HDF5 file to be written, published at ``path`` when the block ends well and ``check`` raises nothing."""
    with beside(path) as temporary, told(path):
        safe = SafeFile(temporary)
        try:
            try:
                with h5py.File(safe, "w") as file:
                    yield file
            except Exception:
                safe.check()  # whatever HDF5 made of it, the disk was first
                raise
            safe.sync()
        finally:
            safe.close()
        if check is not None:
            check(temporary)


def sealed(data: bytes) -> bytes:
    """``data`` with its crc32 behind it. HDF5 does not look past its own end, and does not notice most flipped bits."""
    return data + zlib.crc32(data).to_bytes(SEAL_BYTES, "little")


def seal(path: Path) -> None:
    """Put a file's crc32 behind it, durably."""
    with path.open("r+b", buffering=0) as file:
        crc = _crc(file, path.stat().st_size)
        file.write(crc.to_bytes(SEAL_BYTES, "little"))
        os.fsync(file.fileno())


def intact(path: Path) -> bool:
    """Whether a sealed file is, to the bit, what was written."""
    with told(path), path.open("rb", buffering=0) as file:
        size = path.stat().st_size - SEAL_BYTES
        return size >= 0 and _crc(file, size) == int.from_bytes(file.read(SEAL_BYTES), "little")


def _crc(file: IO[bytes], size: int) -> int:
    crc = 0
    while size and (block := file.read(min(size, 1 << 20))):
        crc, size = zlib.crc32(block, crc), size - len(block)
    return crc


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to be read. Finished files never change, so no lock is taken: viewers and runs do not meet."""
    with h5py.File(path, "r", locking=False) as file:
        yield file
