"""Files that are whole or not there: written beside, fsynced, renamed, their folder fsynced.

HDF5 writing straight to a disk that fills up takes the process down with it, so no HDF5 file here is opened by name for
writing: small ones are built in memory, large ones go through `SafeFile`.
"""

from __future__ import annotations

import errno
import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from ..errors import StorageError
from .deflate import crc32

FULL = (errno.ENOSPC, errno.EDQUOT)
CACHED = 1 << 16
"""Bytes of unfinished chunks that HDF5 holds for each dataset (a megabyte if it is not told): rows come in order."""
BLOCK = 1 << 14
"""Bytes with a crc32 of their own in a file's seal."""
SEAL = struct.Struct("<QI8s")
WORD = b"camseal1"
SYNCED = 64 << 20
"""Bytes after which a large file goes to the disk while it is written: at its end nobody should wait long for it."""


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
        with suppress(OSError):  # it is gone, or the next run clears it away
            temporary.unlink()


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
        self._position = self._size = self._unsynced = 0

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
                self._unsynced += size
                if self._unsynced >= SYNCED:
                    os.fdatasync(self._file.fileno())
                    self._unsynced = 0
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
                with h5py.File(safe, "w", rdcc_nbytes=CACHED) as file:
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
    """``data`` with a seal behind it. HDF5 does not look past its own end, and does not notice most flipped bits."""
    view = memoryview(data)
    return data + _seal(view[start : start + BLOCK] for start in range(0, len(view), BLOCK))


def seal(path: Path, heed: Callable[[], None] = lambda: None) -> None:
    """Put a file's seal behind it, durably. ``heed`` is called again and again, and may raise."""

    def blocks() -> Iterator[memoryview]:
        while data := file.read(16 * BLOCK):
            heed()
            view = memoryview(data)
            for start in range(0, len(view), BLOCK):
                yield view[start : start + BLOCK]

    with path.open("r+b", buffering=0) as file:
        file.write(_seal(blocks()))  # which leaves the file at its end
        os.fsync(file.fileno())


def _seal(blocks: Iterable[bytes | memoryview]) -> bytes:
    """The crc32 of each block; the size of them all, the crc32 of all that, and a word to know it by."""
    size, sums = 0, bytearray()
    for block in blocks:
        size += len(block)
        sums += crc32(block).to_bytes(4, "little")
    return bytes(sums) + SEAL.pack(size, crc32(sums + size.to_bytes(8, "little")), WORD)


def intact(path: Path, heed: Callable[[], None] = lambda: None) -> bool:
    """Whether a file is sealed and, to the bit, what was written. ``heed`` is called again and again, and may raise."""
    try:
        with told(path), Sealed(path) as file:
            return not any(True for _ in file.damage(heed))
    except UnsealedError:
        return False


class UnsealedError(Exception):
    """A file has no seal, or one that is not whole."""


class Sealed(io.RawIOBase):
    """A sealed file, to be read by h5py: no byte is handed on that is not what was written.

    HDF5 crashes, hangs or goes on with wrong numbers where its own tables are damaged. Here a block is held against its
    crc32 before the first byte of it is read, and `StorageError` says what is wrong.
    """

    def __init__(self, path: Path) -> None:
        """`UnsealedError` where there is no seal that is whole."""
        super().__init__()
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._position = 0
        try:
            end = self._file.seek(0, os.SEEK_END)
            self.size, crc, word = SEAL.unpack(self._take(max(0, end - SEAL.size), SEAL.size).rjust(SEAL.size, b"\0"))
            count = -(-self.size // BLOCK)
            if word != WORD or self.size + 4 * count + SEAL.size != end:
                raise UnsealedError
            sums = self._take(self.size, 4 * count)
            if crc32(sums + self.size.to_bytes(8, "little")) != crc:
                raise UnsealedError
        except BaseException:
            self.close()
            raise
        self._sums = np.frombuffer(sums, "<u4")
        self._good = bytearray(count)

    def damage(self, heed: Callable[[], None] = lambda: None) -> Iterator[range]:
        """The bytes, in blocks, that are not what was written; reads all of them."""
        for first in range(0, len(self._sums), 64):
            heed()
            for block in self._damaged(first, min(first + 64, len(self._sums))):
                yield range(block * BLOCK, min((block + 1) * BLOCK, self.size))

    def _damaged(self, first: int, last: int) -> Iterator[int]:
        """Those of the blocks ``first`` to ``last - 1`` that do not agree with their crc32."""
        if all(self._good[first:last]):
            return
        data = memoryview(self._take(first * BLOCK, min(last * BLOCK, self.size) - first * BLOCK))
        for block in range(first, last):
            start = (block - first) * BLOCK
            if crc32(data[start : start + BLOCK]) == self._sums[block]:
                self._good[block] = 1
            else:
                yield block

    def _take(self, start: int, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := os.pread(self._file.fileno(), size - len(data), start + len(data))):
            data += more
        return data

    def readinto(self, buffer: Any) -> int:
        """As of `io.RawIOBase`."""
        end = min(self._position + len(buffer), self.size)
        with told(self.path):
            damaged = next(self._damaged(self._position // BLOCK, -(-end // BLOCK)), None)
        if damaged is not None:
            raise StorageError(
                f"{self.path}: damaged at byte {damaged * BLOCK} or behind; `camsweep verify {self.path}` says more"
            )
        data = self._take(self._position, max(0, end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readable(self) -> bool:
        """As of `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """As of `io.IOBase`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of `io.IOBase`."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        """As of `io.IOBase`."""
        return self._position

    def close(self) -> None:
        """As of `io.IOBase`."""
        self._file.close()
        super().close()


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to be read. Finished files never change, so no lock is taken: viewers and runs do not meet."""
    with h5py.File(path, "r", locking=False) as file:
        yield file
