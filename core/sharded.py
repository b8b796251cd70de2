"""A job shared out among processes: planned once, explained shard by shard, merged at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from .backend import Backend
from .budget import Budget
from .data import Dataset
from .errors import OutputError, RequestError, Stopped, StorageError
from .explainer import Sweep
from .fits import with_fits
from .job import Job
from .plan import Plan, make, now
from .progress import parts_of, progress, statuses_of
from .results import Parts, Schema, Status, lacking, merge, open_results
from .results.locks import at_work, held, planning
from .results.parts import discard
from .run import tidy
from .scheduling import Shard, settle
from .scheduling.shard import listed
from .stages import OFF, Clock, Stage
from .standing import opened, standing
from .sweep import Watch

PATIENCE = 90.0
"""Seconds that `merge_run` waits after the last sign of a shard: network file systems show new files late."""

Load = Callable[[Job], Backend]


@dataclass(frozen=True)
class Planned:
    """What a run was planned for."""

    output: Path
    rows: int
    batch: int
    shards: int
    news: bool
    """Whether anything was written."""


@dataclass(frozen=True)
class Done:
    """What a shard came to."""

    output: Path
    shard: Shard
    counts: dict[str, int]
    """Its samples by status."""
    left: int
    """Rows of the other shards that are not done."""
    was_complete: bool
    merged: bool

    @property
    def failed(self) -> int:
        """Samples that could not be explained."""
        return self.counts.get("failed", 0) + self.counts.get("non finite", 0)


@dataclass(frozen=True)
class Merged:
    """What a merge came to."""

    path: Path
    samples: int
    counts: dict[str, int]
    was_complete: bool
    render: bool
    """Whether the job asks for pictures."""

    @property
    def missing(self) -> int:
        """Samples that are not done."""
        return self.counts.get("todo", 0)


def write_plan(
    job: Job,
    load: Load,
    *,
    shards: int | None = None,
    watch: Watch,
    force: bool = False,
    argv: Sequence[str] = (),
) -> Planned:
    """Settle what a run will do and into how many shards it is split, so that tasks find the plan there.

    What has been done of the same job is kept, also where it was split otherwise; with ``force`` it is not.
    """
    dataset = opened(job)
    complete, parts = standing(job, dataset, force=force)
    folder = Parts.folder_of(job.output.path)
    count = shards or job.output.shards or (parts.schema.shards if parts else None)
    if count is None:
        raise RequestError("into how many shards? write --shards N, or shards = N under [output] in the job")
    if complete or (force and job.output.path.exists()):
        raise OutputError(f"output {job.output.path} is finished; remove it, or give another --out")
    news = parts is None or parts.schema.shards != count
    if parts is None:
        _, plan = _loaded(job, dataset, load, watch, argv, fitted=True)
        with held(folder):
            parts = Parts.create(folder, replace(plan.schema, shards=count))
    elif news:
        with held(folder):
            parts = parts.split(count)
    return Planned(job.output.path, len(parts.schema), parts.schema.provenance.batch_size, count, news)


def run_shard(
    job: Job,
    load: Load,
    shard: str,
    *,
    watch: Watch,
    stop: threading.Event,
    merging: bool = False,
    argv: Sequence[str] = (),
    began: float | None = None,
    environment: Mapping[str, str] = os.environ,
    clock: Clock = OFF,
) -> Done:
    """Run or resume the rows of one shard (``K/N``, ``auto``, ``auto/N``), beside the others.

    ``merging``: where it is the last to finish, merge. Errors as of `run_job`; `Stopped` where the shard has a process.
    """
    budget = Budget(job.explain.time_budget, began)
    dataset = opened(job)
    output, folder = job.output.path, Parts.folder_of(job.output.path)
    complete, parts = standing(job, dataset, force=False)
    mine = settle(shard, environment, stated=job.output.shards, planned=parts.schema.shards if parts else None)
    if complete:
        tidy(output, folder)
        return _complete(output, mine)
    ready = None
    if parts is None or parts.schema.shards is None:
        if parts is None:
            ready = _loaded(job, dataset, load, watch, argv)
        with planning(folder, stop):
            parts = standing(job, dataset, force=False)[1]  # one of the others may have been first
            if parts is None:
                backend, plan = ready = ready or _loaded(job, dataset, load, watch, argv)
                parts = _begun(folder, lambda: replace(with_fits(plan, backend), shards=mine.count))
            elif parts.schema.shards is None:
                parts = parts.split(mine.count)
            else:
                settle(shard, environment, stated=job.output.shards, planned=parts.schema.shards)
    parts.stop = stop
    among = mine.rows(len(parts.schema), parts.schema.provenance.batch_size)
    was_complete = True
    with held(folder, mine.index):
        if not (gone := parts.gone):
            own = parts.shard(mine.index)
            own.clean()
            if (own.owners(among)[among] < 0).any():
                was_complete = False
                backend, plan = ready or _loaded(job, dataset, load, watch, argv)
                if parts.schema.columns != plan.schema.columns:
                    raise OutputError(
                        f"{folder} was begun by another version and does not fit; start anew with --force"
                    )
                _compare(parts, plan, watch)
                Sweep(replace(plan, schema=parts.schema), backend, own, watch, stop, budget, among, clock).run()
            statuses = statuses_of(parts)
    if gone:
        tidy(output, folder)
        return _complete(output, mine)
    left = int((statuses == Status.TODO).sum())
    with clock(Stage.MERGE):
        merged = merging and not left and _merge_last(parts, output)
    return Done(output, mine, _counts(statuses[among]), left, was_complete, merged)


def merge_run(
    output: Path,
    *,
    to: Path | None = None,
    wait: bool = False,
    allow_missing: bool = False,
    stop: threading.Event,
    patience: float = PATIENCE,
) -> Merged:
    """Make ``output`` of what all shards have done, or, with ``to``, a copy elsewhere that leaves the parts.

    `Stopped` where rows are missing or shards are at work, unless it may ``wait`` for them, or they may be missing.
    """
    folder = Parts.folder_of(output)
    if output.exists() and not (folder.is_dir() and lacking(output)):
        tidy(output, folder)
        return _merged(output, was_complete=True)
    parts = parts_of(output)
    parts.stop = stop
    if wait:
        _await(parts, stop, patience)
    missing = np.flatnonzero(parts.owners() < 0)
    if len(missing) and not allow_missing:
        raise Stopped(_told(parts, output, missing))
    target = to or output
    if not target.parent.is_dir():
        raise OutputError(f"output folder {target.parent} does not exist; make it, or choose another with --out")
    try:
        if to is not None and allow_missing:
            _copy_as_it_is(parts, to)
        else:
            with held(folder):
                parts.clean()
                keep = to is not None or bool(len(missing))
                merge(parts, target, finished=now(), keep=keep, lacking=allow_missing)
    except StorageError as error:
        if not allow_missing and len(damaged := np.flatnonzero(parts.owners() < 0)):
            raise Stopped(_told(parts, output, damaged)) from error
        raise
    return _merged(target, was_complete=False)


def _loaded(
    job: Job, dataset: Dataset, load: Load, watch: Watch, argv: Sequence[str], *, fitted: bool = False
) -> tuple[Backend, Plan]:
    backend = load(job)
    for note in backend.notes:
        watch.note(note)
    plan = make(job, dataset, backend, list(argv))
    return backend, replace(plan, schema=with_fits(plan, backend)) if fitted else plan


def _begun(folder: Path, schema: Callable[[], Schema]) -> Parts[Schema]:
    """The manifest written; where there is none to write, nothing is left behind."""
    try:
        return Parts.create(folder, schema())
    except RequestError:
        with suppress(OSError):
            (folder / "lock").unlink()
            folder.rmdir()
        raise


def _compare(parts: Parts[Schema], plan: Plan, watch: Watch) -> None:
    """Say where this machine has other versions than the one that planned: numbers may differ in their last digits."""
    theirs, mine = parts.schema.provenance.versions, plan.schema.provenance.versions
    if other := [f"{key} {mine.get(key)}, not {theirs.get(key)}" for key in theirs if mine.get(key) != theirs[key]]:
        watch.note(f"not as where the run was planned: {'; '.join(other)}")


def _merge_last(parts: Parts[Schema], output: Path) -> bool:
    """Merge where nobody is at work any more; whoever is will be the last, and merges."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(parts.folder))
        except Stopped:
            pass
        else:
            if Parts.open(parts.folder) is not None:
                parts.clean()
                merge(parts, output, finished=now())
                return True
    if output.exists() and Parts.open(parts.folder) is None:
        with suppress(Stopped):
            discard(parts.folder)  # made again by the lock, after another has merged
    return False


