"""NPZ, read by NumPy and held against the HDF5 file, bit by bit."""

from __future__ import annotations

import json
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from camsweep.core.data import Axis
from camsweep.core.export import choice, export

from ..results.synthetic import info, of_a_signal, own
from .conftest import FAILED, HOSTILE


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_every_array_is_what_the_file_has(make, opened, dtype):
    made = make(odd=True, dtype=dtype)
    results = opened(made.path)
    with np.errstate(invalid="ignore", over="ignore"):
        task = export(results, "npz")
        assert task.out == made.path.with_name(f"{made.path.stem}-maps.npz")
        with np.load(task.out, allow_pickle=False) as found:
            assert found["ids"].tolist() == HOSTILE
            assert found["status_names"][found["status"]].tolist() == [
                "ok", "ok", "failed", "ok", "zero map", "ok", "ok", "ok",
            ]  # fmt: skip
            assert found["messages"].tolist() == [text.decode() for text in made.columns["samples/message"]]
            assert found["targets"].tolist() == made.schema.targets
            assert found["labels"].tolist() == made.schema.labels
            assert found["classes"].tolist() == made.schema.classes
            for key, path in {
                "scores": "outputs/scores",
                "predicted": "outputs/predicted",
                "target_index": "targets/index",
                "target_foil": "targets/foil",
                "target_score": "targets/score",
            }.items():
                assert found[key].tobytes() == made.columns[path].tobytes()
            about = json.loads(str(found["about"]))
            for view in results.maps.values():
                key = next(key for key, said in about["maps"].items() if said["name"] == view.name)
                assert found[key].dtype == ("float32" if dtype == "float16" else dtype)
                assert found[key].tobytes() == view.read().tobytes()
                assert np.isnan(found[key][FAILED]).all()
            assert about["maps"]["maps/grad+input"]["axes"] == ["sample", "target", "channel", "height", "width"]
            assert about["maps"]["maps/grad+input"]["axis_units"] == ["mm", "mm"]
            np.testing.assert_array_equal(found["axes/grad+input/1"], 0.25 + 0.5 * np.arange(14))
            assert about["provenance"]["identity"] == made.schema.provenance.identity


def test_maps_on_axes_of_their_own_have_them_with_residuals_and_signals(make, opened):
    made = make(**of_a_signal())
    with np.load(export(opened(made.path), "npz").out) as found:
        np.testing.assert_array_equal(found["axes/spectrum/0"], 2.5 * np.arange(21))
        assert found["axes/wavelet/0"].tolist() == ["A2 0-12.5 Hz", "größer ☃", "rest"]
        np.testing.assert_array_equal(found["axes/wavelet/1"], np.arange(40) * 0.01 + 0.5)
        assert found["residuals/stft"].tobytes() == made.columns["maps/stft/residual"].tobytes()
        assert found["signals/ica"].tobytes() == made.columns["maps/ica/signals"].tobytes()
        assert found["signals/parts"].tobytes() == made.columns["maps/parts/signals"].tobytes()
        assert json.loads(str(found["about"]))["maps"]["maps/ica"]["axes"] == ["sample", "target", "component"]


def test_some_maps_and_samples(make, opened):
    made = make()
    results = opened(made.path)
    out = made.path.with_name("some.npz")
    export(results, "npz", out, maps=["gradcam@layer4"], samples=["aB", "CON", "aB"])
    with np.load(out) as found:
        assert (found["ids"].tolist(), found["rows"].tolist()) == (["aB", "CON"], [4, 1])
        assert [key for key in found if key.startswith("maps/")] == ["maps/gradcam@layer4"]
        assert found["maps/gradcam@layer4"].tobytes() == made.values("gradcam@layer4")[[4, 1]].tobytes()
        assert found["scores"].tobytes() == made.columns["outputs/scores"][[4, 1]].tobytes()


def test_names_that_are_no_file_names(make, opened):
    names = ["../../x", "a/b", "A_b"]
    made = make(maps=[info(layer=name) for name in names])
    results = opened(made.path)
    task = export(results, "npz")
    with np.load(task.out) as found, zipfile.ZipFile(task.out) as archive:
        assert not [name for name in archive.namelist() if ".." in name or name.startswith("/")]
        said = json.loads(str(found["about"]))["maps"]
        for key, about in said.items():
            assert found[key].tobytes() == made.values(about["name"]).tobytes()
        assert len({key.casefold() for key in said}) == 3


def test_it_is_written_a_few_rows_at_a_time(make, opened, monkeypatch):
    monkeypatch.setattr(choice, "BLOCK_BYTES", 1 << 16)
    shape = (1, 256, 256)
    ids = [str(k) for k in range(60)]
    made = make(ids=ids, shape=shape, maps=[info(shape=shape[1:])], inputs_dtype=None, targets=["predicted"])
    results = opened(made.path)
    export(results, "npz", made.path.with_name("warm.npz"), limit=5)
    tracemalloc.start()
    task = export(results, "npz")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = made.values("gradcam@layer4").nbytes
    assert most < whole / 5, (most, whole)
    with np.load(task.out) as found:
        assert found["maps/gradcam@layer4"].tobytes() == made.values("gradcam@layer4").tobytes()


@pytest.mark.parametrize("name", ["ecg", "digits", "motion"])
def test_of_the_sample_jobs(jobs, opened, tmp_path, name):
    task = export(opened(jobs(name)), "npz", tmp_path / "a.npz")
    with np.load(task.out) as found, h5py.File(jobs(name), locking=False) as file:
        assert found["status"].tolist() == [1, 3, 1, 1, 1, 1]
        assert found["ids"].tolist() == [*HOSTILE[:5], "last"]
        np.testing.assert_array_equal(found["target_foil"], file["targets/foil"][:])
        assert (found["target_foil"][[0, 2, 3, 4, 5], 2] >= 0).all()
        for key in [key for key in found if key.startswith("maps/")]:
            about = json.loads(str(found["about"]))["maps"][key]
            np.testing.assert_array_equal(found[key], file[f"maps/{about['name']}/values"][:])
            assert np.isnan(found[key][1]).all()


def test_a_map_that_has_no_axes(make, opened):
    made = make(shape=(2, 40), maps=[own("total", (2,), (), "bars")])
    with np.load(export(opened(made.path), "npz").out) as found:
        assert found["maps/total"].tobytes() == made.values("total").tobytes()


def test_axes_of_a_layer_have_the_extent_of_the_input(make, opened):
    made = make(shape=(2, 40), axes=[Axis("time", "s", 0.01, 0.5)], maps=[info(shape=(10,))])
    with np.load(export(opened(made.path), "npz").out) as found:
        np.testing.assert_allclose(found["axes/gradcam@layer4/0"], 0.515 + 0.04 * np.arange(10), rtol=1e-12)
