"""Where the time of a run goes, by stage: what ``--profile`` prints."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from time import monotonic
from typing import Any


class Stage(Enum):
    """What a run spends its time on."""

    START = "start-up and load"
    READ = "read"
    TRANSFORM = "transform"
    INPUT = "wait for input"
    EXPLAIN = "forward and explain"
    HAND = "hand-over to columns"
    COMMIT = "commit"
    WRITER = "wait for the writer"
    MERGE = "merge and publish"

    @property
    def beside(self) -> bool:
        """Whether it runs in a thread of its own, beside the model."""
        return self in (Stage.READ, Stage.TRANSFORM, Stage.COMMIT)


class Clock:
    """Measures nothing, at no cost."""

    on = False

    def __call__(self, stage: Stage) -> AbstractContextManager[None]:  # noqa: ARG002
        """While it is entered, ``stage`` runs."""
        return _NOTHING

    def begin(self) -> None:
        """The first batch is asked for: what came before was `Stage.START`."""

    def answer(self) -> dict[str, Any]:
        """What was measured, for ``--json``."""
        return {}

    def lines(self) -> list[str]:
        """The same for people."""
        return []


_NOTHING = nullcontext()
OFF = Clock()


class Profile(Clock):
    """Seconds by stage, of a run that ``began`` at that time of the monotonic clock.

    Within a stage another may run, whose time is its own. What runs beside the model is told apart from what the model
    waits for: where the main thread does it itself, it belongs to the stage that it is done for.
    """

    on = True

    def __init__(self, began: float | None = None) -> None:
        self.began = monotonic() if began is None else began
        self.seconds = dict.fromkeys(Stage, 0.0)
        self._told: dict[str, Any] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def __call__(self, stage: Stage) -> AbstractContextManager[None]:
        """See `Clock`."""
        return self._measured(stage)

    @contextmanager
    def _measured(self, stage: Stage) -> Iterator[None]:
        running: list[float] = self._local.__dict__.setdefault("running", [])
        if running and stage.beside:
            yield
            return
        running.append(0.0)  # seconds of the stages within
        began = monotonic()
        try:
            yield
        finally:
            took = monotonic() - began
            own = took - running.pop()
            if running:
                running[-1] += took
            with self._lock:
                self.seconds[stage] += own

    def begin(self) -> None:
        """See `Clock.begin`."""
        self.seconds[Stage.START] = monotonic() - self.began

    def answer(self) -> dict[str, Any]:
        """Seconds by stage, and the share of the run that was spent outside of the model; it ends where it is asked."""
        if self._told:
            return self._told
        wall = monotonic() - self.began
        if not self.seconds[Stage.START]:  # there was nothing to do
            self.begin()
        stages = {stage.value: round(seconds, 4) for stage, seconds in self.seconds.items()}
        rest = wall - sum(seconds for stage, seconds in self.seconds.items() if not stage.beside)
        outside = 1 - self.seconds[Stage.EXPLAIN] / wall
        self._told = {
            "wall": round(wall, 4),
            "stages": stages,
            "rest": round(rest, 4),
            "outside_model": round(outside, 4),
        }
        return self._told

    def lines(self) -> list[str]:
        """The same for people."""
        told = self.answer()
        wall = told["wall"]
        rows = [(stage.value, told["stages"][stage.value], stage.beside) for stage in Stage]
        return [
            f"{'stage':24}{'seconds':>9}{'share':>8}",
            *(f"{n:24}{s:9.2f}{s / wall:8.1%}{'  beside the model' if b else ''}" for n, s, b in rows),
            f"{'rest':24}{told['rest']:9.2f}{told['rest'] / wall:8.1%}",
            f"{'wall':24}{wall:9.2f}{1:8.1%}",
            f"outside the model: {told['outside_model']:.1%} of the run",
        ]
