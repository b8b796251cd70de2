import os
import subprocess
import sys
from pathlib import Path


def test_a_kill_at_every_point_loses_nothing():
    """In a process of its own, without threads: it forks."""
    script = Path(__file__).with_name("points.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) > 100
