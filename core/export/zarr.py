"""Zarr: the results file's own groups, arrays and attributes as a folder of chunks, for cloud stores and xarray."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..render.filenames import folders
from ..render.saving import replacing
from ..results.durable import reading
from ..results.schema import CHECKSUM
from .choice import BLOCK_BYTES, Choice
from .formats import MARK, Format, Task, register

LINKS = "plot"
"""A group of hard links, for viewers of HDF5; Zarr has none."""
MACHINERY = ("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS", "default")
"""Attributes of HDF5 itself, and the way to the links."""
DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Where xarray looks for the names of an array's axes, in version 2 of the format."""
NAMED = {
    "samples": ("sample",), "outputs": ("sample", "output"), "outputs/classes": ("output",),
    "targets": ("sample", "target"), "targets/name": ("target",), "maps": ("sample", "target", "bound"),
    "inputs/channels": ("channel",), "inputs/mean": ("channel",), "inputs/bounds": ("bound", "channel"),
}  # fmt: skip
"""Axes of arrays that the file has no labels for, by path or by its first part."""
CONCEPTS = {"vectors": ("concept", "channel"), "offset": ("channel",), "scores": ("concept", "output")}


def write(task: Task) -> None:
    """A Zarr store of version 2, which every library reads and which has HDF5's strings of fixed length.

    Groups are called as in the results file, but for what no file system takes: ``@hdf5`` says what they were. With
    some of the maps only, ``samples/crc32`` is left out, and ``@columns`` lists what is there.
    """
    import zarr

    choice = task.choice
    with replacing(task.out) as part, reading(choice.results.path) as source:
        try:
            store = zarr.open_group(part, mode="w", zarr_format=2)
            columns = json.loads(source.attrs["columns"])
            kept = dict(_tree(source, "", "", choice))
            listed = [path for path in columns if path in kept]
            if len(listed) < len(columns):
                del kept[CHECKSUM.path]
            by_row = {*listed, CHECKSUM.path, "samples/id", "samples/index", "samples/label"}
            task.total = sum(len(choice.rows) for path in kept if path in by_row)
            for path, name in kept.items():
                if hasattr(source[path or "/"], "dtype"):
                    _copy(store, name, source, path, task, by_row=path in by_row)
                else:
                    group = store.require_group(name) if name else store
                    was = {} if name == path else {"hdf5": path}
                    group.attrs.update(_attributes(source[path or "/"]) | was)
            store.attrs.update({MARK: task.mark, "columns": json.dumps(listed)})
            zarr.consolidate_metadata(part, zarr_format=2)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def mark(path: Path) -> str | None:
    """The mark of a store that is there."""
    try:
        found = json.loads((path / ".zattrs").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found.get(MARK) if isinstance(found, dict) else None


def _tree(node: Any, path: str, name: str, choice: Choice) -> Iterator[tuple[str, str]]:
    """Every group and array that is handed on: where it lies in the results file, and what it is called here."""
    yield path, name
    if hasattr(node, "dtype"):
        return
    names = {key.replace("%2F", "/").replace("%25", "%"): key for key in node}
    chosen = {view.name for view in choice.maps}
    for plain, folder in folders(names).items():
        below = f"{path}/{names[plain]}".lstrip("/")
        if below != LINKS and (path != "maps" or plain in chosen):
            yield from _tree(node[names[plain]], below, f"{name}/{folder}".lstrip("/"), choice)


def _copy(store: Any, name: str, source: Any, path: str, task: Task, *, by_row: bool) -> None:
    """One array, a few rows at a time where it has a row for each sample."""
    dataset, rows = source[path], task.choice.rows
    shape = (len(rows), *dataset.shape[1:]) if by_row else dataset.shape
    chunks = tuple(max(1, min(pair)) for pair in zip(dataset.chunks or shape, shape, strict=True))
    said = {**_attributes(dataset), DIMENSIONS: _dimensions(path, dataset, source)}
    # Without a fill value, which xarray takes for a missing one, every chunk must be there, also one of zeros.
    array = store.create_array(
        name, shape=shape, dtype=dataset.dtype, chunks=chunks, attributes=said, fill_value=None,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    if not by_row:
        array[...] = dataset[...]
        return
    row_bytes = dataset.dtype.itemsize * math.prod(shape[1:])
    step = chunks[0] * max(1, BLOCK_BYTES // max(1, chunks[0] * row_bytes))  # whole chunks: none is written twice
    for start in range(0, len(rows), step):
        array[start : start + step] = _rows(dataset, rows[start : start + step])
        task.advance(len(rows[start : start + step]))


def _rows(dataset: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    first, last = int(rows[0]), int(rows[-1])
    if (np.diff(rows) == 1).all():
        return np.asarray(dataset[first : last + 1])
    return np.stack([dataset[int(row)] for row in rows])


def _dimensions(path: str, dataset: Any, source: Any) -> list[str]:
    """A name for each axis of an array."""
    if dataset.is_scale:
        return [path.rpartition("/")[2]]
    labels = [dimension.label for dimension in dataset.dims]
    if not any(labels):
        first, _, last = path.partition("/")
        labels = list(NAMED.get(path) or NAMED.get(first) or CONCEPTS.get(last.rpartition("/")[2], ()))
    if path == "inputs/values":
        labels = ["sample", "channel", *json.loads(source["axes"].attrs["names"])]
    return [label or f"axis {k}" for k, label in enumerate(labels[: dataset.ndim])]


def _attributes(node: Any) -> dict[str, Any]:
    """What is said of a group or array, as JSON takes it."""
    said = {key: value for key, value in node.attrs.items() if key not in MACHINERY}
    return {key: value.tolist() if isinstance(value, np.generic | np.ndarray) else value for key, value in said.items()}


register(Format("zarr", ".zarr", write, mark, needs="zarr", extra="zarr"))
