import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.full)])
def test_a_kill_at_every_point_loses_nothing(every):
    """In a process of its own, without threads: it forks."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("points.py"), "--every", str(every)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) > 80
