"""The choices of `--kind`, `--along`, `--format` and their like: each shows what it says."""

import re
import subprocess

import matplotlib
import numpy as np
import pytest
from PIL import Image

from camsweep.core.data.axes import Axis
from camsweep.core.errors import RequestError
from camsweep.core.grid import resize
from camsweep.core.render import Look, Norm, clip, contact, figure, image, render
from camsweep.core.render.colour import ALPHA, Scale, overlay
from camsweep.core.render.request import Request
from camsweep.core.render.saving import mark_of
from camsweep.core.render.scene import Scene
from camsweep.core.render.thumbnails import thumbnail

PX = (Axis("height", "px"), Axis("width", "px"))


def hill(*, signed=False, look=Look(), size=(24, 32)):  # noqa: B008
    y, x = np.mgrid[: size[0], : size[1]]
    values = np.exp(-((y - 8) ** 2 + (x - 20) ** 2) / 30) - signed * np.exp(-((y - 18) ** 2 + (x - 6) ** 2) / 20)
    picture = np.random.default_rng(0).integers(0, 120, (1, *size)).astype(np.uint8)
    return Scene(picture, values, PX, Scale.of(values, signed=signed), ("id", "map"), "logit", ("grey",), look=look)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("coarse", [1, 2])
def test_contours_run_where_the_values_are(signed, coarse):
    scene = hill(signed=signed)
    values = scene.values[::coarse, ::coarse] if coarse > 1 else scene.values
    base = np.zeros((240, 320, 3), np.uint8)
    drawn = image.contours(base, values, scene.scale)
    fine = resize(values, (240, 320)) / np.abs(scene.values).max()
    bright = drawn.max(-1) > 60  # the lines, without their dark edge
    assert bright.any()
    levels = np.array([s * k for k in image.LEVELS for s in ((1, -1) if signed else (1,))])
    slope = np.hypot(*np.gradient(fine))
    nearest = np.abs(fine[..., None] - levels).min(-1)
    assert (nearest[bright] <= 2.5 * slope[bright] + 0.01).all()  # within two pixels of one
    for level in levels:  # and each is there
        assert (np.abs(fine - level) < 0.02)[bright].any()


def test_bare_is_one_pixel_for_each_of_the_input():
    scene = hill(signed=True, look=Look(kinds=("overlay", "map", "side"), bare=True))
    base = scene.input[0][..., None].repeat(3, -1)
    over, alone, side = map(np.asarray, image.pictures(scene))
    np.testing.assert_array_equal(over, overlay(base, scene.values, scene.scale))
    np.testing.assert_array_equal(alone, scene.scale.colour(scene.values))
    np.testing.assert_array_equal(side, np.concatenate([base, over, alone], 1))


def test_alpha_is_the_opacity_of_the_strongest():
    faint, usual = (np.asarray(next(image.pictures(hill(look=Look(alpha=a, bare=True))))) for a in (0.2, ALPHA))
    scene, at = hill(), np.unravel_index(hill().values.argmax(), (24, 32))
    colour, base = scene.scale.colour(scene.values.max()).astype(float), scene.input[0][at].astype(float)
    np.testing.assert_allclose(faint[at], 0.8 * base + 0.2 * colour, atol=0.51)
    np.testing.assert_allclose(usual[at], (1 - ALPHA) * base + ALPHA * colour, atol=0.51)


def block(look=Look()):  # noqa: B008
    values = np.zeros((4, 6, 8))
    values[1, 4, 2], values[3, 0, 7] = 1, -2
    axes = (Axis("time", "s", 0.1), *PX)
    return Scene(np.zeros((1, 4, 6, 8)), values, axes, Scale.of(values, signed=True), ("id",), "", ("grey",), look=look)


def test_projections_show_the_strongest_with_its_sign(monkeypatch):
    shown = []
    monkeypatch.setattr(clip, "layers", lambda base, flat, *_: shown.append(flat) or (base, base))
    next(clip.projections(block()))
    for along, flat in enumerate(shown):
        expected = np.zeros([n for k, n in enumerate((4, 6, 8)) if k != along])
        for place, value in (((1, 4, 2), 1), ((3, 0, 7), -2)):
            expected[tuple(p for k, p in enumerate(place) if k != along)] = value
        np.testing.assert_array_equal(flat, expected)


