"""What a results file holds: columns, each with one entry for each sample, and what is said about them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from .deflate import crc32

MESSAGE_BYTES = 240
DIRECT_BYTES = 16 * 1024
"""From this size on a row is a chunk (or several) of its own, which merging copies as it is, compressed."""
CHUNK_BYTES = 1 << 20
SPLIT_BYTES = 4 << 20
"""A row larger than this is cut along its axes into chunks of about `CHUNK_BYTES`."""


class Status(IntEnum):
    """How a sample fared."""

    TODO = 0
    OK = 1
    ZERO_MAP = 2
    NON_FINITE = 3
    FAILED = 4


@dataclass(frozen=True)
class Column:
    """One dataset with a row for each sample. ``dtype`` is NumPy's name of it; "S.." is UTF-8 of fixed length."""

    path: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Of one sample, uncompressed."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def direct(self) -> bool:
        """Whether each sample has chunks of its own."""
        return self.row_bytes >= DIRECT_BYTES

    def chunks(self, rows: int) -> tuple[int, ...]:
        """The chunk shape in a file of ``rows`` samples."""
        if not self.direct:
            return (max(1, min(rows, max(256, DIRECT_BYTES // max(1, self.row_bytes)))), *self.shape)
        chunk = list(self.shape)
        for axis in range(len(chunk)):
            size = np.dtype(self.dtype).itemsize * math.prod(chunk)
            if self.row_bytes <= SPLIT_BYTES or size <= CHUNK_BYTES:
                break
            chunk[axis] = max(1, chunk[axis] * CHUNK_BYTES // size)
        return (1, *chunk)


@dataclass(frozen=True)
class MapInfo:
    """One map: a method expression, at a layer if it is a CAM. ``shape`` is that of one target: ([channel,] *s)."""

    expression: str
    layer: str | None
    method: str
    shape: tuple[int, ...]
    per_channel: bool
    signed: bool
    relu: bool | None
    units: str
    formula: str
    source: str
    concepts: int = 0
    """Number of concepts, where the map has an axis of them before the spatial ones."""
    residual: bool = False
    """Whether what its sum misses is stored."""
    axes: tuple[Axis, ...] | None = None
    """Of the spatial part of ``shape``, where they are not the input's or a layer's."""
    signals: tuple[int, ...] | None = None
    """Shape, for one sample, of what its components are: (component, [channel,] *s), in the input's units."""
    domain: str = ""
    """What its places are, where they are not the input's."""
    layout: str = ""
    """How it is drawn: "lines", "image" or "bars"; "" as the input."""

    @property
    def leading(self) -> str | None:
        """The axis before the spatial ones."""
        return "channel" if self.per_channel else "concept" if self.concepts else None

    @property
    def name(self) -> str:
        """``gradcam@layer4``, ``grad+input``."""
        return self.expression if self.layer is None else f"{self.expression}@{self.layer}"

    @property
    def group(self) -> str:
        """Where it lies in the file: the name, with the slashes of ONNX node names escaped."""
        return "maps/" + self.name.replace("%", "%25").replace("/", "%2F")

    @property
    def spatial(self) -> tuple[int, ...]:
        """The spatial part of ``shape``."""
        return self.shape[1:] if self.leading else self.shape


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from. ``identity`` decides whether two jobs are the same."""

    structured: ClassVar = ("identity", "argv", "versions")
    """Kept as JSON in the file; the others are plain."""

    identity: dict[str, Any]
    job: str
    argv: list[str]
    versions: dict[str, str]
    git: str
    model_sha256: str
    data_fingerprint: str
    device: str
    seed: int
    batch_size: int
    started: str


@dataclass(frozen=True)
class Concepts:
    """What the activations of a layer are made of, over the dataset."""

    vectors: list[list[float]]
    """(concept, channel)."""
    offset: list[float]
    """(channel,), taken off the activation first."""
    scores: list[list[float]]
    """(concept, output): what the model gives where the layer is filled with one concept."""


class Recorded:
    """What has a row for each sample: its columns, and how rows are begun and summed up."""

    ids: list[str]
    provenance: Provenance
    compression: str = "auto"
    """See `packing.Packing`."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every dataset with a row for each sample, in the order in which the checksum takes them."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.ids)

    def blank(self, rows: int, but: Container[str] = ()) -> dict[str, NDArray[Any]]:
        """Columns for ``rows`` unknown samples: NaN, -1, `Status.TODO`; those in ``but`` are not filled."""

        def fill(column: Column) -> NDArray[Any]:
            shape, kind = (rows, *column.shape), np.dtype(column.dtype).kind
            if column.path in but:
                return np.empty(shape, column.dtype)
            return np.full(shape, {"f": np.nan, "i": -1, "S": b"", "u": 0}[kind], column.dtype)

        return {column.path: fill(column) for column in self.columns}

    def checksums(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[np.uint32]:
        """crc32 of each row's bytes over all columns."""
        sums = np.zeros(len(rows["samples/status"]), np.uint32)
        for column in self.columns:
            values = np.ascontiguousarray(rows[column.path], column.dtype)
            for i in range(len(values)):
                sums[i] = crc32(values[i : i + 1], int(sums[i]))
        return sums


@dataclass(frozen=True)
class Schema(Recorded):
    """Everything about a results file but its rows; the manifest of an unfinished run is this, as JSON."""

    ids: list[str]
    labels: list[int]
    classes: list[str] | None
    channels: list[str] | None
    axes: list[Axis]
    input_shape: tuple[int, ...]
    outputs: int
    final: str | None
    score: str
    """Which score was explained, in words."""
    targets: list[str]
    maps: list[MapInfo]
    dtype: str
    provenance: Provenance
    inputs_dtype: str | None = None
    """Set where the inputs are copied into the file."""
    concepts: dict[str, Concepts] = field(default_factory=dict)
    """Of the maps that have some, by name."""
    mean: list[float] | None = None
    """Of each channel over the dataset, where a method asked for it."""
    bounds: list[list[float]] | None = None
    """The smallest and the largest value of each channel over the dataset, where a method asked for them."""
    unruled: dict[str, int] = field(default_factory=dict)
    """Operators of the model that have no rule of relevance, and how often they run, where relevance was asked for."""
    data: dict[str, Any] = field(default_factory=dict)
    """The job's data section, paths absolute: where the inputs came from."""
    precision: str = "float32"
    """What the model computed in."""
    errors: dict[str, list[float]] = field(default_factory=dict)
    """By map, of the first batch: the largest difference from float32, by the largest value; the lowest correlation."""
    compression: str = "auto"
    shards: int | None = None
    """Into how many shards the run is split, None where it is not; of no account once it is finished."""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Every dataset with a row for each sample, in the order in which the checksum takes them."""
        count = len(self.targets)
        real = "float64" if self.dtype == "float64" else "float32"
        columns = [
            Column("samples/status", "uint8"),
            Column("samples/message", f"S{MESSAGE_BYTES}"),
            Column("outputs/scores", real, (self.outputs,)),
            Column("outputs/predicted", "int32"),
            Column("targets/index", "int32", (count,)),
            Column("targets/foil", "int32", (count,)),
            Column("targets/score", real, (count,)),
        ]
        for each in self.maps:
            columns.append(Column(f"{each.group}/values", self.dtype, (count, *each.shape)))
            columns.append(Column(f"{each.group}/range", real, (count, 2)))
            if self.dtype == "float16":
                columns.append(Column(f"{each.group}/scale", "float32", (count,)))
            if each.residual:
                columns.append(Column(f"{each.group}/residual", real, (count,)))
            if each.signals is not None:
                columns.append(Column(f"{each.group}/signals", real, each.signals))
        if self.inputs_dtype:
            columns.append(Column("inputs/values", self.inputs_dtype, self.input_shape))
        return tuple(columns)


def told(precision: str, errors: Mapping[str, list[float]]) -> str:
    """What fewer digits cost, in one line; see `Schema.errors`."""
    each = "; ".join(f"{name} {off:.2g}, {like:.4f}" for name, (off, like) in errors.items())
    return f"{precision} against float32, largest difference and lowest correlation in the first batch: {each}"


CHECKSUM = Column("samples/crc32", "uint32")
