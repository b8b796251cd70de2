"""Where the time of a run goes: the stages add up, and are measured in the thread that they run in."""

import threading
import time

import pytest

from camsweep.core.stages import OFF, Profile, Stage

from ..support import Net, inputs
from .test_sweep import everything, run


def test_a_stage_within_another_has_its_time_for_itself():
    clock = Profile()
    clock.begin()
    with clock(Stage.EXPLAIN):
        time.sleep(0.05)
        with clock(Stage.HAND):
            time.sleep(0.1)
        with clock(Stage.READ):  # in the main thread it belongs to what it is done for
            time.sleep(0.02)
    other = threading.Thread(target=lambda: _within(clock, Stage.READ, 0.04))
    other.start()
    other.join()
    assert clock.seconds[Stage.EXPLAIN] == pytest.approx(0.07, abs=0.03)
    assert clock.seconds[Stage.HAND] == pytest.approx(0.1, abs=0.03)
    assert clock.seconds[Stage.READ] == pytest.approx(0.04, abs=0.03)
    told = clock.answer()
    serial = sum(told["stages"][stage.value] for stage in Stage if not stage.beside)
    assert serial + told["rest"] == pytest.approx(told["wall"], abs=1e-3)
    assert told["outside_model"] == pytest.approx(1 - told["stages"]["forward and explain"] / told["wall"], abs=1e-3)
    time.sleep(0.02)
    assert clock.answer() == told, "it ended where it was asked"


def _within(clock, stage, seconds):
    with clock(stage):
        time.sleep(seconds)


def test_what_came_before_the_first_batch_is_the_start():
    clock = Profile(time.monotonic() - 2)
    clock.begin()
    assert clock.answer()["stages"]["start-up and load"] == pytest.approx(2, abs=0.1)
    assert Profile(time.monotonic() - 3).answer()["stages"]["start-up and load"] == pytest.approx(3, abs=0.1)


def test_a_run_that_is_measured_has_the_same_maps(tmp_path):
    x, clock = inputs(2, 20), Profile()
    with run(tmp_path, Net(2), x, explain={"batch_size": 4}, clock=clock) as results:
        measured = everything(results)
    with run(tmp_path, Net(2), x, name="plain.h5", explain={"batch_size": 4}) as results:
        for name, values in everything(results).items():
            assert (measured[name] == values).all(), name
    assert all(clock.seconds[stage] > 0 for stage in Stage)
    assert OFF.answer() == {}
    assert OFF.lines() == []
