"""A dataset: stored samples, brought to (channel, *spatial) and through the transforms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, SampleError
from ..stages import OFF, Clock, Stage
from . import arrays, folder  # noqa: F401  (importing a room registers its readers)
from .axes import Axis, axes_of
from .layout import Layout
from .ranges import doubt
from .readers import Reader, open_reader
from .section import DataSection
from .transforms import Floats, Geometry, Python, Transform, parse_transforms

MOST_WORKERS = 4
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
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further inputs of the model, by its argument, (len(rows), ..)."""

    def part(self, which: slice) -> Batch:
        """Some of the good ones."""
        extra = {name: each[which] for name, each in self.extra.items()}
        return Batch(self.rows[which], self.values[which], extra=extra)


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
    stored
        The type of the samples as they are stored.
    clock
        What measures how long reading and transforming take.
    """

    clock: Clock = OFF

    def __init__(self, section: DataSection, reader: Reader, layout: Layout, transforms: Sequence[Transform]) -> None:
        self._reader, self._layout, self._transforms = reader, layout, transforms
        count = min(len(reader.ids), section.limit or len(reader.ids))
        self.ids = reader.ids[:count]
        self.labels = None if reader.labels is None else reader.labels[:count]
        self.classes = reader.classes
        self.fingerprint = reader.fingerprint
        self._stored_axes = axes_of(layout.spatial, rate=section.rate, fps=section.fps, spacing=section.spacing)
        self._images, self._mode = reader.default_layout is not None, section.mode
        first, (stored, *sizes), self.stored = self._probe()
        self.shape: tuple[int, ...] = first.shape[1:]
        self.axes: tuple[Axis, ...] = self._geometry(tuple(sizes)).axes
        self.channels = None if section.channels is None else self._renamed(tuple(section.channels), stored)

    def __len__(self) -> int:
        return len(self.ids)

    def workers(self, cpus: int) -> int:
        """Threads that are worth their while in reading ahead, of ``cpus``; a user's own code is called by one."""
        alone = not self._images or any(isinstance(step, Python) for step in self._transforms)
        return 1 if alone else max(1, min(MOST_WORKERS, cpus))

    @property
    def told(self) -> str:
        """How a sample came to its shape: the keys that say so."""
        how = f'data.mode = "{self._mode}"' if self._images else f"data.layout = {self._layout.letters}"
        return f"it was read with {how} and {len(self._transforms) or 'no'} transforms"

    def doubt(self, batch: Batch) -> str | None:
        """One line for a batch whose values hardly are what was meant; see `ranges.doubt`."""
        return doubt(batch.values, self.stored, self._transforms)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The samples ``rows``, in their order, as the model gets them.

        One that cannot be read, or ends in another shape, is in ``failed``; one with NaN or infinity in ``nonfinite``.
        """
        kept, values, failed = self._collect(np.asarray(rows, np.int64), geometric_only=False)
        bad = np.zeros(len(values), np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            whole = np.isfinite(values.sum(dtype=np.float32))  # which it hardly ever is where a value is not
        if not whole:
            bad = (~np.isfinite(values)).reshape(len(values), -1).sum(1)
        nonfinite = {int(row): f"input has {n} NaN or infinite values" for row, n in zip(kept, bad, strict=True) if n}
        if nonfinite:
            kept, values = kept[bad == 0], values[bad == 0]
        return Batch(kept, values, failed, nonfinite, {name: each[kept] for name, each in self._reader.extra.items()})

    def display(self, rows: Sequence[int] | NDArray[np.int64]) -> Floats:
        """The samples as a person knows them, (n, channel, *s): stored values, moved by the geometric transforms only.

        NaN where a sample cannot be read.
        """
        wanted = np.asarray(rows, np.int64)
        kept, values, _ = self._collect(wanted, geometric_only=True)
        if len(kept) == len(wanted):
            return values
        result = np.full((len(wanted), *self.shape), np.nan, np.float32)
        places = {int(row): place for place, row in enumerate(kept)}
        for place, row in enumerate(wanted):
            if int(row) in places:
                result[place] = values[places[int(row)]]
        return result

    def _collect(
        self, rows: NDArray[np.int64], *, geometric_only: bool
    ) -> tuple[NDArray[np.int64], Floats, dict[int, str]]:
        """The rows that came out well, their values, and why the others did not.

        Samples whose stored shapes and types agree are transformed together.
        """
        failed: dict[int, str] = {}
        alike: dict[tuple[Any, ...], list[tuple[int, NDArray[Any]]]] = defaultdict(list)
        with self.clock(Stage.READ):
            found = self._reader.read(rows) if len(rows) else []
        for place, stored in enumerate(found):
            if isinstance(stored, SampleError):
                failed[int(rows[place])] = str(stored)
            elif self._images and stored.dtype != self.stored:
                failed[int(rows[place])] = (
                    f"values are {stored.dtype}, those of the first image {self.stored}, on another scale; "
                    "convert them to one depth"
                )
            else:
                alike[(stored.shape, stored.dtype)].append((place, stored))
        places: list[NDArray[np.int64]] = []
        parts: list[Floats] = []
        for group in alike.values():
            here = np.array([place for place, _ in group])
            try:
                with self.clock(Stage.READ):
                    together = np.stack([stored for _, stored in group])  # of a mapped file, here it is read
                with self.clock(Stage.TRANSFORM):
                    values, _ = self._transform(together, geometric_only=geometric_only, own=True)
                self._check(values.shape[1:])
            except RequestError as error:
                failed.update({int(row): str(error) for row in rows[here]})
            else:
                places.append(here)
                parts.append(values)
        if not parts:
            return rows[:0], np.empty((0, *self.shape), np.float32), failed
        if len(parts) == 1:
            return rows[places[0]], parts[0], failed
        order = np.argsort(np.concatenate(places))
        return rows[np.concatenate(places)[order]], np.concatenate(parts)[order], failed

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != self.shape:
            fix = f"add the transform {{ resize = {list(self.shape[1:])} }}"
            if shape[0] != self.shape[0]:
                fix = f'set mode = "{"gray" if self.shape[0] == 1 else "rgb"}"'
            raise RequestError(f"shape {shape}, expected {self.shape}; {fix}")

    def _transform(
        self, stored: NDArray[Any], *, geometric_only: bool, own: bool = False
    ) -> tuple[Floats, tuple[int, ...]]:
        """A stack of stored samples as (n, channel, *s), and its (channel, *s) before the transforms.

        In whatever order of memory comes of them: images stay channels-last, as networks want them. The stack is
        overwritten where it is its ``own``.
        """
        canonical = self._layout.canonical(stored)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and reported as such
            values: Floats = canonical.astype(np.float32, copy=False)
        geometry = Geometry(self._stored_axes, canonical.shape[2:])
        for step in self._transforms:
            if step.geometric or not geometric_only:
                values = (step.change if own else step.apply)(values, geometry)
                own = own and not isinstance(step, Python)  # whose result may be anybody's
                geometry = step.moved(geometry)
        return values, canonical.shape[1:]

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

    def _probe(self) -> tuple[Floats, tuple[int, ...], np.dtype[Any]]:
        """The first sample that comes through; `RequestError` where none of the first `PROBED` does."""
        first = ""
        for row in range(min(len(self), PROBED)):
            [stored] = self._reader.read([row])
            try:
                if not isinstance(stored, SampleError):
                    return *self._transform(stored[None], geometric_only=False), stored.dtype
                raise stored
            except (SampleError, RequestError) as error:
                first = first or f"{self.ids[row]}: {error}"
        raise RequestError(f"none of the first {min(len(self), PROBED)} samples can be used; {first}")


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
