"""The merge: all or nothing, and a file that other tools open."""

import json
import os

import h5py
import numpy as np
import pytest

from camsweep.core.data import Axis
from camsweep.core.errors import Stopped, StorageError
from camsweep.core.results import durable, merge, open_results, stored_identity, verify

from .synthetic import Moment, begun, commit, contents, finish, info, provenance, schema, unlike


def made(tmp_path, which=None):
    which = which or schema()
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    finish(parts, columns, output)
    return which, columns, output


def test_missing_rows_are_refused_and_counted(tmp_path):
    which = schema(10)
    parts, output = begun(tmp_path, which)
    commit(parts, contents(which), [0, 1, 5])
    with pytest.raises(StorageError, match="7 of 10 rows are not done"):
        merge(parts, output, finished="now")
    assert not output.exists()
    assert len(parts.files()) == 1


def test_a_check_that_fails_leaves_no_output_and_all_parts(tmp_path, monkeypatch):
    which = schema(10)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    commit(parts, columns, range(10))
    with monkeypatch.context() as patch:
        patch.setitem(merge.__globals__, "verify", lambda *_: ["row 3 is damaged"])
        with pytest.raises(StorageError, match="row 3 is damaged"):
            merge(parts, output, finished="now")
    assert [path.name for path in tmp_path.iterdir()] == [parts.folder.name]
    assert len(parts.files()) == 1
    merge(parts, output, finished="now")
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []


def test_an_error_while_merging_leaves_what_was_there(tmp_path, monkeypatch):
    which = schema(10)
    parts, output = begun(tmp_path, which)
    output.write_bytes(b"from before, to be replaced by force")
    commit(parts, contents(which), range(10))

    def broken(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setitem(merge.__globals__, "describe", broken)
    with pytest.raises(RuntimeError):
        merge(parts, output, finished="now")
    assert output.read_bytes().startswith(b"from before")
    assert len(parts.files()) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_opens_in_old_tools(tmp_path):
    _, _, output = made(tmp_path)
    data = output.read_bytes()
    assert data[:8] == b"\x89HDF\r\n\x1a\n"
    assert data[8] == 0  # the superblock's version: HDF5 1.8 reads it
    with h5py.File(output) as file:
        variable = []
        file.visititems(
            lambda name, item: (
                variable.append(name) if isinstance(item, h5py.Dataset) and h5py.check_vlen_dtype(item.dtype) else None
            )
        )
        assert variable == []
        for item in (file["samples/id"], file["samples/message"], file["targets/name"]):
            assert h5py.check_string_dtype(item.dtype).encoding == "utf-8"


def test_only_filters_that_every_hdf5_has(tmp_path):
    _, _, output = made(tmp_path, schema(6, shape=(1, 60, 60)))
    with h5py.File(output) as file:
        values = file["maps/gradcam@layer4/values"]
        assert (values.compression, values.shuffle, values.fletcher32) == ("gzip", True, True)
        assert values.chunks[0] == 1


def test_nexus_viewers_find_the_first_map(tmp_path):
    which, _, output = made(tmp_path)
    with h5py.File(output) as file:
        assert file.attrs["NX_class"] == "NXroot"
        plot = file[file.attrs["default"]]
        assert plot.attrs["NX_class"] == "NXdata"
        signal = plot[plot.attrs["signal"]]
        assert signal == file["maps/grad+input/values"]
        assert isinstance(plot.get("values", getlink=True), h5py.HardLink)
        axes = list(plot.attrs["axes"])
        assert len(axes) == signal.ndim
        assert axes == [".", ".", ".", "height", "width"]
        for i, name in enumerate(axes):
            if name != ".":
                assert plot[name].shape == (signal.shape[i],)
                assert plot[name] == file[f"axes/{name}"]
                assert plot[name].attrs["units"] == "mm"
        assert plot.attrs["title"] == which.maps[0].name


def test_a_map_at_a_layers_own_size_has_no_axes_to_show(tmp_path):
    which = schema(maps=[info(shape=(4, 5)), info("grad", None, (2, 9, 14), per_channel=True)])
    _, _, output = made(tmp_path, which)
    with h5py.File(output) as file:
        assert list(file["plot"].attrs["axes"]) == ["."] * 4
        assert [dimension.label for dimension in file["maps/gradcam@layer4/values"].dims][:2] == ["sample", "target"]
        assert len(file["maps/gradcam@layer4/values"].dims[2]) == 0
        assert len(file["maps/grad/values"].dims[4]) == 1


@pytest.mark.parametrize("shape", [(2, 23), (2, 9, 14), (1, 5, 8, 7)])
def test_dimension_scales_carry_units(tmp_path, shape):
    names = ("time", "height", "width")[-len(shape[1:]) :]
    axes = [Axis(name, "s" if name == "time" else "mm", 0.5, 0.25) for name in names]
    which, _, output = made(tmp_path, schema(5, shape=shape, axes=axes))
    with h5py.File(output) as file:
        for each in which.maps:
            values = file[f"{each.group}/values"]
            first = values.ndim - len(axes)
            for i, axis in enumerate(axes):
                dimension = values.dims[first + i]
                assert dimension.label == axis.name
                assert dimension[0] == file[f"axes/{axis.name}"]
                assert dimension[0].is_scale
                assert dimension[0].attrs["units"] == axis.unit
                assert (dimension[0][:] == axis.coordinates(shape[1 + i])).all()
            labels = json.loads(file[each.group].attrs["axes"])
            assert [dimension.label for dimension in values.dims] == labels


NAMES = ["/model/layer1/Conv", "a%2Fb", "a/b", "100%", "日本", ".", "trailing/", "with space", "x" * 500]


def test_layer_names_with_slashes_are_escaped_and_read_back(tmp_path):
    which, columns, output = made(tmp_path, schema(4, maps=[info("gradcam", name) for name in NAMES]))
    with open_results(output) as results:
        assert set(results.maps) == {f"gradcam@{name}" for name in NAMES}
        for each in which.maps:
            view = results.map(each.name)
            assert view.layer == each.layer
            assert view.read().tobytes() == columns[f"{each.group}/values"].tobytes()
    with h5py.File(output) as file:
        assert len(file["maps"]) == len(NAMES)
    assert verify(output) == []


def test_names_and_texts_of_any_length(tmp_path):
    """An attribute of HDF5 holds 64 kB at the most."""
    classes = [f"class {i}, größer {'x' * 40}" for i in range(5000)]
    long = provenance(
        identity={"data": {"classes": classes}},
        job="classes = [\n" + "".join(f'  "{name}",\n' for name in classes) + "]\n",
        argv=["camsweep", "explain", ",".join(classes)],
        versions={f"package-{i}": "1.2.3" * 10 for i in range(2000)},
    )
    maps = [info(f"gradcam:key={i}", f"a.long.name.of.a.layer.number.{i}", (2, 2)) for i in range(400)]
    which = schema(
        3, maps=maps, classes=classes, channels=["größe" * 30] * 2000, data={"classes": classes}, provenance=long
    )
    _, columns, output = made(tmp_path, which)
    assert verify(output) == []
    with open_results(output) as results:
        assert list(results.classes) == classes
        assert list(results.channels) == which.channels
        assert len(results.maps) == 400
        for key in ("identity", "job", "argv", "versions"):
            assert results.provenance[key] == getattr(long, key)
    assert stored_identity(output) == long.identity
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257])
def test_any_number_of_rows(tmp_path, count):
    which, columns, output = made(tmp_path, schema(count, shape=(1, 3, 3)))
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []
        assert (file["samples/index"][:] == np.arange(count)).all()


