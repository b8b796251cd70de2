"""Reading a results file."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ..data import Axis, DataSection, Dataset, open_dataset
from ..errors import CamsweepError, RequestError, StorageError, first_line, nearest
from ..outputs import settled
from . import durable
from .deflate import crc32
from .schema import CHECKSUM, Concepts, Provenance, Status

if TYPE_CHECKING:
    import xarray


FORMAT, METRICS = "camsweep", "camsweep-metrics"
CACHE = 8 << 20
"""Bytes of a dataset's chunks that are kept unpacked: a row that is read brings its neighbours with it."""


class MapView:
    """One map of a results file; nothing is read until `read`, or ``view[rows, target, ..]``."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group
        self._open: dict[str, h5py.Dataset] = {}
        attributes = group.attrs
        self.expression: str = attributes["expression"]
        self.layer: str | None = attributes["layer"] or None
        self.name = self.expression if self.layer is None else f"{self.expression}@{self.layer}"
        self.per_channel = bool(attributes["per_channel"])
        self.concepts = int(attributes["concepts"]) if "concepts" in attributes else 0
        self.signed = bool(attributes["signed"])
        self.units: str = attributes["units"]
        self.formula: str = attributes["formula"]
        self.source: str = attributes["source"]
        self.shape: tuple[int, ...] = group["values"].shape
        self.dtype: str = str(group["values"].dtype)
        self.signals_shape: tuple[int, ...] | None = group["signals"].shape[1:] if "signals" in group else None
        """Of `signals` for one sample."""
        self.domain: str = attributes.get("domain", "")
        self.layout: str = attributes.get("layout", "")
        self.axes: tuple[Axis, ...] | None = None
        """Its own axes, where it does not lie on the input's or a layer's."""
        if attributes.get("own_axes", False):
            dimensions = list(group["values"].dims)[2 + self.per_channel :]
            self.axes = tuple(_axis(dimension.label, dimension[0]) for dimension in dimensions)

    def read(self, rows: Sequence[int] | slice = slice(None)) -> NDArray[Any]:
        """Maps of the samples ``rows``, (n, target, [channel,] *s), in true values."""
        values: NDArray[Any] = self._take("values", rows)
        if "scale" in self._group:
            scale: NDArray[np.float32] = self._take("scale", rows)
            return values.astype(np.float32) * scale.reshape(scale.shape + (1,) * (values.ndim - 2))
        return values

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """True values by whole numbers, slices that go forward and ``...``; only what is asked for is read."""
        whole = key if isinstance(key, tuple) else (key,)
        if (gap := next((k for k, each in enumerate(whole) if each is Ellipsis), None)) is not None:
            whole = *whole[:gap], *(slice(None),) * (len(self.shape) + 1 - len(whole)), *whole[gap + 1 :]
        values: NDArray[Any] = np.asarray(self._group["values"][whole])
        if "scale" not in self._group:
            return values
        scale: NDArray[np.float32] = np.asarray(self._group["scale"][whole[:2]])
        true: NDArray[np.float32] = values.astype(np.float32) * scale.reshape(
            scale.shape + (1,) * (values.ndim - scale.ndim)
        )
        return true

    def residual(self) -> NDArray[np.float32] | None:
        """What the sum of each map misses, (N, target); None for methods whose sums say nothing."""
        values: NDArray[np.float32] | None = self._group["residual"][:] if "residual" in self._group else None
        return values

    def signals(self, rows: Sequence[int] | slice = slice(None)) -> NDArray[Any] | None:
        """What its components are, (n, component, [channel,] *s), in the input's units; None where it has none."""
        return self._take("signals", rows) if "signals" in self._group else None

    def range(self) -> NDArray[np.float32]:
        """Smallest and largest value of each map, (N, target, 2)."""
        values: NDArray[np.float32] = self._group["range"][:]
        return values

    def _take(self, name: str, rows: Sequence[int] | slice) -> NDArray[Any]:
        if name not in self._open:  # and kept: HDF5 forgets the chunks of a dataset that is closed
            self._open[name] = self._group[name]
        dataset = self._open[name]
        taken: NDArray[Any] = dataset[rows] if isinstance(rows, slice) else np.stack([dataset[int(r)] for r in rows])
        return taken


