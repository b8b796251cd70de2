"""What a map should sum to, and one number of three."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..keys import Baseline
from .case import Case
from .faithfulness import parts
from .registry import metric
from .stability import pearson
from .versions import ZERO, First, Imputed, Masked, Version, minmax

if TYPE_CHECKING:
    from torch import Tensor


@metric(
    "completeness",
    "axiom",
    formula="|r| / |sum a + r|, r = f(x) - f(o) - sum a",
    source="Sundararajan et al. 2017",
    better="lower",
    undefined="maps that need not sum to anything, scores that do not differ",
)
def completeness(A: Tensor, r: Tensor) -> Tensor:
    """Completeness: the part of the difference of the scores that the map's sum misses.

    From the residual that lies in the results file: no forward. Quantus asks whether two floats are equal.
    """
    found = A.flatten(2).sum(2) + r
    return r.abs() / found.abs().masked_fill(found == 0, float("nan"))


@metric(
    "conservation",
    "axiom",
    formula="|f(x) - sum R| / |f(x)|",
    source="Bach et al. 2015",
    better="lower",
    undefined="a score of 0",
)
def conservation(A: Tensor, y: Tensor) -> Tensor:
    """Conservation: the part of the score that relevance gained or lost on its way to the input."""
    return (y - A.flatten(2).sum(2)).abs() / y.abs().masked_fill(y == 0, float("nan"))


def _roads(places: int, *, percent: str, noise: float, fill: Baseline, blur: float) -> list[Version]:
    orders: tuple[First, First] = ("least", "most")
    return [Imputed(first, k, noise) for k in parts(places, percent) for first in orders]


def _again(places: int, *, percent: str, noise: float, fill: Baseline, blur: float) -> list[Version]:
    return [Masked(fill, blur)]


@metric(
    "arcc",
    "faithfulness",
    formula="3 / (1/coherency + 1/(1 - complexity) + 1/road)",
    source="Poppi et al. 2021, with ROAD as in pytorch-grad-cam",
    better="higher",
    undefined="a constant map",
    plan=_roads,
    again=_again,
    probability=True,
)
def arcc(
    c: Case,
    v: Tensor,
    e: Tensor,
    *,
    percent: str = "20.40.60.80",
    noise: float = 0.01,
    fill: Baseline = ZERO,
    blur: float = 0.1,
) -> Tensor:
    """ARCC: the harmonic mean of coherency, 1 - complexity and ROAD, 0 where one of them is.

    Coherency is (r + 1) / 2 with r the correlation of the map and the map of the input seen through it, complexity the
    mean of the map from 0 to 1, and ROAD twice ``road-confidence`` of a probability, held in [0, 1]. pytorch-grad-cam
    adds 1e-8 to each.
    """
    import torch

    again = e[0].double()
    again = again.sum(2) if c.per_channel else again
    coherency = (pearson(c.a.flatten(2), again.flatten(2)) + 1) / 2
    least, most = v[..., ::2], v[..., 1::2]
    road = (least - most).mean(2).clamp(0, 1)
    terms = torch.stack([coherency, 1 - minmax(c.a).flatten(2).mean(2), road])
    return 3 / (1 / terms).sum(0)
