"""What all benchmarks share: parties that take turns, ratios of the same turns, and JSON that `table` reads.

Times are of the wall clock, as a user waits, or with ``--clock cpu`` of the processor, for a machine that others use as
well; one turn goes before that does not count, and the order of the parties moves by one with each, so that none is
always behind the same other. A ratio is the median of those of single turns, with the smallest and the largest: what
disturbs the machine for a while disturbs both sides of it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "build" / "bench"
"""Where the JSON of each benchmark goes."""
PEERS = ROOT / ".venv" / "peers"
"""Where ``make bench-peers`` puts them: beside the project's environment, not in it."""
INSTALL = "make bench-peers"
OURS = "camsweep"
SLOW = 5
"""A peer that takes so many times as long as ours in its first turn need not be measured closely."""
PACKAGES = ("torch", "numpy", "h5py", "onnxruntime", "tensorflow", "keras")

Run = Callable[[], Any]


class Missing(Exception):  # noqa: N818  (it is a finding, not a fault)
    """A party that cannot take part, and why."""


@dataclass(frozen=True)
class Row:
    """One number: the median of ``value``, between ``low`` and ``high``; or none, and a note that says why."""

    case: str
    what: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    seconds: float | None = None
    """Of the first of the two in a ratio ``a / b``."""
    goal: str = ""
    """``>= 1`` or ``<= 1.1``."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None where there is none, or no number."""
        if not self.goal or self.value is None:
            return None
        sign, _, limit = self.goal.partition(" ")
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.what:<58}  {self.note}"
        spread = "" if self.low is None else f" ({self.low:.4g} .. {self.high:.4g})"
        verdict = {True: "ok", False: "MISSED", None: ""}[self.met]
        told = f"{self.value:9.4g}{'' if self.unit == 'x' else ' '}{self.unit}{spread}"
        return f"{self.what:<58}{told:<34}{verdict} {self.goal}  {self.note}".rstrip()


@dataclass
class Times:
    """Seconds of each party's turns, what each gave last, and why some are not among them."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)

    def ratios(self, over: str, under: str) -> list[float]:
        """Of the same turns; where one had a single turn, of the medians."""
        a, b = (self.seconds[each] for each in (over, under))
        if len(a) == len(b):
            return [x / y for x, y in zip(a, b, strict=True)]
        return [statistics.median(a) / statistics.median(b)]

    def fastest(self, names: Sequence[str]) -> str:
        return min(
            (name for name in names if name in self.seconds), key=lambda name: statistics.median(self.seconds[name])
        )


def processor() -> float:
    """Seconds of the processor, of this process and of those that have ended behind it."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": processor}


def take_turns(parties: Mapping[str, Run | Missing], turns: int, clock: str = "wall") -> Times:
    """Let all parties run ``turns`` times; one that raises, ours excepted, is out, with its first line.

    A peer whose turn that does not count takes more than `SLOW` times as long as ours has only one that does.
    """
    times = Times({}, {}, {name: str(run) for name, run in parties.items() if isinstance(run, Missing)})
    before: dict[str, float] = {}
    racing = [(name, run) for name, run in parties.items() if not isinstance(run, Missing)]

    def turn(name: str, run: Run) -> float:
        began = CLOCKS[clock]()
        times.given[name] = run()
        if clock == "cpu" and isinstance(run, Elsewhere):
            return run.processor
        return CLOCKS[clock]() - began

    for name, run in racing:
        try:
            before[name] = turn(name, run)
        except Exception as error:
            if name.startswith(OURS):
                raise
            first = (str(error).splitlines() or [""])[0]
            times.out[name] = (
                str(error) if isinstance(error, Missing) else f"fails: {type(error).__name__}: {first}"[:160]
            )
    racing = [(name, run) for name, run in racing if name not in times.out]
    times.seconds = {name: [] for name, _ in racing}
    limit = SLOW * max((before[name] for name, _ in racing if name.startswith(OURS)), default=float("inf"))
    for name, run in [each for each in racing if before[each[0]] > limit]:
        times.seconds[name].append(turn(name, run))
    racing = [each for each in racing if before[each[0]] <= limit]
    for i in range(turns):
        for name, run in racing[i % len(racing) :] + racing[: i % len(racing)]:
            times.seconds[name].append(turn(name, run))
    return times


