"""CPU seconds (user + system) that each command takes to start, median of five runs of the whole process.

python tests/benchmarks/startup.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys

COMMANDS = [["--help"], ["--version"], ["methods"], ["explain", "--help"], ["info", "--help"]]


def cpu(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "camsweep", *command], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    print(json.dumps({" ".join(c): round(statistics.median(cpu(c) for _ in range(5)), 3) for c in COMMANDS}, indent=2))
