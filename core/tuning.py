"""How a model runs fastest on this machine: memory layout and threads, tried on some samples before a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from .backend import Execution
from .scheduling.allocation import cpus

SAMPLES = 32
LEAST = 0.2
"""Seconds that a trial takes at the least, after a batch that does not count."""
ROUNDS = 2
"""A busy machine is slow now and then: of so many rounds, each candidate's fastest batch counts."""
GAIN = 1.03
"""So much faster than what is there another setting must be."""

Choice = TypeVar("Choice")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads for computing meanwhile, where a number is given."""
    import torch

    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def tuned(
    seconds: Callable[[Execution], float], execution: Execution, switches: frozenset[str], rank: int
) -> tuple[Execution, int]:
    """The fastest way to run a model for inputs of ``rank`` axes, and the threads, set for this process.

    ``seconds`` says how long a batch takes. Layouts are tried first, then threads with the fastest.
    """
    import torch

    layouts = [execution]
    if rank > 1 and "channels_last" in switches:
        layouts = [replace(execution, channels_last=last) for last in (True, False)]
    execution = _fastest(layouts, seconds)
    given = cpus(os.environ)
    counts = [torch.get_num_threads(), *(n for n in (1, 2, 4, 8, 16, 32, 64) if n < given), given]

    def with_threads(count: int) -> float:
        torch.set_num_threads(count)
        return seconds(execution)

    count = _fastest(list(dict.fromkeys(counts)), with_threads)
    torch.set_num_threads(count)
    return execution, count


def _fastest(choices: list[Choice], seconds: Callable[[Choice], float]) -> Choice:
    """The one that takes the least, the first where others hardly take less."""
    if len(choices) == 1:
        return choices[0]
    took = [min(each) for each in zip(*([seconds(c) for c in choices] for _ in range(ROUNDS)), strict=True)]
    best = took.index(min(took))
    return choices[best] if took[0] > GAIN * took[best] else choices[0]


def timed(work: Callable[[], object]) -> float:
    """Seconds that a batch takes, the fastest of some; the first one does not count."""
    work()
    fastest, began = float("inf"), monotonic()
    while monotonic() - began < LEAST:
        before = monotonic()
        work()
        fastest = min(fastest, monotonic() - before)
    return fastest


def options(execution: Execution, count: int) -> str:
    """What to type to have the same again."""
    last = execution.channels_last
    layout = "" if last is None else " --channels-last" if last else " --no-channels-last"
    return f"--threads {count}{layout}"
