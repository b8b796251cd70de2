"""What is fitted to the whole dataset before the sweep: a layer's concepts, mean and range, independent components.

It goes into the manifest, so that a run that is stopped goes on with the same. The samples are spread evenly over the
dataset and their places over each sample; neither batch size nor shards matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .backend import Backend
from .concepts import with_concepts
from .data import Dataset
from .domains.components import Components, independent
from .errors import RequestError
from .methods.concepts import POINTS
from .plan import Plan
from .precision import errors
from .results import Schema
from .results.schema import Concepts

SAMPLES = 10_000
"""So many are looked at, at most."""
TOGETHER = 64


def with_fits(plan: Plan, backend: Backend) -> Schema:
    """The schema with all that its maps need of the dataset."""
    schema = with_concepts(plan, backend)
    if any(level == "mean" for expression in plan.expressions for level in expression.levels):
        schema = replace(schema, mean=mean(plan.dataset))
    if any(expression.box == "data" for expression in plan.expressions):
        schema = replace(schema, bounds=bounds(plan.dataset))
    concepts = dict(schema.concepts)
    for name, domain in plan.fitted_domains.items():
        if isinstance(domain, Components):
            mixing, offset = independent(_points(plan.dataset), domain.count, (plan.job.explain.seed,))
            concepts[name] = Concepts(mixing.T.tolist(), offset.tolist(), [])
    schema = replace(schema, concepts=concepts)
    return replace(schema, errors=errors(replace(plan, schema=schema), backend))


def mean(dataset: Dataset) -> list[float]:
    """Of each channel, over all places of the samples that are good."""
    sums = [batch.astype(np.float64).mean(tuple(range(2, batch.ndim))) for batch in _batches(dataset)]
    return np.concatenate(sums).mean(0).tolist()  # type: ignore[no-any-return]


def bounds(dataset: Dataset) -> list[list[float]]:
    """The smallest and the largest value of each channel over the samples that are good."""
    spans = [
        (batch.min((0, *range(2, batch.ndim))), batch.max((0, *range(2, batch.ndim)))) for batch in _batches(dataset)
    ]
    lows, highs = zip(*spans, strict=True)
    return [np.min(lows, 0).tolist(), np.max(highs, 0).tolist()]


def _points(dataset: Dataset) -> NDArray[np.float64]:
    """Places (n, channel)."""
    step = -(-int(np.prod(dataset.shape[1:])) * min(SAMPLES, len(dataset)) // POINTS)
    flat = (batch.reshape(*batch.shape[:2], -1)[:, :, ::step] for batch in _batches(dataset))
    return np.concatenate([each.swapaxes(1, 2).reshape(-1, each.shape[1]) for each in flat]).astype(np.float64)


def _batches(dataset: Dataset) -> Iterator[NDArray[np.float32]]:
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).round().astype(np.int64))
    found = False
    for start in range(0, len(rows), TOGETHER):
        batch = dataset.read(rows[start : start + TOGETHER])
        if len(batch.rows):
            found = True
            yield np.ascontiguousarray(batch.values)  # sums depend on the order in their last digits
    if not found:
        raise RequestError("none of the samples can be read and is finite")
