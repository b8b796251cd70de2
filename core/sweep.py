"""The loop: batches are read, explained and committed, reading ahead and writing behind so that the model never waits.

While the model works on a batch, other threads read the next ones and one commits the one before. A row counts as done
when its part is on the disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import allocator
from .budget import Budget
from .data import Batch
from .errors import CamsweepError, RequestError, Stopped, first_line
from .pace import Pace
from .results import Parts, Status
from .results.schema import MESSAGE_BYTES, Recorded
from .stages import OFF, Clock, Stage

Columns = dict[str, NDArray[Any]]

MOST_HELD = 256 << 20
"""Bytes that wait to be committed, or that are read ahead of the next batch, at the most."""


class Watch(Protocol):
    """Who is told how far the sweep is."""

    def start(self, done: int, total: int) -> None:
        """``done`` of ``total`` rows were there already."""
        ...

    def advance(self, rows: int) -> None:
        """So many more are on the disk."""
        ...

    def note(self, message: str) -> None:
        """Something worth one line."""
        ...


class Source(Protocol):
    """Where batches are read from."""

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """The samples ``rows``."""
        ...


def sweep(
    work: Work,
    source: Source,
    parts: Parts[Any],
    stop: threading.Event,
    commit_every: float = 0.0,
    budget: Budget | None = None,
    among: NDArray[np.bool_] | None = None,
) -> int:
    """Do all rows, or those ``among`` them, that the parts do not hold: how many they were.

    `Stopped` where ``stop`` is set meanwhile, the batch in hand being finished and committed first, and where the next
    batch may not fit into the time that is left.
    """
    budget = budget or Budget()
    mine = np.ones(len(parts.schema), bool) if among is None else among
    todo = np.flatnonzero((parts.owners(among) < 0) & mine)
    total, watch = int(mine.sum()), work.watch
    watch.start(total - len(todo), total)
    done, late = 0, False
    with allocator.keeping(), _Writer(parts, work, commit_every) as writer:
        budget.start()
        for rows, batch in _ahead(source, todo, work):
            with work.clock(Stage.EXPLAIN):
                columns = work.paced(rows, batch)
            writer.put(rows, columns)
            done += len(rows)
            budget.lap()
            if stop.is_set() or (late := budget.over(writer.slowest)):
                break
    if work.pace is not None and done:
        work.pace.end()
    if done < len(todo):
        why = f" ({budget})" if late else ""
        raise Stopped(
            f"stopped with {total - len(todo) + done} of {total} rows done{why}; the same command goes on from there"
        )
    return done


class Work:
    """From a batch to its columns, sample by sample where it must be."""

    def __init__(self, schema: Recorded, batch_size: int, watch: Watch, too_large: Callable[[BaseException], bool]):
        self.schema: Recorded = schema
        self.batch_size = batch_size
        self.workers = 1
        """Threads that read."""
        self.watch = watch
        self.too_large = too_large
        """Whether an error says that a smaller batch may help."""
        self.clock: Clock = OFF
        self.pace: Pace | None = None
        """Set where the batch size is found on the way."""

    def columns(self, batch: Batch) -> Columns:
        """The columns of a batch's good samples; all of the schema's, less `samples/message` where nothing was said."""
        raise NotImplementedError

    def blank(self, rows: NDArray[np.int64]) -> Columns:
        """The columns of ``rows`` before any is done."""
        return self.schema.blank(len(rows))

    def __call__(self, rows: NDArray[np.int64], batch: Batch) -> Columns:
        """The columns of ``rows``, the good ones done and the others marked."""
        columns = self.blank(rows)
        for status, failures in ((Status.FAILED, batch.failed), (Status.NON_FINITE, batch.nonfinite)):
            for row, message in failures.items():
                mark(columns, int(np.flatnonzero(rows == row)[0]), status, message)
        self._fill(columns, np.searchsorted(rows, batch.rows), batch)
        return columns

    def paced(self, rows: NDArray[np.int64], batch: Batch) -> Columns:
        """The same; where the batch size is still to be found, with a look at the time it takes."""
        if self.pace is None or self.pace.settled:
            return self(rows, batch)
        self.batch_size, began = len(rows), monotonic()
        columns = self(rows, batch)
        if self.batch_size < len(rows):
            self.pace.ran_short(self.batch_size)
        elif len(batch.rows) == len(rows):
            self.pace.saw(len(rows), monotonic() - began)
        return columns

    def _fill(self, columns: Columns, places: NDArray[np.int64], batch: Batch) -> None:
        """Do a batch into ``places`` of the columns, in smaller pieces where memory or a sample gives out."""
        while len(places):
            size = min(self.batch_size, len(places))
            try:
                piece = self.columns(batch.part(slice(0, size)))
            except CamsweepError:
                raise
            except Exception as error:
                out_of_memory = self.too_large(error)
                if size == 1:
                    alone = f"{type(error).__name__}: {first_line(error)}"
                    message = "out of memory, even alone" if out_of_memory else alone
                    mark(columns, int(places[0]), Status.FAILED, message)
                elif out_of_memory:
                    self.batch_size = size // 2
                    self.watch.note(f"out of memory: batches of {self.batch_size} from here on")
                    continue
                else:  # one sample may have done it: alone, it will say so, and the others will not
                    for i in range(size):
                        self._fill(columns, places[i : i + 1], batch.part(slice(i, i + 1)))
                    if (columns["samples/status"][places[:size]] == Status.FAILED).all():
                        raise RequestError(
                            f"every sample of a batch fails with {type(error).__name__}: {first_line(error)}"
                        ) from error
            else:
                for path, part in piece.items():
                    if part.shape == columns[path].shape and part.dtype == columns[path].dtype:
                        columns[path] = part  # all of it
                    else:
                        columns[path][places[:size]] = part
            places, batch = places[size:], batch.part(slice(size, None))


def mark(columns: Columns, place: int, status: Status, message: str) -> None:
    """Give up one row, saying why."""
    columns["samples/status"][place] = status
    line = " ".join(message.split()).encode("utf-8", "replace")[:MESSAGE_BYTES]
    columns["samples/message"][place] = line.decode("utf-8", "ignore").encode()


def _ahead(dataset: Source, todo: NDArray[np.int64], work: Work) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Batches of the rows to do, in order; the next ones, one for each worker, are read while this one is worked on.

    Only one where several would not fit into `MOST_HELD`.
    """
    groups = _groups(todo, work)
    workers = work.workers
    with ThreadPoolExecutor(workers, "camsweep-read") as pool:
        coming = deque((rows, pool.submit(dataset.read, rows)) for rows in islice(groups, workers))
        while coming:
            rows, reading = coming.popleft()
            with work.clock(Stage.INPUT):
                batch = reading.result()
            held = workers if batch.values.nbytes * workers < MOST_HELD else 1
            for more in islice(groups, max(0, held - len(coming))):
                coming.append((more, pool.submit(dataset.read, more)))
            yield rows, batch


