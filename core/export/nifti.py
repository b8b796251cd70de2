"""NIfTI: volumes and video for viewers of medical images, one file for each sample, map and target."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from ..render.filenames import Entry, write_index
from ..render.saving import replacing
from ..results import MapView
from .choice import Choice, axes_of, input_names
from .formats import Format, Task, folder_mark, register

PLACES = {"x": 0, "width": 0, "y": 1, "height": 1, "z": 2, "depth": 2, "time": 3}
"""Which dimension of a NIfTI file an axis is; channels and concepts are the fifth."""
INPUTS = "inputs"
COMMENT = 6
"""NIfTI's code of an extension that is text."""


def check(choice: Choice) -> list[MapView]:
    """The maps that are volumes or video; `RequestError` where none is."""
    return choice.fitting(lambda view: _unfit(choice, view))[0]


def write(task: Task) -> None:
    """``OUT/NAME/ROW-ID[.tK-TARGET].nii.gz``, the inputs likewise in ``OUT/inputs``, and ``OUT/index.csv``.

    Voxel (i, j, k) lies at start + step * (i, j, k) mm along width, height and depth (x, y, z), as the data were
    stored: the affine has spacing and no turn, and claims no anatomy. Time is the fourth dimension, channels or
    concepts the fifth. Maps without a finite value have no file; the index says why.
    """
    choice, results = task.choice, task.choice.results
    maps, task.notes = choice.fitting(lambda view: _unfit(choice, view))
    task.total = len(choice.rows) * (len(maps) + 1)
    entries: list[Entry] = []
    if choice.no_inputs:
        task.notes.append(f"the inputs are left out: {choice.no_inputs}")
    try:
        for row in choice.rows.tolist():
            if not choice.no_inputs:
                _inputs(task, row)
            task.advance()
            for view in maps:
                entries += _maps(task, view, row)
                task.advance()
    finally:
        if entries:
            write_index(task.out, entries)
    empty = len({entry.row for entry in entries if not entry.file})
    if empty:
        task.notes.append(
            f"{empty} of {len(choice.rows)} samples of {results.path.name} lack a map; index.csv says why"
        )


def _maps(task: Task, view: MapView, row: int) -> list[Entry]:
    """The files of one sample and map, a line of the index for each."""
    choice, results = task.choice, task.choice.results
    names = [f"{choice.folders[view.name]}/{choice.stem(row, k)}.nii.gz" for k in range(len(results.target_names))]
    there = [(task.out / name).exists() for name in names]
    values = None if all(there) else view.read([row])[0]
    entries = []
    for k, (name, target) in enumerate(zip(names, results.target_names, strict=True)):
        line = Entry(row, results.ids[row], choice.status(row), view.name, target, "")
        if there[k] or (values is not None and np.isfinite(values[k]).any()):
            if task.wanted(task.out / name) and values is not None:
                said = {
                    "id": line.id, "row": row, "status": line.status, "map": view.name, "target": target,
                    "index": int(results.target_index[row, k]), "foil": int(results.target_foil[row, k]),
                    "score": float(results.target_score[row, k]), "units": view.units, "formula": view.formula,
                }  # fmt: skip
                _save(task, name, values[k], axes_of(results, view), said)
            line = line._replace(file=name)
        entries.append(line)
    return entries


def _inputs(task: Task, row: int) -> None:
    """The sample itself, in the same places as its maps."""
    results = task.choice.results
    name = f"{INPUTS}/{task.choice.stem(row)}.nii.gz"
    if (task.out / name).exists():
        task.wanted(task.out / name)
        return
    values = results.inputs([row])[0]
    if np.isfinite(values).any():
        task.wanted(task.out / name)
        _save(task, name, values, results.axes, {"id": results.ids[row], "row": row, "channels": input_names(results)})


def _save(task: Task, name: str, values: NDArray[Any], axes: Sequence[Axis], said: dict[str, Any]) -> None:
    nibabel: Any = import_module("nibabel")
    volume = np.expand_dims(values, 0) if values.ndim == len(axes) else values
    volume, by = placed(volume, axes), {PLACES[axis.name]: axis for axis in axes}
    image = nibabel.Nifti1Image(volume, affine(axes))
    if 3 in by:
        image.header.set_zooms((*image.header.get_zooms()[:3], by[3].step, *image.header.get_zooms()[4:]))
        image.header["toffset"] = by[3].start
    spatial = {axis.unit for place, axis in by.items() if place < 3}
    seconds = 3 in by and by[3].unit == "s"
    image.header.set_xyzt_units("mm" if spatial == {"mm"} else "unknown", "sec" if seconds else "unknown")
    image.header["descrip"] = said.get("map", INPUTS).encode("ascii", "replace")[:79]
    text = json.dumps(said).encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(COMMENT, text))
    with replacing(task.out / name) as part:
        part.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))


def placed(values: NDArray[Any], axes: Sequence[Axis]) -> NDArray[Any]:
    """(channel, *s) as (x, y, z[, t[, channel]]): sizes of 1 stand for axes that are not there."""
    order = sorted(range(len(axes)), key=lambda k: PLACES[axes[k].name])
    sorted_ = np.moveaxis(values, 0, -1).transpose(*order, len(axes))
    missing = [place for place in range(4) if place not in {PLACES[axis.name] for axis in axes}]
    volume = np.expand_dims(sorted_, missing)
    if volume.shape[4] == 1:
        volume = volume[..., 0]
        volume = volume[..., 0] if 3 in missing else volume
    return np.ascontiguousarray(volume)


def affine(axes: Sequence[Axis]) -> NDArray[np.float64]:
    """From voxel to millimetre (or pixel), (4, 4): steps on the diagonal, starts in the last column."""
    matrix = np.eye(4)
    for axis in axes:
        if (place := PLACES[axis.name]) < 3:
            matrix[place, place], matrix[place, 3] = axis.step, axis.start
    return matrix


def _unfit(choice: Choice, view: MapView) -> str:
    """Why a map is no volume, "" where it is one."""
    axes = axes_of(choice.results, view)
    names = ", ".join(axis.name for axis in axes)
    if view.axes is not None:
        return f"lies on axes of its own ({names}), NIfTI has places only; take --to npz"
    if len(axes) != 3:
        return f"has {len(axes)} spatial axes, NIfTI is for volumes and video, of 3; take --to npz"
    places = {PLACES.get(axis.name) for axis in axes}
    if len(places) < 3 or not {0, 1} < places or None in places:
        return f"has the axes {names}; NIfTI needs width, height, and depth or time"
    return ""


register(Format("nifti", "-nifti", write, folder_mark, check, growing=True, needs="nibabel", extra="volumes"))