def _copy_as_it_is(parts: Parts[Schema], to: Path) -> None:
    """Shards may be at work: where they put parts together meanwhile, once more."""
    for left in reversed(range(5)):
        files = parts.files()
        try:
            return merge(parts, to, finished=now(), keep=True, lacking=True)
        except StorageError:
            if not left or all(path.exists() for path in files):
                raise
    return None


def _await(parts: Parts[Schema], stop: threading.Event, patience: float) -> None:
    """Until all rows are there and nobody is at work, or nothing has been heard for ``patience`` seconds."""
    heard, before = monotonic(), -1
    while True:
        began = monotonic()
        missing, working = int((parts.owners() < 0).sum()), bool(at_work(parts.folder))
        if not missing and not working:
            return
        if working or missing != before:
            heard, before = monotonic(), missing
        elif monotonic() - heard > patience:
            return
        if stop.wait(min(30.0, max(0.5, 10 * (monotonic() - began)))):
            raise Stopped(f"stopped with {missing} of {len(parts.schema)} rows missing; the same command waits on")


def _told(parts: Parts[Schema], output: Path, missing: NDArray[np.int64]) -> str:
    """What is missing, and what to type."""
    now_ = progress(parts, output)
    rows = f"{len(missing)} of {len(parts.schema)} rows are missing or damaged: {listed(missing)}"
    count = parts.schema.shards
    if count is None:
        return f"{rows}; run the same `camsweep explain` again"
    job = next((word for word in parts.schema.provenance.argv if word.endswith(".toml")), "JOB")
    shards = np.unique(now_.owner[missing])
    working = [share.index for share in now_.shares if share.holder]
    busy = f" (at work: {listed(np.array(working))})" if working else ""
    return (
        f"{rows}, of shards {listed(shards)}{busy}; submit these again: "
        f"`camsweep submit {job} --tasks {count} --only {listed(shards, len(shards))}`, then merge, or --allow-missing"
    )


def _counts(statuses: NDArray[np.uint8]) -> dict[str, int]:
    return {each.name.lower().replace("_", " "): n for each in Status if (n := int((statuses == each).sum()))}


def _complete(output: Path, shard: Shard) -> Done:
    with open_results(output) as results:
        batch = int(results.provenance["batch_size"])
        counts = _counts(results.status[shard.rows(len(results), batch)])
    return Done(output, shard, counts, 0, was_complete=True, merged=False)


def _merged(path: Path, *, was_complete: bool) -> Merged:
    import tomllib

    with open_results(path) as results:
        render = bool(tomllib.loads(results.provenance["job"]).get("output", {}).get("render", False))
        return Merged(path, len(results), results.counts(), was_complete, render)
