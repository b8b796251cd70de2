"""Maps from what the score does when a part is taken away or only a part is left.

``A`` is the layer's activation, (batch, channel, *s); ``D`` and ``S`` are scores, (batch, channel). ``f`` gives the
scores (target, k, batch) of k changed inputs for each sample, (k, batch, channel, *s); ``Y`` are those of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal

from ..errors import RequestError
from ..keys import Baseline, Count, Share
from .cam import Compat, ratio
from .registry import cam, perturbation

if TYPE_CHECKING:
    from torch import Tensor

    from ..walks import Scorer


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


@perturbation(
    "occlusion",
    formula="mean over the windows that cover a place of f(x) - f(x with o in the window)",
    source="Zeiler & Fergus 2014",
    units="score",
)
def occlusion(
    x: Tensor,
    o: Tensor,
    Y: Tensor,
    f: Scorer,
    *,
    window: str = "0",
    stride: str = "0",
    channels: Literal["joint", "each"] = "joint",
    fill: Baseline = Baseline("zero"),
    blur: float = 0.1,
) -> Tensor:
    """Occlusion: what the score loses where a window of the input is replaced.

    ``window`` and ``stride`` in points, one number or one for each axis, ``8.8``; by default an eighth of each axis and
    half of that. The last window ends with the axis, so all are of one size and every place is covered. All channels
    are replaced at once, or ``channels=each`` by itself. ``fill`` is what takes their place, any baseline of ``ig``.
    """
    sizes = x.shape[2:]
    boxes = windows(sizes, window, stride)
    rows: list[slice] = [slice(None)] if channels == "joint" else [slice(c, c + 1) for c in range(x.shape[1])]
    places = [(row, *box) for row in rows for box in boxes]
    lost = x.new_zeros(len(Y), len(x), len(rows), *sizes)
    covered = x.new_zeros(len(rows), *sizes)
    for first in range(0, len(places), f.at_once):
        group = places[first : first + f.at_once]
        changed = x.expand(len(group), *x.shape).clone()
        for each, at in zip(changed, group, strict=True):
            each[:, *at] = o[:, *at]
        drops = Y[:, None] - f(changed)
        for k, (row, *box) in enumerate(group):
            behind = (row if len(rows) > 1 else slice(None), *box)
            lost[:, :, *behind] += drops[:, k].reshape(*drops[:, k].shape, 1, *[1] * len(sizes))
            covered[behind] += 1
    found = lost / covered
    return found[:, :, 0] if channels == "joint" else found


def windows(sizes: Sequence[int], window: str, stride: str) -> list[tuple[slice, ...]]:
    """The windows of `occlusion` on a grid."""
    lengths = [min(size, given or max(1, size // 8)) for given, size in zip(_each(window, sizes), sizes, strict=True)]
    strides = [given or max(1, length // 2) for given, length in zip(_each(stride, sizes), lengths, strict=True)]
    if any(step > length for step, length in zip(strides, lengths, strict=True)):
        raise RequestError(f"occlusion: stride={stride} steps over places that no window={window} covers")
    along = [
        [slice(a, a + length) for a in sorted({*range(0, size - length, step), size - length})]
        for size, length, step in zip(sizes, lengths, strides, strict=True)
    ]
    return list(product(*along))


def _each(text: str, sizes: Sequence[int]) -> list[int]:
    """One number for each axis."""
    numbers = [int(part) for part in text.split(".")]
    if len(numbers) not in (1, len(sizes)):
        raise RequestError(f"occlusion: {text} given, expected one number, or {len(sizes)} joined by dots")
    return numbers * (len(sizes) // len(numbers))


@perturbation(
    "rise",
    formula="sum_i f(o + M_i (x - o)) M_i / (n p), M_i random masks",
    source="Petsiuk et al. 2018, eq. 6",
    units="score",
)
def rise(
    x: Tensor,
    o: Tensor,
    f: Scorer,
    *,
    n: Count = Count(4000),
    cells: Count = Count(7),
    p: Share = Share(0.5),
    centred: bool = False,
    fill: Baseline = Baseline("zero"),
    blur: float = 0.1,
) -> Tensor:
    """RISE: the mean score of randomly masked inputs in which a place is seen.

    ``n`` masks, each a grid of ``cells`` for each axis, on with probability ``p``, enlarged linearly and shifted by a
    random part of a cell; they are those of the run's seed, the same for every sample. ``fill`` is seen where a mask is
    0. The score is that of the target, a logit unless another is asked for (the paper's is a probability). The map lies
    around the mean score of all masks; ``centred=on`` takes that off each score first, and the noise that goes with it.
    """
    total, seen, mean = x.new_zeros(()), x.new_zeros(()), x.new_zeros(())
    for M in f.masks(n, cells, p):
        scores = f(o + M[:, None, None] * (x - o)).mT
        total = total + (scores @ M.flatten(1)).reshape(*scores.shape[:2], *x.shape[2:])
        seen, mean = seen + M.sum(0), mean + scores.sum(2) / n
    if centred:
        total = total - mean.reshape(*mean.shape, *[1] * (x.ndim - 2)) * seen
    return total / (n * p)
