"""Which metrics: sets of them with a name, and those that are named one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import RequestError, nearest
from ..metrics import METRICS, Choice, parse_metric

_FAST = (
    "completeness", "conservation", "gini", "entropy", "effective-complexity", "pointing", "relevance-mass",
    "relevance-rank", "topk", "roc-auc",
)  # fmt: skip
_STANDARD = (
    *_FAST, "average-drop", "gain", "increase", "deletion", "insertion", "aopc", "abpc", "road-confidence",
    "sufficiency", "comprehensiveness",
)  # fmt: skip
SETS: Mapping[str, tuple[str, ...]] = {"fast": _FAST, "standard": _STANDARD, "full": tuple(METRICS)}
"""``fast``: what asks the model nothing; ``standard``: scores of changed inputs too; ``full``: every metric."""
_BETWEEN = re.compile(r",(?=[a-z0-9-]+(?:[:,]|$))")
"""A comma that begins another metric, and not another key of the same, ``deletion:steps=50,fill=blur,gini``."""


def parse_metrics(texts: Sequence[str]) -> dict[str, tuple[Choice, bool]]:
    """Metrics by their canonical text, in the order of the registry, and whether each was named by itself.

    ``texts`` are sets and metrics, several in one joined by commas. `RequestError` names the nearest where one is
    unknown.
    """
    found: dict[str, tuple[Choice, bool]] = {}
    for part in (part for text in texts for part in _BETWEEN.split(text)):
        if part in SETS:
            for name in SETS[part]:
                found.setdefault(name, (parse_metric(name), False))
        elif part.partition(":")[0] not in METRICS:
            name = part.partition(":")[0]
            raise RequestError(f"unknown metric {name!r}. {nearest(name, [*SETS, *METRICS])}")
        else:
            choice = parse_metric(part)
            found[str(choice)] = (choice, True)
    order = list(METRICS)
    return dict(sorted(found.items(), key=lambda each: order.index(each[1][0].metric.name)))
