"""NPZ: every array by a readable name, for NumPy and whatever reads its files. Written a few rows at a time."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..render.request import STATUS
from ..render.saving import replacing
from ..results import MapView
from .choice import Choice, axes_of, blocks, contiguous, coordinates
from .formats import MARK, Format, Task, register

ABOUT = "about"


def write(task: Task) -> None:
    """Arrays of the samples and targets, then ``maps/NAME``, then ``about``: JSON that says what each of them is.

    Nothing is compressed, as by `numpy.savez`: deflating floats takes five times as long, for a tenth of their size.
    """
    choice = task.choice
    task.total = len(choice.rows) * len(choice.maps)
    about: dict[str, Any] = {MARK: task.mark, "provenance": choice.results.provenance, "maps": {}}
    with replacing(task.out) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in _columns(choice):
            with _member(archive, name) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for view in choice.maps:
            key = f"maps/{choice.folders[view.name]}"
            _stream(archive, key, choice.read(view), (len(choice.rows), *view.shape[1:]), task)
            about["maps"][key] = _said(choice, view)
            if view.signals_shape is not None:
                parts = _signals(choice, view)
                _stream(archive, f"signals/{choice.folders[view.name]}", parts, (len(choice.rows), *view.signals_shape))
        with _member(archive, ABOUT) as file:
            np.lib.format.write_array(file, np.array(json.dumps(about, default=str)), allow_pickle=False)


def mark(path: Path) -> str | None:
    """The mark of an archive that is there."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = json.loads(str(archive[ABOUT]))[MARK]
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        return None
    return str(found)


def _columns(choice: Choice) -> Iterator[tuple[str, NDArray[Any]]]:
    results, rows = choice.results, choice.rows
    yield "ids", np.array([results.ids[row] for row in rows])
    yield "rows", rows
    yield "labels", results.labels[rows]
    yield "status", results.status[rows]
    yield "status_names", np.array(STATUS)
    yield "messages", np.array([results.messages[row] for row in rows])
    yield "scores", results.outputs[rows]
    yield "predicted", results.predicted[rows]
    yield "targets", np.array(results.target_names)
    yield "target_index", results.target_index[rows]
    yield "target_foil", results.target_foil[rows]
    yield "target_score", results.target_score[rows]
    for name, names in (("classes", results.classes), ("channels", results.channels)):
        if names is not None:
            yield name, np.array(names)
    for view in choice.maps:
        folder, sizes = choice.folders[view.name], view.shape[len(view.shape) - len(axes_of(results, view)) :]
        for k, (axis, size) in enumerate(zip(axes_of(results, view), sizes, strict=True)):
            yield f"axes/{folder}/{k}", coordinates(axis, size)
        if (residual := view.residual()) is not None:
            yield f"residuals/{folder}", residual[rows]


def _said(choice: Choice, view: MapView) -> dict[str, Any]:
    """What ``about`` says of a map; its axes lie in ``axes/NAME/0``, ``1``, .."""
    axes = axes_of(choice.results, view)
    lead = "channel" if view.per_channel else "concept"
    return {
        "name": view.name,
        "expression": view.expression,
        "layer": view.layer,
        "units": view.units,
        "formula": view.formula,
        "source": view.source,
        "axes": [*("sample", "target", lead)[: len(view.shape) - len(axes)], *(axis.name for axis in axes)],
        "axis_units": [axis.unit for axis in axes],
    }


def _signals(choice: Choice, view: MapView) -> Iterator[NDArray[Any]]:
    for block in blocks(choice.rows, 4 * int(np.prod(view.signals_shape or ()))):
        found = view.signals(contiguous(block))
        if found is not None:
            yield found


def _stream(
    archive: zipfile.ZipFile, name: str, parts: Iterable[NDArray[Any]], shape: tuple[int, ...], task: Task | None = None
) -> None:  # fmt: skip
    """One array of ``shape`` from the ``parts`` it is made of."""
    with _member(archive, name) as file:
        for k, part in enumerate(parts):
            if not k:
                header = {**np.lib.format.header_data_from_array_1_0(part[:1].copy()), "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(np.ascontiguousarray(part).data)
            if task is not None:
                task.advance(len(part))


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(f"{name}.npy", "w", force_zip64=True)


register(Format("npz", "-maps.npz", write, mark))
