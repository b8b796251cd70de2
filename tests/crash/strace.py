"""Let the n-th system call of a whole run fail, for every n, as the kernel would: by strace, where it is installed.

    python tests/crash/strace.py [--calls fsync,rename,unlink,ftruncate,pwrite64,write] [--errors EIO,ENOSPC] [--every N]

Each run must end in one line and exit code 74 (73 where nothing could be created), or not be troubled; the same command
must then come to the same file. Of the many calls of ``write`` only every N-th is made to fail. Without strace, `points.py
--error` does the same to a run's parts and merge.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from camsweep.tests.crash.bench import Bench, contrast

DIFFER = ("started", "finished", "git", "job", "argv", "data")


def counts(bench: Bench, calls: list[str]) -> Counter[str]:
    """How often an untroubled run makes each call."""
    log = bench.folder / "calls.log"
    run(bench, ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(calls)}"])
    return Counter(call for line in log.read_text().splitlines() for call in calls if f" {call}(" in line)


def run(bench: Bench, before: list[str]) -> tuple[int, str]:
    command = [*before, sys.executable, "-m", "camsweep", "explain", "job.toml", "--quiet"]
    done = subprocess.run(command, cwd=bench.folder, env=bench.environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


def trial(bench: Bench, reference: Path, call: str, error: str, number: int) -> tuple[int, list[str]]:
    """One failing call: the run's exit code, and what was wrong."""
    shutil.rmtree(bench.parts, ignore_errors=True)
    bench.output.unlink(missing_ok=True)
    code, err = run(bench, ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"])  # fmt: skip
    wrong = []
    if code not in (0, 73, 74) or err.count("\n") != (code != 0):
        wrong.append(f"ends with {code}: {err[-300:]}")
    wrong += bench.committed()[2]
    again, err = run(bench, [])
    if again:
        wrong.append(f"the run after it ends with {again}: {err[-300:]}")
    elif differing := contrast(reference, bench.output, but=DIFFER):
        wrong.append(f"the file differs: {differing[:3]}")
    return code, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", default="fsync,rename,unlink,ftruncate,pwrite64,write")
    parser.add_argument("--errors", default="EIO,ENOSPC")
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    calls, codes, violations = arguments.calls.split(","), Counter[tuple[str, int]](), []
    with tempfile.TemporaryDirectory(prefix="camsweep-strace-") as folder:
        bench = Bench(Path(folder), samples=24, pause=0)
        reference = Path(folder) / "reference.h5"
        found = counts(bench, calls)
        bench.output.rename(reference)
        for call in calls:
            for number in range(1, found[call] + 1, arguments.every if call == "write" else 1):
                for error in arguments.errors.split(","):
                    code, wrong = trial(bench, reference, call, error, number)
                    codes[call, code] += 1
                    violations += [f"{call} {number} {error}: {each}" for each in wrong]
            print(
                f"{call}: {found[call]} calls; exit codes",
                {c: n for (k, c), n in codes.items() if k == call},
                flush=True,
            )
    print(f"{codes.total()} failing calls, {len(violations)} violations")
    print("\n".join(violations), file=sys.stderr, end="")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
