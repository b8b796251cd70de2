"""From a results file to a folder: what is drawn, named, kept, skipped and told."""

import csv

import numpy as np
import pytest
from PIL import Image

from camsweep.core.data.axes import Axis
from camsweep.core.errors import RequestError, SampleError, StorageError
from camsweep.core.render import Look, concepts, render
from camsweep.core.render.norm import BINS, Norm
from camsweep.core.render.request import Request
from camsweep.core.render.thumbnails import thumbnail


def index(out):
    with (out / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_layout_files_index_and_skipped(tmp_path, six):
    told = []
    made = render(six, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert [file.relative_to(tmp_path).as_posix() for file in made.files[:3]] == [
        "gradcam@a/000000-x.overlay.png", "gradcam@a/000000-x.map.png", "gradcam@a/000001-zero.overlay.png",
    ]  # fmt: skip
    assert len(made.files) == 8
    assert made.skipped == [("nan", "non-finite"), ("failed", "failed")]
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted([*made.files, tmp_path / "index.csv"])
    lines = index(tmp_path)
    assert [line["file"] for line in lines if line["row"] == "2"] == [
        "gradcam@a/000002-a_b.map.png", "gradcam@a/000002-a_b.overlay.png",
    ]  # fmt: skip
    assert [(line["status"], line["file"]) for line in lines if line["row"] in "34"] == [
        ("non-finite", ""),
        ("failed", ""),
    ]
    assert lines[0]["id"] == "../../x"
    assert told == [(k, 6) for k in range(1, 7)]
    for file in made.files:
        with Image.open(file) as picture:
            assert picture.height > 256


def test_pictures_already_there_are_kept(tmp_path, six):
    first = render(six, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in first.files}
    lost, empty, *_ = first.files
    lost.unlink()
    empty.write_bytes(b"")
    again = render(six, tmp_path)
    assert again == first
    changed = {file for file in again.files if file.stat().st_mtime_ns != before[file]}
    assert changed == {lost, empty}
    render(six, tmp_path, overwrite=True)
    assert all(file.stat().st_mtime_ns != before[file] for file in first.files)


def test_a_picture_of_something_else_is_not_kept(tmp_path, six):
    six.maps["gradcam@a"].array[2] *= 3
    file = render(six, tmp_path, rows=[0]).files[0]
    before = file.read_bytes()
    render(six, tmp_path, rows=[0, 2, 5], norm=Norm("run"))
    shared = file.read_bytes()
    assert shared != before
    six.maps["gradcam@a"].array[0] *= 2
    render(six, tmp_path, rows=[0])
    assert file.read_bytes() not in (before, shared)


def test_a_write_that_fails_leaves_nothing_half_done(tmp_path, six, monkeypatch):
    def full(self, file, *args, **kwargs):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="no space left"):
        render(six, tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_one_scale_for_the_run(six):
    request = Request.of(six, None, None, None, Norm("run"))
    values = six.maps["gradcam@a"].array
    common = request.common([0, 1, 2, 5])
    assert (common["gradcam@a", -1].low, common["gradcam@a", -1].high) == (
        np.nanmin(values[[0, 1, 2, 5]]),
        np.nanmax(values[[0, 1, 2, 5]]),
    )
    for row in (0, 2):
        ((_, _, own),) = request.scenes(row, {})
        ((_, _, shared),) = request.scenes(row, common)
        assert own.scale.high == values[row].max()
        assert shared.scale == common["gradcam@a", -1]
    assert request.common([]) == Request.of(six, None, None, None).common([0, 1]) == {}


def test_one_scale_for_each_class(six):
    six.target_index = np.arange(6)[:, None] % 2
    request = Request.of(six, None, None, None, Norm("class"))
    values = six.maps["gradcam@a"].array
    rows = [row for row in range(6) if request.drawable(row)]
    classes = six.target_index[rows, 0]
    assert len(set(classes)) > 1
    common = request.common(rows)
    for row, explained in zip(rows, classes, strict=True):
        ((_, _, scene),) = request.scenes(row, common)
        if not isinstance(scene, str):
            alike = [r for r, c in zip(rows, classes, strict=True) if c == explained]
            assert scene.scale.high == np.nanmax(values[alike])


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9])
@pytest.mark.parametrize("signed", [True, False])
def test_a_percentile_is_that_of_all_magnitudes(percentile, signed):
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((3, 40, 50)) ** 3 for _ in range(4)]
    maps = maps if signed else [np.abs(each) for each in maps]
    scale = Norm(percentile=percentile).scale(lambda: maps, signed=signed)
    magnitudes = np.abs(np.stack(maps))
    assert scale.most == pytest.approx(
        np.percentile(magnitudes, percentile, method="inverted_cdf"), abs=2 * magnitudes.max() / BINS
    )
    assert (scale.low, scale.high) == (np.min(maps), np.max(maps))
    assert scale.limits == (-scale.most if signed else 0, scale.most)
    assert scale.label(scale.ticks[-1]).startswith("≥ ")
    assert scale.label(scale.ticks[0]).startswith("≤ " if signed else "0")
    assert (scale.colour([scale.most, scale.high]) == scale.table[-1]).all()