@pytest.mark.parametrize("along", [0, 1, 2])
def test_a_clip_runs_along_the_axis_that_is_asked_for(along):
    scene = block(Look(along=along))
    assert len(list(clip.frames(scene))) == scene.input.shape[1 + along]
    for k, (_, alone) in enumerate(clip.panels(scene, along)):
        expected = resize(np.take(scene.values, k, along), alone.pixels.shape[:2])
        np.testing.assert_array_equal(alone.pixels, scene.scale.colour(expected))


def test_a_video_has_the_frames_of_the_clip(tmp_path, fake, fake_map):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    axes = (Axis("time", "s", 0.25), *PX)
    rng = np.random.default_rng(0)
    results = fake(rng.random((1, 1, 5, 6, 8)), axes, {"m": fake_map("m", rng.random((1, 1, 5, 3, 4)))})
    [path] = render(results, tmp_path, look=Look(video=True)).files
    assert path.name.endswith(".mp4")
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(command, capture_output=True, check=True)
    assert b"Duration: 00:00:01.25" in read.stderr
    assert b" 4 fps" in read.stderr
    width, height = map(int, re.search(rb" (\d+)x(\d+)[, ]", read.stderr).groups())
    frames = np.frombuffer(read.stdout, np.uint8).reshape(-1, height, width, 3)
    gif = render(results, tmp_path, look=Look()).files[0]
    with Image.open(gif) as pictures:
        assert len(frames) == pictures.n_frames == 5
        for k, frame in enumerate(frames):
            pictures.seek(k)
            wanted = np.asarray(pictures.convert("RGB")).astype(int)
            error = np.abs(frame[: wanted.shape[0], : wanted.shape[1]].astype(int) - wanted)
            assert error.mean() < 6
    before = path.stat().st_mtime_ns
    render(results, tmp_path, look=Look(video=True))
    assert path.stat().st_mtime_ns == before  # it carries its mark, and is kept


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_figures_are_the_same_each_time_and_kept(tmp_path, six, kind):
    look = Look(format=kind)
    first = render(six, tmp_path / "a", rows=[0], look=look).files
    again = render(six, tmp_path / "b", rows=[0], look=look).files
    assert [path.suffix for path in first] == [f".{kind}"]
    assert first[0].read_bytes() == again[0].read_bytes()
    before = first[0].stat().st_mtime_ns
    render(six, tmp_path / "a", rows=[0], look=look)
    assert first[0].stat().st_mtime_ns == before
    assert mark_of(first[0]).startswith("camsweep ")


def test_a_figure_of_an_image_shows_overlay_scale_and_words():
    made = figure.figure(hill(signed=True, look=Look(kinds=("overlay",), format="svg")))
    panel, bar = made.axes
    scene = hill(signed=True)
    over, _ = image.layers(
        image.shade(scene.input, (0, 255)), scene.values, scene.scale, image.factors((24, 32), scene.axes)
    )
    np.testing.assert_array_equal(panel.images[0].get_array(), over)
    assert made.get_suptitle() == "id · map"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["−1", "0", "1"]
    assert bar.get_ylabel() == "logit"


def test_a_figure_of_a_signal_has_its_units_and_names():
    t = np.linspace(0, 6, 50)
    values = np.abs(np.sin(t))
    axis = Axis("time", "s", 0.02, start=1.0)
    scene = Scene(np.stack([t, -t]), values, (axis,), Scale.of(values, signed=False), ("id",), "score", ("I", "II"))
    made = figure.figure(scene)
    first, second, importance, bar = made.axes
    assert [ax.get_ylabel() for ax in (first, second, importance, bar)] == ["I", "II", "importance", "score"]
    assert importance.get_xlabel() == "time (s)"
    np.testing.assert_allclose(first.lines[0].get_xdata(), 1 + 0.02 * np.arange(50))
    np.testing.assert_allclose(second.lines[0].get_ydata(), -t)
    assert first.get_xlim() == pytest.approx((0.99, 1.99))


