"""Signals: seconds on the axis, colours where they belong."""

from itertools import pairwise

import numpy as np
import pytest

from camsweep.core.data.axes import Axis
from camsweep.core.render.colour import Scale
from camsweep.core.render.scene import Scene
from camsweep.core.render.sheet import axis_ruler
from camsweep.core.render.signal import WIDTH, figure, panels, pieces, span, strips, strongest

TIME = Axis("time", "s", 0.01, 2.0)


def scene(values, channels=2, points=200, *, signed=False, signal=None):
    signal = np.random.default_rng(0).standard_normal((channels, points)) if signal is None else signal
    values = np.asarray(values, float)
    names = tuple(f"lead {k}" for k in range(channels))
    return Scene(signal, values, (TIME,), Scale.of(values, signed=signed), ("id",), "logit", names)


def test_axis_is_in_seconds():
    drawn = scene(np.arange(50))
    ax = figure(TIME, drawn.scale, strips(drawn), 140).axes[0]
    np.testing.assert_allclose(ax.get_xlim(), (1.995, 3.995))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), 2 + 0.01 * np.arange(200))
    below = axis_ruler(TIME, 200, WIDTH)
    assert below.label == "time (s)"
    for at, text in below.ticks:
        np.testing.assert_allclose(1.995 + at / WIDTH * 2, float(text), atol=1e-9)
    assert {"2", "3"} <= {text for _, text in below.ticks}


def test_a_map_without_channels_has_a_strip_of_its_own_with_true_values():
    values = np.sin(np.arange(50.0)) * 7
    *channels, own = strips(scene(values, signed=True))
    assert [strip.name for strip in channels] == ["lead 0", "lead 1"]
    assert own.name == "importance"
    assert own.curve.shape == (200,)
    assert own.curve.min() >= values.min()
    assert own.curve.max() == pytest.approx(values.max(), rel=0.06)
    assert all(strip.values is own.values for strip in channels)


def test_a_map_by_channel_colours_each_its_own():
    values = np.random.default_rng(0).standard_normal((2, 200))
    shown = strips(scene(values, signed=True))
    assert len(shown) == 2
    for strip, expected in zip(shown, values, strict=True):
        np.testing.assert_array_equal(strip.values, expected)


def test_a_bright_point_is_tinted_where_it_is():
    values = np.zeros(200)
    values[150] = 1
    strip = strips(scene(values))[0]
    tint = strip.tint(Scale.of(values, signed=False), 10)
    coloured = np.flatnonzero((tint[0] < 255).any(1))
    np.testing.assert_array_equal(coloured * 200 // WIDTH, 150)
    assert len(coloured) == pytest.approx(WIDTH / 200, abs=1)


def test_no_peak_is_lost_where_points_are_many():
    values = np.zeros(100_000)
    values[54_321] = -3
    found = strongest(values, WIDTH)
    assert np.flatnonzero(found).tolist() == [54_321 * WIDTH // 100_000]
    assert found.min() == -3


def test_pieces_cover_the_line_and_keep_their_levels():
    points = np.stack([np.arange(6.0), np.arange(6.0) ** 2], 1)
    level = np.array([3, 3, 1, 1, 1, 2])
    cut, starts = pieces(points, level)
    np.testing.assert_array_equal(level[starts], [3, 1, 2])
    for before, after in pairwise(cut):
        np.testing.assert_array_equal(before[-1], after[0])
    np.testing.assert_array_equal(cut[0][0], points[0])
    np.testing.assert_array_equal(cut[-1][-1], points[-1])
    assert cut[1][0].tolist() == [1.5, 2.5]


def test_span_of_flat_and_missing_curves_has_room():
    for curve in (np.zeros(4), np.full(4, 1e10), np.full(4, np.nan), np.array([1, 1], np.int16)):
        low, high = span(curve)
        assert low < high


@pytest.mark.parametrize("values", [np.zeros(50), np.full(50, 2.0), np.r_[np.nan, np.ones(49)], np.ones(1)])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("signal", [None, np.zeros((2, 200)), np.full((2, 200), np.nan)])
def test_flat_and_missing_values_are_drawn_without_warning(values, signed, signal):
    (sheet,) = panels(scene(values, signed=signed, signal=signal))
    assert sheet.width > WIDTH
