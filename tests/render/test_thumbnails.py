"""Small pictures hold against `core.render`, or against the slow way to draw them."""

import numpy as np
import pytest
from PIL import Image

from camsweep.core.data import Axis
from camsweep.core.grid import resize
from camsweep.core.render import thumbnails
from camsweep.core.render.colour import Scale, overlay
from camsweep.core.render.image import layers, levels, shade
from camsweep.core.render.lettering import FAINT, INK
from camsweep.core.render.lines import THICK, THIN, Lines
from camsweep.core.render.scene import Scene
from camsweep.core.render.signal import Strip, span
from camsweep.core.render.thumbnails import WIDE, beside, moments, moments_in_words, sample, thumbnail, times

PX = (Axis("height", "px"), Axis("width", "px"))
RNG = np.random.default_rng(3)


def scene(picture, values, axes=PX, *, signed=True, **more):
    values = np.asarray(values, np.float64)
    names = tuple(f"c{k}" for k in range(len(picture)))
    return Scene(np.asarray(picture), values, tuple(axes), Scale.of(values, signed=signed), ("x",), "u", names, **more)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("shape", "zoom"), [((1, 32, 32), 4), ((3, 20, 24), 5), ((3, 100, 128), 1), ((1, 49, 10), 5)])
def test_a_small_picture_is_the_overlay_of_render(shape, zoom, signed):
    s = scene(
        RNG.normal(size=shape),
        np.abs(RNG.normal(size=(5, 6))) * (1 if not signed else RNG.choice([-1, 1])),
        signed=signed,
    )
    over, alone = layers(shade(s.input, levels(s.input)), s.values, s.scale, (zoom, zoom))
    assert np.array_equal(thumbnail(s), over)
    assert np.array_equal(thumbnail(s, alone=True), alone)
    assert np.array_equal(sample(s), shade(s.input, levels(s.input)).repeat(zoom, 0).repeat(zoom, 1))


def test_a_large_picture_is_shrunk_before_it_is_coloured():
    """Against Pillow's own shrinking."""
    s = scene(RNG.integers(0, 256, (3, 300, 400)).astype(np.uint8), resize(RNG.normal(size=(10, 10)), (300, 400)))
    height, width = 111, 148  # 128 squared pixels, three by four

    def pillow(plane):
        return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))

    base = shade(np.stack([pillow(plane) for plane in s.input]), (0.0, 255.0))
    expected = overlay(base, pillow(s.values), s.scale)
    made = thumbnail(s)
    assert made.shape == (height, width, 3)
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_proportions_are_true():
    mm = (Axis("y", "mm", 2.0), Axis("x", "mm", 1.0))
    assert times((1, 20, 40), mm, 128) == (6, 3)
    assert times((1, 20, 40), PX, 128) == (4, 4)
    high, wide = times((1, 1000, 2000), mm, 128)
    assert (high, wide) == pytest.approx((0.128, 0.064))
    assert times((1, 10, 1000), PX, 128)[1] * 1000 <= thumbnails.LONG


def clip(strong=4):
    values = np.full((9, 3, 4), 0.1)
    values[strong] = 2.0
    axes = (Axis("time", "s", 0.5), *PX)
    return scene(RNG.normal(size=(1, 9, 12, 16)), values, axes, signed=False)


def test_a_clip_is_a_row_of_overlays_of_its_frames():
    s = clip()
    at = [0, 4, 8]
    grey, values = levels(s.input), resize(s.values, (9, 3, 4))
    frames = [layers(shade(s.input[:, k], grey), values[k], s.scale, (6, 6))[0] for k in at]
    made = thumbnail(s, at)
    assert made.shape == (72, 3 * 96 + 4, 3)
    for k, frame in enumerate(frames):
        assert np.array_equal(made[:, k * 98 : k * 98 + 96], frame)
    assert (made[:, 96:98] == 255).all()
    assert np.array_equal(sample(s, at)[:, :96], shade(s.input[:, 0], grey).repeat(6, 0).repeat(6, 1))


@pytest.mark.parametrize("strong", range(9))
def test_the_strongest_frame_is_shown_and_one_of_each_share(strong):
    at = moments([clip(strong)])
    assert strong in at
    assert [k in share for k, share in zip(at, [(0, 1), (2, 3), (4, 5), (6, 7), (8,)], strict=True)] == [True] * 5


def test_every_map_has_a_say_in_which_frames_are_shown():
    faint, loud = clip(1), clip(6)
    at = moments([faint, loud, scene(loud.input, np.zeros(3), loud.axes, layout="bars", own=(Axis("k", ""),))])
    assert {1, 6} <= set(at)
    assert moments_in_words(loud, at[:2]).startswith("frame 2/9 · 0.5 s, frame ")
    assert moments([]) == []


@pytest.mark.parametrize(("points", "width"), [(7, 40), (40, 40), (500, 40), (61, 40), (1, 9), (2, 30)])
def test_a_line_reaches_where_the_slow_way_finds_it(points, width):
    curves = RNG.normal(size=(2, points))
    lines = Lines(np.array([[-4.0, 4.0], [-5.0, 3.0]]), 50, width)
    top, bottom = lines.reach(curves)
    x = (np.arange(points) + 0.5) * width / points
    for k, (low, high) in enumerate(lines.ends):
        y = 50 * (high - curves[k]) / (high - low)
        for column in range(width):
            fine = np.r_[np.linspace(column, column + 1, 2001), x[(x >= column) & (x < column + 1)]]
            there = np.interp(fine, x, y)
            assert top[k, column] == pytest.approx(there.min(), abs=0.02)
            assert bottom[k, column] == pytest.approx(there.max(), abs=0.02)


