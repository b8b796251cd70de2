"""Detections: boxes of any rank, with their scores and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """(n, M) of them; where a sample has fewer, the rest have label -1 and NaN for the numbers."""

    corners: Tensor
    """(n, M, 2 d): the lower corner, then the upper one."""
    scores: Tensor
    labels: Tensor

    @classmethod
    def of(cls, outputs: Outputs) -> Boxes:
        """Those that a model gave; without labels all are of class 0."""
        scores = outputs.scores
        labels = outputs.named.get("labels")
        corners = outputs.named["boxes"].detach()
        return cls(corners, scores, scores.isnan().long().neg() if labels is None else labels.long())

    def ranked(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Class, corners and presence of the ``rank``-th most confident box of each sample."""
        n, count = self.scores.shape
        if rank >= count:
            absent = self.labels.new_full((n,), -1)
            return absent, self.corners.new_full((n, self.corners.shape[-1]), float("nan")), absent >= 0
        order = self.scores.detach().nan_to_num(nan=float("-inf")).argsort(dim=1, descending=True, stable=True)
        place = order[:, rank : rank + 1]
        corners = self.corners.gather(1, place[..., None].expand(-1, -1, self.corners.shape[-1]))[:, 0]
        label = self.labels.gather(1, place)[:, 0]
        return label, corners, label >= 0


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (.., 2 d) in d dimensions, 0 where one of them is NaN."""
    d = first.shape[-1] // 2
    low, high = first[..., :d].maximum(second[..., :d]), first[..., d:].minimum(second[..., d:])
    shared = (high - low).clamp(min=0).prod(-1)
    sizes = [(box[..., d:] - box[..., :d]).prod(-1) for box in (first, second)]
    return (shared / (sizes[0] + sizes[1] - shared)).nan_to_num(0.0)
