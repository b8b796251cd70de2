import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def script(name, *words, timeout=1800):
    """A script beside this one, in a process of its own, without threads: it forks."""
    return subprocess.run(
        [sys.executable, Path(__file__).with_name(name), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.full)])
def test_a_kill_at_every_point_loses_nothing(every):
    done = script("points.py", "--every", every)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) > 80


@pytest.mark.parametrize(
    ("error", "every"),
    [("ENOSPC", 60), *(pytest.param(error, 10, marks=pytest.mark.full) for error in ("EIO", "EDQUOT", "EROFS"))],
)
def test_whatever_is_refused_ends_in_one_line_and_loses_nothing(error, every):
    done = script("points.py", "--every", every, "--error", error)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) > 80


def traced():
    """Whether strace is there, and may trace."""
    return shutil.which("strace") and subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode == 0


@pytest.mark.full
def test_system_calls_that_the_kernel_refuses_end_in_one_line_and_lose_nothing():
    if not traced():
        pytest.skip("needs strace, and leave to trace")
    done = script("strace.py", "--every", 20, timeout=7200)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("cuts", [60, pytest.param(300, marks=pytest.mark.full)])
def test_a_power_cut_loses_nothing(cuts):
    done = script("power.py", "--cuts", cuts)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("forgotten", ["sync", "folder"])
def test_without_its_fsyncs_a_power_cut_would(forgotten):
    """So the cuts above cut deep enough."""
    done = script("power.py", "--cuts", 40, "--forget", forgotten)
    assert done.returncode == 1
    assert "rows lost" in done.stderr or "damaged" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
@pytest.mark.parametrize("sizes", [12, pytest.param(45, marks=pytest.mark.full)])
def test_a_disk_of_any_size(sizes):
    done = script("sizes.py", "--sizes", sizes)
    if "mount" in done.stderr and "violations" not in done.stdout:
        pytest.skip("no small disk can be mounted here")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_flipped_bits():
    done = script("flips.py", "--flips", 100)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the seal misses 0" in done.stdout


@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=pytest.mark.full)])
def test_kills_in_the_run_itself_lose_nothing(kills):
    done = script("kill.py", "--fork", "--kills", kills, "--signal", "mixed", timeout=7200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= kills