class Maps(dict[str, MapView]):
    """Maps by name, ``maps["gradcam@layer4"]``, or by expression and layer, ``maps["gradcam", "layer4"]``."""

    def __missing__(self, key: object) -> MapView:
        name = "@".join(map(str, key)) if isinstance(key, tuple) else str(key)
        if name == key or name not in self:
            raise KeyError(f"{name!r}. {nearest(name, self)}")
        return self[name]


class Results:
    """A finished results file, open for reading; also a context manager.

    Attributes
    ----------
    ids, labels, status, messages
        One entry for each sample; labels are -1 where unknown, `Status` says what status means.
    classes, channels
        Their names, or None.
    axes
        One `Axis` for each spatial axis of the input.
    outputs, predicted
        The model's raw outputs (N, K) and the class with the highest.
    target_names, target_index, target_score, target_foil
        The targets explained, (T,), (N, T), (N, T), (N, T): the class or output (-1 where it is none), its score, and
        the class it was held against (-1 where none).
    score
        Which score was explained.
    maps
        Each map by its name, ``maps["gradcam@layer4"]``, or by expression and layer, ``maps["gradcam", "layer4"]``.
    unruled
        Operators of the model that have no rule of relevance, and how often they run.
    precision, errors
        What the model computed in; where that is not float32, of each map the largest difference from it and the lowest
        correlation in the first batch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        file = self._file
        self.ids = _text(file["samples/id"])
        self.labels: NDArray[np.int32] = file["samples/label"][:]
        self.status: NDArray[np.uint8] = file["samples/status"][:]
        self.classes = tuple(_text(file["outputs/classes"])) if "outputs/classes" in file else None
        self.channels = tuple(_text(file["inputs/channels"])) if "inputs/channels" in file else None
        self.axes = tuple(_axis(name, file[f"axes/{name}"]) for name in json.loads(file["axes"].attrs["names"]))
        self.input_shape = tuple(int(size) for size in file["inputs"].attrs["shape"])
        self.outputs: NDArray[np.float32] = file["outputs/scores"][:]
        self.final: str | None = file["outputs"].attrs["final"] or None
        self.predicted: NDArray[np.int32] = file["outputs/predicted"][:]
        self.target_names = tuple(_text(file["targets/name"]))
        self.target_index: NDArray[np.int32] = file["targets/index"][:]
        self.target_score: NDArray[np.float32] = file["targets/score"][:]
        self.target_foil: NDArray[np.int32] = file["targets/foil"][:]
        self.score: str = file["targets"].attrs["score"]
        self.unruled: dict[str, int] = json.loads(file["maps"].attrs.get("unruled", "{}"))
        self.precision: str = file["maps"].attrs.get("precision", "float32")
        self.errors: dict[str, list[float]] = json.loads(file["maps"].attrs.get("errors", "{}"))
        order = dict.fromkeys(path.split("/")[1] for path in json.loads(file.attrs["columns"]) if path[:5] == "maps/")
        self.maps = Maps({view.name: view for view in (MapView(file["maps"][name]) for name in order)})
        self.provenance: dict[str, Any] = {k: _plain(k, v) for k, v in file["provenance"].attrs.items()}

    @cached_property
    def confidence(self) -> NDArray[np.float64] | None:
        """Probability of the predicted class, (N,), by the activation that the job says or suggests; NaN where there is
        none, and None where the outputs are no classes.
        """
        explain = tomllib.loads(self.provenance["job"]).get("explain", {})
        how = settled(explain.get("activation", "auto"), self.final, self.outputs.shape[-1])
        if self.classes is None or self.outputs.ndim != 2 or how == "none":
            return None
        scores = self.outputs.astype(np.float64)
        if self.final is None:
            scores = np.exp(scores - scores.max(1, keepdims=True)) if how == "softmax" else 1 / (1 + np.exp(-scores))
            scores = scores / scores.sum(1, keepdims=True) if how == "softmax" else scores
        there = (self.predicted >= 0) & (self.predicted < scores.shape[1])
        found = np.full(len(self), np.nan)
        found[there] = scores[there, self.predicted[there]]
        return found

    @cached_property
    def messages(self) -> list[str]:
        """What was said of each sample, "" for most."""
        return _text(self._file["samples/message"])

    @cached_property
    def mean(self) -> list[float] | None:
        """Of each channel over the dataset, where a method asked for it."""
        return self._file["inputs/mean"][:].tolist() if "inputs/mean" in self._file else None

    @cached_property
    def bounds(self) -> list[list[float]] | None:
        """The smallest and the largest value of each channel over the dataset, where a method asked for them."""
        return self._file["inputs/bounds"][:].tolist() if "inputs/bounds" in self._file else None

    @cached_property
    def fitted(self) -> dict[str, Concepts]:
        """What was fitted to the dataset, by the name of the map or the domain; see `concepts`."""
        return {
            key.replace("%2F", "/").replace("%25", "%"): Concepts(
                *(group[each][:].tolist() for each in ("vectors", "offset", "scores"))
            )
            for key, group in self._file.get("concepts", {}).items()
        }

    @cached_property
    def contents(self) -> str:
        """Tells results apart by their rows."""
        return hashlib.sha256(self._file[CHECKSUM.path][:].tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def map(self, name: str) -> MapView:
        """The map called ``name``, or a `RequestError` with the nearest."""
        if name not in self.maps:
            raise RequestError(f"{self.path} has no map {name!r}. {nearest(name, self.maps)}")
        return self.maps[name]

    def to_xarray(self, *names: str) -> xarray.Dataset:
        """The maps called ``names``, or all, as an `xarray.Dataset` that reads what is asked of it, while this is open.

        See `camsweep.core.export.frames.dataset`.
        """
        from ..export.frames import dataset

        return dataset(self, names or None)

    def concepts(self, name: str) -> dict[str, NDArray[np.float64]]:
        """What was fitted to the dataset for a map, or for a domain (``ica,fit=dataset``), if anything was.

        ``vectors`` (concept, channel), ``offset`` (channel,), ``scores`` (concept, output).
        """
        known = {
            key.replace("%2F", "/").replace("%25", "%"): group for key, group in self._file.get("concepts", {}).items()
        }
        if name not in known:
            raise RequestError(f"{self.path} has no concepts of {name!r}. {nearest(name, known)}")
        return {key: known[name][key][:] for key in known[name]}

    def counts(self) -> dict[str, int]:
        """How many samples have each status, those that occur."""
        return {s.name.lower().replace("_", " "): n for s in Status if (n := int((self.status == s).sum()))}

    def inputs(self, rows: Sequence[int]) -> NDArray[Any]:
        """The samples as a person knows them (stored grey levels, millivolts), (n, channel, *s), aligned with the maps.

        From the copy in the file, or read again from where they came; `RequestError` where they are gone.
        """
        if self._copied is not None:
            return np.stack([self._copied[int(row)] for row in rows])
        return self._dataset.display(rows)

    @cached_property
    def _copied(self) -> h5py.Dataset | None:
        return self._file.get("inputs/values")

    @cached_property
    def _dataset(self) -> Dataset:
        data = json.loads(self._file["inputs"].attrs["data"])
        # What is shown went through no function of the user's; and to open a results file is not to run what it names.
        data["transforms"] = [step for step in data.get("transforms", []) if "python" not in step]
        dataset = open_dataset(DataSection.model_validate(data))
        if dataset.shape != self.input_shape:
            raise RequestError(
                f"the inputs of {self.path} went through a function that changed their shape, and are not shown; "
                'explain them with output.inputs = "copy"'
            )
        if dataset.fingerprint != self.provenance["data_fingerprint"]:
            raise RequestError(f"the data behind {self.path} have changed since; explain them anew")
        return dataset


def open_results(path: str | Path) -> Results:
    """Open a finished results file for reading; `RequestError` where there is none, `StorageError` where it is damaged.

    What is read later is held against the file's seal too, and ends in a `StorageError` where it does not agree.
    """
    with _readable(Path(path)):
        return Results(Path(path))


def stored_identity(path: Path) -> dict[str, Any]:
    """What decides whether a finished file is a job's own."""
    with _readable(path), _open(path) as file:
        identity: dict[str, Any] = json.loads(file["provenance"].attrs["identity"])
        return identity