@pytest.mark.parametrize("layout", ["lines", "image", "bars"])
def test_figures_of_maps_on_their_own_axes(layout):
    own = {
        "lines": (Axis("frequency", "Hz", 2.0),),
        "image": (Axis("frequency", "Hz", 2.0), Axis("time", "s", 0.1)),
        "bars": (Axis("band", "", labels=("low", "mid", "high")),),
    }[layout]
    values = np.arange(2.0 * 3 * (4 if layout == "image" else 1)).reshape(2, 3, *((4,) if layout == "image" else ()))
    scene = Scene(np.zeros((2, 20)), values, (Axis("time", "s", 0.1),), Scale.of(values, signed=True), ("id",), "score",
                  ("I", "II"), layout=layout, own=own)  # fmt: skip
    made = figure.figure(scene)
    if layout == "lines":
        np.testing.assert_allclose(made.axes[1].lines[0].get_xdata(), [0, 2, 4])
        np.testing.assert_allclose(made.axes[1].lines[0].get_ydata(), values[1])
    elif layout == "image":
        np.testing.assert_array_equal(made.axes[1].images[0].get_array(), scene.scale.colour(values[1]))
        assert made.axes[1].get_ylim() == (-1, 5)  # low frequencies at the bottom
    else:
        assert [bar.get_width() for bar in made.axes[1].patches] == [3, 4, 5]
        assert [label.get_text() for label in made.axes[1].get_yticklabels()] == ["low", "mid", "high"]


def test_a_style_lasts_as_long_as_the_figure(tmp_path, six):
    (tmp_path / "mine.mplstyle").write_text("axes.facecolor: 112233\n")
    before = dict(matplotlib.rcParams)
    [path] = render(six, tmp_path / "a", rows=[0], look=Look(format="svg", style=str(tmp_path / "mine.mplstyle"))).files
    assert dict(matplotlib.rcParams) == before
    assert "#112233" in path.read_text() or "112233" in path.read_text()
    for name, says in (("ggploot", "Did you mean 'ggplot'"), ("https://example.org/a.mplstyle", "no such file")):
        with pytest.raises(RequestError, match=says):
            render(six, tmp_path / "b", rows=[0], look=Look(format="svg", style=name))
    assert not (tmp_path / "b").exists()


def test_a_contact_sheet_shows_every_sample_on_one_scale(tmp_path, images):
    rng = np.random.default_rng(0)
    values = rng.random((150, 1, 4, 5))
    results = images(values, status=[1] * 147 + [3, 4, 2])
    made = render(results, tmp_path, look=Look(sheet=True))
    assert [path.relative_to(tmp_path).as_posix() for path in made.files] == [
        f"gradcam@a/sheet-{k:03d}.png" for k in (1, 2, 3)
    ]  # fmt: skip
    assert made.skipped == [("sample-147", "non-finite"), ("sample-148", "failed")]
    request = Request.of(results, None, None, None, Norm("run"))
    common = request.common(range(150))
    assert common["gradcam@a", -1].high == values[[*range(147), 149]].max()
    shown = [scene for _, _, page in contact.pages(request, range(150), common) for scene in page.scenes]
    assert len(shown) == 148
    assert {scene.scale for scene in shown} == {common["gradcam@a", -1]}
    sheets = [np.asarray(Image.open(path)) for path in made.files]
    for scene in (shown[0], shown[70], shown[-1]):
        small = thumbnail(scene)
        height, width = small.shape[:2]
        starts = [(s, y, x) for s in sheets for y, x in np.argwhere((s == small[0, 0]).all(-1))]
        assert any(np.array_equal(s[y : y + height, x : x + width], small) for s, y, x in starts)
    before = [path.stat().st_mtime_ns for path in made.files]
    render(results, tmp_path, look=Look(sheet=True))
    assert [path.stat().st_mtime_ns for path in made.files] == before


def test_a_contrast_is_told_as_a_question(images):
    results = images(np.random.default_rng(0).random((1, 1, 4, 5)))
    results.target_names, results.target_foil = ("predicted-vs-2nd",), np.array([[2]])
    [(_, _, scene)] = Request.of(results, None, None, None).scenes(0, {})
    assert any(part.startswith("why pvc rather than afib (") for part in scene.heading)
