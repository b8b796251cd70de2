"""How long commands take to start: whole processes, and `explain` of one sample against the least that it needs.

python tests/benchmarks/startup.py [--quick]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.race import OURS, ROOT, Bench

COMMANDS = ["--help", "--version", "methods", "explain --help", "info --help", "merge --help", "status --help", "render --help",
            "evaluate --help", "report --help", "submit --help"]  # fmt: skip
BARE = "bare script: import torch, load, forward"
SCRIPT = """
import importlib.util, sys, numpy as np, torch
spec = importlib.util.spec_from_file_location("models", "{samples}/models.py")
models = importlib.util.module_from_spec(spec); spec.loader.exec_module(models)
net = models.EcgNet().eval()
net.load_state_dict(torch.load("{samples}/ecg.pt", weights_only=True))
with torch.inference_mode():
    net(torch.from_numpy(np.load("{folder}/x.npy")[:1]))
"""


def process(*command: str) -> None:
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def until_said(*command: str) -> float:
    """Seconds until the first line of a process, which is waited for."""
    began = perf_counter()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        line = running.stdout.readline() if running.stdout else b""
        taken = perf_counter() - began
        running.communicate()
    if running.returncode or not line:
        raise RuntimeError(f"{' '.join(command)} ended with {running.returncode} and said {line!r}")
    return taken


def spread(bench: Bench, case: str, what: str, taken: list[float], goal: str = "") -> None:
    """A row of seconds."""
    taken = sorted(taken)
    bench.add(case, what, taken[len(taken) // 2], low=taken[0], high=taken[-1], unit="s", goal=goal)


def case_commands(bench: Bench) -> None:
    """Each command by itself."""
    for command in COMMANDS[: 5 if bench.quick else None]:
        times = bench.race("start-up", {command: lambda command=command: process("-m", "camsweep", *command.split())})
        spread(
            bench, "start-up", f"camsweep {command}", times.seconds[command], "<= 0.3" if command == "--help" else ""
        )


def case_one(bench: Bench) -> None:
    """One sample explained on torch, against a bare script that imports torch, loads the weights and runs one forward."""
    import numpy as np

    with tempfile.TemporaryDirectory() as made:
        folder, samples = Path(made), ROOT / "sample_data"
        np.save(folder / "x.npy", nets.noise(4, 3, 500))
        (folder / "bare.py").write_text(SCRIPT.format(samples=samples, folder=folder))
        explain = [
            "-m", "camsweep", "explain", "--model", f"{samples}/models.py:EcgNet", "--weights", f"{samples}/ecg.pt",
            "--data", f"{folder}/x.npy", "--layout", "NCT", "--limit", "1", "-m", "gradcam", "--no-render", "--force",
            "-o", f"{folder}/one.h5", "--quiet",
        ]  # fmt: skip
        case = "explain of one sample, ECG net"
        parties = {OURS: lambda: process(*explain), BARE: lambda: process(str(folder / "bare.py"))}
        parties["import torch"] = lambda: process("-c", "import torch")
        times = bench.race(case, parties)
        bench.ratio(case, times, OURS, BARE, "<= 1.3")
        bench.ratio(case, times, OURS, "import torch")


def case_finished(bench: Bench) -> None:
    """What is finished, asked for again: nothing that computes or draws is loaded."""
    with tempfile.TemporaryDirectory() as made:
        results = f"{made}/digits.h5"
        explain = ["explain", str(ROOT / "sample_data" / "digits.toml"), "-o", results]
        process("-m", "camsweep", *explain)
        for command, what in (
            ([*explain, "--no-render"], "explain --no-render"),
            (explain, "explain, 480 pictures looked at"),
            (["info", results], "info"),
            (["render", results], "render"),
        ):
            lines: list[float] = []
            run = partial(lambda lines, *given: lines.append(until_said("-m", "camsweep", *given)), lines, *command)
            ends = bench.race("finished", {OURS: run}).seconds[OURS]
            if command[0] == "explain":
                spread(bench, "finished", f"camsweep {what}: says so", lines[1:], "<= 0.5")
            spread(bench, "finished", f"camsweep {what}: ends", ends)


if __name__ == "__main__":
    cases = {"commands": case_commands, "one": case_one, "finished": case_finished}
    Bench("startup", __doc__ or "", cases).run()