def lacking(path: Path) -> int:
    """How many rows of a published file are not done: it was merged without them."""
    with _open(path) as file:
        return int((file["samples/status"][:] == Status.TODO).sum())


def verify(path: Path, rows: Sequence[int] | None = None) -> list[str]:
    """Read ``rows`` (all by default) and hold them against their checksums; a line for each that does not agree.

    Of a file that may be damaged, `camsweep.core.results.verifying` says more, and survives it.
    """
    try:
        with _open(path, (FORMAT, METRICS)) as file:
            return [f"row {row} is damaged" for row in damaged_rows(file, rows)]
    except StorageError as error:
        return [str(error)]


def damaged_rows(file: h5py.File, rows: Sequence[int] | None = None) -> list[int]:
    """Those of ``rows`` (all by default) that cannot be read or do not agree with their checksums."""
    columns = [file[path] for path in json.loads(file.attrs["columns"])]
    sums = file[CHECKSUM.path]
    width = sum(column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns)
    step = max(1, CACHE // max(1, width)) if rows is None else 1
    found = []
    for start in range(0, len(sums), step) if rows is None else rows:
        some = range(start, min(start + step, len(sums)))
        if not _agree(columns, sums, some):
            found += [row for row in some if len(some) == 1 or not _agree(columns, sums, range(row, row + 1))]
    return found


def _agree(columns: Sequence[h5py.Dataset], sums: h5py.Dataset, rows: range) -> bool:
    """Whether neighbouring rows, which are read at once, are what was computed."""
    crc = [0] * len(rows)
    try:
        for column in columns:
            values = column[rows.start : rows.stop]
            crc = [crc32(values[i : i + 1].tobytes(), each) for i, each in enumerate(crc)]
        return bool((sums[rows.start : rows.stop] == crc).all())
    except (OSError, StorageError):
        return False


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """One line for whatever HDF5 and h5py make of a file that is not as it should be."""
    try:
        yield
    except CamsweepError:
        raise
    except Exception as error:
        raise StorageError(
            f"{path} is damaged, or of another version ({first_line(error, 120)}); `camsweep verify {path}` says more"
        ) from error


def _open(path: Path, formats: Sequence[str] = (FORMAT,)) -> h5py.File:
    if not path.exists():
        beside = [p.name for p in path.parent.glob("*.h5")] if path.parent.is_dir() else []
        unfinished = path.with_name(path.name + ".parts").is_dir()
        hint = "its run is unfinished; run the job again to complete it" if unfinished else nearest(path.name, beside)
        raise RequestError(f"results not found: {path}. {hint}")
    try:
        file = h5py.File(sealed(path), "r", locking=False, rdcc_nbytes=CACHE)
    except OSError as error:
        raise RequestError(f"{path} cannot be read as HDF5: {first_line(error, 120)}") from None
    if file.attrs.get("format") not in formats:
        file.close()
        raise RequestError(f"{path} is HDF5, but not a camsweep results file")
    return file


def sealed(path: Path) -> durable.Sealed | Path:
    """The file itself where it has no seal: other programs take it off where they write into a file."""
    try:
        return durable.Sealed(path)
    except durable.UnsealedError:
        return path


def _axis(name: str, scale: h5py.Dataset) -> Axis:
    if "step" not in scale.attrs:
        return Axis(name, scale.attrs["units"], labels=tuple(_text(scale)))
    return Axis(name, scale.attrs["units"], float(scale.attrs["step"]), float(scale.attrs["start"]))


def _text(dataset: h5py.Dataset) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in dataset[:]]


def _plain(key: str, value: Any) -> Any:
    if key in Provenance.structured:
        return json.loads(value)
    return value.item() if isinstance(value, np.generic) else value
