"""ViRelAy: a reader of its own, written from the rules of ViRelAy's, and the values that it finds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from camsweep.core.errors import RequestError
from camsweep.core.export import export
from camsweep.core.export.virelay import principal

from ..results.synthetic import info, own
from .conftest import FAILED, HOSTILE, LACKING


def channels_last(array):
    """The reader takes the smallest axis for the channels, the first of those that are as small."""
    assert array.ndim == 3
    return np.moveaxis(array, 0, 2) if np.argmin(array.shape) == 0 else array


@dataclass
class Project:
    """What the reader makes of a project.yaml."""

    said: dict[str, Any]
    labels: dict[int, str]
    dataset: Any
    attributions: list[Any]
    analyses: list[Any]

    @classmethod
    def read(cls, path: Path) -> Project:
        said = yaml.safe_load(path.read_text("utf-8"))["project"]
        assert isinstance(said["name"], str)
        assert isinstance(said["model"], str)
        assert said["dataset"]["type"] == "hdf5"
        assert said["dataset"]["down_sampling_method"] in ("none", "center_crop", "resize")
        assert said["attributions"]["attribution_strategy"] in ("true_label", "predicted_label")
        entries = json.loads((path.parent / said["label_map"]).read_text("utf-8"))
        assert all(isinstance(entry["word_net_id"], str) for entry in entries)
        files = [
            [h5py.File(path.parent / name, "r") for name in names]
            for names in (
                [said["dataset"]["path"]],
                said["attributions"]["sources"],
                [name for analysis in said["analyses"] for name in analysis["sources"]],
            )
        ]
        labels = {entry["index"]: entry["name"] for entry in entries}
        return cls(said, labels, files[0][0], files[1], files[2])

    def close(self):
        for file in (self.dataset, *self.attributions, *self.analyses):
            file.close()

    def sample(self, index):
        """Pixels (H, W, C) and the label's name."""
        data = self.dataset["data"][index]
        assert data.dtype == np.uint8  # others have their range guessed
        return channels_last(data), self.label(self.dataset["label"][index])

    def label(self, reference):
        assert isinstance(reference, np.integer)
        return self.labels[int(reference)]

    def attribution(self, index):
        """The drawn map (H, W), the outputs and the label's name; None where no source has it."""
        for file in self.attributions:
            if index in file["index"][:]:
                [[at]] = np.where(file["index"][:] == index)
                values = channels_last(file["attribution"][at])
                assert values.shape[2] > 1  # one channel is not dropped, and not drawn
                drawn = values.sum(2, dtype=np.float64)
                return drawn, file["prediction"][at], self.label(file["label"][at])
        return None

    def analysis(self, clustering, embedding):
        [file] = self.analyses
        assert list(file) == ["all"]
        group = file["all"]
        assert isinstance(group["cluster"][clustering], h5py.Dataset)
        points = group["embedding"][embedding]
        assert len(points.attrs["eigenvalue"]) == points.shape[1]
        return group["index"][:], group["cluster"][clustering][:], points[:]


@pytest.fixture
def read():
    projects = []

    def read(path):
        projects.append(Project.read(path))
        return projects[-1]

    yield read
    for project in projects:
        project.close()


def check(project, values, results, pixels, rows, finite):
    """Hold a project against a map's ``values`` (n, [C,] H, W) of one target."""
    assert project.dataset["row"][:].tolist() == rows
    for place, row in enumerate(rows):
        picture, label = project.sample(place)
        np.testing.assert_array_equal(picture, pixels[row])
        assert label == ("unknown" if results.labels[row] < 0 else results.classes[results.labels[row]])
        found = project.attribution(place)
        if row not in finite:
            assert found is None
            continue
        expected = values[row].astype(np.float64)
        expected = expected if expected.ndim == 2 else expected.sum(0)
        np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(found[1], results.outputs[row])
        assert found[2] == label
        assert project.labels[int(found[1].argmax())] == results.classes[int(results.outputs[row].argmax())]
    index, clusters, points = project.analysis("predicted", "principal")
    assert [rows[k] for k in index] == sorted(finite)
    np.testing.assert_array_equal(clusters, results.predicted[sorted(finite)])
    assert len(points) == len(finite)


