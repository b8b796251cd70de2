"""Maps as xarray sees them: the values of the file, read when they are asked for, and what is known of each axis."""

from __future__ import annotations

import builtins
import json
import tracemalloc

import numpy as np
import pytest
import xarray

from camsweep.core.data import Axis
from camsweep.core.errors import RequestError
from camsweep.core.export import choice
from camsweep.core.export.frames import data_array, dataset
from camsweep.core.results import MapView

from ..results.synthetic import info, of_a_signal, own
from .conftest import FAILED, HOSTILE, ZERO


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_values_and_what_is_known_of_them(make, opened, dtype):
    made = make(dtype=dtype, channels=["I", "größe"])
    results = opened(made.path)
    array = data_array(results, "grad+input")
    assert array.dims == ("sample", "target", "channel", "height", "width")
    assert array.dtype == ("float32" if dtype == "float16" else dtype)
    assert array.values.tobytes() == results.map("grad+input").read().tobytes()
    assert array.sample.values.tolist() == HOSTILE
    assert array.target.values.tolist() == made.schema.targets
    assert array.channel.values.tolist() == ["I", "größe"]
    np.testing.assert_array_equal(array.width, 0.25 + 0.5 * np.arange(14))
    assert array.width.units == "mm"
    assert array.status.values[[0, FAILED, ZERO]].tolist() == ["ok", "failed", "zero map"]
    assert array.label.values.tolist() == made.schema.labels
    np.testing.assert_array_equal(array.score, made.columns["targets/score"])
    np.testing.assert_array_equal(array.foil, made.columns["targets/foil"])
    assert array.name == "grad+input"
    assert array.attrs["units"] == "score"
    assert array.attrs["job"] == made.schema.provenance.job
    assert array.attrs["formula"] == "relu(sum_k mean(G_k) A_k)"


def test_samples_are_found_by_what_they_are_called(make, opened):
    made = make()
    array = data_array(opened(made.path), "gradcam@layer4")
    for row, name in enumerate(HOSTILE):
        found = array.sel(sample=name, target="label-vs-predicted")
        np.testing.assert_array_equal(found, made.values("gradcam@layer4")[row, 1])
    good = array.where(array.status == "ok", drop=True)
    assert good.sample.values.tolist() == [name for row, name in enumerate(HOSTILE) if row not in (FAILED, ZERO)]
    changed = array.copy()
    changed[0] = 7.0
    assert (array[0] != 7).all()
    near = array.sel(height=1.3, width=3.2, method="nearest")
    np.testing.assert_array_equal(near, made.values("gradcam@layer4")[:, :, 2, 6])