def test_symmetric_is_around_zero_for_every_method():
    scale = Norm.parse("run,symmetric").scale(lambda: [np.arange(5.0)], signed=False)
    assert scale.limits == (-4, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("smaple", "Did you mean 'sample'"),
        ("percentile:0", "P above 0"),
        ("percentile:x", "P above 0"),
        ("run,", "--norm"),
    ],
)
def test_a_norm_that_is_none(text, says):
    with pytest.raises(RequestError, match=says):
        Norm.parse(text)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"maps": ["gradcm@a"]}, "no map 'gradcm@a'. Did you mean 'gradcam@a'"),
        ({"targets": ["predictd"]}, "Did you mean 'predicted'"),
        ({"channels": ["V9"]}, "no channel 'V9'"),
        ({"rows": [6]}, "no row 6: .* 6 rows"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(tmp_path, six, choice, said):
    with pytest.raises(RequestError, match=said):
        render(six, tmp_path / "out", **choice)
    assert not (tmp_path / "out").exists()


def test_rows_and_limit(tmp_path, six):
    made = render(six, tmp_path, rows=[5, 0, 2], limit=2)
    assert [file.name[:6] for file in made.files] == ["000005", "000005", "000000", "000000"]
    render(six, tmp_path, rows=[2])
    assert {line["row"] for line in index(tmp_path)} == {"0", "2", "5"}


def test_headings(images):
    values = np.ones((1, 2, 4, 5))
    values[:, 1] = 0
    results = images(values, ids=["pvc-17"], target_names=("predicted", "class:2"))
    scenes = list(Request.of(results, None, None, None).scenes(0, {}))
    assert [target for _, target, _ in scenes] == [0, 1]
    first, second = (" · ".join(scene.heading) for *_, scene in scenes)
    assert first == "pvc-17 · pred pvc (4.21) · label pvc · gradcam@a · target predicted (4.21)"
    assert second.endswith("target class:2 = pvc (4.21) · zero map")
    results.labels[:] = -1
    ((_, _, scene), _) = Request.of(results, None, None, None).scenes(0, {})
    assert "label" not in " ".join(scene.heading)


def test_several_targets_have_several_files(tmp_path, images):
    results = images(np.random.default_rng(0).random((1, 2, 4, 5)), target_names=("predicted", "a-vs-b/c"))
    names = [file.name for file in render(results, tmp_path).files]
    assert names[::2] == ["000000-sample-0.t0-predicted.overlay.png", "000000-sample-0.t1-a-vs-b_c.overlay.png"]
    only = render(results, tmp_path, targets=["a-vs-b/c"])
    assert [file.name for file in only.files] == names[2:]


def test_channels_are_summed_for_images_and_the_title_says_so(images):
    values = np.random.default_rng(0).standard_normal((1, 1, 3, 4, 5)).astype(np.float32)
    results = images(values, per_channel=True, signed=True)
    ((_, _, scene),) = Request.of(results, None, None, None).scenes(0, {})
    np.testing.assert_allclose(scene.values, values[0, 0].sum(0), rtol=1e-5, atol=1e-6)
    assert scene.heading[-1] == "summed over channels"


@pytest.fixture
def ecg(fake, fake_map):
    rng = np.random.default_rng(0)
    maps = {
        "gradcam@s": fake_map("gradcam@s", rng.random((2, 1, 25))),
        "grad+input": fake_map("grad+input", rng.standard_normal((2, 1, 15, 100)), per_channel=True, signed=True),
    }
    leads = tuple(f"V{k}" for k in range(15))
    return fake(rng.standard_normal((2, 15, 100)), (Axis("time", "s", 0.01),), maps, channels=leads)


def test_signals(tmp_path, ecg):
    made = render(ecg, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in made.files] == [
        "gradcam@s/000000-sample-0.png", "grad+input/000000-sample-0.png",
        "gradcam@s/000001-sample-1.png", "grad+input/000001-sample-1.png",
    ]  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_concept_has_its_picture(tmp_path, fake, fake_map, rank):
    sizes = (5, 20, 24)[-rank:]
    values = np.zeros((1, 1, 3, *sizes))
    spots = [(k + 1, 3 * k + 2, 7 * k + 3)[-rank:] for k in range(3)]
    for k, spot in enumerate(spots):
        values[(0, 0, k, *spot)] = k + 1
    names = ("time", "height", "width") if rank > 1 else ("time",)
    axes = tuple(Axis(name, "px") for name in names[-rank:])
    results = fake(np.zeros((1, 1, *sizes)), axes, {"dff@s": fake_map("dff@s", values, concepts=3)})
    made = render(results, tmp_path)
    assert [path.name for path in made.files] == ["000000-sample-0.png"]
    assert not made.skipped
    [(_, _, scene)] = Request.of(results, None, None, None).scenes(0, {})
    assert scene.scale.high == 3
    if rank == 1:
        assert [int(strip.values.argmax()) for strip in concepts.strips(scene)] == [spot[0] for spot in spots]
    else:
        for k, (pixels, name, _, shape) in enumerate(concepts.pictures(scene)):
            assert name.startswith(f"concept {k + 1}")
            assert rank == 2 or f"frame {spots[k][0] + 1}/5" in name or f"slice {spots[k][0] + 1}/5" in name
            y, x = np.unravel_index(np.abs(pixels.astype(int) - 128).sum(-1).argmax(), pixels.shape[:2])
            assert (y * shape[0] // pixels.shape[0], x * shape[1] // pixels.shape[1]) == spots[k][-2:]
    thumbnail(scene)
    made = render(results, tmp_path / "svg", look=Look(format="svg"))
    assert len(made.files) == 1


def test_many_channels_are_cut_with_a_note_or_chosen(ecg):
    scenes = {name: scene for name, _, scene in Request.of(ecg, None, None, None).scenes(0, {})}
    for scene in scenes.values():
        assert scene.input.shape == (12, 100)
        assert "first 12 of 15 channels" in scene.heading
    np.testing.assert_array_equal(scenes["grad+input"].values, ecg.maps["grad+input"].array[0, 0, :12])
    chosen = {name: scene for name, _, scene in Request.of(ecg, None, None, ["V14", 0]).scenes(0, {})}
    assert chosen["grad+input"].names == ("V14", "V0")
    np.testing.assert_array_equal(chosen["grad+input"].values, ecg.maps["grad+input"].array[0, 0, [14, 0]])
    with pytest.raises(RequestError, match="no channel 15"):
        list(Request.of(ecg, None, None, [15]).scenes(0, {}))


@pytest.mark.parametrize(
    ("name", "unit", "ends"),
    [("time", "s", [".gif"]), ("z", "mm", [".gif", ".slices.png", ".planes.png"])],
)
def test_clips(tmp_path, fake, fake_map, name, unit, ends):
    rng = np.random.default_rng(0)
    axes = (Axis(name, unit, 0.5), Axis("height", "px"), Axis("width", "px"))
    results = fake(rng.random((1, 1, 4, 6, 8)), axes, {"m": fake_map("m", rng.random((1, 1, 2, 3, 4)))})
    assert [file.name.removeprefix("000000-sample-0") for file in render(results, tmp_path).files] == ends
    more = render(results, tmp_path, look=Look(frames=True, slices=True))
    assert len(more.files) == 3 + 4
    assert more.files[-1].relative_to(tmp_path).as_posix() == "m/000000-sample-0.frames/0003.png"


def test_a_sample_that_cannot_be_read_is_skipped(tmp_path, six):
    reading = six.inputs

    def inputs(rows):
        if rows == [2]:
            raise SampleError("broken.png: truncated")
        return reading(rows)

    six.inputs = inputs
    assert ("a/b", "broken.png: truncated") in render(six, tmp_path).skipped


def test_inputs_that_are_gone_are_told(tmp_path, six):
    def gone(rows):
        raise RequestError("inputs.npz is gone")

    six.inputs = gone
    with pytest.raises(RequestError, match="gone"):
        render(six, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_map_without_any_finite_value_is_skipped(tmp_path, six):
    six.status[3] = 1
    assert ("nan", "gradcam@a: no finite value") in render(six, tmp_path).skipped


def test_no_picture_for_other_ranks(tmp_path, six):
    six.axes = ()
    with pytest.raises(RequestError, match="1 to 3 spatial axes"):
        render(six, tmp_path)


def test_pyplot_stays_out():
    import subprocess
    import sys

    code = "import camsweep.core.render, sys; assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
