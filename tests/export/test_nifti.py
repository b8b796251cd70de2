"""NIfTI, read by nibabel: which voxel is which, where it lies, and which samples have a file."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from camsweep.core.data import Axis
from camsweep.core.errors import RequestError
from camsweep.core.export import export
from camsweep.core.export.nifti import affine, placed

from ..results.synthetic import info, own
from .conftest import FAILED, HOSTILE, LACKING

VOLUME = (Axis("depth", "mm", 3.0, -10.0), Axis("height", "mm", 0.5, 4.0), Axis("width", "mm", 0.25, 1.0))
SHAPE = (2, 4, 5, 6)


def volumes(make, **more):
    given = {"shape": SHAPE, "axes": list(VOLUME)}
    maps = [info(shape=SHAPE[1:]), info("grad+input", None, SHAPE, per_channel=True)]
    return make(**(given | {"maps": maps} | more))


def index(folder):
    with (folder / "index.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [(int(row), id_, *rest) for row, id_, *rest in list(csv.reader(file))[1:]]


def test_every_voxel_is_where_it_was(make, opened):
    made = volumes(make)
    task = export(opened(made.path), "nifti")
    assert task.out == made.path.with_name("run-nifti")
    seen = 0
    for row, id_, status, name, target, file in index(task.out):
        k = made.schema.targets.index(target)
        stored = made.values(name)[row, k]
        assert id_ == HOSTILE[row]
        if not file:
            assert np.isnan(stored).all()
            assert (row, status) in {(FAILED, "failed"), (LACKING, "ok")}
            continue
        image = nibabel.load(task.out / file)
        found = np.asarray(image.dataobj)
        assert found.dtype == np.float32
        by_channel = stored if name == "grad+input" else stored[None]
        assert found.shape == (6, 5, 4) + ((1, 2) if name == "grad+input" else ())
        for c, d, h, w in np.ndindex(by_channel.shape):
            at = (w, h, d, 0, c) if name == "grad+input" else (w, h, d)
            assert found[at] == by_channel[c, d, h, w]
            where = image.affine @ (w, h, d, 1)
            assert where[:3].tolist() == [1 + 0.25 * w, 4 + 0.5 * h, -10 + 3 * d]
        assert image.header.get_zooms()[:3] == (0.25, 0.5, 3.0)
        assert image.header.get_xyzt_units()[0] == "mm"
        said = json.loads(image.header.extensions[0].get_content())
        assert (said["id"], said["map"], said["target"]) == (id_, name, target)
        assert said["score"] == float(made.columns["targets/score"][row, k])
        seen += 1
    assert seen == 2 * (2 * len(HOSTILE) - 3)
    assert len(list(task.out.glob("*/*.t?-*.nii.gz"))) == seen


def test_inputs_lie_in_the_same_places(make, opened):
    made = volumes(make)
    task = export(opened(made.path), "nifti")
    for row in range(len(HOSTILE)):
        [path] = (task.out / "inputs").glob(f"{row:06d}*")
        image = nibabel.load(path)
        stored = made.columns["inputs/values"][row]
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, :, 0], stored.transpose(3, 2, 1, 0))
        np.testing.assert_array_equal(image.affine, affine(VOLUME))


def test_names_are_safe_whatever_samples_are_called(make, opened, tmp_path):
    task = export(opened(volumes(make).path), "nifti", tmp_path / "a" / "b" / "out")
    files = list(tmp_path.rglob("*.nii.gz"))
    assert {*task.files} == {*files}
    names = [path.relative_to(task.out).as_posix() for path in files]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name.isascii() and ".." not in name and len(name) < 200 for name in names)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("order", [("z", "y", "x"), ("x", "y", "z"), ("y", "z", "x"), ("width", "depth", "height")])
def test_axes_of_any_order(order):
    axes = [Axis(name, "mm", step, start) for name, step, start in zip(order, (2, 3, 5), (7, 11, 13), strict=True)]
    values = np.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    found, where = placed(values, axes), affine(axes)
    place = {"x": 0, "width": 0, "y": 1, "height": 1, "z": 2, "depth": 2}
    for at in np.ndindex(values.shape[1:]):
        voxel = [0, 0, 0]
        world = [0.0, 0.0, 0.0]
        for axis, i in zip(axes, at, strict=True):
            voxel[place[axis.name]] = i
            world[place[axis.name]] = axis.start + i * axis.step
        assert found[tuple(voxel)] == values[(0, *at)]
        assert (where @ [*voxel, 1])[:3].tolist() == world


def test_video_has_its_time_in_the_fourth_dimension(jobs, opened, tmp_path):
    results = opened(jobs("motion"))
    task = export(results, "nifti", tmp_path / "out")
    _, height, width = results.input_shape[1:]
    for row, _, _, name, target, file in index(task.out):
        stored = results.map(name).read([row])[0, results.target_names.index(target)].reshape(-1, height, width)
        if not file:
            assert row == 1
            continue
        image = nibabel.load(task.out / file)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, 0], stored.transpose(2, 1, 0))
        assert image.header.get_zooms()[3] == np.float32(1 / 12)
        assert image.header.get_xyzt_units() == ("unknown", "sec")


def test_a_layers_grid_has_larger_voxels_in_the_same_place(make, opened):
    made = volumes(make, maps=[info(shape=(2, 5, 3))])
    task = export(opened(made.path), "nifti")
    image = nibabel.load(next(task.out.glob("gradcam*/*.gz")))
    assert image.shape == (3, 5, 2)
    assert image.header.get_zooms() == (0.5, 0.5, 6.0)
    edges = [image.affine @ (*(corner - 0.5), 1) for corner in (np.zeros(3), np.array(image.shape))]
    np.testing.assert_allclose(edges[0][:3], [1 - 0.125, 4 - 0.25, -10 - 1.5])
    np.testing.assert_allclose(edges[1][:3], [1 - 0.125 + 1.5, 4 - 0.25 + 2.5, -10 - 1.5 + 12])


def test_more_samples_may_come_later_and_what_is_there_is_kept(make, opened):
    results = opened(volumes(make).path)
    first = export(results, "nifti", limit=2, maps=["gradcam@layer4"])
    before = {path: path.stat().st_mtime_ns for path in first.files}
    index_before = index(first.out)
    again = export(results, "nifti")
    assert again.kept == len(first.files) < len(again.files)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {*index_before} < {*index(first.out)}
    assert len(index(first.out)) == 2 * 2 * len(HOSTILE)


def test_what_is_no_volume_is_told_in_one_line(make, opened):
    flat = opened(make().path)
    with pytest.raises(RequestError, match="has 2 spatial axes, NIfTI is for volumes and video, of 3"):
        export(flat, "nifti")
    assert not flat.path.with_name("run-nifti").exists()
    spectrum = own("fourier", (2, 4, 5, 6), tuple(Axis(name, "1/mm") for name in "abc"), "image")
    made = volumes(make, name="own.h5", maps=[info(shape=SHAPE[1:]), spectrum])
    results = opened(made.path)
    with pytest.raises(RequestError, match=r"own.h5: fourier lies on axes of its own \(a, b, c\)"):
        export(results, "nifti", maps=["fourier"])
    task = export(results, "nifti")
    assert [note for note in task.notes if "fourier" in note] == [
        "fourier lies on axes of its own (a, b, c), NIfTI has places only; take --to npz; it is left out"
    ]
    strange = volumes(make, name="f.h5", axes=[Axis("frequency", "Hz"), *VOLUME[1:]])
    with pytest.raises(RequestError, match="has the axes frequency, height, width; NIfTI needs"):
        export(opened(strange.path), "nifti")


def test_without_the_inputs_the_maps_are_written_all_the_same(make, opened):
    made = volumes(make, inputs_dtype=None, data={"path": "gone.npz", "layout": "NCDHW"})
    task = export(opened(made.path), "nifti")
    assert not (task.out / "inputs").exists()
    assert [note for note in task.notes if note.startswith("the inputs are left out: ")]
    assert len(task.files) == 2 * (2 * len(HOSTILE) - 3)