class Bench:
    """One benchmark: its options, its rows as they come, and its JSON in the end."""

    def __init__(self, name: str, title: str, cases: Mapping[str, Callable[..., None]] | None = None) -> None:
        parser = argparse.ArgumentParser(description=title, formatter_class=argparse.RawDescriptionHelpFormatter)
        if cases:
            parser.add_argument("cases", nargs="*", help=" ".join(cases))
        parser.add_argument(
            "--quick", action="store_true", help="smaller, with three turns: for a look, not for a table"
        )
        parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        parser.add_argument("--turns", type=int)
        parser.add_argument(
            "--clock", choices=list(CLOCKS), default="wall", help="cpu: where others use the machine too"
        )
        parser.add_argument("--out", type=Path, default=ANSWERS / f"{name}.json")
        options = parser.parse_args()
        self.name, self.title, self.cases = name, title.strip().partition("\n")[0], cases or {}
        self.quick, self.threads, self.out, self.clock = options.quick, options.threads, options.out, options.clock
        self.turns = options.turns or (3 if options.quick else 5)
        self.rows: list[Row] = []
        self.stack = contextlib.ExitStack()
        """What a case opens for all of its turns."""
        self.asked = getattr(options, "cases", None) or list(self.cases)
        if unknown := set(self.asked) - set(self.cases):
            parser.error(f"no case {', '.join(unknown)}: {' '.join(self.cases)}")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # of processes that are started
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
        print(f"{name}: {self.title} (threads: {self.threads}, turns: {self.turns}, {self.clock} clock)", flush=True)

    def run(self) -> None:
        """All cases that were asked for, each given this; JSON after each. One that fails is a row, and an exit code."""
        failed = False
        for name in self.asked:
            began = perf_counter()
            print(f"{name}: {(self.cases[name].__doc__ or '').strip()}", flush=True)
            try:
                with self.stack:
                    self.cases[name](self)
            except Exception as error:
                traceback.print_exc()
                failed = True
                self.add(name, OURS, note=f"fails: {type(error).__name__}: {error}"[:160])
            print(f"  ({perf_counter() - began:.0f} s)", flush=True)
            self.close()
        if failed:
            sys.exit(1)

    def add(self, case: str, what: str, value: float | None = None, **more: Any) -> None:
        row = Row(case, what, value, **more)
        if all(each.case != case for each in self.rows):
            print(f" {case}")
        self.rows.append(row)
        print(f"  {row}", flush=True)

    def race(self, case: str, parties: Mapping[str, Run | Missing], turns: int | None = None) -> Times:
        """`take_turns`, and a row for each that is out."""
        for each in parties.values():
            if isinstance(each, Elsewhere):
                self.stack.callback(each.close)
        times = take_turns(parties, turns or self.turns, self.clock)
        for name, why in times.out.items():
            self.add(case, name, note=why)
        return times

    def ratio(self, case: str, times: Times, over: str, under: str, goal: str = "", note: str = "") -> None:
        """``over`` / ``under`` of the same turns, where both took part."""
        if over in times.seconds and under in times.seconds:
            found = times.ratios(over, under)
            if len(found) < len(times.seconds[under]):
                note = f"a single turn{'; ' if note else ''}{note}"
            self.add(
                case, f"{over} / {under}", statistics.median(found), low=min(found), high=max(found),
                seconds=statistics.median(times.seconds[over]), goal=goal, note=note,
            )  # fmt: skip

    def against(
        self, case: str, times: Times, ours: str = OURS, goal: str = ">= 1", notes: Mapping[str, str] | None = None
    ) -> None:
        """How many times as long as ``ours`` all others take, but for the limits, of which it is how long we take."""
        for name in times.seconds:
            note = (notes or {}).get(name, "")
            if name.startswith("bare"):
                self.ratio(case, times, ours, name, note=note)
            elif name != ours:
                self.ratio(case, times, name, ours, goal, note)

    def close(self) -> None:
        """Write the JSON, in the place of what an earlier run said of the same cases."""
        answer = {"name": self.name, "title": self.title, "quick": self.quick, "turns": self.turns, "clock": self.clock}
        answer |= {"machine": machine(self.threads), "rows": [asdict(row) for row in self.rows]}
        if self.out.exists() and set(self.asked) != set(self.cases):
            old, ours = json.loads(self.out.read_text()), {row.case for row in self.rows}
            if all(old[key] == answer[key] for key in ("quick", "turns", "clock")):
                answer["rows"] = [row for row in old["rows"] if row["case"] not in ours] + answer["rows"]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(answer, indent=1))


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, threads and versions; no names of hosts."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found: dict[str, Any] = {"processor": named[0] if named else "unknown", "cores": len(os.sched_getaffinity(0))}
    found |= {"threads": threads, "load": round(os.getloadavg()[0], 1), "python": sys.version.partition(" ")[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Elsewhere:
    """A party in a process of its own, for peers that change what the process is: ``make(**given)`` of a module.

    The function gives what takes one turn; a turn is a line to the process, and one back.
    """

    def __init__(self, make: str, environment: Mapping[str, str] | None = None, **given: Any) -> None:
        module, _, function = make.partition(":")
        command = [sys.executable, "-m", "camsweep.tests.benchmarks.race", module, function, json.dumps(given)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg", **(environment or {})},
        )  # fmt: skip
        self._heard()

    def _heard(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"fault": "its process ended"}
        if "fault" in answer:
            self.close()
            raise Missing(answer["fault"])
        self.processor: float = answer["processor"]
        return answer["given"]

    def __call__(self) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        return self._heard()

    def close(self) -> None:
        """End its process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.kill()
        self.process.wait()

    @classmethod
    def start(cls, make: str, environment: Mapping[str, str] | None = None, **given: Any) -> Elsewhere | Missing:
        try:
            return cls(make, environment, **given)
        except Missing as why:
            return why


def attend(module: str, function: str, given: str) -> None:
    """The other side of `Elsewhere`; whatever the party prints goes to stderr."""
    told, sys.stdout = sys.stdout, sys.stderr

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=told, flush=True)

    try:
        run = getattr(importlib.import_module(module), function)(**json.loads(given))
        say(given=None, processor=0)
        for _ in sys.stdin:
            began = processor()
            say(given=run(), processor=processor() - began)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        say(fault=first if isinstance(error, Missing) else f"fails: {type(error).__name__}: {first}"[:160])


if __name__ == "__main__":
    attend(*sys.argv[1:])
