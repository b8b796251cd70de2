"""From parts to the finished file: gathered, described, checked, and only then put in place."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from ..errors import StorageError
from ..scheduling.shard import ranges
from . import durable
from .metrics import MetricsSchema
from .packing import Packing
from .parts import ROW, Parts, gather
from .reader import FORMAT, verify
from .schema import CHECKSUM, MapInfo, Recorded, Schema

VERSION = 1


def merge(parts: Parts[Any], output: Path, *, finished: str, keep: bool = False, lacking: bool = False) -> None:
    """Publish ``output`` from all its parts, then remove them, unless they are to be kept.

    `StorageError` where rows are missing or damaged; where that is allowed (``lacking``) they are in the file as not
    known, with status `Status.TODO`. `Stopped` where ``parts.stop`` is set meanwhile.
    """
    schema = parts.schema
    missing = np.flatnonzero(parts.owners() < 0)
    if len(missing) and not lacking:
        raise StorageError(
            f"{parts.folder}: {len(missing)} of {len(schema)} rows are not done, or damaged; run the same command again"
        )

    def check(path: Path) -> None:
        if damaged := verify(path, sorted({0, len(schema) // 2, len(schema) - 1})):
            raise StorageError(f"{output}: {damaged[0]} after merging; run the same command again: the parts are kept")
        durable.seal(path, parts.heed)

    _room(parts, output)
    with durable.hdf5(output, check) as file:
        packing = Packing.parse(schema.compression)
        gather(parts.files(), np.arange(len(schema)), (*schema.columns, CHECKSUM), file, packing, parts.heed)
        _leave_blank(file, schema, missing)
        schema.describe(file, finished) if isinstance(schema, MetricsSchema) else describe(file, schema, finished)
    if not keep:
        parts.remove()


def _leave_blank(file: h5py.File, schema: Recorded, missing: NDArray[np.int64]) -> None:
    blank = schema.blank(1)
    rows = {**blank, CHECKSUM.path: schema.checksums(blank)}
    for first, last in ranges(missing):
        for path, row in rows.items():
            file[path][first : last + 1] = row.astype(file[path].dtype)


def _room(parts: Parts[Any], output: Path) -> None:
    """`StorageError` where the disk has less room than the chunks take that are copied as they are."""
    disk = os.statvfs(output.parent)
    free = disk.f_bavail * disk.f_frsize
    if free > parts.size():  # which is more than its chunks, and told without opening any
        return
    needed, rows = 0, 0
    for path in parts.files():
        with durable.told(path), durable.reading(path) as part:
            rows += len(part[ROW.path])
            needed += sum(part[c.path].id.get_storage_size() for c in parts.schema.columns if c.direct)
    if rows == len(parts.schema) and free < needed:  # where some rows are there twice, it cannot be told
        raise StorageError(
            f"{output}: no space left: {needed / 1e6:.1f} MB are needed to put it together beside its parts, "
            f"{free / 1e6:.1f} MB are free; free some space, then run the same command again: finished rows are kept"
        )


def describe(file: h5py.File, schema: Schema, finished: str) -> None:
    """Everything but the rows: names, axes, provenance, and a plot that viewers open by themselves."""
    file.attrs.update({"format": FORMAT, "version": VERSION, "default": "plot", "NX_class": "NXroot"})
    file.attrs["columns"] = json.dumps([column.path for column in schema.columns])
    _strings(file, "samples/id", schema.ids)
    file["samples/index"] = np.arange(len(schema))
    file["samples/label"] = np.array(schema.labels, np.int32)
    file["samples"].attrs["status"] = "0 todo, 1 ok, 2 zero map, 3 non-finite, 4 failed"
    if schema.classes is not None:
        _strings(file, "outputs/classes", schema.classes)
    if schema.channels is not None:
        _strings(file, "inputs/channels", schema.channels)
    file["outputs"].attrs["final"] = schema.final or ""
    _strings(file, "targets/name", schema.targets)
    file["targets"].attrs["score"] = schema.score
    for name, concepts in schema.concepts.items():
        group = file.create_group(f"concepts/{name.replace('%', '%25').replace('/', '%2F')}")
        group["vectors"], group["offset"], group["scores"] = concepts.vectors, concepts.offset, concepts.scores
    if schema.mean is not None:
        file["inputs/mean"] = np.array(schema.mean)
    if schema.bounds is not None:
        file["inputs/bounds"] = np.array(schema.bounds)
    file.require_group("maps").attrs["unruled"] = json.dumps(schema.unruled)
    if schema.precision != "float32":
        file["maps"].attrs.update({"precision": schema.precision, "errors": json.dumps(schema.errors)})
    _axes(file, schema)
    for each in schema.maps:
        _describe_map(file, schema, each)
    inputs = file.require_group("inputs")
    inputs.attrs["data"] = json.dumps(schema.data)
    inputs.attrs["shape"] = np.array(schema.input_shape)
    provenance = file.create_group("provenance")
    for key, value in {**asdict(schema.provenance), "finished": finished}.items():
        provenance.attrs[key] = json.dumps(value) if key in schema.provenance.structured else value
    _plot(file, schema)


def _axes(file: h5py.File, schema: Schema) -> None:
    group = file.create_group("axes")
    for axis, size in zip(schema.axes, schema.input_shape[1:], strict=True):
        _scale(group, axis.name, axis, size)
    group.attrs["names"] = json.dumps([axis.name for axis in schema.axes])


def _scale(group: h5py.Group, key: str, axis: Axis, size: int) -> None:
    """One axis: where its points lie, or what they are called."""
    if axis.labels:
        scale = _strings(group, key, list(axis.labels))
    else:
        scale = group.create_dataset(key, data=axis.coordinates(size))
        scale.attrs["step"], scale.attrs["start"] = axis.step, axis.start
    scale.attrs["units"] = axis.unit
    scale.make_scale(axis.name)


def _describe_map(file: h5py.File, schema: Schema, info: MapInfo) -> None:
    group = file[info.group]
    names = ["sample", "target", *([info.leading] if info.leading else [])]
    axes, scales = _places(file, schema, info)
    group.attrs.update(
        {
            "expression": info.expression,
            "layer": info.layer or "",
            "method": info.method,
            "rank": len(info.spatial),
            "axes": json.dumps([*names, *(axis.name for axis in axes)]),
            "own_axes": info.axes is not None,
            "domain": info.domain,
            "layout": info.layout,
            "units": info.units,
            "signed": info.signed,
            "per_channel": info.per_channel,
            "concepts": info.concepts,
            "formula": info.formula,
            "source": info.source,
            **({} if info.relu is None else {"relu": info.relu}),
        }
    )
    values = group["values"]
    for i, name in enumerate(names):
        values.dims[i].label = name
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True), len(names)):
        values.dims[i].label = axis.name
        values.dims[i].attach_scale(scale)
    if info.signals is not None:
        channel = ["channel"] * (len(info.signals) - len(schema.input_shape))
        dims = group["signals"].dims
        for i, name in enumerate(["sample", "component", *channel, *(axis.name for axis in schema.axes)]):
            dims[i].label = name
        for i, axis in enumerate(schema.axes, 2 + len(channel)):
            dims[i].attach_scale(file[f"axes/{axis.name}"])


def _places(file: h5py.File, schema: Schema, info: MapInfo) -> tuple[list[Axis], list[h5py.Dataset]]:
    """The axes that a map lies on and their scales: its own, the input's, or none where it has a layer's grid."""
    if info.axes is not None:
        group = file[info.group].require_group("axes")
        keys: list[str] = []
        for k, (axis, size) in enumerate(zip(info.axes, info.spatial, strict=True)):
            plain = axis.name.replace("%", "%25").replace("/", "%2F")
            keys.append(f"%{k}" if plain in ("", ".", "values", *keys) else plain)  # users call them anything
            if keys[k] not in group:
                _scale(group, keys[k], axis, size)
        return list(info.axes), [group[key] for key in keys]
    axes = list(schema.axes) if schema.input_shape[1:] == info.spatial else []
    return axes, [file[f"axes/{axis.name}"] for axis in axes]


def _plot(file: h5py.File, schema: Schema) -> None:
    """NXdata (NeXus): hard links, so that h5web, silx and NeXpy show the first map when the file is opened."""
    first = schema.maps[0]
    plot = file.create_group("plot")
    plot["values"] = file[f"{first.group}/values"]
    named = []
    for axis, scale in zip(*_places(file, schema, first), strict=True):
        named.append("." if axis.labels else scale.name.rpartition("/")[2])
        if not axis.labels:  # viewers refuse an axis of names
            plot[named[-1]] = scale
    plot.attrs.update({"NX_class": "NXdata", "signal": "values", "title": first.name})
    # Lines are drawn as lines, not as a picture of all samples; float16 stores shares of a scale, which have no unit.
    drawn = {"interpretation": "spectrum" if len(first.spatial) < 2 else "image", "long_name": first.name}
    plot["values"].attrs.update(drawn if schema.dtype == "float16" else {**drawn, "units": first.units})
    plot.attrs["axes"] = np.array(["."] * (plot["values"].ndim - len(named)) + named, h5py.string_dtype())


def _strings(file: h5py.Group, path: str, strings: list[str]) -> h5py.Dataset:
    encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
    length = max([1, *map(len, encoded)])
    return file.create_dataset(path, data=np.array(encoded, h5py.string_dtype("utf-8", length)))
