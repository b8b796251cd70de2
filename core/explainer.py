"""From a batch to its maps: one forward, asked many questions, and what comes of it as columns of the results."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backend import Backend, Execution, Session
from .baselines import array
from .budget import Budget
from .data import Batch
from .errors import RequestError
from .grid import resize
from .handover import Handover
from .outputs import Outputs, Readout
from .pace import Memory, Pace
from .plan import Cross, Plan, example
from .relevance.bounds import bounds
from .results import Parts, Schema, Status
from .results.schema import MESSAGE_BYTES, told
from .scheduling.allocation import cpus
from .stages import OFF, Clock, Stage
from .sweep import Columns, Watch, Work, sweep
from .targets import Reading, Resolved, settle
from .targets.boxes import Boxes
from .trace import Circumstances, Trace
from .tuning import SAMPLES, options, threads, timed, tuned

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Sweep:
    """One run over the rows of a plan that are still to do."""

    plan: Plan
    backend: Backend
    parts: Parts[Schema]
    watch: Watch
    stop: threading.Event = field(default_factory=threading.Event)
    budget: Budget = field(default_factory=Budget)
    among: NDArray[np.bool_] | None = None
    """Which rows are its own, (N,); all where nothing is said."""
    clock: Clock = OFF

    def run(self) -> int:
        """Do all rows that are to do: how many they were; see `sweep`."""
        plan, explain = self.plan, self.plan.job.explain
        with threads(explain.threads), ExitStack() as stack:
            tapping, say = plan.tapping, self.watch.note
            if explain.tune:
                execution, count = self._tuned()
                stack.enter_context(threads(count))
                tapping = replace(tapping, execution=execution)
                say = partial(self._say, options(execution, count))
            session = stack.enter_context(self.backend.tapped(tapping))
            work = Explainer(plan, self.backend, session, self.watch)
            work.clock = plan.dataset.clock = self.clock
            work.workers = explain.workers or plan.dataset.workers(cpus(os.environ))
            if explain.tune or explain.batch_size == "auto":
                work.pace = Pace(Memory(self.backend.device), say)
            if plan.schema.errors:
                self.watch.note(told(plan.schema.precision, plan.schema.errors))
            self.clock.begin()
            commit = plan.job.output.commit_every
            return sweep(work, plan.dataset, self.parts, self.stop, commit, self.budget, self.among)

    def _tuned(self) -> tuple[Execution, int]:
        """The fastest way to run the model, and the threads; the samples it is tried on are done again."""
        plan = self.plan
        rows = np.arange(min(SAMPLES, len(plan.dataset)))
        if not len((batch := plan.dataset.read(rows)).rows):
            batch = example(plan.dataset)

        def seconds(execution: Execution) -> float:
            with self.backend.tapped(replace(plan.tapping, execution=execution)) as session:
                work = Explainer(plan, self.backend, session, self.watch)
                return timed(lambda: work.columns(batch))

        with threads(None):
            return tuned(seconds, plan.tapping.execution, self.backend.switches, plan.tapping.rank)

    def _say(self, options: str, line: str) -> None:
        """What was tuned, once the batch size is found too, which the ``line`` begins with."""
        size = line.removeprefix("batch size ").split(",")[0].split(":")[0]
        self.watch.note(f"tuned; to have it so again: {options} --batch-size {size} ({line})")


class Explainer(Work):
    """The maps of a batch."""

    schema: Schema

    def __init__(self, plan: Plan, backend: Backend, session: Session, watch: Watch) -> None:
        super().__init__(plan.schema, plan.job.explain.block, watch, backend.is_out_of_memory)
        self.plan = plan
        self.session = session
        self._looked = False
        self.references = {name: self._reference(row) for name, row in plan.references.items()}
        self.concepts = {
            (str(cross.expression), cross.layers[0]): (
                session.tensor(np.array(found.vectors)),
                session.tensor(np.array(found.offset)),
            )
            for cross in plan.maps
            if (found := plan.schema.concepts.get(cross.name))
        }

        self.levels = dict(self._levels())
        self.boxes = {
            box: {
                end: session.tensor(each)
                for end, each in bounds(box, plan.schema.input_shape, plan.schema.bounds).items()
            }
            for expression in plan.expressions
            if (box := expression.box) is not None
        }
        self.domains = dict(plan.domains)
        for name, domain in plan.fitted_domains.items():
            fit = plan.schema.concepts[name]
            key = next(key for key, each in plan.domains.items() if each is domain)
            self.domains[key] = domain.given(np.array(fit.vectors).T, np.array(fit.offset))

    def _levels(self) -> Iterator[tuple[str, Tensor]]:
        """What the methods hold inputs against, (channel, *s), where it is not the sample's own."""
        plan = self.plan
        shape = plan.schema.input_shape
        for level in (level for expression in plan.expressions for level in expression.levels):
            if level.file is not None:
                yield level, self.session.tensor(array(level, shape))
            elif level == "mean":
                mean = np.array(plan.schema.mean, np.float32)
                yield level, self.session.tensor(mean.reshape(-1, *[1] * (len(shape) - 1)))
            elif level.sample is not None:
                row = list(plan.dataset.ids).index(level.sample)
                yield level, self.session.tensor(self._sample(row, f"baseline {level}").values[0])

    def _sample(self, row: int, what: str) -> Batch:
        """One sample that is asked for by its id; `RequestError` where it is not good."""
        batch = self.plan.dataset.read([row])
        if not len(batch.rows):
            raise RequestError(f"{what}: { {**batch.failed, **batch.nonfinite}[row] }")
        return batch

    def _reference(self, row: int) -> Tensor:
        """The scores of a sample that a target names."""
        batch = self._sample(row, f"target cosine:{self.plan.dataset.ids[row]}")
        session, extra = self.session, {name: self.session.tensor(each) for name, each in batch.extra.items()}
        return session.forward(session.tensor(batch.values), session.tensor(np.zeros(1, np.int64)), extra).scores[0]

    def __call__(self, rows: NDArray[np.int64], batch: Batch) -> Columns:
        """See `Work`; of the first batch it is said where its values hardly are what was meant."""
        if not self._looked and (line := self.plan.dataset.doubt(batch)):
            self.watch.note(line)
        self._looked = True
        return super().__call__(rows, batch)

    def blank(self, rows: NDArray[np.int64]) -> Columns:
        """See `Work.blank`; the inputs are copied whether a sample is good or not."""
        columns = super().blank(rows)
        if self.schema.inputs_dtype:
            with self.clock(Stage.HAND):
                columns["inputs/values"][:] = self.plan.dataset.display(rows)
        return columns

    def trace(self, batch: Batch) -> Trace:
        """One forward of a batch, ready for questions."""
        plan, session, dataset, rows = self.plan, self.session, self.plan.dataset, batch.rows
        labels = dataset.labels[rows] if dataset.labels is not None else np.full(len(rows), -1)
        reading = Reading(plan.readout, session.tensor(labels.astype(np.int64)), rows, self.references)
        around = Circumstances(
            seed=plan.job.explain.seed,
            ids=[dataset.ids[row] for row in rows],
            chunk=self.batch_size,
            extra={name: session.tensor(values) for name, values in batch.extra.items()},
            concepts=self.concepts,
            references=self.levels,
            domains=self.domains,
            boxes=self.boxes,
        )

        def settled(outputs: Outputs) -> list[Resolved]:
            return [each for target in plan.targets for each in settle(target, outputs, reading)]

        return Trace(session, session.tensor(batch.values), settled, around)

    def columns(self, batch: Batch) -> Columns:
        """All maps of one batch: one forward, one backward for each target, and what else its methods ask for."""
        plan, schema = self.plan, self.schema
        columns = schema.blank(len(batch.rows), but={f"{info.group}/values" for info in schema.maps})
        del columns["samples/message"]
        columns.pop("inputs/values", None)  # of all rows, and filled already
        trace = self.trace(batch)
        outputs, handover = trace.run.outputs, Handover(columns, self.clock)
        handover.put("outputs/scores", plan.readout.summary(trace.run.raw))
        handover.put("outputs/predicted", _predicted(outputs, plan.readout))
        for t, target in enumerate(trace.targets):
            handover.put("targets/index", target.index, t)
            handover.put("targets/score", target.score(outputs), t)
            if target.foil is not None:
                handover.put("targets/foil", target.foil, t)
            for cross, info in zip(plan.maps, schema.maps, strict=True):
                found = self.found(trace, cross, target)
                on_grid = found if cross.expression.place else resize(found, info.spatial)
                handover.put_maps(info.group, on_grid, target.defined, t)
                if info.residual:
                    handover.put(f"{info.group}/residual", trace.residual(cross.expression, target, found), t)
            if all(target.key != later.key for later in trace.targets[t + 1 :]):
                trace.forget(target)
            handover.wait()
        for cross, info in zip(plan.maps, schema.maps, strict=True):
            if info.signals is not None:
                handover.put(f"{info.group}/signals", trace.signals(cross.expression))
        handover.wait()
        judge(columns, schema, trace.targets)
        return columns

    def found(self, trace: Trace, cross: Cross, target: Resolved) -> Tensor:
        """A map of a trace, at its own resolution."""
        return trace.map(cross.expression, target, cross.layers, self.schema.input_shape[1:])


