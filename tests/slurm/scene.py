"""The sample job as an array of 4 on a real Slurm: requeued, preempted, run into its time limit, and merged.

    python tests/slurm/scene.py [--if-possible]

Needs root and slurm-wlm and munge, which it installs where apt-get can. Prints what happened, and ends with 1 where the
merged file is not, bit by bit, that of a run that is not split, or where one of the three did not happen. With
``--if-possible`` it says why and ends with 0 where there can be no Slurm.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

if __package__:
    from ..crash.bench import contrast
    from .cluster import NoSlurm, cluster, install, said
else:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "crash")]
    from bench import contrast
    from cluster import NoSlurm, cluster, install, said

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
SLOW = '''

class Slow(DigitNet):
    """As its base, taking its time over each batch."""

    def forward(self, x):
        import time
        from pathlib import Path

        if len(x) > 1:
            time.sleep(float(Path(__file__).with_name("pause").read_text()))
        return super().forward(x)
'''
TASKS = 4
OWN = ("started", "finished", "git", "job", "argv")
LIMIT = 420
BEGAN = monotonic()


def tell(*words: object) -> None:
    print(f"{monotonic() - BEGAN:6.1f} s ", *words, flush=True)


def camsweep(*words: str, folder: Path) -> str:
    command = [sys.executable, "-m", "camsweep", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"camsweep {' '.join(words)} ends with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def restarts(array: str, task: int) -> int:
    found = re.search(r"Restarts=(\d+)", said("scontrol", "show", "job", f"{array}_{task}"))
    return int(found[1]) if found else 0


def rows(folder: Path) -> dict[int, int]:
    """How many parts each shard has."""
    return {k: len(list((folder / "run.h5.parts" / f"shard-{k:04d}").glob("rows-*.h5"))) for k in range(TASKS)}


def wait(happened, what: str, every: float = 0.5) -> None:
    began = monotonic()
    while not happened():
        if monotonic() - began > LIMIT:
            raise RuntimeError(f"{what} does not happen; {said('squeue')}")
        sleep(every)
    tell(what)


def scene(folder: Path, log: Path) -> list[str]:
    """What happened that should not have."""
    job = (folder / "digits.toml").read_text()
    job = job.replace("models.py:DigitNet", "models.py:Slow").replace("batch_size = 16", "batch_size = 2")
    job = job.replace("render = true", "render = false").replace("[explain]", '[explain]\ndevice = "cpu"')
    (folder / "job.toml").write_text(job.replace('"digits.h5"', '"run.h5"'))
    with (folder / "models.py").open("a") as file:
        file.write(SLOW)
    (folder / "pause").write_text("0")
    os.environ["OMP_NUM_THREADS"] = "1"
    camsweep("explain", "job.toml", "--out", "whole.h5", "--quiet", folder=folder)
    tell("the run that is not split:", camsweep("status", "whole.h5", folder=folder))

    # 10 batches a task, a minute: what a preempted one has left takes longer than its limit of a minute, less the notice.
    (folder / "pause").write_text("6")
    words = ["--sbatch=--partition=low", "--sbatch=--mem=200", "--sbatch=--signal=B:USR1@20", "--time", "1"]
    told = camsweep("submit", "job.toml", "--tasks", str(TASKS), *words, "--run", folder=folder)
    tell("submitted:", told)
    array, merge = re.findall(r"\d+", told)

    wait(lambda: rows(folder)[1] >= 1, "shard 1 has a part")
    said("scontrol", "requeue", f"{array}_1")
    wait(lambda: restarts(array, 1) >= 1, "task 1 was requeued")
    preempted = rf"preempted JobId={array}_(\d+)"

    def taken() -> bool:
        """Whether a job of a higher partition has met tasks at work; those may just be between two limits."""
        if len(said("squeue", "-h", "-t", "R", "-j", array).splitlines()) > 1 and not said(
            "squeue", "-h", "-p", "high"
        ):
            said("sbatch", "-p", "high", "-c", "4", "-o", "/dev/null", "--wrap", "sleep 1")
        return bool(re.search(preempted, log.read_text()))

    wait(taken, "a job of a higher partition takes the node")
    tell("status:", camsweep("status", "run.h5", folder=folder))
    logs = sorted(folder.glob("run-*_*.log"))
    wait(lambda: any("time is nearly up" in path.read_text() for path in logs), "a task heard of its time limit, and asked to be begun again")  # fmt: skip
    tell("preempted: tasks", ", ".join(re.findall(preempted, log.read_text())))
    (folder / "pause").write_text("0")

    wait(lambda: not said("squeue", "-h", "-j", f"{array},{merge}"), "array and merge are over", every=1)
    again = {task: restarts(array, task) for task in range(TASKS)}
    tell("begun again:", again)
    for path in sorted(folder.glob("run-*.log")):
        tell(f"{path.name}:\n{path.read_text().rstrip()}")
    if not (folder / "run.h5").exists():
        return ["there is no merged file"]
    found = [
        f"differs from the run that is not split: {each}"
        for each in contrast(folder / "whole.h5", folder / "run.h5", but=OWN)
    ]
    if (folder / "run.h5.parts").exists():
        found.append("parts are left")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--if-possible", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="camsweep-array-"))
    shutil.copytree(
        SAMPLES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.h5", "*.parts")
    )
    try:
        install()
        tell("Slurm is installed:", said("slurmctld", "-V"))
        with cluster() as log:
            tell("the node is up")
            found = scene(folder, log)
    except NoSlurm as error:
        print(f"no test on Slurm: {error}")
        return 0 if arguments.if_possible else 1
    finally:
        shutil.rmtree(folder)
    for each in found:
        print(f"wrong: {each}", file=sys.stderr)
    tell("wrong" if found else "the merged file is that of the run that is not split, bit by bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