KEYS = [
    np.s_[3],
    np.s_[2:7:2, 1],
    np.s_[::-1],
    np.s_[[5, 0, 5]],
    np.s_[:, 0, 1, 2:5],
    np.s_[1:1],
    np.s_[..., ::-3],
    np.s_[-1, :, [1, 0], [4, 4, 2]],
    np.s_[[0, 1], [1], :, 3, 5:1:-1],
    np.s_[6, 1, 1, 8, 13],
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_any_part_is_what_numpy_would_take(make, opened, monkeypatch, key):
    monkeypatch.setattr(choice, "BLOCK_BYTES", 3000)
    made = make()
    array, stored = data_array(opened(made.path), "grad+input"), made.values("grad+input")
    expected = xarray.DataArray(stored, dims=array.dims)[key]
    np.testing.assert_array_equal(array[key], expected)
    assert array[key].dtype == np.float32
    np.testing.assert_array_equal(array[1:][::2][:2, 0], stored[1:][::2][:2, 0])


def test_only_what_is_asked_for_is_read(make, opened, monkeypatch):
    made = make()
    results = opened(made.path)
    asked = []
    read = MapView.read
    monkeypatch.setattr(MapView, "read", lambda self, rows: asked.append(rows) or read(self, rows))
    array = data_array(results, "gradcam@layer4")
    part = array.sel(sample=["aB", "CON"]).isel(target=0)
    _ = array.sizes, array.dtype, array.coords, repr(array.sample)
    assert asked == []
    np.testing.assert_array_equal(part, made.values("gradcam@layer4")[[4, 1], 0])
    assert sorted(row for rows in asked for row in np.atleast_1d(np.arange(8)[rows])) == [1, 4]


def test_reduced_without_holding_all_of_it(make, opened, monkeypatch):
    monkeypatch.setattr(choice, "BLOCK_BYTES", 1 << 18)
    shape = (1, 128, 128)
    made = make(ids=[str(k) for k in range(60)], shape=shape, maps=[info(shape=shape[1:])], inputs_dtype=None)
    array = data_array(opened(made.path), "gradcam@layer4")
    stored = made.values("gradcam@layer4")
    _ = array[:3, 0, 0, 0].values
    tracemalloc.start()
    column = array[:, 0, 64, 64].values
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(column, stored[:, 0, 64, 64])
    assert most < stored.nbytes / 4, most


def test_all_maps_at_once_with_axes_told_apart(make, opened):
    made = make(**of_a_signal())
    results = opened(made.path)
    found = dataset(results)
    assert set(found.data_vars) == {*results.maps}
    for name in results.maps:
        np.testing.assert_array_equal(found[name], made.values(name))
    assert found["spectrum"].dims[-1] == "frequency"
    frequencies = {found[name].dims[3] for name in ("spectrum", "stft")}
    assert len(frequencies) == 2
    for name, axis in (("spectrum", 2.5 * np.arange(21)), ("stft", 12.5 * np.arange(5))):
        key = found[name].dims[3]
        np.testing.assert_array_equal(found.coords[key], axis)
        assert found.coords[key].units == "Hz"
    assert found.level.values.tolist() == ["A2 0-12.5 Hz", "größer ☃", "rest"]
    assert list(dataset(results, ["levels"]).data_vars) == ["levels"]
    assert json.loads(found.attrs["identity"]) == made.schema.provenance.identity
    assert all(isinstance(value, str | int | float) for value in found.attrs.values())


def test_axes_of_any_name(make, opened):
    axes = tuple(Axis(name, "", 2.0 + k) for k, name in enumerate(["sample", "status", "", "f", "f"]))
    made = make(shape=(2, 40), maps=[own("mine", (2, 3, 2, 2, 3), axes, "image", per_channel=False)])
    array = data_array(opened(made.path), "mine")
    assert len(set(array.dims)) == 7
    np.testing.assert_array_equal(array, made.values("mine"))
    np.testing.assert_array_equal(array[array.dims[-1]], 6.0 * np.arange(3))


@pytest.mark.parametrize("name", ["ecg", "motion"])
def test_of_the_sample_jobs(jobs, opened, name):
    results = opened(jobs(name))
    found = dataset(results)
    for each, view in results.maps.items():
        np.testing.assert_array_equal(found[each], view.read())
        assert found[each].time.units == "s"
    assert found.status.values.tolist()[1] == "non-finite"
    assert found["gradcam@" + {"ecg": "stage3", "motion": "stage2"}[name]].layer.startswith("stage")


def test_a_layers_grid_beside_the_inputs(make, opened):
    time = Axis("time", "s", 0.01, 0.5)
    maps = [info(shape=(10,)), info("grad", None, (2, 40), per_channel=True)]
    found = dataset(opened(make(shape=(2, 40), axes=[time], maps=maps).path))
    np.testing.assert_array_equal(found.time, time.coordinates(40))
    np.testing.assert_allclose(found["time of gradcam@layer4"], 0.515 + 0.04 * np.arange(10))


def test_without_xarray_and_with_wrong_names(make, opened, monkeypatch):
    results = opened(make().path)
    with pytest.raises(RequestError, match="Did you mean 'gradcam@layer4'"):
        data_array(results, "gradcam@layer3")
    imports = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "xarray":
            raise ImportError(name)
        return imports(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RequestError, match=r"to_xarray needs xarray: pip install 'camsweep\[xarray\]'"):
        data_array(results, "gradcam@layer4")
