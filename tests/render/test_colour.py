"""Values to colours: where zero lies, what the limits are, what an overlay is."""

import numpy as np
import pytest

from camsweep.core.render.colour import ALPHA, MISSING, Scale, diverging, overlay, sequential

DIVERGING, SEQUENTIAL = diverging(), sequential()


@pytest.mark.parametrize("values", [[-3.0, 1.0], [0.5, 2.0], [-1e-30, 5e300], [-0.2, -0.1]])
def test_zero_is_always_the_centre_colour_of_a_signed_scale(values):
    scale = Scale.of(np.array(values), signed=True)
    np.testing.assert_array_equal(scale.colour(0.0), DIVERGING[255])
    assert DIVERGING[255].min() > 240
    assert scale.limits == (-max(map(abs, values)), max(map(abs, values)))


def test_limits_and_ticks_are_the_true_extremes():
    values = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    scale = Scale.of(values, signed=True)
    assert (scale.low, scale.high) == (values.min(), values.max())
    assert scale.ticks == (float(values.min()), 0.0, float(values.max()))
    assert scale.position(values).min() >= 0
    assert np.ptp(scale.position([scale.limits])) == 1


def test_unsigned_scale_begins_at_zero_and_ends_at_the_maximum():
    scale = Scale.of(np.array([2.0, 4.0]), signed=False)
    assert scale.limits == (0.0, 4.0)
    np.testing.assert_array_equal(scale.colour([0.0, 4.0]), SEQUENTIAL[[0, -1]])
    np.testing.assert_allclose(scale.position([1.0, 2.0]), [0.25, 0.5])


def test_sequential_colours_grow_lighter():
    assert (np.diff(SEQUENTIAL @ [0.2126, 0.7152, 0.0722]) > -0.5).all()


def test_the_method_decides_the_table_not_the_sample():
    positive = np.array([1.0, 2.0])
    assert Scale.of(positive, signed=True).table is DIVERGING
    assert Scale.of(positive, signed=False).table is SEQUENTIAL


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.5, 5e-324, 1e308, -2.0])
def test_constant_maps_neither_divide_by_zero_nor_warn(signed, value):
    values = np.full((3, 4), value)
    scale = Scale.of(values, signed=signed)
    position = scale.position(values)
    expected = {True: (1 + np.sign(value)) / 2, False: float(value > 0)}[signed]
    np.testing.assert_array_equal(position, expected)
    np.testing.assert_array_equal(scale.strength(values), float(value != 0))


def test_what_is_not_finite_takes_no_part_in_the_scale_and_is_grey():
    values = np.array([np.nan, 1.0, -2.0, np.inf])
    scale = Scale.of(values, signed=True)
    assert (scale.low, scale.high) == (-2.0, 1.0)
    np.testing.assert_array_equal(scale.colour(values)[0], MISSING)
    assert scale.strength(values)[0] == 0
    assert Scale.of(np.full(3, np.nan), signed=False).limits == (0.0, 0.0)


def test_joined_scales_hold_both():
    joined = Scale(-1.0, 2.0, True) | Scale(-3.0, 1.0, True)
    assert (joined.low, joined.high) == (-3.0, 2.0)


@pytest.mark.parametrize("signed", [True, False])
def test_overlay_is_the_formula(signed):
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    values = rng.standard_normal((6, 5)) if signed else rng.random((6, 5))
    scale = Scale.of(values, signed=signed)
    top = np.abs(values).max()
    for (i, j), v in np.ndenumerate(values):
        a = ALPHA * abs(v) / top
        table = DIVERGING if signed else SEQUENTIAL
        at = (1 + v / top) / 2 if signed else v / top
        expected = (1 - a) * base[i, j] + a * table[round(at * (len(table) - 1))]
        np.testing.assert_allclose(overlay(base, values, scale)[i, j], expected, atol=0.5001)


def test_overlay_of_zeros_is_the_input():
    base = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    zeros = np.zeros((6, 5))
    for signed in (True, False):
        np.testing.assert_array_equal(overlay(base, zeros, Scale.of(zeros, signed=signed)), base)
