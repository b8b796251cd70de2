"""Zarr, read by zarr and by xarray, held against the HDF5 file group by group."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr

from camsweep.core.export import choice, export
from camsweep.core.export import zarr as store

from ..results.synthetic import info, of_a_signal
from .conftest import HOSTILE

MACHINERY = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS", "default"}


def tree(file):
    """Every group and dataset but the links, by path."""
    found = {"": file}

    def see(node, path):
        for key in node:
            if f"{path}{key}" != "plot":
                found[f"{path}{key}"] = node[key]
                if isinstance(node[key], h5py.Group):
                    see(node[key], f"{path}{key}/")

    see(file, "")
    return found


def plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def same(path, out, rows=None, names=lambda path: path):
    """Hold a store against the file it is of; the paths that were compared."""
    root = zarr.open_group(out, mode="r")
    with h5py.File(path, locking=False) as file:
        count = len(file["samples/status"])
        for name, node in tree(file).items():
            copy = root[names(name)] if name else root
            told = dict(copy.attrs)
            for key, value in node.attrs.items():
                if key not in MACHINERY and (name or key != "columns"):
                    assert told[key] == plain(value), (name, key)
            if isinstance(node, h5py.Dataset):
                stored = node[()]
                if rows is not None and stored.shape[:1] == (count,):
                    stored = stored[rows]
                assert copy.dtype == node.dtype
                assert copy[...].tobytes() == stored.tobytes(), name
                labels = [dimension.label for dimension in node.dims]
                dimensions = told["_ARRAY_DIMENSIONS"]
                assert len(dimensions) == node.ndim
                assert all(label in ("", dimension) for label, dimension in zip(labels, dimensions, strict=True))
        return list(tree(file))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_groups_arrays_and_attributes_are_the_files_own(make, opened, dtype):
    made = make(odd=True, dtype=dtype, channels=["I", "größe"])
    task = export(opened(made.path), "zarr")
    assert task.out == made.path.with_name("run.zarr")
    paths = same(made.path, task.out)
    assert "maps/gradcam@layer4/values" in paths
    assert "provenance" in paths
    root = zarr.open_group(task.out, mode="r")
    assert [b.decode("utf-8", "surrogateescape") for b in root["samples/id"][:]] == HOSTILE
    assert json.loads(root.attrs["columns"]) == [column.path for column in made.schema.columns]
    assert "plot" not in root


def test_own_axes_concepts_and_large_rows(make, opened, monkeypatch):
    monkeypatch.setattr(store, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(choice, "BLOCK_BYTES", 1 << 12)
    made = make(**of_a_signal())
    same(made.path, export(opened(made.path), "zarr").out)
    made = make(name="large.h5", shape=(1, 80, 90), maps=[info(shape=(80, 90))])
    task = export(opened(made.path), "zarr")
    same(made.path, task.out)
    with h5py.File(made.path, locking=False) as file:
        chunks = file["maps/gradcam@layer4/values"].chunks
    assert zarr.open_group(task.out, mode="r")["maps/gradcam@layer4/values"].chunks == chunks == (1, 2, 80, 90)
    kept = {path.name for path in (task.out / "maps/gradcam@layer4/values").iterdir()}
    assert {f"{row}.0.0.0" for row in range(len(HOSTILE))} <= kept  # also that of zeros


@pytest.mark.parametrize("name", ["ecg", "motion"])
def test_of_the_sample_jobs(jobs, opened, tmp_path, name):
    same(jobs(name), export(opened(jobs(name)), "zarr", tmp_path / "a.zarr").out)


def test_some_maps_and_samples(make, opened):
    made = make()
    task = export(opened(made.path), "zarr", maps=["grad+input"], samples=["aB", "CON"])
    root = zarr.open_group(task.out, mode="r")
    assert list(root["maps"]) == ["grad+input"]
    assert root["maps/grad+input/values"][:].tobytes() == made.values("grad+input")[[4, 1]].tobytes()
    assert root["samples/index"][:].tolist() == [4, 1]
    assert root["inputs/values"][:].tobytes() == made.columns["inputs/values"][[4, 1]].tobytes()
    assert "crc32" not in root["samples"]
    assert not [path for path in json.loads(root.attrs["columns"]) if "gradcam" in path]
    all_maps = export(opened(made.path), "zarr", made.path.with_name("rows.zarr"), samples=["aB", "CON"])
    assert same(made.path, all_maps.out, [4, 1])


def test_names_that_no_file_system_takes(make, opened, tmp_path):
    names = ["../../x", "/a/b", "L" * 300, "A", "a", "100%"]
    made = make(maps=[info(layer=name) for name in names])
    task = export(opened(made.path), "zarr", tmp_path / "deep" / "out.zarr")
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out.zarr"}
    maps = zarr.open_group(task.out, mode="r")["maps"]
    assert {group.attrs["layer"] for _, group in maps.groups()} == {*names}
    for key, group in maps.groups():
        assert group["values"][:].tobytes() == made.values(f"gradcam@{group.attrs['layer']}").tobytes()
        assert len(key) < 100
        with h5py.File(made.path, locking=False) as file:
            assert file[group.attrs["hdf5"]].attrs["layer"] == group.attrs["layer"]
    assert len({key.casefold() for key in maps}) == len(names)


def test_xarray_opens_a_group(make, opened):
    import xarray

    made = make(shape=(2, 40), maps=of_a_signal()["maps"], axes=of_a_signal()["axes"])
    task = export(opened(made.path), "zarr")
    with xarray.open_zarr(task.out, group="maps/stft", consolidated=False, chunks=None) as found:
        assert found["values"].dims == ("sample", "target", "channel", "frequency", "time")
        assert found["values"].values.tobytes() == made.values("stft").tobytes()
    with xarray.open_zarr(task.out, group="outputs", consolidated=False, chunks=None) as found:
        assert found["scores"].dims == ("sample", "output")
