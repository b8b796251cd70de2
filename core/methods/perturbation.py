"""Maps from what the score does when a part is taken away or only a part is left.

``A`` is the layer's activation, (batch, channel, *s); ``D`` and ``S`` are scores, (batch, channel).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .cam import Compat, ratio
from .registry import cam

if TYPE_CHECKING:
    from torch import Tensor


@cam(
    "ablationcam",
    formula="relu(sum_k w_k A_k), w_k = (y - y_k) / |y|, y_k = score without channel k",
    source="Desai & Ramaswamy 2020, eq. 4",
    relu=True,
    units="activation",
)
def ablationcam(
    A: Tensor, y: Tensor, D: Tensor, *, fill: Literal["zero", "mean"] = "zero", compat: Compat = "off"
) -> Tensor:
    """Ablation-CAM: channels weighted by the share of the score that is lost without them.

    Only what lies behind the layer runs again. The paper divides by y; by |y| a lost channel also speaks for the
    target where the score is negative. A channel is replaced by zeros, or by its own mean (``fill=mean``).
    ``compat=pytorch-grad-cam`` divides by y, and replaces by min(A) - 1e7 unless min(A) is 0, both as that package.
    """
    y = y[:, None]
    size = y.abs() if compat == "off" else y
    weights = ratio(y - D, size, y.abs().maximum(D.abs()))
    return weights.reshape(*D.shape, *[1] * (A.ndim - 2)) * A


@cam(
    "scorecam",
    formula="relu(sum_k w_k A_k), w = softmax_k(score of x * minmax(resize(A_k)))",
    source="Wang et al. 2020, eq. 4-6",
    relu=True,
    units="activation",
)
def scorecam(A: Tensor, S: Tensor, *, top: int = 0) -> Tensor:
    """Score-CAM: channels weighted by the score of the input seen through them.

    The paper's baseline score is the same for all channels and cancels in the softmax. A constant channel is no mask
    and has no weight. ``top=K`` takes the K channels of largest variance over the places, K forwards instead of one
    for each channel.
    """
    none = S.isneginf().all(1, keepdim=True)
    weights = S.masked_fill(none, 0).softmax(1).masked_fill(none, 0)
    return weights.reshape(*S.shape, *[1] * (A.ndim - 2)) * A
