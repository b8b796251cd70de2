"""Kill a run at random moments, start it again with the same command, and see that nothing is lost.

    python tests/crash/kill.py --kills 50 [--seed N] [--signal KILL|TERM|mixed] [--fork]

The moments are uniform over the time that an unbroken run takes, from the start of the interpreter over parts and
compaction to the merge. Ends with a line of figures, and with exit code 1 where a row or a file was lost. ``--fork`` runs
the command in forks of a process that has loaded the framework: ten times as many kills, and all of them in the run itself.
"""

from __future__ import annotations

import argparse
import atexit
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

if __package__:
    from .bench import BATCH, Bench, contrast
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from bench import BATCH, Bench, contrast


class Forked(Bench):
    """A bench whose command begins in a fork of this process, the framework loaded."""

    def start(self, *more: str, **options) -> Fork:
        return Fork(self, ["camsweep", "explain", "job.toml", "--quiet", *more])


class Fork:
    """What `subprocess.Popen` has for a command, of a fork that runs it."""

    def __init__(self, bench: Bench, words: list[str]) -> None:
        self.returncode: int | None = None
        self._err = bench.folder / "stderr"
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                atexit._clear()  # what this process has to clear up is not the run's to do
                os.chdir(bench.folder)
                for number, name in ((1, os.devnull), (2, self._err)):
                    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                os.environ["ROWS_LOG"], sys.argv = str(bench.log), words
                main_of_command()
            except SystemExit as ended:
                code = ended.code or 0
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def wait(self, timeout: float) -> int:
        until = monotonic() + timeout
        while self.poll() is None:
            if monotonic() > until:
                raise subprocess.TimeoutExpired("fork", timeout)
            sleep(0.0005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    kill = property(lambda self: lambda: self.send_signal(signal.SIGKILL))

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        self.wait(timeout)
        return "", self._err.read_text() if self._err.exists() else ""

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.poll()


GRACEFUL = 75
ROWS_PER_KILL = 2 * BATCH
"""The batch in the model and the batch being committed."""


@dataclass
class Tally:
    """What was counted."""

    kills: int = 0
    restarts: int = 0
    finished: int = 0
    lost: int = 0
    redone: list[int] = field(default_factory=list)
    unreadable: int = 0
    wrong: int = 0
    violations: list[str] = field(default_factory=list)

    def broken(self, what: str) -> None:
        self.violations.append(what)

    def __str__(self) -> str:
        mean = sum(self.redone) / max(1, len(self.redone))
        return (
            f"{self.kills} kills, {self.restarts} restarts, {self.finished} finished runs, {self.lost} rows lost, "
            f"rows done twice per kill: mean {mean:.2f} max {max(self.redone, default=0)}, "
            f"{self.unreadable} unreadable files, {self.wrong} wrong final files"
        )


def sweep(
    folder: Path,
    *,
    kills: int,
    seed: int = 0,
    kind: str = "KILL",
    samples: int = 640,
    pause: float = 0.06,
    bench_of: type[Bench] = Bench,
    told: bool = False,
) -> Tally:
    """Kill runs of one job ``kills`` times, each restarted until it is finished; the `Tally`."""
    bench = bench_of(folder, samples=samples, pause=pause)
    began = monotonic()
    code, _, err = bench.finish()
    duration = monotonic() - began
    if code != 0:
        raise RuntimeError(f"the unbroken run ends with {code}: {err}")
    reference = folder / "reference.h5"
    bench.output.rename(reference)

    tally, rng = Tally(), random.Random(seed)
    if set(bench.computed().values()) != {1} or len(bench.computed()) != samples:
        tally.broken("the unbroken run does not compute each row once")
    while tally.kills < kills:
        bench.log.unlink()
        _one_run(bench, tally, rng, duration=duration, kills=kills, kind=kind)
        tally.finished += 1
        if differing := contrast(reference, bench.output):
            tally.wrong += 1
            tally.broken(f"final file differs from the reference: {', '.join(differing[:5])}")
        if litter := bench.litter():
            tally.broken(f"left behind: {', '.join(litter)}")
        if missing := samples - len(bench.computed()):
            tally.broken(f"{missing} rows were never computed")
        bench.output.unlink()
        if told:
            print(tally, file=sys.stderr, flush=True)
    return tally


def _one_run(bench: Bench, tally: Tally, rng: random.Random, *, duration: float, kills: int, kind: str) -> None:
    """One run from nothing to a finished file, killed as often as it happens."""
    before, digests, _ = bench.committed()
    logged = bench.computed().total()
    while True:
        number = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}.get(kind) or rng.choice(
            [signal.SIGKILL, signal.SIGTERM]
        )
        wait = rng.uniform(0, duration) if tally.kills < kills else 120
        delivered = False
        with bench.start() as process:
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                delivered = process.poll() is None
                process.send_signal(number)
            err = process.communicate(timeout=60)[1]
        code = process.returncode
        after, now, unreadable = bench.committed()
        tally.unreadable += len(unreadable)
        for each in unreadable:
            tally.broken(f"unreadable {each}")
        if gone := before - after:
            tally.lost += len(gone)
            tally.broken(f"{len(gone)} committed rows lost, first {min(gone)}")
        for path in digests.keys() & now.keys():
            if digests[path] != now[path]:
                tally.broken(f"part {path.name} has changed")
        computed = bench.computed().total()
        redone = computed - logged - len(after - before)
        if code == 0:
            if redone:
                tally.broken(f"{redone} rows done twice in a run that was not killed")
            return
        if not delivered or code not in (-number, GRACEFUL):
            raise RuntimeError(f"the run ends with {code} by itself: {err}")
        if redone > (0 if code == GRACEFUL else ROWS_PER_KILL):
            tally.broken(f"{redone} rows lost to one {number.name}")
        tally.kills += 1
        tally.restarts += 1
        tally.redone.append(redone)
        before, digests, logged = after, now, computed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "TERM", "mixed"], default="KILL")
    parser.add_argument("--fork", action="store_true")
    arguments = parser.parse_args()
    options = {"kills": arguments.kills, "seed": arguments.seed, "kind": arguments.signal}
    if arguments.fork:
        global main_of_command
        import torch

        import camsweep.backends.torch
        import camsweep.cli.explain
        import camsweep.core.sharded  # noqa: F401  (what a run would load in each fork anew)
        from camsweep.cli.entry import main as main_of_command
        from camsweep.core.results import parts

        torch.set_num_threads(1)
        parts.COMPACT_FROM = 8
        options |= {"bench_of": Forked, "pause": 0.005, "samples": 160}
    with tempfile.TemporaryDirectory(prefix="camsweep-kill-") as folder:
        tally = sweep(Path(folder), **options, told=True)
    print(tally)
    for violation in tally.violations:
        print(f"violation: {violation}", file=sys.stderr)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
