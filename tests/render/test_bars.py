"""Maps of a few named numbers: lengths, sides, names and parts."""

import numpy as np
import pytest

from camsweep.core.data.axes import Axis
from camsweep.core.render import bars
from camsweep.core.render.bars import WIDE, bar, reach, rows, windows
from camsweep.core.render.colour import Scale
from camsweep.core.render.scene import Scene

TIME = Axis("time", "s", 0.01, 2.0)
BANDS = Axis("band", "", labels=("low 0-4 Hz", "high 4-20 Hz", "rest"))


def scene(values, *, shape=(2, 50), signals=None, axes=(TIME,), own=BANDS, signed=True):
    values = np.asarray(values, float)
    names = tuple(f"lead {k}" for k in range(shape[0]))
    scale = Scale.of(values, signed=signed)
    return Scene(np.zeros(shape), values, axes, scale, ("id",), "logit", names, "bars", (own,), signals)


@pytest.fixture
def panels(monkeypatch):
    def of(scene):
        kept = []
        monkeypatch.setattr(Scene, "sheet", lambda _, rows, size=0: kept.extend(rows))
        list(rows(scene))
        monkeypatch.undo()
        return [list(row) for row in kept]

    return of


def ends(pixels, scale, value):
    """First and last column of the bar in its middle row, of its own colour."""
    found = np.flatnonzero((pixels[pixels.shape[0] // 2] == scale.colour(value)).all(-1))
    return int(found[0]), int(found[-1])


def test_lengths_are_proportional_and_negative_goes_left():
    scale = Scale(-2.0, 4.0, True)
    sides = reach(scale, WIDE)
    zero = -sides[0] / (sides[1] - sides[0]) * WIDE
    lengths = {}
    for value in (4.0, 2.0, 1.0, -1.0, -2.0):
        left, right = ends(bar(value, scale, sides, (26, WIDE)), scale, value)
        near, far = (left, right) if value > 0 else (right, left)
        assert near == pytest.approx(zero, abs=2)
        assert (far > zero) is (value > 0)
        lengths[value] = abs(far - zero)
    for value, length in lengths.items():
        assert length == pytest.approx(abs(value) / 4 * lengths[4.0], abs=2)
    assert lengths[4.0] > WIDE / 3


def test_bars_agree_with_their_ruler_and_one_scale_serves_all_channels(panels):
    drawn = scene([[1.0, -2.0, 0.5], [4.0, 0.0, -1.0]])
    made = panels(drawn)
    assert [row[0].caption for row in made] == ["lead 0", "", "", "lead 1", "", ""]
    assert [row[0].left.ticks[0][1] for row in made] == [*BANDS.labels, *BANDS.labels]
    assert [row[0].below is None for row in made] == [True] * 5 + [False]
    ticks = {float(text.replace("−", "-")): at for at, text in made[-1][0].below.ticks}
    _, far = ends(made[3][0].pixels, drawn.scale, 4.0)
    assert far == pytest.approx(ticks[4.0] if 4.0 in ticks else 4 * (ticks[2] - ticks[0]) + ticks[0], abs=2)
    assert made[-1][0].below.label == "logit"


def test_nothing_is_drawn_for_zero_and_what_is_not_finite():
    scale = Scale(-1.0, 1.0, True)
    sides = reach(scale, WIDE)
    for value in (0.0, np.nan, np.inf):
        pixels = bar(value, scale, sides, (26, WIDE))
        assert (pixels[..., 0] == pixels[..., 2]).all()  # a line and a number, no colour


def test_every_number_is_written(monkeypatch, panels):
    written = []
    number = bars.number
    monkeypatch.setattr(bars, "number", lambda value: written.append(value) or number(value))
    values = np.random.default_rng(0).standard_normal((2, 3))
    list(rows(scene(values)))
    assert written == values.ravel().tolist()
    written.clear()
    table = np.random.default_rng(0).standard_normal((9, 3))
    list(rows(scene(table, shape=(9, 50))))
    assert written == table.ravel().tolist()


def test_many_channels_make_a_table(panels):
    values = np.random.default_rng(0).standard_normal((9, 3))
    drawn = scene(values, shape=(9, 50))
    ((table,),) = panels(drawn)
    assert [text for _, text in table.left.ticks] == list(drawn.names)
    assert [text for _, text in table.below.ticks] == list(BANDS.labels)
    height, width = table.pixels.shape[0] // 9, table.pixels.shape[1] // 3
    np.testing.assert_array_equal(table.pixels[1::height, 1::width], drawn.scale.colour(values))


def test_each_component_has_its_signal_in_its_colour(panels):
    signals = np.stack([np.sin(np.arange(50.0)), np.linspace(5, 6, 50), np.zeros(50)])[:, None]
    drawn = scene([3.0, -3.0, 0.0], signals=signals)
    made = panels(drawn)
    assert [len(row) for row in made] == [2, 2, 2]
    assert [row[0].caption for row in made] == ["", "", ""]
    red, blue, none = (row[1].pixels[2, 2].astype(int) for row in made)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    np.testing.assert_array_equal(none, 255)
    assert [row[1].below and row[1].below.label for row in made] == [None, None, "time (s)"]
    spans = [high - low for low, high in windows(signals)]
    assert spans == pytest.approx([spans[0]] * 3)
    assert {text for _, text in made[1][1].left.ticks} >= {"5", "6"}


def test_each_channel_has_its_own_parts(panels):
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((3, 6, 50))
    made = panels(scene(rng.standard_normal((6, 3)), shape=(6, 50), signals=signals))
    assert len(made) == 18
    assert len({row[1].pixels.tobytes() for row in made}) == 18
    assert sum(row[1].below is not None for row in made) == 1


@pytest.mark.parametrize("shape", [(16, 24), (5, 16, 24)])
def test_parts_of_pictures_and_volumes_are_small_pictures(panels, shape):
    axes = tuple(Axis(name, "px") for name in "zyx"[-len(shape) :])
    signals = np.zeros((3, 2, *shape))
    signals[0, 0, ..., 4, 6] = 1
    made = panels(scene(np.ones((2, 3)), shape=(2, *shape), signals=signals, axes=axes))
    assert [len(row) for row in made] == [2] * 6
    bright = made[0][1].pixels[..., 0].astype(int)
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    height, width = bright.shape
    assert (y * 16 // height, x * 24 // width) == (4, 6)
    assert width / height == pytest.approx(24 / 16, rel=0.02)
    assert len(np.unique(made[1][1].pixels)) == 1


@pytest.mark.parametrize("values", [0.0, 2.0, np.nan, -1e-30, 5e-324])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("signal", [None, 0.0, np.nan])
def test_flat_and_missing_values_are_drawn_without_warning(values, signed, signal):
    signals = None if signal is None else np.full((3, 2, 50), signal)
    (sheet,) = rows(scene(np.full((2, 3), values), signed=signed, signals=signals))
    assert sheet.width > WIDE


def test_any_number_of_components_and_any_name(panels):
    many = Axis("component", "", labels=tuple(f"{k} {'x' * 60}\udcff" for k in range(40)))
    (sheet,) = rows(scene(np.arange(40.0), own=many))
    assert sheet.height > 40 * 26
    assert len(panels(scene(np.arange(40.0), own=many))) == 40
    unnamed = panels(scene(np.arange(3.0), own=Axis("part", "")))
    assert [row[0].left.ticks[0][1] for row in unnamed] == ["1", "2", "3"]


@pytest.mark.parametrize("value", [-1.23e-05, 1.23e-05, -8.88e-300])
def test_the_longest_number_has_room(value):
    scale = Scale(-1.0, 1.0, True) if abs(value) < 1e-200 else Scale(-abs(value), abs(value), True)
    pixels = bar(value, scale, reach(scale, WIDE), (26, WIDE))
    assert (pixels[:, [0, -1]] == 255).all()
    narrow = reach(Scale(-1e-9, 1.0, True), WIDE)
    assert (bar(-1.23e-09, Scale(-1e-9, 1.0, True), narrow, (26, WIDE))[:, 0] == 255).all()
