"""What is handed on of a results file: some of its maps, some of its rows, read a few at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from ..errors import RequestError, nearest
from ..render.filenames import folders, stem
from ..render.request import STATUS
from ..results import MapView, Results

BLOCK_BYTES = 8 << 20
"""So much of a map is in memory at a time, one row at least."""


@dataclass(frozen=True)
class Choice:
    """Maps and rows of a results file; ``named`` where the user named the maps, so that none may be left out."""

    results: Results
    maps: list[MapView]
    rows: NDArray[np.int64]
    named: bool = False

    @classmethod
    def of(
        cls,
        results: Results,
        maps: Sequence[str] | None = None,
        samples: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Choice:
        """Check every name; None is all of them. `RequestError` with the nearest name."""
        rows = np.arange(len(results))
        if samples is not None:
            known = {name: row for row, name in reversed(list(enumerate(results.ids)))}
            for name in samples:
                if name not in known:
                    raise RequestError(f"no sample {name!r} in {results.path}. {nearest(name, known)}")
            rows = np.array([known[name] for name in dict.fromkeys(samples)], np.int64)
        if not len(rows):
            raise RequestError(f"{results.path} has no samples to export")
        names = list(results.maps) if maps is None else list(dict.fromkeys(maps))
        return cls(results, [results.map(name) for name in names], rows[:limit], maps is not None)

    def fitting(self, unfit: Callable[[MapView], str]) -> tuple[list[MapView], list[str]]:
        """The maps that a format takes, and a line for each that it does not; ``unfit`` says why not, "" if it does.

        `RequestError` where none is left, or one that was named is not taken.
        """
        reasons = {view.name: unfit(view) for view in self.maps}
        notes = [f"{name} {reason}" for name, reason in reasons.items() if reason]
        kept = [view for view in self.maps if not reasons[view.name]]
        if notes and (self.named or not kept):
            raise RequestError(f"{self.results.path}: {notes[0]}")
        return kept, [f"{note}; it is left out" for note in notes]

    @cached_property
    def no_inputs(self) -> str:
        """Why the samples themselves cannot be had, "" where they can."""
        try:
            self.results.inputs(self.rows[:1].tolist())
        except RequestError as error:
            return str(error)
        return ""

    @cached_property
    def folders(self) -> dict[str, str]:
        """A name for each map of the file that every file system takes, whichever maps are chosen."""
        return folders(self.results.maps)

    def stem(self, row: int, target: int | None = None) -> str:
        """The name of a row's file; with its target, where the run has several."""
        names = self.results.target_names
        told = None if target is None or len(names) == 1 else (target, names[target])
        return stem(row, self.results.ids[row], told)

    def status(self, row: int) -> str:
        """How the sample fared, in words."""
        return STATUS[self.results.status[row]]

    def read(self, view: MapView) -> Iterator[NDArray[Any]]:
        """The chosen rows of a map in true values, (n, target, [channel,] *s), block by block."""
        for block in blocks(self.rows, 4 * math.prod(view.shape[1:])):
            yield view.read(contiguous(block))

    @cached_property
    def run(self) -> str:
        """A digest of the run whose results these are."""
        results = self.results
        told = json.dumps([results.provenance, results.ids], sort_keys=True, default=str)
        numbers = [each.tobytes() for each in (results.status, results.outputs, results.target_score)]
        return hashlib.sha256(b"".join([told.encode("utf-8", "surrogatepass"), *numbers])).hexdigest()[:16]

    @cached_property
    def mark(self) -> str:
        """A digest of the run and of what is chosen of it."""
        told = json.dumps([self.run, [view.name for view in self.maps]])
        return hashlib.sha256(told.encode("utf-8", "surrogatepass") + self.rows.tobytes()).hexdigest()[:16]


def blocks(rows: NDArray[np.int64], row_bytes: int) -> Iterator[NDArray[np.int64]]:
    """``rows`` in runs of at most `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def contiguous(rows: NDArray[np.int64]) -> Sequence[int] | slice:
    """``rows`` as a slice where they follow one another: one read instead of many."""
    if len(rows) and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return [int(row) for row in rows]


def leading(view: MapView) -> int:
    """How many axes of a map's values come before its places: sample, target, and channel or concept if there is."""
    return 2 + (view.per_channel or view.concepts > 0)


def axes_of(results: Results, view: MapView) -> tuple[Axis, ...]:
    """The axes of a map's places: its own, the input's, or the input's in the steps of a layer's grid.

    A grid of another rank than the input's has axes without name or unit.
    """
    sizes, inputs = view.shape[leading(view) :], results.input_shape[1:]
    if view.axes is not None:
        return view.axes
    if len(sizes) != len(inputs):
        return tuple(Axis(f"axis {k}", "") for k in range(len(sizes)))
    if sizes == inputs:
        return results.axes
    return tuple(axis.resized(old, new) for axis, old, new in zip(results.axes, inputs, sizes, strict=True))


def coordinates(axis: Axis, size: int) -> NDArray[Any]:
    """Where the points of an axis lie, or what they are called."""
    return np.array(axis.labels) if axis.labels else axis.coordinates(size)


def lead_names(results: Results, view: MapView) -> list[str] | None:
    """What the channels or concepts of a map are called; None where it has neither."""
    if leading(view) == 2:
        return None
    names = results.channels if view.per_channel else None
    return list(names or map(str, range(view.shape[2])))


def input_names(results: Results) -> list[str]:
    """What the channels of the input are called; their numbers where they have no names."""
    return list(results.channels or map(str, range(results.input_shape[0])))
