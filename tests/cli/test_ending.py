"""The process ends without taking everything apart, and still says all, runs what was to run, and waits for who is at work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDING = (
    "import atexit, sys, threading, time\nfrom camsweep.cli.entry import _end\natexit.register(print, 'registered')\n"
)


def ended(then: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", ENDING + then], text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("code", [0, 2, 75])
def test_all_is_said_and_what_was_registered_runs(code):
    done = ended(f"print('said'); print('on stderr', file=sys.stderr); _end({code}); print('not here')", capture_output=True)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\nregistered\n", "on stderr\n")


@pytest.mark.parametrize("then", ["_end('a text')", "_end(None)"])
def test_what_is_no_number_is_left_to_python(then):
    assert ended(then + "; print('back')", capture_output=True).stdout == "back\nregistered\n"


def test_threads_are_waited_for():
    thread = "threading.Thread(target=lambda: (time.sleep(0.3), print('done'))).start(); _end(0)"
    assert ended(thread, capture_output=True).stdout == "done\nregistered\n"


def test_a_full_disk_is_not_swept_under():
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = ended("print('lost'); _end(0)", stdout=full, stderr=subprocess.PIPE, env=buffered)
    assert done.returncode == 120
    assert "No space left" in done.stderr