def _groups(todo: NDArray[np.int64], work: Work) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch, settled when it is asked for."""
    size, start = work.batch_size, 0
    while start < len(todo):
        size = size if work.pace is None else work.pace.next()
        yield todo[start : start + size]
        start += size


class _Writer:
    """Commits batches in a thread of its own, at most one behind; what goes wrong there is raised here."""

    def __init__(self, parts: Parts[Any], work: Work, commit_every: float) -> None:
        self.parts, self.watch, self.clock, self.commit_every = parts, work.watch, work.clock, commit_every
        self._pool = ThreadPoolExecutor(1, "camsweep-write")
        self._pending: Future[None] | None = None
        self._held: list[tuple[NDArray[np.int64], Columns]] = []
        self._since = monotonic()
        self.slowest = 0.0
        """Seconds that the longest commit took."""

    def __enter__(self) -> _Writer:
        return self

    def put(self, rows: NDArray[np.int64], columns: Columns) -> None:
        """Commit now, or with the next ones where ``commit_every`` seconds have not passed and memory allows."""
        self._held.append((rows, columns))
        size = sum(each.nbytes for _, held in self._held for each in held.values())
        if monotonic() - self._since >= self.commit_every or size > MOST_HELD:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        if self._held:
            held, self._held = self._held, []
            self._pending = self._pool.submit(self._commit, held)
            self._since = monotonic()

    def _wait(self) -> None:
        if self._pending is not None:
            with self.clock(Stage.WRITER):
                self._pending.result()
            self._pending = None

    def _commit(self, held: Sequence[tuple[NDArray[np.int64], Columns]]) -> None:
        began = monotonic()
        with self.clock(Stage.COMMIT):
            rows, columns = held[0]
            if len(held) > 1:
                rows = np.concatenate([rows for rows, _ in held])
                columns = {path: np.concatenate([each[path] for _, each in held]) for path in columns}
            self.parts.commit(rows, columns)
            self.parts.compact()
        self.slowest = max(self.slowest, monotonic() - began)
        self.watch.advance(len(rows))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self._flush()  # what has been explained is kept, whatever went wrong after it
                self._wait()
        finally:
            self._pool.shutdown()