def test_a_file_for_which_there_is_no_room_is_not_begun(tmp_path, monkeypatch):
    which = schema(6, shape=(1, 80, 80))
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    commit(parts, columns, range(6))
    real = os.statvfs(tmp_path)
    room = [parts.size() // 2]

    class Disk:
        f_frsize = 1

        def __getattr__(self, name):
            return room[0] if name == "f_bavail" else getattr(real, name)

    monkeypatch.setattr(os, "statvfs", lambda _path: Disk())
    monkeypatch.setattr(durable, "hdf5", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(StorageError, match=r"no space left: .* MB are needed to put it together"):
        merge(parts, output, finished="now")
    assert (parts.owners() >= 0).all()
    monkeypatch.undo()
    merge(parts, output, finished="now")
    assert verify(output) == []


@pytest.mark.parametrize("shape", [(2, 9, 14), (1, 70, 70)], ids=["short rows", "a row is a chunk"])
def test_a_stop_at_any_moment_of_a_merge_publishes_nothing_and_the_next_one_does(tmp_path, shape):
    which = schema(12, shape=shape)
    columns = contents(which)
    parts, output = begun(tmp_path, which)
    for start in range(0, 12, 4):
        commit(parts, columns, range(start, start + 4))
    before = {path: path.read_bytes() for path in parts.files()}
    for n in range(100):
        parts.stop = Moment(n)
        try:
            merge(parts, output, finished="now")
        except Stopped:
            pass
        else:
            break
        assert list(tmp_path.iterdir()) == [parts.folder]
        assert {path: path.read_bytes() for path in parts.files()} == before
    assert n >= 8  # each part is read twice, each row or column copied, and the whole sealed
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []
