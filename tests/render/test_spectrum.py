"""Maps on axes of their own: frequencies, times and levels where they belong."""

from dataclasses import replace

import numpy as np
import pytest

from camsweep.core.data.axes import Axis
from camsweep.core.render.colour import Scale
from camsweep.core.render.scene import Scene
from camsweep.core.render.sheet import axis_ruler, extent
from camsweep.core.render.signal import WIDTH
from camsweep.core.render.spectrum import SPECTRUM, STRIP, fit, images, lines

TIME = Axis("time", "s", 0.01, 2.0)
HERTZ = Axis("frequency", "Hz", 0.5)
LEVELS = Axis("level", "", labels=("A2", "D2", "D1"))
PX = (Axis("height", "px"), Axis("width", "px"))


def scene(values, own, *, shape=(2, 200), axes=(TIME,), signed=True):
    signal = np.random.default_rng(0).standard_normal(shape)
    values = np.asarray(values, float)
    names = tuple(f"lead {k}" for k in range(shape[0]))
    return Scene(signal, values, axes, Scale.of(values, signed=signed), ("id",), "logit", names, "image", own)


@pytest.fixture
def panels(monkeypatch):
    """The panels that a drawing lays out."""

    def of(drawing, scene):
        kept = []
        monkeypatch.setattr(Scene, "sheet", lambda _, rows, size=0: kept.extend(rows))
        list(drawing(scene))
        monkeypatch.undo()
        return [list(row) for row in kept]

    return of


@pytest.mark.parametrize(("axis", "at"), [(HERTZ, 10), (HERTZ, 75), (Axis("frequency", "Hz", 0.5, -25.0), 30)])
def test_a_peak_is_drawn_at_its_frequency(panels, axis, at):
    values = np.zeros((2, 101))
    values[1, at] = 1
    (_, empty), (_, full) = panels(lines, scene(values, (axis,)))
    scale = Scale(0, 1, True)
    assert (np.abs(empty.pixels.astype(int) - 255).sum(-1).max(0) > 0).all()  # the line
    columns = np.flatnonzero((full.pixels[5] != 255).any(-1))  # near the top, the tint of the peak
    np.testing.assert_array_equal(np.unique(columns * 101 // SPECTRUM), at)
    ticks = {float(text.replace("−", "-")): x for x, text in full.below.ticks}
    (first, x0), (last, x1) = min(ticks.items()), max(ticks.items())
    found = first + (columns.mean() + 0.5 - x0) / (x1 - x0) * (last - first)
    assert found == pytest.approx(axis.start + at * axis.step, abs=axis.step / 2)
    strongest = np.abs(full.pixels.astype(int) - scale.colour(1.0)).sum(-1)
    assert abs(np.argwhere(strongest < 60)[:, 1].mean() - (at + 0.5) * SPECTRUM / 101) < 2


def test_only_the_lowest_panels_have_rulers_and_the_signal_stands_beside(panels):
    rows = panels(lines, scene(np.zeros((2, 101)), (HERTZ,)))
    assert [len(row) for row in rows] == [2, 2]
    assert [[bool(each.below) for each in row] for row in rows] == [[False, False], [True, True]]
    assert [each.below.label for each in rows[1]] == ["time (s)", "frequency (Hz)"]
    assert [row[0].left.label for row in rows] == ["lead 0", "lead 1"]
    assert (rows[0][0].pixels[..., 0] == rows[0][0].pixels[..., 2]).all()  # no colours in the signal


def test_zero_has_a_line(panels):
    values = np.full((2, 101), np.nan)
    values[:, 50] = [3, -3]
    for (_, panel), high in zip(panels(lines, scene(values, (HERTZ,))), [True, False], strict=True):
        (zero,) = (y for y, text in panel.left.ticks if text == "0")
        dark = panel.pixels[:, 10].sum(-1)
        assert abs(int(dark.argmin()) + 0.5 - zero) <= 1
        assert (zero > panel.pixels.shape[0] / 2) is high


def test_one_line_for_all_channels(panels):
    rows = panels(lines, scene(np.arange(9.0), (Axis("coefficient", ""),)))
    assert [len(row) for row in rows] == [2, 1]
    assert rows[0][1].below.label == "coefficient"


def test_low_frequencies_are_at_the_bottom_and_times_where_they_are(panels):
    frames = Axis("time", "s", 0.1, 2.0)
    values = np.zeros((2, 9, 21))
    values[0, 1, 5], values[1, 8, 15] = 1, -1
    drawn = scene(values, (Axis("frequency", "Hz", 6.25), frames))
    rows = panels(images, drawn)
    assert [each.left.label for (each,) in rows] == ["lead 0", "frequency (Hz)", "lead 1", "frequency (Hz)"]
    assert [bool(each.below) for (each,) in rows] == [False, False, False, True]
    low, high = extent(TIME, 200)
    for (panel,), hertz, seconds, value in ((rows[1], 6.25, 2.5, 1.0), (rows[3], 50, 3.5, -1.0)):
        y, x = np.argwhere((panel.pixels == drawn.scale.colour(value)).all(-1)).T
        assert low + (x.mean() + 0.5) / WIDTH * (high - low) == pytest.approx(seconds, abs=0.003)
        ticks = {float(text): at for at, text in panel.left.ticks}
        assert ticks[0] > ticks[40]
        found = (y.mean() + 0.5 - ticks[0]) / (ticks[40] - ticks[0]) * 40
        assert found == pytest.approx(hertz, abs=0.3)
        assert len(x) == pytest.approx(0.1 / 2 * WIDTH * panel.pixels.shape[0] / 9, rel=0.08)
    assert rows[3][0].below == axis_ruler(TIME, 200, WIDTH)


def test_every_level_has_its_name_and_its_height(panels):
    names = tuple(f"D{k}" for k in range(16))
    values = np.zeros((2, 16, 200))
    values[:, 3] = 2
    rows = panels(images, scene(values, (Axis("level", "", labels=names), TIME)))
    ruler = rows[1][0].left
    assert [text for _, text in ruler.ticks] == list(names)
    assert np.diff([at for at, _ in ruler.ticks]).max() < -15  # upwards, and legible
    y = np.argwhere((rows[1][0].pixels == Scale(0, 2, True).colour(2.0)).all(-1))[:, 0]
    assert y.mean() + 0.5 == pytest.approx(ruler.ticks[3][0], abs=1)


def test_axes_unlike_the_inputs_have_rulers_of_their_own(panels):
    own = (Axis("a", ""), Axis("b", ""))
    rows = panels(images, scene(np.random.default_rng(0).standard_normal((7, 9)), own))
    assert [each.below and each.below.label for (each,) in rows] == [None, "time (s)", "b"]


def test_fit_loses_no_value_and_invents_none():
    values = np.zeros(100_000)
    values[54_321] = -3
    axis = Axis("time", "s", 0.001)
    found = fit(values, axis, extent(axis, 100_000), WIDTH)
    assert np.flatnonzero(found).tolist() == [54_321 * WIDTH // 100_000]
    assert found.min() == -3
    few = np.arange(5.0)
    axis = Axis("frequency", "Hz", 2.0, -4.0)
    np.testing.assert_array_equal(fit(few, axis, extent(axis, 5), 15), few.repeat(3))
    np.testing.assert_array_equal(fit(few, axis, (-3, 1), 4), [1, 1, 2, 2])
    assert fit(values, Axis("time", "s", 0.001), (0.9995, 1.9995), 10).max() == 0


def test_a_picture_stands_beside_its_spectrum(panels):
    own = (Axis("frequency height", "1/px", 1 / 16, -0.5), Axis("frequency width", "1/px", 1 / 24))
    values = np.zeros((16, 13))
    values[3, 5] = 1
    drawn = scene(values, own, shape=(3, 16, 24), axes=PX)
    ((picture, alone),) = panels(images, drawn)
    assert picture.caption == "input"
    y, x = np.argwhere((alone.pixels == drawn.scale.colour(1.0)).all(-1)).mean(0) + 0.5
    height, width = alone.pixels.shape[:2]
    assert (int(y / height * 16), int(x / width * 13)) == (3, 5)
    assert alone.below.label == "frequency width (1/px)"


def test_levels_of_a_picture_and_slices_of_a_volume(panels):
    values = np.random.default_rng(0).standard_normal((3, 16, 24))
    ((picture, *levels),) = panels(images, scene(values, (LEVELS, *PX), shape=(1, 16, 24), axes=PX))
    assert [each.caption for each in (picture, *levels)] == ["input", "A2", "D2", "D1"]
    assert len({each.pixels.shape for each in (picture, *levels)}) == 1
    mm = tuple(Axis(name, "mm", 2.0) for name in "zyx")
    hertz = tuple(Axis(f"frequency {name}", "1/mm", 0.1, -1.0) for name in "zyx")
    rows = panels(images, scene(np.ones((20, 6, 8)), hertz, shape=(1, 20, 6, 14), axes=mm))
    shown = [each.caption for row in rows for each in row]
    assert len(shown) == 10
    assert "frequency z 0 1/mm" in shown
    deep = scene(np.ones((3, 20, 6, 8)), (LEVELS, *mm), shape=(1, 20, 6, 8), axes=mm)
    shown = [each.caption for row in panels(images, deep) for each in row]
    assert shown == ["input, middle slice", "A2, middle z", "D2, middle z", "D1, middle z"]


@pytest.mark.parametrize("values", [0.0, 2.0, np.nan, -1e-30])
@pytest.mark.parametrize("signed", [True, False])
def test_flat_and_missing_values_are_drawn_without_warning(values, signed):
    flat = scene(np.full((2, 1), values), (HERTZ,), signed=signed)
    (sheet,) = lines(flat)
    assert sheet.width > SPECTRUM
    (sheet,) = images(replace(flat, values=np.full((2, 1, 1), values), own=(HERTZ, TIME)))
    assert sheet.width > WIDTH
    assert sheet.height > 2 * STRIP
