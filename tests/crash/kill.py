"""Kill a run at random moments, start it again with the same command, and see that nothing is lost.

    python tests/crash/kill.py --kills 50 [--seed N] [--signal KILL|TERM|mixed]

The moments are uniform over the time that an unbroken run takes, from the start of the interpreter over parts and
compaction to the merge. Ends with a line of figures, and with exit code 1 where a row or a file was lost.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

if __package__:
    from .bench import BATCH, Bench, contrast
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from bench import BATCH, Bench, contrast

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


def sweep(folder: Path, *, kills: int, seed: int = 0, kind: str = "KILL", samples: int = 640, pause: float = 0.06):
    """Kill runs of one job ``kills`` times, each restarted until it is finished; the `Tally`."""
    bench = Bench(folder, samples=samples, pause=pause)
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="camsweep-kill-") as folder:
        tally = sweep(Path(folder), kills=arguments.kills, seed=arguments.seed, kind=arguments.signal)
    print(tally)
    for violation in tally.violations:
        print(f"violation: {violation}", file=sys.stderr)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
