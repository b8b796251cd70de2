"""Maps on axes of their own: what the file says of them, and what is read back."""

import json
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest

from camsweep.core.data import Axis
from camsweep.core.results import Parts, open_results, verify

from .synthetic import LEVELS, begun, contents, finish, info, of_a_signal, own, schema, unlike


def made(tmp_path, **more):
    which = schema(5, **(of_a_signal() | more))
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    finish(parts, columns, output)
    return which, columns, output


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_every_column_comes_back_bit_by_bit(tmp_path, dtype):
    which, columns, output = made(tmp_path, dtype=dtype)
    paths = [column.path for column in which.columns if column.path.startswith("maps/parts/")]
    assert paths == [
        f"maps/parts/{name}" for name in ("values", "range", *(["scale"] * (dtype == "float16")), "signals")
    ]
    real = "float64" if dtype == "float64" else "float32"
    assert {c.dtype for c in which.columns if c.path.endswith(("residual", "signals"))} == {real}
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []
    assert verify(output) == []


def test_a_flipped_bit_in_them_is_found(tmp_path):
    _, _, output = made(tmp_path)
    with h5py.File(output, "r+") as file:
        file["maps/spectrum/residual"][1, 0] = 5
        file["maps/ica/signals"][3, 0, 7] = 5
    assert verify(output) == ["row 1 is damaged", "row 3 is damaged"]


def test_the_manifest_of_an_unfinished_run_says_the_same(tmp_path):
    which = schema(5, **of_a_signal())
    parts, _ = begun(tmp_path, which)
    again = Parts.open(parts.folder).schema
    assert again == which
    assert again.maps[4].axes == (LEVELS,)
    assert isinstance(again.maps[4].axes[0].labels, tuple)


def test_a_manifest_from_before_is_opened(tmp_path):
    which = schema(5)
    parts, _ = begun(tmp_path, which)
    said = asdict(which)
    for each in said["maps"]:
        for name in ("axes", "residual", "signals", "domain", "layout"):
            del each[name]
    for each in said["axes"]:
        del each["labels"]
    (parts.folder / "manifest.json").write_text(json.dumps(said))
    assert Parts.open(parts.folder).schema == which


def test_each_map_is_read_with_its_axes(tmp_path):
    which, columns, output = made(tmp_path)
    with open_results(output) as results:
        for each in which.maps:
            view = results.map(each.name)
            assert (view.axes, view.domain, view.layout) == (each.axes, each.domain, each.layout)
            assert view.read([1]).shape[2 + each.per_channel :] == each.spatial
            residual, signals = view.residual(), view.signals([3, 0])
            if each.residual:
                assert residual.tobytes() == columns[f"{each.group}/residual"].tobytes()
            else:
                assert residual is None
            assert view.signals_shape == each.signals
            if each.signals:
                assert signals.tobytes() == columns[f"{each.group}/signals"][[3, 0]].tobytes()
            else:
                assert signals is None


def test_scales_are_attached_with_units_and_names(tmp_path):
    which, _, output = made(tmp_path)
    with h5py.File(output) as file:
        for each in which.maps:
            values, leading = file[f"{each.group}/values"], 2 + each.per_channel
            said = json.loads(file[each.group].attrs["axes"])
            assert said == [dimension.label for dimension in values.dims]
            assert said[:leading] == ["sample", "target", "channel"][:leading]
            assert said[leading:] == [axis.name for axis in each.axes]
            for k, (axis, size) in enumerate(zip(each.axes, each.spatial, strict=True), leading):
                scale = values.dims[k][0]
                assert scale == file[f"{each.group}/axes/{axis.name}"]
                assert scale.is_scale
                assert scale.attrs["units"] == axis.unit
                if axis.labels:
                    assert [name.decode() for name in scale[:]] == list(axis.labels)
                else:
                    assert (scale.attrs["step"], scale.attrs["start"]) == (axis.step, axis.start)
                    np.testing.assert_array_equal(scale[:], axis.coordinates(size))
        parts = file["maps/parts/signals"].dims
        assert [dimension.label for dimension in parts] == ["sample", "component", "channel", "time"]
        assert parts[3][0] == file["axes/time"]
        assert [dimension.label for dimension in file["maps/ica/signals"].dims] == ["sample", "component", "time"]


def test_an_axis_as_long_as_the_input_is_not_taken_for_the_input(tmp_path):
    _, _, output = made(tmp_path)
    with h5py.File(output) as file:
        assert file["maps/cepstrum/values"].dims[3].label == "quefrency"
        assert file["maps/cepstrum/values"].dims[3][0] != file["axes/time"]


@pytest.mark.parametrize(
    ("first", "axes"), [("stft", [".", ".", ".", "frequency", "time"]), ("wavelet", [".", ".", ".", ".", "time"])]
)
def test_viewers_find_the_first_map_with_its_axes(tmp_path, first, axes):
    maps = sorted(of_a_signal()["maps"], key=lambda each: each.expression != first)
    _, _, output = made(tmp_path, maps=maps)
    with h5py.File(output) as file:
        plot = file["plot"]
        assert plot[plot.attrs["signal"]] == file[f"maps/{first}/values"]
        assert list(plot.attrs["axes"]) == axes
        for k, name in enumerate(axes):
            if name != ".":
                assert plot[name].shape == (plot["values"].shape[k],)
                assert plot[name] == file[f"maps/{first}/axes/{name}"]


def test_pictures_and_volumes_too(tmp_path):
    height, width = (replace(LEVELS, name=name, unit="1/mm", step=0.1, start=-0.5, labels=()) for name in "ab")
    maps = [
        info(shape=(9, 14)),
        own("fourier", (2, 9, 8), (height, width), "image"),
        own("levels", (2, 3, 9, 14), (LEVELS, *schema().axes), "image"),
    ]
    which = schema(5, maps=maps)
    parts, output = begun(tmp_path, which)
    finish(parts, contents(which), output)
    with open_results(output) as results:
        assert [view.axes for view in results.maps.values()] == [
            {each.name: each.axes for each in maps}[name] for name in results.maps
        ]


@pytest.mark.parametrize("names", [("f", "f"), ("", "."), ("values", "a/b"), ("größe ☃", "100%"), ("axis 1", "axis 1")])
def test_axes_of_any_name(tmp_path, names):
    axes = tuple(Axis(name, "", 2.0 + k) for k, name in enumerate(names))
    _, _, output = made(tmp_path, maps=[own("mine", (4, 6), axes, "image", per_channel=False)])
    with open_results(output) as results:
        assert results.map("mine").axes == axes
    with h5py.File(output) as file:
        assert [len(dimension[0]) for dimension in list(file["maps/mine/values"].dims)[2:]] == [4, 6]
        keys = file["plot"].attrs["axes"][2:]
        assert [file["plot"][key].shape for key in keys] == [(4,), (6,)]


def test_files_from_before_are_opened(tmp_path):
    which = schema(5)
    parts, output = begun(tmp_path, which)
    finish(parts, contents(which), output)
    with h5py.File(output, "r+") as file:
        for group in file["maps"].values():
            for name in ("domain", "layout", "own_axes"):
                del group.attrs[name]
    with open_results(output) as results:
        assert list(results.axes) == which.axes
        for view in results.maps.values():
            assert (view.axes, view.domain, view.layout, view.signals_shape) == (None, "", "", None)
            assert view.residual() is None
            assert view.signals() is None
