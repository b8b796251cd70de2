"""Which values share a scale of colours, and where its colours end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Literal, cast

import numpy as np

from ..errors import RequestError, nearest
from .colour import Floats, Scale

Group = Literal["sample", "class", "run"]
GROUPS = ("sample", "class", "run")
BINS = 8192
"""Of the histogram that a percentile of many maps is read from: it is right to the reach divided by this."""


@dataclass(frozen=True)
class Norm:
    """``--norm``: a word for the group, and what else, joined by commas: ``class,percentile:99``."""

    group: Group = "sample"
    """Each picture has a scale, or each explained class of a map, or each map."""
    symmetric: bool = False
    """Two colours around zero for all methods, also those without a sign."""
    percentile: float = 100.0
    """Of the magnitudes, in percent: the strongest colour begins there, and below 100 the bar says so."""

    @classmethod
    def parse(cls, text: str) -> Norm:
        """The words in any order; `RequestError` for one that is none."""
        group, symmetric, percentile = "sample", False, 100.0
        for word in text.split(","):
            name, _, value = word.strip().partition(":")
            if name in GROUPS and not value:
                group = name
            elif name == "symmetric" and not value:
                symmetric = True
            elif name == "percentile":
                try:
                    percentile = float(value or 99)
                except ValueError:
                    percentile = 0
                if not 0 < percentile <= 100:
                    raise RequestError(f"--norm {word!r} given, expected percentile:P with P above 0, at most 100")
            else:
                known = (*GROUPS, "symmetric", "percentile")
                raise RequestError(f"--norm {word!r} given. {nearest(name, known)}")
        return cls(cast(Group, group), symmetric, percentile)

    def scale(self, values: Callable[[], Iterable[Floats]], *, signed: bool) -> Scale:
        """One scale for arrays of any shapes, which are asked for twice where a percentile is wanted."""
        signed = signed or self.symmetric
        each = (Scale.of(v, signed=signed) for v in values() if np.isfinite(v).any())
        found = reduce(or_, [*each] or [Scale(0.0, 0.0, signed)])
        top = max(abs(found.low), abs(found.high))
        if self.percentile == 100 or not top:
            return found
        counts = sum(np.histogram(np.abs(v[np.isfinite(v)]) / top, BINS, (0, 1))[0] for v in values())
        below = np.cumsum(counts)
        most = top * (int(np.searchsorted(below, self.percentile / 100 * below[-1])) + 1) / BINS
        return replace(found, most=most)


OWN = Norm()
"""Each picture has a scale of its own."""
