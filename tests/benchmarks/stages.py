"""Where the time of a run goes: `camsweep explain --profile`, of the datasets of `endtoend`.

python tests/benchmarks/stages.py [resnet18] [ecg] [volume] [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.endtoend import dataset
from camsweep.tests.benchmarks.race import Bench


def camsweep(*arguments: str) -> str:
    command = [sys.executable, "-m", "camsweep", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def flat(found: Any, name: str = "") -> dict[str, float]:
    """The numbers of an answer, by their path."""
    if isinstance(found, dict):
        return {key: value for k, each in found.items() for key, value in flat(each, f"{name} {k}".strip()).items()}
    if isinstance(found, list):
        return {key: value for i, each in enumerate(found) for key, value in flat(each, f"{name} {i}").items()}
    return {name: float(found)} if isinstance(found, int | float) else {}


def staged(bench: Bench, name: str) -> None:
    if "--profile" not in camsweep("explain", "--help"):
        bench.add(name, "stages", note="this camsweep has no --profile")
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subject = dataset(name, folder, bench.quick)
        answer = json.loads(camsweep(
            "explain", "--model", f"{nets.__file__}:{subject.net}", "--weights", f"{folder}/weights.pt",
            "--data", f"{folder}/x.npy", "--layout", subject.layout, "-m", "gradcam", "-l", subject.layer,
            "-b", str(subject.batch), "-o", f"{folder}/run.h5", "--no-render", "--quiet", "--profile", "--json",
        ))  # fmt: skip
    for stage, value in flat(answer["profile"]).items():
        bench.add(f"stages of a run, {subject.net}", stage, value, unit="s")


def case(name: str) -> Callable[[Bench], None]:
    return lambda bench: staged(bench, name)


if __name__ == "__main__":
    Bench("stages", __doc__ or "", {name: case(name) for name in ("resnet18", "ecg", "volume")}).run()
