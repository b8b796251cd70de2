"""What is evaluated: a request held against its results, which metrics fit which maps, and what they cost."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Backend
from ..checks import check_level
from ..costs import passes
from ..data import DataSection, Dataset, Truth, open_dataset, open_truth
from ..errors import RequestError
from ..job import Job, differences
from ..keys import show
from ..metrics import Case, Choice, Curve
from ..plan import Cross, Plan, make
from ..results import MetricInfo, Results
from ..standing import identity
from .choices import parse_metrics
from .evaluator import Exhibit
from .exhibits import Subject, subjects
from .scoring import whatever_the_map

if TYPE_CHECKING:
    pass

Asked = dict[Subject, list[Choice]]


@dataclass(frozen=True)
class Request:
    """What is evaluated, and how."""

    path: Path
    """Of the results."""
    metrics: Sequence[str] = ("fast",)
    maps: Sequence[str] | None = None
    """By name; None for all."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the job that made the results, where its model or data lie elsewhere now."""
    seed: int = 0
    force: bool = False


@dataclass(eq=False)
class Evaluation:
    """A request held against its results: everything settled before the first batch."""

    request: Request
    results: Results
    load: Callable[[Job], Backend]
    argv: Sequence[str] = ()

    @cached_property
    def job(self) -> Job:
        """The job that made the results, with what is overridden."""
        tables = tomllib.loads(self.results.provenance["job"])
        tables["model"] = {**tables["model"], "trust_checkpoint": False}  # consent is not handed on with a file
        for name, values in self.request.overrides.items():
            tables[name] = {**tables.get(name, {}), **values}
        return Job.load(None, tables)

    @cached_property
    def choices(self) -> dict[str, tuple[Choice, bool]]:
        """The metrics, and whether each was named by itself."""
        return parse_metrics(self.request.metrics)

    @cached_property
    def subjects(self) -> list[Subject]:
        """The maps."""
        return subjects(self.results, self.job, self.request.maps)

    @cached_property
    def dataset(self) -> Dataset:
        """Where the inputs lie; `RequestError` where they are others now."""
        dataset = open_dataset(self.job.data)
        if dataset.fingerprint != self.results.provenance["data_fingerprint"]:
            raise RequestError(f"the data behind {self.results.path} have changed since; explain them anew")
        return dataset

    @cached_property
    def truth(self) -> Truth | None:
        """Where the evidence lies, if anyone says so."""
        section: DataSection = self.job.data
        return open_truth(section, self.dataset) if section.mask or section.boxes else None

    @cached_property
    def asked(self) -> tuple[Asked, dict[str, str]]:
        """The metrics that fit each map; of the others why not, by map and metric."""
        fit: Asked = {}
        missing: dict[str, str] = {}
        simple = self.results.outputs.shape[-1] > 0 and all(t.simple for t in self.job.explain.parsed_targets)
        for subject in self.subjects:
            for text, (choice, _) in self.choices.items():
                reason = subject.unfit(
                    choice, truth=self.truth is not None, classes=simple, redraws=not self.job.model.native
                )
                if reason:
                    missing[f"{subject.name}: {text}"] = reason
                else:
                    fit.setdefault(subject, []).append(choice)
        for text, (_, named) in self.choices.items():
            reasons = [missing.get(f"{subject.name}: {text}", "") for subject in self.subjects]
            if named and all(reasons):
                raise RequestError(f"{text} fits none of the maps: {reasons[0]}")
        if not fit:
            raise RequestError(
                f"none of these metrics fits a map; {next(iter(missing.items()))[0]}: {next(iter(missing.values()))}"
            )
        for choices in fit.values():
            for fill in (each.settings["fill"] for each in choices if "fill" in each.settings):
                check_level("evaluate", fill, self.dataset)
        return fit, missing

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, besides which they are."""
        truth = self.truth
        return {
            "results": self.results.contents,
            "seed": self.request.seed,
            "truth": "" if truth is None else truth.fingerprint,
        }

    def entries(self, asked: Asked) -> list[MetricInfo]:
        """What the file will say of each metric."""
        return [_info(subject, choice) for subject, choices in asked.items() for choice in choices]

    def needs_model(self, asked: Asked) -> bool:
        """Whether the model is asked anything: changed inputs, or the activations that a Random-CAM is made of."""
        return any(
            choice.plan(1) or choice.metric.needs == "maps" or subject.control_for(choice).cross is not None
            for subject, choices in asked.items()
            for choice in choices
        )

    def loaded(self) -> Backend:
        """The model, once its code and its weights are known to be those of the results: `RequestError` else."""
        mine, theirs = identity(self.job, self.dataset), self.results.provenance["identity"]
        weights = self.job.model.weights
        if weights is not None and not Path(weights).exists():
            return self.load(self.job)  # which says so
        if other := [key for key in differences(mine, theirs) if key.startswith("model.")]:
            raise RequestError(f"{self.results.path} was made by another model ({', '.join(other)}); name the same")
        return self.load(self.job)

    def plan(self, backend: Backend, asked: Asked) -> Plan:
        """That of the job, its maps those that are to be explained again, with what was fitted to the dataset."""
        plan = make(self.job, self.dataset, backend, list(self.argv))
        again = [s for s, choices in asked.items() if any(c.metric.needs == "maps" for c in choices)]
        crosses: list[Cross] = [*(subject.cross for subject in again), *self._random_cams(asked)]
        schema = replace(
            plan.schema,
            concepts=self.results.fitted,
            mean=self.results.mean,
            bounds=self.results.bounds,
        )
        return replace(plan, maps=crosses, schema=schema)

    def _random_cams(self, asked: Asked) -> Iterator[Cross]:
        controls = dict.fromkeys(s.control_for(c) for s, choices in asked.items() for c in choices)
        return (cross for control in controls if (cross := control.cross) is not None)

    def predicted(self, plan: Plan | None, asked: Asked) -> float:
        """Forwards for each sample, of the maps and their controls."""
        if plan is None:
            return 0.0
        exhibits: dict[Exhibit, list[Choice]] = {}
        for subject, choices in asked.items():
            for choice in choices:
                for exhibit in (subject, subject.control_for(choice)):
                    exhibits.setdefault(exhibit, []).append(choice)
        targets = len(self.results.target_names)
        total, common, anew = 1.0, set[Any](), dict[Any, Cross | None]()
        for exhibit, choices in exhibits.items():
            places = math.prod(exhibit.sizes)
            own = set()
            for choice in choices:
                for version in choice.plan(places):
                    key = (version, choice.metric.probability)
                    if whatever_the_map(version, places):
                        common.add((*key, exhibit.domain, places))
                    else:
                        own.add(key)
                if exhibit.cross is not None:
                    for again in choice.again(places):
                        shared = whatever_the_map(again, places)
                        anew[again, "" if shared else str(exhibit)] = None if shared else exhibit.cross
                    anew.update(((share, ""), None) for share in choice.redrawn())
                    if "l" in choice.metric.asks:
                        anew["l", ""] = None
            total += targets * len(own)
        whole = passes(plan)["forward"] if anew else 0
        for (key, _), cross in anew.items():
            alone = targets * passes(replace(plan, maps=[cross]))["forward"] if cross else whole
            total += alone - (key == "l")
        return total + len(common)


def _info(subject: Subject, choice: Choice) -> MetricInfo:
    metric = choice.metric
    return MetricInfo(
        map=subject.name,
        metric=str(choice),
        family=metric.family,
        better=metric.better,
        units=metric.units,
        formula=metric.formula,
        source=metric.source,
        undefined=metric.undefined,
        control=str(subject.control_for(choice)),
        settings=json.dumps({key: show(value) for key, value in choice.settings.items()}),
        at=_along(subject, choice),
    )


def _along(subject: Subject, choice: Choice) -> list[float] | None:
    """Where along a metric's curve its heights lie; found by an answer of zeros."""
    import torch

    places = math.prod(subject.sizes)
    maps, one = torch.zeros(1, 1, *subject.sizes, dtype=torch.float64), torch.zeros(1, 1)
    x = torch.zeros(1, subject.space.channels, *subject.space.sizes)
    case = Case(maps, seeds=[(0,)], x=x, y=one, residual=one, masks=maps[0])
    again, redrawn = choice.again(places), choice.redrawn()
    answers = {
        "v": maps.new_zeros(1, 1, len(choice.plan(places))),
        "e": maps.expand(len(again), *maps.shape),
        "w": maps.expand(len(redrawn), *maps.shape),
        "l": maps,
    }
    found = choice(case, **{letter: answers[letter] for letter in choice.metric.asks if letter in answers})
    return [float(each) for each in found.at] if isinstance(found, Curve) else None
