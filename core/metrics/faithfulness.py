"""Whether the score falls with what the map calls relevant, and stays with it.

``y`` is the score (n, target), ``v`` those of the changed inputs (n, target, k). Places are counted, never cut at a
quantile: with p % of them asked for, exactly round(p n / 100) go, equal ones in an order that the seed draws. All
channels of a place go together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..keys import Baseline, Count
from .registry import Curve, metric
from .versions import ZERO, First, Imputed, Masked, Removed, Version

if TYPE_CHECKING:
    from torch import Tensor


def counts(places: int, steps: int) -> list[int]:
    """Places gone after each step, round(t n / steps) for t = 0..steps."""
    return [(2 * t * places + steps) // (2 * steps) for t in range(steps + 1)]


def parts(places: int, percent: str) -> list[int]:
    """Places that are so many per cent, one or more, joined by dots."""
    return [(2 * int(each) * places + 100) // 200 for each in percent.split(".")]


def _without(places: int, first: First, gone: list[int], fill: Baseline, blur: float) -> list[Version]:
    # all gone is the same input in either order
    return [Removed("most" if k == places else first, k, fill, blur) for k in gone]


def _morf(places: int, *, steps: int, fill: Baseline, blur: float) -> list[Version]:
    return _without(places, "most", counts(places, steps)[1:], fill, blur)


def _lerf(places: int, *, steps: int, fill: Baseline, blur: float) -> list[Version]:
    return _without(places, "least", counts(places, steps)[1:], fill, blur)


def _inserted(places: int, *, steps: int, fill: Baseline, blur: float) -> list[Version]:
    return _without(places, "least", [places - k for k in counts(places, steps)[:-1]], fill, blur)


def _both(places: int, **keys: Any) -> list[Version]:
    return [*_morf(places, **keys), *_lerf(places, **keys)]


@metric(
    "deletion",
    "faithfulness",
    formula="integral over q of f(x without the q most relevant)",
    source="Petsiuk et al. 2018",
    better="lower",
    units="score",
    plan=_morf,
)
def deletion(
    a: Tensor, y: Tensor, v: Tensor, *, steps: Count = Count(20), fill: Baseline = ZERO, blur: float = 0.1
) -> Curve:
    """Deletion: the area under the score while the most relevant places are taken away, by the trapezoid rule.

    Over the true shares of the places, from none to all, so the area lies within the range of the scores. Quantus'
    pixel flipping leaves out the untouched input and sums over steps of width 1.
    """
    return _area(a, y, v, steps, start=True)


@metric(
    "insertion",
    "faithfulness",
    formula="integral over q of f(o with the q most relevant)",
    source="Petsiuk et al. 2018",
    better="higher",
    units="score",
    plan=_inserted,
)
def insertion(
    a: Tensor, y: Tensor, v: Tensor, *, steps: Count = Count(20), fill: Baseline = ZERO, blur: float = 0.1
) -> Curve:
    """Insertion: the area under the score while the most relevant places are put back, as ``deletion``.

    The paper fills with a blur for it, ``fill=blur``; here both start alike unless it is asked for.
    """
    return _area(a, y, v, steps, start=False)


@metric(
    "aopc",
    "faithfulness",
    formula="mean over t = 0..T of f(x) - f(x without the t/T most relevant)",
    source="Samek et al. 2017",
    better="higher",
    units="score",
    plan=_morf,
)
def aopc(y: Tensor, v: Tensor, *, steps: Count = Count(20), fill: Baseline = ZERO, blur: float = 0.1) -> Tensor:
    """AOPC: what the score loses on average while the most relevant places are taken away.

    Places by themselves, and all of them in the end; the paper takes 9 x 9 regions away, the first 100.
    """
    return (y[..., None] - v).sum(2) / (steps + 1)


@metric(
    "abpc",
    "faithfulness",
    formula="aopc of the most relevant first - aopc of the least relevant first",
    source="Samek et al. 2015, arXiv:1509.06321, appendix",
    better="higher",
    units="score",
    plan=_both,
)
def abpc(v: Tensor, *, steps: Count = Count(20), fill: Baseline = ZERO, blur: float = 0.1) -> Tensor:
    """ABPC: the area between the curves of both orders, which does away with most of what the filling adds."""
    return (v[..., steps:] - v[..., :steps]).sum(2) / (steps + 1)


def _roads(places: int, *, percent: str, noise: float) -> list[Version]:
    orders: tuple[First, First] = ("least", "most")
    return [Imputed(first, k, noise) for k in parts(places, percent) for first in orders]


@metric(
    "road-confidence",
    "faithfulness",
    formula="mean over p of (f(x, p % least relevant imputed) - f(x, p % most relevant imputed)) / 2",
    source="Rong et al. 2022; the score in place of the accuracy as in pytorch-grad-cam",
    better="higher",
    units="score",
    plan=_roads,
)
def road_confidence(a: Tensor, v: Tensor, *, percent: str = "10.30.50.70.90", noise: float = 0.01) -> Curve:
    """ROAD: the score with the least relevant places imputed less that with the most relevant ones.

    An imputed place is the weighted mean of its neighbours, see `imputation.impute`, and noise of ``noise`` times the
    sample's own standard deviation (the paper's inputs have about 1). pytorch-grad-cam cuts at a quantile, so that of a
    map with 98 % zeros all of them go, knows two dimensions, and meets a singular system where all goes; Quantus calls
    an accuracy by the same name.
    """
    least, most = v[..., ::2], v[..., 1::2]
    places = a[0, 0].numel()
    heights = (least - most) / 2
    return Curve(heights.mean(2), heights, v.new_tensor([k / places for k in parts(places, percent)]))


def _seen(places: int, *, fill: Baseline, blur: float) -> list[Version]:
    return [Masked(fill, blur)]


@metric(
    "average-drop",
    "faithfulness",
    formula="relu(f(x) - f(x a')) / f(x), a' = minmax(a), f a probability",
    source="Chattopadhay et al. 2018",
    better="lower",
    undefined="a score of 0",
    plan=_seen,
    probability=True,
)
def average_drop(y: Tensor, v: Tensor, *, fill: Baseline = ZERO, blur: float = 0.1) -> Tensor:
    """Average drop: the part of the probability that is lost where the input is seen through its map.

    Relative, as published; pytorch-grad-cam's is absolute. A constant map shows nothing. Where the map is 0 the input
    is ``fill``: the 0 of the model's input, where the papers multiply before they normalise.
    """
    return (y - v[..., 0]).relu() / y


@metric(
    "gain",
    "faithfulness",
    formula="relu(f(x a') - f(x)) / (1 - f(x)), a' = minmax(a), f a probability",
    source="Zhang et al. 2024 (Opti-CAM)",
    better="higher",
    undefined="a score of 1",
    plan=_seen,
    probability=True,
)
def gain(y: Tensor, v: Tensor, *, fill: Baseline = ZERO, blur: float = 0.1) -> Tensor:
    """Average gain: of what the probability could rise, what it does through the map; beside ``average-drop``."""
    return (v[..., 0] - y).relu() / (1 - y)


@metric(
    "increase",
    "faithfulness",
    formula="[f(x a') > f(x)], a' = minmax(a), f a probability",
    source="Chattopadhay et al. 2018",
    better="higher",
    undefined="scores that are NaN",
    plan=_seen,
    probability=True,
)
def increase(y: Tensor, v: Tensor, *, fill: Baseline = ZERO, blur: float = 0.1) -> Tensor:
    """Increase in confidence: whether the probability rises where the input is seen through its map."""
    return (v[..., 0] > y).double().masked_fill((v[..., 0] - y).isnan(), float("nan"))


def _kept(places: int, *, percent: str, fill: Baseline, blur: float) -> list[Version]:
    return _without(places, "least", [places - k for k in parts(places, percent)], fill, blur)


def _taken(places: int, *, percent: str, fill: Baseline, blur: float) -> list[Version]:
    return _without(places, "most", parts(places, percent), fill, blur)


@metric(
    "sufficiency",
    "faithfulness",
    formula="mean over p of f(x) - f(o with the p % most relevant)",
    source="DeYoung et al. 2020",
    better="lower",
    units="score",
    plan=_kept,
)
def sufficiency(
    y: Tensor, v: Tensor, *, percent: str = "1.5.10.20.50", fill: Baseline = ZERO, blur: float = 0.1
) -> Tensor:
    """Sufficiency: what the score lacks with only the most relevant places.

    Quantus calls a metric of whole data sets by this name.
    """
    return y - v.mean(2)


@metric(
    "comprehensiveness",
    "faithfulness",
    formula="mean over p of f(x) - f(x without the p % most relevant)",
    source="DeYoung et al. 2020",
    better="higher",
    units="score",
    plan=_taken,
)
def comprehensiveness(
    y: Tensor, v: Tensor, *, percent: str = "1.5.10.20.50", fill: Baseline = ZERO, blur: float = 0.1
) -> Tensor:
    """Comprehensiveness: what the score loses without the most relevant places."""
    return y - v.mean(2)


def _area(a: Tensor, y: Tensor, v: Tensor, steps: int, *, start: bool) -> Curve:
    """Under the scores ``v`` and, at the start or at the end, that of the whole input."""
    import torch

    places = a[0, 0].numel()
    at = v.new_tensor([k / places for k in counts(places, steps)])
    heights = torch.cat([y[..., None], v] if start else [v, y[..., None]], 2)
    return Curve(torch.trapezoid(heights, at, dim=2), heights, at)
