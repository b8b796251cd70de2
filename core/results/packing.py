"""How values are compressed. Whatever is chosen, any HDF5 library opens it by itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .deflate import compress

SAVING = 0.15
"""Of its size: what gzip must save of a chunk, or it is stored as it is."""
WORDS = 256
_WEIGHTS = np.stack([np.ones(WORDS), np.arange(WORDS, 0, -1)], 1)
SHUFFLED_AND_DEFLATED = 0b011
"""Filters that a chunk went past, by their place in the pipeline: shuffle, gzip, fletcher32."""


@dataclass(frozen=True)
class Packing:
    """``auto`` (gzip:1, but for chunks that it hardly shrinks), ``none``, ``gzip:1`` .. ``gzip:9``, ``lzf``.

    fletcher32 notices a flipped bit in any of them.
    """

    method: str
    level: int | None
    chosen: bool
    """Whether each chunk may be stored as it is, and ISA-L deflates the others: ten times as fast as zlib."""

    @classmethod
    def parse(cls, text: str) -> Packing:
        """As it is written in a job."""
        if text == "auto":
            return cls("gzip", 1, chosen=True)
        method, _, level = text.partition(":")
        return cls(method, int(level) if level else None, chosen=False)

    @property
    def filters(self) -> dict[str, Any]:
        """For ``h5py.Group.create_dataset``."""
        if self.method == "none":
            return {"fletcher32": True}
        level = {} if self.level is None else {"compression_opts": self.level}
        return {"compression": self.method, **level, "shuffle": True, "fletcher32": True}

    def write(self, dataset: h5py.Dataset, values: NDArray[Any]) -> None:
        """All of a dataset's values."""
        if not self.chosen:
            dataset[...] = values
            return
        for origin in product(*(range(0, size, step) for size, step in zip(values.shape, dataset.chunks, strict=True))):
            chunk = values[tuple(slice(at, at + step) for at, step in zip(origin, dataset.chunks, strict=True))]
            beyond = [(0, step - size) for step, size in zip(dataset.chunks, chunk.shape, strict=True)]
            dataset.id.write_direct_chunk(origin, *_packed(np.pad(chunk, beyond) if np.any(beyond) else chunk))


def _packed(chunk: NDArray[Any]) -> tuple[bytes, int]:
    """As it stands in the file, and the filters that it went past."""
    data, past = chunk.tobytes(), SHUFFLED_AND_DEFLATED
    small = compress(np.frombuffer(data, np.uint8).reshape(-1, chunk.itemsize).T.tobytes(), 1)
    if len(small) <= (1 - SAVING) * len(data):
        data, past = small, 0
    return data + fletcher32(data), past


def fletcher32(data: bytes) -> bytes:
    """HDF5's checksum of a chunk, as it stands behind it: of 16-bit words w_1 .. w_n, high byte first, each mod 65535,

    a = sum of w_i,  b = sum of (n + 1 - i) w_i,  (b << 16) | a, low byte first. 0 is written 65535 unless all are 0.
    """
    count = -(-len(data) // 2)
    words = np.frombuffer(data.ljust(2 * WORDS * -(-count // WORDS), b"\0"), ">u2").reshape(-1, WORDS)
    if not words.any():
        return bytes(4)
    # In blocks, whose sums are exact in float64: BLAS takes them at once.
    sums, inner = (words.astype(np.float64) @ _WEIGHTS).astype(np.int64).T
    behind = count - WORDS * np.arange(1, len(words) + 1)
    a, b = int(sums.sum()) % 65535 or 65535, int((inner + behind * sums).sum()) % 65535 or 65535
    return ((b << 16) | a).to_bytes(4, "little")
