"""Metrics of a whole results file: what is there already, what is to do, the sweep, the finished metrics file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Backend, Session
from ..baselines import array
from ..data import Batch
from ..errors import OutputError, RequestError
from ..explainer import Explainer
from ..fits import mean
from ..job import Job, differences
from ..metrics import Choice
from ..plan import git_state, now, versions
from ..results import MetricsFile, MetricsSchema, Parts, Provenance, Status, merge, open_results
from ..results.locks import held
from ..results.metrics import beside
from ..sweep import Source, Watch, sweep
from .evaluator import Evaluator, Model
from .plan import Asked, Evaluation, Request
from .scoring import Counted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """What an evaluation came to."""

    file: MetricsFile
    was_complete: bool
    predicted: float
    """Forwards for each sample."""
    forwards: float
    """Those that ran, of the samples that were done now."""

    @property
    def failed(self) -> int:
        """Samples that could not be evaluated, besides those that have no maps."""
        return int((self.file.status == Status.FAILED).sum())


def evaluate(
    request: Request,
    load: Callable[[Job], Backend],
    *,
    watch: Watch,
    stop: threading.Event | None = None,
    argv: Sequence[str] = (),
) -> Outcome:
    """Write or complete the metrics file of results; what it holds already is kept and not done again.

    Raises as `core.run.run_job`; where nothing is to do the model is not loaded.
    """
    with open_results(request.path) as results:
        evaluation = Evaluation(request, results, load, argv)
        asked, missing = evaluation.asked
        path = beside(request.path)
        there = _there(evaluation, force=request.force)
        known = {(each.map, each.metric) for each in there.entries} if there else set()
        new = {s: [c for c in choices if (s.name, str(c)) not in known] for s, choices in asked.items()}
        new = {subject: choices for subject, choices in new.items() if choices}
        if there is not None and not new:
            return Outcome(there, was_complete=True, predicted=0.0, forwards=0.0)
        schema = MetricsSchema(
            ids=list(results.ids),
            targets=list(results.target_names),
            entries=[*(there.entries if there else ()), *evaluation.entries(new)],
            provenance=_provenance(evaluation, new, argv, there),
            missing=_still(missing, there, new),
        )
        folder = Parts.folder_of(path)
        parts: Parts[MetricsSchema] | None = None if request.force else Parts.open(folder, MetricsSchema)
        if parts is not None and (theirs := differences(schema.provenance.identity, parts.schema.provenance.identity)):
            raise OutputError(
                f"{folder} is of another evaluation ({', '.join(theirs)}); finish that one, or start with --force"
            )
        with ExitStack() as stack:
            if parts is not None:
                schema = parts.schema
                stack.enter_context(held(folder))
            work, predicted = stack.enter_context(_working(evaluation, new, schema, there, watch))
            if parts is None:
                stack.enter_context(held(folder))
                parts = Parts.create(folder, schema)
            parts.stop = stop = stop or threading.Event()
            parts.clean()
            todo = max(1, int((parts.owners() < 0).sum()))
            source: Source = evaluation.dataset if work.model else _Unread()
            try:
                sweep(work, source, parts, stop, evaluation.job.output.commit_every)
            except RequestError:
                if not parts.files():
                    parts.remove()
                raise
            merge(parts, path, finished=now())
        done = work.model.session.forwards / todo if work.model else 0.0
        return Outcome(MetricsFile(path), was_complete=False, predicted=predicted, forwards=done)


def plan_evaluation(request: Request, load: Callable[[Job], Backend]) -> dict[str, Any]:
    """What an evaluation would come to; nothing is written."""
    with open_results(request.path) as results:
        evaluation = Evaluation(request, results, load)
        asked, missing = evaluation.asked
        plan = None
        if evaluation.needs_model(asked):
            plan = evaluation.plan(evaluation.loaded(), asked)
        forwards = evaluation.predicted(plan, asked)
        return {
            "results": str(request.path),
            "metrics_file": str(beside(request.path)),
            "samples": len(results),
            "metrics": {subject.name: [str(choice) for choice in choices] for subject, choices in asked.items()},
            "controls": {
                subject.name: sorted({str(subject.control_for(choice)) for choice in choices})
                for subject, choices in asked.items()
            },
            "missing": missing,
            "forwards_per_sample": forwards,
            "forwards": round(forwards * len(results)),
        }


@contextmanager
def _working(
    evaluation: Evaluation, asked: Asked, schema: MetricsSchema, there: MetricsFile | None, watch: Watch
) -> Iterator[tuple[Evaluator, float]]:
    """What evaluates, with the model loaded where it is asked anything, and the forwards foreseen."""
    job, results = evaluation.job, evaluation.results
    kept = {path: values for path, values in there.columns().items() if "/" in path} if there else {}

    def made(model: Model | None, too_large: Callable[[BaseException], bool]) -> Evaluator:
        size = job.explain.block
        return Evaluator(schema, results, asked, kept, evaluation.truth, model, size, watch, too_large)

    if not evaluation.needs_model(asked):
        yield made(None, lambda error: isinstance(error, MemoryError)), 0.0
        return
    backend = evaluation.loaded()
    for note in backend.notes:
        watch.note(note)
    plan = evaluation.plan(backend, asked)
    with backend.tapped(plan.tapping) as session:
        counted = Counted(session)
        explainer = Explainer(plan, backend, counted, watch)

        @contextmanager
        def redrawn(share: float) -> Iterator[Session]:
            with backend.redrawn(share, schema.provenance.seed), backend.tapped(plan.tapping) as anew:
                counting = Counted(anew)
                try:
                    yield counting
                finally:
                    counted.forwards += counting.forwards

        model = Model(explainer, counted, _levels(evaluation, asked, explainer), redrawn)
        yield made(model, backend.is_out_of_memory), evaluation.predicted(plan, asked)


def _levels(evaluation: Evaluation, asked: Asked, explainer: Explainer) -> Mapping[str, Tensor]:
    """What takes the place of inputs and is not the sample's own, by its text."""
    dataset, found = evaluation.dataset, dict[str, Any]()
    for fill in {c.settings["fill"] for choices in asked.values() for c in choices if "fill" in c.settings}:
        if fill.file is not None:
            found[fill] = array(fill, dataset.shape)
        elif fill == "mean":
            channels = np.array(evaluation.results.mean or mean(dataset), np.float32)
            found[fill] = channels.reshape(-1, *[1] * (len(dataset.shape) - 1))
        elif fill.sample is not None:
            found[fill] = dataset.read([list(dataset.ids).index(fill.sample)]).values[0]
    return {fill: explainer.session.tensor(values) for fill, values in found.items()}


