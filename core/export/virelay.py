"""ViRelAy: a project for each map and target of pictures, with the files that its reader asks for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, SampleError
from ..grid import resize
from ..render.filenames import slug
from ..render.image import levels, shade
from ..results import MapView
from ..results.durable import hdf5, reading
from .choice import Choice, axes_of
from .formats import Format, Task, folder_mark, register, write_text

CHANNELS = 3
"""Of a CAM: a third of it in each, so that their sum, which is drawn, is the CAM."""
THUMB = 16
"""Maps are compared at this size at most, along each axis."""
COMPONENTS = 8
STRATEGY = {"label": "true_label"}
"""ViRelAy knows two: the true label, and the predicted one, which every other target is filed under."""


def check(choice: Choice) -> list[MapView]:
    """The maps of pictures; `RequestError` where there is none."""
    shape = choice.results.input_shape
    if len(shape) == 3 and min(shape[1:]) < CHANNELS:
        few = f"{shape[1]} x {shape[2]} pixels are too few"
        raise RequestError(f"{choice.results.path}: ViRelAy takes the smallest axis for channels, {few}; take --to npz")
    maps, _ = choice.fitting(lambda view: _unfit(choice, view))
    if choice.no_inputs:
        raise RequestError(f"ViRelAy needs the pictures themselves: {choice.no_inputs}")
    return maps


def write(task: Task) -> None:
    """``OUT/dataset.h5``, ``OUT/label-map.json`` and ``OUT/NAME[.tK-TARGET]/{attribution,analysis}.h5, project.yaml``.

    ``python -m virelay OUT/*/project.yaml`` opens them. Samples without a picture, and maps that are not finite, are
    left out; ``index`` says which sample of the dataset each attribution is of. The analysis is the first principal
    components of the maps, brought to at most 16 x 16 and to length 1, with the predicted class and the label as
    clusters. A project is whole when its ``project.yaml`` is there.
    """
    choice = task.choice
    maps, task.notes = choice.fitting(lambda view: _unfit(choice, view))
    targets = choice.results.target_names
    task.total = len(choice.rows) * (1 + len(maps) * len(targets))
    rows = _dataset(task)
    if task.wanted(task.out / "label-map.json"):
        write_text(task.out / "label-map.json", json.dumps(_label_map(choice), indent=1))
    for view in maps:
        for k in range(len(targets)):
            _project(task, view, k, rows)


def _dataset(task: Task) -> NDArray[np.int64]:
    """Write the pictures; the rows that have one."""
    choice, results = task.choice, task.choice.results
    path = task.out / "dataset.h5"
    if not task.wanted(path):
        with reading(path) as file:
            return np.asarray(file["row"][:])
    size = results.input_shape[1:]
    kept: list[int] = []
    with hdf5(path) as file:
        data = _growing(file, "data", (len(choice.rows), CHANNELS, *size), np.uint8)
        for row in choice.rows.tolist():
            picture = _picture(choice, row)
            if picture is not None:
                data[len(kept)] = picture
                kept.append(row)
            task.advance()
        data.resize(len(kept), 0)
        file["label"], file["row"] = results.labels[kept].astype(np.int64), np.array(kept, np.int64)
    return np.array(kept, np.int64)


def _growing(file: Any, name: str, shape: tuple[int, ...], dtype: type) -> Any:
    """A dataset of a chunk for each sample, that may be cut short."""
    return file.create_dataset(
        name, shape, dtype, chunks=(1, *shape[1:]), maxshape=(None, *shape[1:]), compression="gzip",
        compression_opts=1, shuffle=True,
    )  # fmt: skip


def _picture(choice: Choice, row: int) -> NDArray[np.uint8] | None:
    """(3, H, W), as it is rendered; None where the sample cannot be read."""
    try:
        values = choice.results.inputs([row])[0]
    except SampleError:
        return None
    return np.moveaxis(shade(values, levels(values)), -1, 0) if np.isfinite(values).any() else None


def _project(task: Task, view: MapView, target: int, rows: NDArray[np.int64]) -> None:
    """Attributions and their analysis, and the project that holds them together."""
    choice, results = task.choice, task.choice.results
    several = len(results.target_names) > 1
    folder = task.out / (choice.folders[view.name] + (f".t{target}-{slug(results.target_names[target], 40)}" * several))
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in ("attribution.h5", "analysis.h5", "project.yaml")]
    missing = [path for path in paths if task.wanted(path)]
    if not missing:
        task.advance(len(choice.rows))
        return
    sizes = view.shape[-2:]
    channels = view.shape[2] if view.per_channel and view.shape[2] > 1 else CHANNELS
    index: list[int] = []
    thumbs: list[NDArray[np.float64]] = []
    with hdf5(paths[0]) as file:
        data = _growing(file, "attribution", (len(rows), channels, *sizes), np.float32)
        for place, row in enumerate(rows.tolist()):
            values = view.read([row])[0, target].reshape(-1, *sizes)
            if np.isfinite(values).all() and np.isfinite(results.outputs[row]).all():
                data[len(index)] = values if len(values) == channels else values.repeat(CHANNELS, 0) / CHANNELS
                thumbs.append(_thumb(values.sum(0, dtype=np.float64)))
                index.append(place)
            task.advance()
        data.resize(len(index), 0)
        file["prediction"] = results.outputs[rows[index]].astype(np.float32)
        file["label"], file["index"] = results.labels[rows[index]].astype(np.int64), np.array(index, np.uint32)
    with hdf5(paths[1]) as file:
        group = file.create_group("all")
        group["index"] = np.array(index, np.uint32)
        group["cluster/predicted"], group["cluster/label"] = results.predicted[rows[index]], results.labels[rows[index]]
        values, eigenvalues = principal(np.array(thumbs).reshape(len(index), -1))
        group["embedding/principal"] = values
        group["embedding/principal"].attrs["eigenvalue"] = eigenvalues
    write_text(paths[2], _yaml(choice, view, results.target_names[target]))


def _thumb(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map in few numbers, of length 1."""
    small = resize(values, [min(THUMB, size) for size in values.shape], antialias=True).reshape(-1)
    return small / (np.linalg.norm(small) or 1.0)


def principal(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first principal components of (n, d), (n, `COMPONENTS`), and their variances; largest entries positive."""
    if not len(values):
        return np.zeros((0, COMPONENTS)), np.zeros(COMPONENTS)
    centred = values - values.mean(0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(values))
    first = vectors[:, ::-1][:, :COMPONENTS]
    first = first * np.where(first[np.abs(first).argmax(0), np.arange(first.shape[1])] < 0, -1.0, 1.0)
    return centred @ first, variances[::-1][:COMPONENTS].clip(0)


def _label_map(choice: Choice) -> list[dict[str, object]]:
    """Every class that a sample may have or be taken for; -1 is unknown."""
    results = choice.results
    classes = results.classes or ()
    count = max(results.outputs.shape[1], len(classes), int(results.labels.max()) + 1)
    names = [*classes, *(f"class {k}" for k in range(len(classes), count))]
    known = [{"index": k, "word_net_id": str(k), "name": name} for k, name in enumerate(names)]
    return [*known, {"index": -1, "word_net_id": "-1", "name": "unknown"}]


def _yaml(choice: Choice, view: MapView, target: str) -> str:
    """A project, its paths relative to itself. Each text is written as JSON, which is YAML too."""
    results = choice.results
    height, width = results.input_shape[1:]
    identity = results.provenance["identity"]
    model = identity.get("model.source") or identity.get("model.weights") or "model"
    name = f"{results.path.stem}: {view.name}, {target}"

    def text(value: object) -> str:
        return json.dumps(str(value).encode("utf-8", "replace").decode(), ensure_ascii=False)

    return f"""project:
  name: {text(name)}
  model: {text(model)}
  label_map: ../label-map.json
  dataset:
    name: {text(results.path.stem)}
    type: hdf5
    path: ../dataset.h5
    input_width: {width}
    input_height: {height}
    down_sampling_method: none
    up_sampling_method: none
  attributions:
    attribution_method: {text(view.name)}
    attribution_strategy: {STRATEGY.get(target, "predicted_label")}
    sources: [attribution.h5]
  analyses:
    - analysis_method: maps
      sources: [analysis.h5]
"""


def _unfit(choice: Choice, view: MapView) -> str:
    """Why a map is none of a picture, "" where it is one."""
    axes = axes_of(choice.results, view)
    if view.axes is not None:
        return f"lies on axes of its own ({', '.join(axis.name for axis in axes)}), ViRelAy knows places only"
    if len(axes) != 2 or len(choice.results.input_shape) != 3:
        return f"has {len(axes)} spatial axes, ViRelAy is for pictures, of 2; take --to npz or --to zarr"
    if view.concepts:
        return "has a map for each concept, ViRelAy knows one; take --to npz or --to zarr"
    return ""


register(Format("virelay", "-virelay", write, folder_mark, check))
