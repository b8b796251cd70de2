"""How many samples go through together: found on the first batches of a run, which count like all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FIRST = 8
LARGEST = 4096
GAIN = 1.05
"""So much faster a larger batch must be, or it is not worth its memory."""
PATIENCE = 2
"""So many larger sizes in a row must have been no faster."""
SHARE = 0.5
"""Of the memory that is free, what a batch may take."""


class Memory:
    """What batches have taken so far, and what is left, in bytes: of a CUDA device, or of the process."""

    def __init__(self, device: str) -> None:
        self._device = device if device.startswith("cuda") else ""
        if self._device:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        self._before = self._peak()

    def _peak(self) -> int:
        if self._device:
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    @property
    def taken(self) -> int:
        """By the largest batch."""
        return max(0, self._peak() - self._before)

    @property
    def free(self) -> float:
        """Of the machine, or what the container may still take; infinite where nobody says."""
        if self._device:
            import torch

            free, _ = torch.cuda.mem_get_info(self._device)
            unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            return float(free + unused)
        return min(_available(Path("/proc/meminfo")), _allowed(Path("/sys/fs/cgroup")))


def _available(meminfo: Path) -> float:
    try:
        found = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return float(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")


def _allowed(group: Path) -> float:
    try:
        return float((group / "memory.max").read_text()) - float((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


@dataclass
class Pace:
    """The size of each next batch: each of 8, 16, 32, .. is tried twice, until none is faster or memory has an end."""

    memory: Any
    """See `Memory`."""
    told: Callable[[str], None]
    """Given the line that says what was found."""
    size: int = FIRST
    settled: bool = False
    _best: dict[int, float] = field(default_factory=dict)
    """Seconds that a full batch of each size took, the second time."""
    _first: set[int] = field(default_factory=set)
    """Sizes that were seen once, when much is done that is not done again."""

    def next(self) -> int:
        """How many samples are to be read now."""
        if not self.settled and self.size in self._best:
            slower = sum(rate < GAIN * self.rate(self.fastest) for size, rate in self._later())
            if slower >= PATIENCE or self.size >= LARGEST:
                self._settle("")
            elif 2 * self.memory.taken > SHARE * self.memory.free:
                self._settle("; memory allows no more")
            else:
                self.size *= 2
        return self.size

    def rate(self, size: int) -> float:
        """Samples a second."""
        return size / self._best[size]

    @property
    def fastest(self) -> int:
        """The smallest size than which none is faster by more than `GAIN`."""
        top = max(map(self.rate, self._best))
        return min(size for size in self._best if GAIN * self.rate(size) >= top)

    def _later(self) -> list[tuple[int, float]]:
        """The sizes behind the fastest."""
        return [(size, self.rate(size)) for size in self._best if size > self.fastest]

    def saw(self, rows: int, seconds: float) -> None:
        """A batch took so long."""
        if self.settled or rows < FIRST:
            return
        if rows in self._first:
            self._best[rows] = min(seconds, self._best.get(rows, seconds))
        self._first.add(rows)

    def ran_short(self, size: int) -> None:
        """Memory gave out; batches of ``size`` are taken from now on."""
        self._best = {each: seconds for each, seconds in self._best.items() if each <= size}
        self.size = size
        self._settle("; memory allows no more")

    def end(self) -> None:
        """The run is over: say so where nothing was found yet."""
        if not self.settled:
            self.settled = True
            if self._best:
                self.size = self.fastest
            self.told(f"batch size {self.size}: the samples ran out before a larger one could be tried")

    def _settle(self, why: str) -> None:
        self.settled = True
        if self._best:
            self.size = self.fastest
        rates = ", ".join(f"{size}: {self.rate(size):.4g}" for size in sorted(self._best))
        self.told(f"batch size {self.size}, by samples a second ({rates}){why}")
