"""What fewer digits cost: the first batch explained with and without them, map by map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .backend import Backend, Execution
from .errors import RequestError
from .explainer import Explainer
from .plan import Plan


class Unheard:
    """A `Watch` that says nothing."""

    def start(self, done: int, total: int) -> None:
        """Nothing."""

    def advance(self, rows: int) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


def errors(plan: Plan, backend: Backend) -> dict[str, list[float]]:
    """For each map of the first batch the largest difference, as a share of its largest value, and the lowest
    correlation of a sample's map with that in float32; nothing where float32 is what is asked for.
    """
    execution = plan.tapping.execution
    if execution.precision == "float32":
        return {}
    for start in range(0, len(plan.dataset), plan.job.explain.block):
        batch = plan.dataset.read(np.arange(start, min(start + plan.job.explain.block, len(plan.dataset))))
        if len(batch.rows):
            break
    else:
        raise RequestError("none of the samples can be read and is finite")

    def maps(how: Execution) -> list[NDArray[np.float64]]:
        with backend.tapped(replace(plan.tapping, execution=how)) as session:
            columns = Explainer(plan, backend, session, Unheard()).columns(batch)
        found = []
        for info in plan.schema.maps:
            values = columns[f"{info.group}/values"].astype(np.float64)
            scale = columns.get(f"{info.group}/scale")
            values = values.reshape(*values.shape[:2], -1)
            found.append(values if scale is None else values * scale[..., None])
        return found

    pairs = zip(plan.schema.maps, maps(execution), maps(replace(execution, precision="float32")), strict=True)
    return {info.name: [*difference(low, full)] for info, low, full in pairs}


def difference(low: NDArray[np.float64], full: NDArray[np.float64]) -> tuple[float, float]:
    """The largest difference by the largest value, and the lowest correlation, of maps (sample, target, place).

    Maps that are not there, or the same everywhere, have no correlation. What is finite in one only is infinitely off.
    """
    both = np.isfinite(full)
    if (both != np.isfinite(low)).any():
        return float("inf"), float("nan")
    if not both.any():
        return 0.0, float("nan")
    off = float(np.abs(low - full)[both].max()) / max(float(np.abs(full)[both].max()), 1e-300)
    whole = both.all(2)
    a, b = low[whole], full[whole]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    sizes = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    known = sizes > 0
    return off, float(((a * b).sum(1)[known] / sizes[known]).min(initial=1.0)) if known.any() else float("nan")