def stretched(picture):
    """Black at the least value, white at the greatest, channels averaged unless they are three."""
    low, high = picture.min(), picture.max()
    grey = (picture.astype(np.float64) - low) / (high - low)
    grey = grey if len(grey) == 3 else grey.mean(0, keepdims=True).repeat(3, 0)
    return np.moveaxis((255 * grey).round().astype(np.uint8), 0, -1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_reader_finds_every_map_where_it_belongs(make, opened, read, channels):
    shape = (channels, 9, 14)
    grad = info("grad+input", None, shape, per_channel=True)
    made = make(shape=shape, maps=[info(shape=shape[1:]), info("cam", "small", (4, 6)), grad])
    made.columns["inputs/values"][FAILED] = 0.5
    results = opened(made.path)
    task = export(results, "virelay")
    assert task.out == made.path.with_name("run-virelay")
    pixels = {row: stretched(made.columns["inputs/values"][row]) for row in range(len(HOSTILE)) if row != FAILED}
    pixels[FAILED] = np.full((9, 14, 3), 128, np.uint8)  # one value has neither black nor white
    rows = list(range(len(HOSTILE)))
    for each in made.schema.maps:
        for k, target in enumerate(made.schema.targets):
            folder = f"{each.name}.t{k}-{target}"
            finite = {*rows} - {FAILED} - ({LACKING} if k else set())
            check(read(task.out / folder / "project.yaml"), made.values(each.name)[:, k], results, pixels, rows, finite)
    assert len(list(task.out.glob("*/project.yaml"))) == 6


def test_of_the_sample_job(jobs, opened, read, tmp_path):
    results = opened(jobs("digits"))
    task = export(results, "virelay", tmp_path / "out", limit=5)
    rows = [0, 2, 3, 4]  # the second is no picture
    shown = {row: stretched(results.inputs([row])[0]) for row in rows}
    for view in results.maps.values():
        for k, target in enumerate(results.target_names):
            folder = task.choice.folders[view.name] + f".t{k}-{target}"
            project = read(task.out / folder / "project.yaml")
            check(project, view.read()[:, k], results, shown, rows, {*rows})
            strategy = project.said["attributions"]["attribution_strategy"]
            assert strategy == ("true_label" if target == "label" else "predicted_label")
            assert project.said["attributions"]["attribution_method"] == view.name
            assert project.said["model"] == "models.py:DigitNet"


def test_principal_components_are_those_of_a_decomposition():
    values = np.random.default_rng(0).normal(size=(30, 12)) @ np.diag(np.linspace(3, 0.1, 12))
    found, variances = principal(values)
    left, singular, right = np.linalg.svd(values - values.mean(0), full_matrices=False)
    np.testing.assert_allclose(variances, singular[:8] ** 2 / 30, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found), np.abs(left * singular)[:, :8], atol=1e-10)
    signs = np.sign(right[np.arange(8), np.abs(right[:8]).argmax(1)])
    np.testing.assert_allclose(found, (left * singular)[:, :8] * signs, atol=1e-10)
    assert principal(np.zeros((0, 12)))[0].shape == (0, 8)


def test_it_goes_on_where_it_stopped(make, opened, monkeypatch):
    from camsweep.core.export import virelay

    results = opened(make().path)
    with monkeypatch.context() as patch:
        patch.setattr(virelay, "principal", lambda values: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(results, "virelay")
    folder = results.path.with_name("run-virelay")
    first = folder / "gradcam@layer4.t0-predicted"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert not list(folder.rglob("project.yaml"))
    picture = (folder / "dataset.h5").stat().st_mtime_ns
    task = export(results, "virelay")
    assert (folder / "dataset.h5").stat().st_mtime_ns == picture
    assert {path.name for path in first.iterdir()} == {"attribution.h5", "analysis.h5", "project.yaml"}
    assert export(results, "virelay").kept == len(task.files)


def test_what_it_cannot_show_is_told_in_one_line(make, opened):
    def refused(text, **more):
        made = make(name=f"{len(list(paths))}.h5", **more)
        paths.append(made.path)
        with pytest.raises(RequestError, match=text):
            export(opened(made.path), "virelay")
        assert not made.path.with_name(made.path.stem + "-virelay").exists()

    paths: list[Path] = []
    refused("has 1 spatial axes, ViRelAy is for pictures", shape=(2, 40))
    refused("has 3 spatial axes, ViRelAy is for pictures", shape=(1, 4, 5, 6))
    refused("2 x 14 pixels are too few", shape=(1, 2, 14))
    gone = {"path": "gone.npz", "layout": "NCHW", "input": "x"}
    refused("ViRelAy needs the pictures themselves: .*gone.npz", inputs_dtype=None, data=gone)
    fourier = own("fourier", (2, 9, 8), tuple(own_axes()), "image")
    refused(r"fourier lies on axes of its own \(fy, fx\)", maps=[fourier])


def own_axes():
    from camsweep.core.data import Axis

    return Axis("fy", "1/mm"), Axis("fx", "1/mm")
