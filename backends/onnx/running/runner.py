"""Batches of any size, sent through a graph in pieces of the size that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..entry import Entry, entered
from ..network import rows_of
from .sessions import Sessions, Values


@dataclass(frozen=True)
class Piece:
    """Rows of a batch that go together, filled up where they are fewer than the graph takes."""

    rows: NDArray[np.int64] | None
    """None for all of them."""
    count: int
    """So many of them are wanted."""

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """These rows."""
        return values if self.rows is None or not values.ndim else values[self.rows]


@dataclass
class Runner:
    """A graph, and how many samples it takes."""

    sessions: Sessions
    entries: Sequence[Entry]
    first: str
    """The input that is explained."""
    chunk: int | None = None
    """The only size of batch that it computes as it should, where there is one."""
    alone: bool = False
    """Whether the samples of a batch change each other's values: each then fills it by itself."""

    def entered(self, inputs: Tensor, extra: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """(batch, channel, *s) and further inputs as the graph takes them."""
        tensors = entered(self.entries, (), {self.first: inputs, **extra}, torch.float32)
        return {name: self.array(name, tensor) for name, tensor in tensors.items()}

    def array(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """A tensor of the element type of a value."""
        return np.ascontiguousarray(tensor.detach().cpu().numpy(), self.sessions.dtype(name))

    def pieces(self, values: Values) -> list[Piece]:
        """How a batch is divided."""
        rows = rows_of({name: torch.empty(each.shape, device="meta") for name, each in values.items()})
        size = self.chunk or rows
        if self.alone:
            return [Piece(np.full(size, row), 1) for row in range(rows)]
        if size == rows:
            return [Piece(None, rows)]
        starts = range(0, rows, size)
        return [Piece(np.arange(at, at + size).clip(max=rows - 1), min(size, rows - at)) for at in starts]

    def __call__(self, given: Sequence[Values], wanted: Sequence[str]) -> list[dict[str, NDArray[Any]]]:
        """What is wanted of each piece."""
        return [self.sessions(values, wanted) for values in given]


def joined(pieces: Sequence[Piece], found: Sequence[Values], name: str) -> NDArray[Any]:
    """A value of all pieces."""
    values = [each[name] for each in found]
    if pieces[0].rows is None or not values[0].ndim:
        return values[0]
    return np.concatenate([each[: piece.count] for piece, each in zip(pieces, values, strict=True)])
