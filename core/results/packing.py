"""How values are compressed. Whatever is chosen, any HDF5 library opens it by itself."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

SAVING = 0.15
"""Of its size: what gzip must save of a row, or its batch is stored as it is."""
WORDS = 256
_WEIGHTS = np.stack([np.ones(WORDS), np.arange(WORDS, 0, -1)], 1)
SHUFFLED_AND_DEFLATED = 0b011
"""Filters that a chunk went past, by their place in the pipeline: shuffle, gzip, fletcher32."""


@dataclass(frozen=True)
class Packing:
    """``auto`` (gzip:1, but for rows that it hardly shrinks), ``none``, ``gzip:1`` .. ``gzip:9``, ``lzf``.

    fletcher32 notices a flipped bit in any of them.
    """

    method: str
    level: int | None
    chosen: bool
    """Whether each batch may be stored as it is."""

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
        """All rows of a dataset that has a chunk, or several, for each."""
        if not (
            self.chosen and dataset.chunks == (1, *dataset.shape[1:]) and _hardly_shrinks(values[len(values) // 2])
        ):
            dataset[...] = values
            return
        origin = (0,) * (values.ndim - 1)
        for row, each in enumerate(values):
            data = each.tobytes()
            dataset.id.write_direct_chunk((row, *origin), data + fletcher32(data), SHUFFLED_AND_DEFLATED)


def _hardly_shrinks(row: NDArray[Any]) -> bool:
    data = row.tobytes()
    shuffled = np.frombuffer(data, np.uint8).reshape(-1, row.itemsize).T.tobytes()
    return len(zlib.compress(shuffled, 1)) > (1 - SAVING) * len(data)


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
