"""A dataset: stored samples, brought to (channel, *spatial) and through the transforms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, SampleError
from . import arrays, folder  # noqa: F401  (importing a room registers its readers)
from .axes import Axis, axes_of
from .layout import Layout
from .readers import Reader, open_reader
from .section import DataSection
from .transforms import Floats, Geometry, Transform, parse_transforms

PROBED = 100
"""So many samples may be unreadable before the data as a whole are."""


@dataclass(frozen=True)
class Batch:
    """What became of the samples asked for: the good ones, and for the others why not, by row."""

    rows: NDArray[np.int64]
    values: Floats
    """(len(rows), channel, *s), ready for the model."""
    failed: dict[int, str] = field(default_factory=dict)
    nonfinite: dict[int, str] = field(default_factory=dict)


class Dataset:
    """Samples by row.

    Attributes
    ----------
    ids, labels, classes, channels
        Names and class numbers; labels are -1 where unknown, or None where there are none at all.
    shape
        (channel, *s) of a sample as the model gets it.
    axes
        One `Axis` for each spatial axis, as the transforms leave it.
    fingerprint
        Of the data's contents, from its size and a part of its bytes.
    """

    def __init__(self, section: DataSection, reader: Reader, layout: Layout, transforms: Sequence[Transform]) -> None:
        self._reader, self._layout, self._transforms = reader, layout, transforms
        count = min(len(reader.ids), section.limit or len(reader.ids))
        self.ids = reader.ids[:count]
        self.labels = None if reader.labels is None else reader.labels[:count]
        self.classes = reader.classes
        self.fingerprint = reader.fingerprint
        self._stored_axes = axes_of(layout.spatial, rate=section.rate, fps=section.fps, spacing=section.spacing)
        first, (stored, *sizes) = self._probe()
        self.shape: tuple[int, ...] = first.shape[1:]
        self.axes: tuple[Axis, ...] = self._geometry(tuple(sizes)).axes
        self.channels = None if section.channels is None else self._renamed(tuple(section.channels), stored)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The samples ``rows``, in their order, as the model gets them.

        One that cannot be read, or ends in another shape, is in ``failed``; one with NaN or infinity in ``nonfinite``.
        """
        good, failed = self._collect([int(row) for row in rows], geometric_only=False)
        nonfinite = {}
        for row in list(good):
            bad = good[row].size - int(np.isfinite(good[row]).sum())
            if bad:
                nonfinite[row] = f"input has {bad} NaN or infinite values"
                del good[row]
        kept = np.array([row for row in rows if int(row) in good], np.int64)
        values = np.stack([good[row] for row in kept]) if len(kept) else np.empty((0, *self.shape), np.float32)
        return Batch(kept, values, failed, nonfinite)

    def display(self, rows: Sequence[int] | NDArray[np.int64]) -> Floats:
        """The samples as a person knows them, (n, channel, *s): stored values, moved by the geometric transforms only.

        NaN where a sample cannot be read.
        """
        good, _ = self._collect([int(row) for row in rows], geometric_only=True)
        result = np.full((len(rows), *self.shape), np.nan, np.float32)
        for place, row in enumerate(rows):
            if int(row) in good:
                result[place] = good[int(row)]
        return result

    def _collect(self, rows: Sequence[int], *, geometric_only: bool) -> tuple[dict[int, Floats], dict[int, str]]:
        """Samples by row, transformed together where their stored shapes and types agree, and failures by row."""
        failed: dict[int, str] = {}
        alike: dict[tuple[Any, ...], list[tuple[int, NDArray[Any]]]] = defaultdict(list)
        for row, stored in zip(rows, self._reader.read(rows) if rows else [], strict=True):
            if isinstance(stored, SampleError):
                failed[row] = str(stored)
            else:
                alike[(stored.shape, stored.dtype)].append((row, stored))
        good: dict[int, Floats] = {}
        for group in alike.values():
            try:
                values, _ = self._transform(np.stack([stored for _, stored in group]), geometric_only=geometric_only)
            except RequestError as error:
                if not hasattr(self, "shape"):
                    raise
                failed.update({row: str(error) for row, _ in group})
                continue
            expected = getattr(self, "shape", values.shape[1:])
            if values.shape[1:] != expected:
                fix = f"add the transform {{ resize = {list(expected[1:])} }}"
                if values.shape[1] != expected[0]:
                    fix = f'set mode = "{"gray" if expected[0] == 1 else "rgb"}"'
                failed.update({row: f"shape {values.shape[1:]}, expected {expected}; {fix}" for row, _ in group})
                continue
            good.update({row: one for (row, _), one in zip(group, values, strict=True)})
        return good, failed

    def _transform(self, stored: NDArray[Any], *, geometric_only: bool) -> tuple[Floats, tuple[int, ...]]:
        """A stack of stored samples as (n, channel, *s), and its (channel, *s) before the transforms."""
        canonical = self._layout.canonical(stored)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and reported as such
            values: Floats = canonical.astype(np.float32)
        geometry = Geometry(self._stored_axes, canonical.shape[2:])
        for step in self._transforms:
            if step.geometric or not geometric_only:
                values = step.apply(values, geometry)
                geometry = step.moved(geometry)
        return np.ascontiguousarray(values), canonical.shape[1:]

    def _geometry(self, sizes: tuple[int, ...]) -> Geometry:
        geometry = Geometry(self._stored_axes, sizes)
        for step in self._transforms:
            geometry = step.moved(geometry)
        return geometry

    def _renamed(self, channels: tuple[str, ...], stored: int) -> tuple[str, ...] | None:
        """The names after the transforms; None where the user's own function changed the channels."""
        if len(channels) != stored:
            raise RequestError(f"data.channels names {len(channels)} channels, the data have {stored}")
        for step in self._transforms:
            channels = step.renamed(channels)
        return channels if len(channels) == self.shape[0] else None

    def _probe(self) -> tuple[Floats, tuple[int, ...]]:
        """The first sample that can be read; `RequestError` where there is none among the first `PROBED`."""
        first_message = ""
        for row in range(min(len(self), PROBED)):
            [stored] = self._reader.read([row])
            if not isinstance(stored, SampleError):
                return self._transform(stored[None], geometric_only=False)
            first_message = first_message or f"{self.ids[row]}: {stored}"
        raise RequestError(f"none of the first {min(len(self), PROBED)} samples can be read; {first_message}")


def open_dataset(section: DataSection) -> Dataset:
    """Open the data of a job; `RequestError` names the key that is missing or wrong."""
    transforms = parse_transforms(section.transforms)
    reader = open_reader(section)
    text = section.layout or reader.default_layout
    if text is None:
        raise RequestError(
            f"data.layout is not given for {reader.name} {reader.shape}; "
            'say what its axes are, as in layout = "NCT" for signals or "NHWC" for images (--layout)'
        )
    layout = Layout.parse(text)
    if reader.default_layout is not None and text not in (reader.default_layout, reader.default_layout[1:]):
        raise RequestError(f"layout {text} given, but images are always read as {reader.default_layout}; take it out")
    if reader.shape is not None and len(layout.letters) != len(reader.shape):
        raise RequestError(
            f"layout {layout.letters} has {len(layout.letters)} axes, the stored array is {reader.shape}"
        )
    return Dataset(section, reader, layout, transforms)
