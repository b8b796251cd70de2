"""Concepts of a layer, fitted to the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .backend import Backend, Tapping
from .errors import RequestError
from .methods.concepts import POINTS, factorize
from .plan import Plan
from .results import Schema
from .results.schema import Concepts


def with_concepts(plan: Plan, backend: Backend) -> Schema:
    """The schema with the concepts of its maps."""
    concepts = {}
    for cross, info in zip(plan.maps, plan.schema.maps, strict=True):
        if info.concepts:
            concepts[info.name] = _fitted(plan, backend, cross.layers[0], cross.expression.settings)
    return replace(plan.schema, concepts=concepts)


def _fitted(plan: Plan, backend: Backend, layer: str, settings: Mapping[str, Any]) -> Concepts:
    dataset, size = plan.dataset, plan.job.explain.block
    count = min(settings["samples"], len(dataset))
    rows = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(np.int64))
    points = []
    with backend.tapped(Tapping([layer], plan.tapping.rank, frozenset("AD"))) as session:
        for start in range(0, len(rows), size):
            batch = dataset.read(rows[start : start + size])
            if not len(batch.rows):
                continue
            extra = {name: session.tensor(values) for name, values in batch.extra.items()}
            run = session(session.tensor(batch.values), extra)
            activation = run.activations[layer]
            places = activation.flatten(2).mT
            step = -(-places.shape[1] * count // POINTS)
            points.append(places[:, ::step].flatten(0, 1).cpu().numpy())
        if not points:
            raise RequestError("none of the samples can be read and is finite")
        vectors, offset = factorize(np.concatenate(points), settings["k"])
        filled = activation.new_tensor(vectors + offset).reshape(*vectors.shape, *[1] * (activation.ndim - 2))
        scores = [
            run.tail(layer, each.expand(len(activation), *[-1] * (each.ndim)).expand_as(activation).contiguous())
            for each in filled
        ]
    means = [plan.readout.summary(each.scores)[0].tolist() for each in scores]
    return Concepts(vectors.tolist(), offset.tolist(), means)
