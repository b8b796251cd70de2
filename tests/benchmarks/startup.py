"""CPU seconds (user + system) that each command takes to start, and a finished run to say so; median of five processes.

python tests/benchmarks/startup.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = [["--help"], ["--version"], ["methods"], ["explain", "--help"], ["info", "--help"]]
DIGITS = str(Path(__file__).parents[2] / "sample_data" / "digits.toml")
FINISHED = [["explain", DIGITS, "-o", "digits.h5"], ["info", "digits.h5"], ["render", "digits.h5"]]


def cpu(command: list[str], folder: str = ".") -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "camsweep", *command], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median(command: list[str], folder: str = ".") -> float:
    return round(statistics.median(cpu(command, folder) for _ in range(5)), 3)


if __name__ == "__main__":
    found = {" ".join(command): median(command) for command in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        cpu(FINISHED[0], folder)
        found |= {f"{command[0]}, finished": median(command, folder) for command in FINISHED}
    print(json.dumps(found, indent=2))