class _Unread:
    """For metrics that look at the maps alone: rows without their inputs."""

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See `core.sweep.Source`."""
        return Batch(rows, np.empty((len(rows), 0), np.float32))


def _there(evaluation: Evaluation, *, force: bool) -> MetricsFile | None:
    """The finished metrics file; `OutputError` where it is of other results, or was made otherwise."""
    path = beside(evaluation.request.path)
    if force or not path.exists():
        return None
    found = MetricsFile(path)
    mine = evaluation.identity
    if not found.identity.get("truth") or not mine["truth"]:  # ground truth may come later, or be of no use
        mine.pop("truth")
    if theirs := differences(mine, {key: found.identity.get(key) for key in mine}):
        of = {"results": "other results", "seed": "another seed", "truth": "other masks"}
        raise OutputError(f"{path} is of {of[theirs[0]]}; replace it with --force")
    return found


def _still(missing: Mapping[str, str], there: MetricsFile | None, new: Asked) -> dict[str, str]:
    """What does not fit, of now and of before."""
    before = there.missing if there else {}
    found = {f"{subject.name}: {choice}" for subject, choices in new.items() for choice in choices}
    had = {f"{entry.map}: {entry.metric}" for entry in there.entries} if there else set()
    return {what: reason for what, reason in {**before, **missing}.items() if what not in found | had}


def _provenance(
    evaluation: Evaluation, new: Mapping[Any, Sequence[Choice]], argv: Sequence[str], there: MetricsFile | None
) -> Provenance:
    results, job = evaluation.results, evaluation.job
    told = results.provenance
    truth = evaluation.identity["truth"] or (there.identity.get("truth", "") if there else "")
    asked = sorted(f"{subject.name}: {choice}" for subject, choices in new.items() for choice in choices)
    return Provenance(
        identity={**evaluation.identity, "truth": truth, "metrics": asked},
        job=job.toml(),
        argv=list(argv),
        versions=dict(versions()),
        git=git_state(Path(__file__).parent),
        model_sha256=told["model_sha256"],
        data_fingerprint=told["data_fingerprint"],
        device=job.explain.device,
        seed=evaluation.request.seed,
        batch_size=job.explain.block,
        started=now(),
    )
