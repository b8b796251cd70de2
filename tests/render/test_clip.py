"""Clips: as many frames as the input, each its own, at the right pace and in the right colours."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageSequence

from camsweep.core.data.axes import Axis
from camsweep.core.render.clip import MOVING, durations, frames, montage, panels, place, planes
from camsweep.core.render.colour import Scale
from camsweep.core.render.saving import mark_of, save_gif
from camsweep.core.render.scene import Scene

PX = (Axis("height", "px"), Axis("width", "px"))
SECONDS = (Axis("time", "s", 0.04), *PX)
SPOTS = [(2 + 3 * k, 3 + 4 * k) for k in range(6)]


def moving(*, signed=False, axes=SECONDS, still=False):
    values = np.zeros((6, 24, 32))
    for k, (y, x) in enumerate(SPOTS):
        values[k, y, x] = 1 + k
    video = np.random.default_rng(0).integers(0, 120, (1, 6, 24, 32)).astype(np.uint8)
    if still:
        values[:], video[:] = values[:1], video[:, :1]
    return Scene(video, values, axes, Scale.of(values, signed=signed), ("id", "map"), "logit", ("grey",))


@pytest.mark.parametrize("signed", [True, False])
def test_frame_k_of_the_gif_shows_map_k(tmp_path, signed):
    scene = moving(signed=signed)
    made = list(frames(scene))
    path = tmp_path / "clip.gif"
    save_gif(made, durations(SECONDS[0], 6), path, "camsweep 0123abcd")
    with Image.open(path) as gif:
        assert gif.n_frames == 6
        decoded = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]
    assert mark_of(path) == "camsweep 0123abcd"
    for before, after in pairwise(decoded):
        assert (before != after).any()
    for k, (frame, picture) in enumerate(zip(decoded, made, strict=True)):
        error = np.abs(frame - np.asarray(picture)).max(-1)
        assert error.max() <= 8
        assert error.mean() < 1.5
        alone = [alone for _, alone in panels(scene, least=MOVING)][k].pixels
        height, width = alone.shape[:2]
        left = 12 + width + 12
        composed = np.asarray(picture)[:, left : left + width]
        top = next(y for y in range(99) if np.array_equal(composed[y : y + height], alone))
        shown = frame[top : top + height, left : left + width]
        far = np.abs(shown - shown[-1 if k < 3 else 0, -1 if k < 3 else 0]).sum(-1)
        y, x = np.argwhere(far >= far.max() - 30).mean(0) / 8  # 24 pixels by 8 are 192
        assert (int(y), int(x)) == SPOTS[k]


def test_one_scale_and_one_grey_for_the_whole_clip():
    scene = moving()
    tops = [alone.pixels.reshape(-1, 3)[alone.pixels.sum(-1).argmax()] for _, alone in panels(scene)]
    for k, colour in enumerate(tops):
        np.testing.assert_allclose(colour.astype(int), scene.scale.colour(1.0 + k).astype(int), atol=2)
    floats = moving().input.astype(float)
    floats[:, 3] *= 0.1
    dark = Scene(floats, scene.values * 0, SECONDS, Scale(0, 0, False), ("id",), "", ("grey",))
    means = [over.pixels.mean() for over, _ in panels(dark)]
    assert means[3] == pytest.approx(0.1 * means[2], rel=0.15)


def test_frames_alike_but_for_their_number_are_all_there_at_their_pace(tmp_path):
    path = tmp_path / "still.gif"
    pace = durations(Axis("time", "s", 1 / 30), 6)
    save_gif(frames(moving(still=True)), pace, path, "mark")
    with Image.open(path) as gif:
        assert gif.n_frames == 6
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert shown == pace


def test_durations_follow_the_axis_and_keep_the_length():
    assert durations(SECONDS[0], 3) == [40, 40, 40]
    assert sum(durations(Axis("time", "s", 1 / 30), 30)) == 1000
    assert set(durations(Axis("time", "s", 1 / 30), 30)) == {30, 40}
    assert durations(Axis("time", "s", 0.001), 2) == [20, 20]
    assert durations(Axis("depth", "mm", 3.0), 2) == [100, 100]


def test_places_are_told_apart():
    assert place(SECONDS[0], 3, 6) == "frame 4/6 · 0.12 s"
    assert place(Axis("z", "mm", 2.5, -10.0), 0, 6) == "slice 1/6 · −10 mm"
    assert place(Axis("time", "frame"), 0, 6) == "frame 1/6"
    assert len({place(Axis("time", "s", 1e-12), k, 100) for k in range(100)}) == 100


@pytest.mark.parametrize("along", [0, 1, 2])
def test_planes_cut_where_they_say(along):
    values = np.zeros((4, 6, 8))
    spot = [1, 2, 5]
    values[tuple(spot)] = 1
    mm = tuple(Axis(name, "mm", 2.0) for name in "zyx")
    scene = Scene(np.zeros((1, 4, 6, 8)), values, mm, Scale(0, 1, False), ("id",), "", ("grey",))
    at = spot.pop(along)
    (_, here), (_, there) = panels(scene, along, [at, at + 1])
    y, x = np.argwhere(here.pixels.sum(-1) == here.pixels.sum(-1).max()).mean(0)
    height, width = (n for k, n in enumerate((4, 6, 8)) if k != along)
    assert [int(y / here.pixels.shape[0] * height), int(x / here.pixels.shape[1] * width)] == spot
    assert len(np.unique(there.pixels.reshape(-1, 3), axis=0)) == 1
    assert next(planes(scene)).width > 256


def test_coarse_maps_are_resized_in_time_too():
    scene = moving()
    coarse = Scene(scene.input, np.arange(3.0)[:, None, None], SECONDS, Scale(0, 2, False), ("id",), "", ("grey",))
    tops = [int(alone.pixels[0, 0].astype(int).sum()) for _, alone in panels(coarse)]
    assert tops[0] < tops[2] < tops[3] < tops[5]


def test_montage_shows_the_first_and_the_last(monkeypatch):
    asked = []
    monkeypatch.setattr("camsweep.core.render.clip.place", lambda axis, k, points: asked.append(k) or str(k))
    long = np.random.default_rng(0).random((1, 40, 6, 8))
    next(montage(Scene(long, long[0], SECONDS, Scale(0, 1, False), ("id",), "", ("grey",))))
    assert len(asked) == 12
    assert (asked[0], asked[-1]) == (0, 39)
