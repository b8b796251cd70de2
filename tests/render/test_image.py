"""Images: nothing transposed, mirrored or stretched."""

import numpy as np
import pytest

from camsweep.core.data.axes import Axis
from camsweep.core.render.colour import Scale, overlay
from camsweep.core.render.image import enlarge, factors, layers, levels, shade
from camsweep.core.render.sheet import Panel, axis_ruler, sheet

PX = (Axis("height", "px"), Axis("width", "px"))


@pytest.mark.parametrize("at", [(0, 0), (3, 17), (11, 19), (11, 0), (5, 2)])
@pytest.mark.parametrize("coarse", [1, 4])
def test_one_bright_point_ends_where_it_belongs(at, coarse):
    shape, times = (12, 20), (8, 8)
    values = np.zeros((shape[0] // coarse, shape[1] // coarse))
    cell = at[0] // coarse, at[1] // coarse
    values[cell] = 1
    for signed in (True, False):
        scale = Scale.of(values, signed=signed)
        over, alone = layers(np.full((*shape, 3), 99, np.uint8), values, scale, times)
        assert over.shape == alone.shape == (96, 160, 3)
        distance = np.abs(alone.astype(int) - scale.colour(1.0)).sum(-1)
        y, x = np.argwhere(distance == distance.min()).mean(0)
        assert (int(y / times[0] / coarse), int(x / times[1] / coarse)) == cell
        far = overlay(np.full((1, 1, 3), 99, np.uint8), np.zeros((1, 1)), scale)[0, 0]
        np.testing.assert_array_equal(over[0 if at[0] > 5 else -1, 0 if at[1] > 9 else -1], far)


def test_map_at_input_size_keeps_values_at_cell_centres():
    values = np.random.default_rng(0).standard_normal((5, 7))
    scale = Scale.of(values, signed=True)
    _, alone = layers(np.zeros((5, 7, 3), np.uint8), values, scale, (3, 3))
    np.testing.assert_array_equal(alone[1::3, 1::3], scale.colour(values))


def test_input_is_repeated_not_smoothed():
    base = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(enlarge(base, (3, 5))[1::3, 2::5], base)


@pytest.mark.parametrize(
    ("shape", "expected"), [((32, 40), (8, 8)), ((28, 28), (10, 10)), ((224, 224), (2, 2)), ((600, 800), (1, 1)),
                            ((2, 900), (1, 1)), ((4000, 5000), (1, 1))]
)  # fmt: skip
def test_small_images_are_enlarged_by_whole_factors(shape, expected):
    assert factors(shape, PX) == expected


def test_voxels_keep_their_proportions():
    mm = (Axis("z", "mm", 5.0), Axis("y", "mm", 1.0), Axis("x", "mm", 2.0))
    z, y, x = factors((20, 64, 32), mm)
    assert (z, x) == (5 * y, 2 * y)
    assert factors((64, 200), (Axis("frequency", "Hz", 4.0), Axis("time", "s", 0.01))) == (4, 4)


def test_grey_levels_and_colours():
    grey = np.array([[[0, 255], [51, 102]]], np.uint8)
    np.testing.assert_array_equal(shade(grey, levels(grey))[..., 0], grey[0])
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(shade(rgb, levels(rgb)), np.moveaxis(rgb, 0, -1))
    counts = np.array([[[100.0, 300.0], [200.0, np.nan]]])
    assert shade(counts, levels(counts))[..., 1].tolist() == [[0, 255], [128, 0]]
    flat = np.full((1, 2, 2), 7.0)
    assert (shade(flat, levels(flat)) == 128).all()


def test_rulers_only_where_axes_measure():
    assert axis_ruler(PX[0], 10, 100) is None
    hertz = axis_ruler(Axis("frequency", "Hz", 4.0), 64, 256)
    assert hertz.label == "frequency (Hz)"
    for at, text in hertz.ticks:
        assert (at - 2) == pytest.approx(float(text))  # 4 Hz over 4 pixels, centre of the first cell at pixel 2


def test_sheet_keeps_pixels_and_fits_any_words():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    scale = Scale(-0.3, 1.2, True)
    words = ["🫀 $x_1$ \n", "x" * 300, "\udcff", ""]
    made = np.asarray(sheet([[Panel(pixels)]], words, scale, "a very long unit that does not fit the bar"))
    found = [
        (y, x)
        for y in range(made.shape[0] - 39)
        for x in range(14)
        if (made[y, x : x + 50] == pixels[0]).all() and (made[y : y + 40, x : x + 50] == pixels).all()
    ]
    assert len(found) == 1