def test_a_signal_has_the_tint_of_render_behind_it_and_its_colours_on_it():
    curve, values = np.zeros(WIDE), np.linspace(-1, 1, WIDE)
    s = scene(curve[None], values[None], [Axis("time", "s")])
    made = thumbnail(s)
    strip = Strip("", curve, values, *span(curve))
    assert made.shape == (96, WIDE, 3)
    assert np.array_equal(made[:40], strip.tint(s.scale, 40, WIDE))
    assert np.array_equal(made[56:], strip.tint(s.scale, 40, WIDE))
    # The line lies between two rows of pixels: half a pixel of ink on each side, then the colour over both.
    tint = strip.tint(s.scale, 1, WIDE)[0].astype(float)
    ink = tint + THIN / 2 * (np.array(INK) - tint)
    alpha = np.sqrt(s.scale.strength(values))[:, None]
    assert np.abs(made[48] - (ink + alpha * (s.scale.colour(values) - ink))).max() <= 0.5
    faint = tint + (THICK / 2 - 1) * alpha * (s.scale.colour(values) - tint)
    assert np.abs(made[49] - faint).max() <= 0.5


def test_a_column_shows_the_strongest_of_its_values():
    values = np.zeros(WIDE * 10)
    values[1234], values[2000:2010] = -5.0, 2.0
    s = scene(np.zeros((1, WIDE * 10)), values[None], [Axis("time", "s")])
    made = thumbnail(s)
    coloured = np.flatnonzero((made[0] != made[0, 0]).any(-1))
    assert coloured.tolist() == [123, 200]


def test_channels_lie_under_one_another_and_a_shared_map_colours_all():
    s = scene(RNG.normal(size=(3, 80)), RNG.normal(size=80), [Axis("time", "s")])
    made = thumbnail(s)
    assert made.shape == (3 * 44 + 2 * 2, WIDE, 3)
    for k, curve in enumerate(s.input):
        one = Lines(np.array([span(curve)]), 44, WIDE).draw(curve[None], s.values[None], s.scale)[0]
        assert np.array_equal(made[46 * k : 46 * k + 44], one)
    plain = sample(s)
    assert (plain == plain.mean(-1, keepdims=True)).all()  # grey: nothing of the map


def test_missing_points_are_gaps():
    curve = np.ones((1, 100))
    curve[0, 40:60] = np.nan
    made = sample(scene(curve, np.zeros((1, 100)), [Axis("time", "s")]))
    drawn = (made < 200).any((0, 2))
    assert drawn[:100].all()
    assert not drawn[135:185].any()
    assert drawn[-100:].all()


def test_a_spectrum_is_a_line_with_zero_marked():
    hertz = Axis("frequency", "Hz", 2.0)
    values = np.abs(RNG.normal(size=(2, 31)))
    s = scene(RNG.normal(size=(2, 60)), values, [Axis("time", "s", 0.01)], signed=False, layout="lines", own=(hertz,))
    made = thumbnail(s)
    low, high = span(values[0], zero=True)
    at = 60 * high / (high - low)
    assert made.shape == (2 * 60 + 2, WIDE, 3)
    assert np.abs(made[int(at)].astype(int) - FAINT).sum(-1).min() < 120


def test_a_spectrogram_has_its_low_frequencies_at_the_bottom():
    own = (Axis("frequency", "Hz", 5.0), Axis("time", "s", 0.1))
    values = RNG.normal(size=(1, 4, 8))
    s = scene(RNG.normal(size=(1, 80)), values, [Axis("time", "s", 0.01)], layout="image", own=own)
    made = thumbnail(s)
    assert made.shape == (96, WIDE, 3)
    cells = made[12::24, 20::40]
    assert np.array_equal(cells, s.scale.colour(values[0, ::-1]))


def test_levels_of_a_picture_lie_side_by_side():
    own = (Axis("level", "", labels=("A", "B", "C")), *PX)
    values = RNG.normal(size=(3, 20, 24))
    s = scene(RNG.normal(size=(3, 20, 24)), values, layout="image", own=own)
    expected = beside(s.scale.colour(values[k]).repeat(3, 0).repeat(3, 1) for k in range(3))
    assert np.array_equal(thumbnail(s), expected)


def test_bars_are_as_long_as_their_values():
    own = (Axis("band", "", labels=("a", "b", "c")),)
    values = np.array([[2.0, -1.0, 0.0]])
    made = thumbnail(scene(np.zeros((1, 60)), values, [Axis("time", "s")], layout="bars", own=own))
    assert made.shape == (3 * 16, WIDE, 3)
    scale = Scale(-1.0, 2.0, True)
    for k, value in enumerate(values[0]):
        row = made[16 * k + 8]
        there = (row == scale.colour(value)).all(-1) & (row != 255).any(-1)
        assert there.sum() == pytest.approx(abs(value) / 3 * WIDE, abs=2)
    assert (made[0] == FAINT).all(-1).sum() == 1


def test_bars_of_many_channels_are_a_table():
    own = (Axis("band", "", labels=("a", "b")),)
    values = RNG.normal(size=(9, 2))
    s = scene(np.zeros((9, 60)), values, [Axis("time", "s")], layout="bars", own=own)
    assert np.array_equal(thumbnail(s)[::16, ::160], s.scale.colour(values))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_maps_of_zeros_and_of_nothing_are_drawn_too(value):
    for layout, own in (("", ()), ("image", PX), ("bars", (Axis("b", "", labels=("a",) * 24),))):
        values = np.full((20, 24) if layout != "bars" else 24, value)
        assert thumbnail(scene(np.zeros((1, 20, 24)), values, layout=layout, own=own)).dtype == np.uint8
    assert thumbnail(scene(np.full((1, 9), value), np.full((1, 9), value), [Axis("time", "s")])).shape == (96, WIDE, 3)
