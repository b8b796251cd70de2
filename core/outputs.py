"""What a model gave for a batch, and which score of a class is read off it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

SLOPE = {"torch.float64": 1e-290, "torch.float32": 1e-30, "torch.float16": 1e-7, "torch.bfloat16": 1e-30}
"""The smallest d score / d logit: below it, the products in a backward would come to 0."""
Score = Literal["logit", "probability", "log-probability"]
Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Outputs:
    """The outputs of some samples of a batch."""

    scores: Tensor
    """Of the output that is explained, behind its final softmax or sigmoid: (n, output, *places)."""
    rows: Tensor
    """(n,) int64: which sample of the batch each is. A sample can be there many times, masked each time anew."""
    named: Mapping[str, Tensor] = field(default_factory=dict)
    """All that the model gives, by key; ``scores`` stands in it for the output that is explained."""
    selected: str = ""
    """The key of that output."""


@dataclass(frozen=True)
class Readout:
    """How classes are read off the scores z.

    A model with one output has two classes, z_1 = z and z_0 = -z.
    """

    outputs: int
    places: tuple[int, ...] = ()
    score: Score = "logit"
    activation: Activation = "softmax"
    final: str | None = None
    """The activation at the end of the model that the scores are behind."""
    names: Sequence[str] | None = None
    detects: bool = False
    """Whether the model gives boxes with their scores."""

    @property
    def classes(self) -> int:
        """How many there are."""
        return max(2, self.outputs)

    @property
    def binary(self) -> bool:
        """Whether one output is known to be that of two classes, and no regression."""
        return self.outputs == 1 and (self.final == "sigmoid" or len(self.names or ()) == 2)

    def logits(self, scores: Tensor) -> Tensor:
        """(n, class, *places)."""
        import torch

        return torch.cat([-scores, scores], 1) if self.outputs == 1 else scores

    def of(self, scores: Tensor, index: Tensor) -> Tensor:
        """The score of class ``index`` (n,) or (n, *places) of each sample, (n, *places).

        A probability under a softmax is taken as p_c = sigmoid(z_c - log sum_{j != c} exp(z_j)), whose gradient stays
        exact where p_c is nearly 1 and 1 - p_c would have no digits left. Nothing is clamped; where even the exact
        slope is too small for a number (`SLOPE`) it is taken as that small, so the map keeps its shape and its sign.
        """
        from torch.nn.functional import logsigmoid

        logits = self.logits(scores)
        places = index.reshape(*index.shape, *[1] * (scores.ndim - 1 - index.ndim)).expand(-1, *scores.shape[2:])
        column = places.clamp(min=0).unsqueeze(1)
        chosen = logits.gather(1, column).squeeze(1)
        if self.score == "logit":
            return chosen
        if self.activation == "none":
            return chosen if self.score == "probability" else chosen.log()
        if self.activation == "softmax" and self.outputs > 1:
            chosen = chosen - logits.scatter(1, column, float("-inf")).logsumexp(1)
        slope = SLOPE[str(chosen.dtype)]
        bound = -math.log(slope)
        beyond, within = chosen - chosen.clamp(-bound, bound), chosen.clamp(-bound, bound)
        if self.score == "probability":
            return within.sigmoid() + slope * beyond
        return logsigmoid(chosen.clamp(max=bound)) + slope * (chosen - bound).relu()

    def of_detection(self, score: Tensor) -> Tensor:
        """The score of a box; without a final sigmoid it is taken as a probability."""
        from torch.nn.functional import logsigmoid

        if self.score == "logit":
            return score
        if self.final == "sigmoid":
            return score.sigmoid() if self.score == "probability" else logsigmoid(score)
        return score if self.score == "probability" else score.log()

    def summary(self, scores: Tensor) -> Tensor:
        """(n, output): the mean over the places of a segmentation, the best score of detections, 0 without any."""
        if self.detects:
            return scores.nan_to_num(nan=0.0).amax(1, keepdim=True)
        return scores.flatten(2).mean(2) if self.places else scores

    def __str__(self) -> str:
        """Which score is explained, in words."""
        if self.score == "logit":
            return f"logit, behind the final {self.final}" if self.final else "output of the model"
        if self.activation == "none":
            return f"{self.score}, the model's own output{' taken as one' if self.score == 'probability' else ''}"
        return f"{self.score}, by a {self.activation}" + (" that ends the model" if self.final else "")


def settled(activation: str, final: str | None, outputs: int) -> Activation:
    """What turns scores into probabilities: as asked for, else as the model ends, else as its outputs suggest."""
    if activation in ("softmax", "sigmoid"):
        return activation  # type: ignore[return-value]
    if final is not None:
        return "sigmoid" if final == "sigmoid" else "softmax"
    if activation == "none":
        return "none"
    return "sigmoid" if outputs == 1 else "softmax"
