"""A job from start to finish: what is there already, what is to do, the sweep, the finished file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .budget import Budget
from .errors import CamsweepError, OutputError, RequestError, Stopped
from .job import Job, differences
from .results import Parts, Schema, merge, open_results, stored_identity
from .results.locks import held
from .results.parts import discard
from .stages import OFF, Clock, Stage
from .standing import opened, standing

if TYPE_CHECKING:
    from .backend import Backend
    from .plan import Plan
    from .sweep import Watch


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    path: Path
    counts: dict[str, int]
    """Samples by status."""
    samples: int
    was_complete: bool
    """Whether it was all there before."""
    score: str
    """Which score was explained."""

    @property
    def failed(self) -> int:
        """Samples that could not be explained."""
        return self.counts.get("failed", 0) + self.counts.get("non finite", 0)


def plan_job(job: Job, load: Callable[[Job], Backend], argv: Sequence[str] = ()) -> Plan:
    """The plan of a job, with nothing written."""
    from .plan import make

    dataset = opened(job)
    return make(job, dataset, load(job), list(argv))


def run_job(
    job: Job,
    load: Callable[[Job], Backend],
    *,
    watch: Watch,
    stop: threading.Event | None = None,
    force: bool = False,
    argv: Sequence[str] = (),
    began: float | None = None,
    clock: Clock = OFF,
) -> Outcome:
    """Run or resume ``job``; ``load`` is called only where something is to do. A time budget counts from ``began``.

    Raises `RequestError` for bad input, `OutputError` where the output is another job's, `StorageError` where the disk
    gives out, `Stopped` where ``stop`` was set or time is up; whatever happens, finished rows are kept. ``clock`` is
    told where the time goes.
    """
    stop, budget = stop or threading.Event(), Budget(job.explain.time_budget, began)
    dataset = opened(job)
    complete, parts = standing(job, dataset, force=force)
    folder = Parts.folder_of(job.output.path)
    if complete:
        tidy(job.output.path, folder)
        return _outcome(job.output.path, was_complete=True)
    from .explainer import Sweep  # and with it all that computes, which what is finished does without
    from .fits import with_fits
    from .plan import make, now

    with ExitStack() as stack:
        if parts is not None:
            stack.enter_context(held(folder))
        _go_on(stop, budget)
        backend = load(job)
        _go_on(stop, budget)
        for note in backend.notes:
            watch.note(note)
        plan = make(job, dataset, backend, list(argv))
        if plan.doubt:
            watch.note(plan.doubt)
        if parts is None:
            plan = replace(plan, schema=with_fits(plan, backend))
            stack.enter_context(held(folder))
            # Shards may have begun meanwhile.
            parts = (None if force else standing(job, dataset, force=False)[1]) or Parts.create(
                folder, plan.schema, forced=force
            )
        if parts.schema.columns != plan.schema.columns:
            raise OutputError(f"{folder} was begun by another version and does not fit; start anew with --force")
        parts.stop = stop
        parts.clean()
        try:
            done = Sweep(replace(plan, schema=parts.schema), backend, parts, watch, stop, budget, clock=clock).run()
        except RequestError:
            if not parts.files():  # a request that fails on its first batch leaves nothing for the next to stumble over
                parts.remove()
            raise
        # A run that has nothing else to do merges however little time is left, or none ever would.
        if done and budget.over_for_merging(parts.size()):
            raise Stopped(f"all rows are done, {budget}; the same command puts the file together")
        with clock(Stage.MERGE):
            merge(parts, job.output.path, finished=now())
    return _outcome(job.output.path, was_complete=False)


def _go_on(stop: threading.Event, budget: Budget) -> None:
    """`Stopped` where there is no need to begin."""
    if stop.is_set() or budget.over():
        why = f": {budget}" if budget.over() else ""
        raise Stopped(f"stopped before the first batch{why}; the same command goes on from there")


def tidy(output: Path, folder: Path) -> None:
    """Remove the parts that a finished output was made of, where a kill came between."""
    if not folder.is_dir():
        return
    with suppress(CamsweepError):  # they are another's, or another run is at work there
        parts: Parts[Schema] | None = Parts.open(folder)
        # Without a manifest they are nobody's: its removal was cut short, or a run has only just begun and holds them.
        if parts is None or not differences(parts.schema.provenance.identity, stored_identity(output)):
            discard(folder)


def _outcome(path: Path, *, was_complete: bool) -> Outcome:
    with open_results(path) as results:
        return Outcome(path, results.counts(), len(results), was_complete, results.score)