def judge(columns: Columns, schema: Schema, targets: Sequence[Resolved]) -> None:
    """Set each row's status from its scores, targets and maps, the gravest first; a message says which map it was."""
    defined = np.stack([_array(target.defined) for target in targets], 1)
    status = np.full(len(defined), Status.OK, np.uint8)
    messages = np.full(len(defined), b"", f"S{MESSAGE_BYTES}")

    def say(where: Any, grade: Status, message: str) -> None:
        status[where], messages[where] = grade, message.encode()[:MESSAGE_BYTES]

    for info in schema.maps:
        ranges = columns[f"{info.group}/range"]
        say((ranges == 0).all((1, 2)) & (status == Status.OK), Status.ZERO_MAP, f"{info.name} is zero everywhere")
    for target, name in zip(targets, schema.targets, strict=True):
        if target.same is not None:
            say(
                _array(target.same) & (status == Status.ZERO_MAP),
                Status.ZERO_MAP,
                f"{name} is zero: both are the same class",
            )
    for info in schema.maps:
        broken = ~np.isfinite(columns[f"{info.group}/range"]).all(2) & defined
        say(broken.any(1), Status.NON_FINITE, f"{info.name} is not finite")
    say(~np.isfinite(columns["outputs/scores"]).all(1), Status.NON_FINITE, "the model's output is not finite")
    for target in targets:
        for there, otherwise in target.conditions:
            say(~_array(there), Status.FAILED, otherwise)
    columns["samples/status"], columns["samples/message"] = status, messages


def _predicted(outputs: Outputs, readout: Readout) -> Tensor:
    """(batch,): the class whose score is highest, of detections that of the best; -1 where there are no classes."""
    if readout.detects:
        return Boxes.of(outputs).ranked(0)[0]
    if readout.places or (readout.outputs == 1 and not readout.binary):
        return outputs.rows.new_full(outputs.rows.shape, -1)
    return readout.logits(outputs.scores).argmax(1)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
