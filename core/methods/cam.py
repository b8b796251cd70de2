"""Class activation maps from gradients, for any layer with spatial axes and any number of them.

``A`` is the layer's activation, ``G`` the gradient of the target's score at it, both (batch, channel, *s). A formula
gives the summands of the map, one for each channel: the sum over the channels, or their first principal component
(``smooth=eigen``), and the final ReLU (the key ``relu``) are the same for all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import RequestError
from .registry import cam

if TYPE_CHECKING:
    from torch import Tensor

    from ..outputs import Outputs
    from ..targets import Resolved

Compat = Literal["off", "pytorch-grad-cam"]
Base = Literal["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam-elementwise"]


def over_space(tensor: Tensor) -> tuple[int, ...]:
    """The spatial axes of (batch, channel, *s)."""
    return tuple(range(2, tensor.ndim))


def ratio(numerator: Tensor | float, denominator: Tensor, size: Tensor) -> Tensor:
    """``numerator / denominator``, and 0 where the denominator is nothing but rounding left of terms of that ``size``.

    The bound is relative, so it never swamps gradients that are small.
    """
    defined = denominator.abs() > 4 * size * _epsilon(size)
    return (numerator / denominator.where(defined, 1)).where(defined, 0)


def _epsilon(tensor: Tensor) -> float:
    import torch

    return torch.finfo(tensor.dtype).eps


@cam("gradcam", formula="relu(sum_k mean(G_k) A_k)", source="Selvaraju et al. 2017, eq. 1-2", relu=True)
def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient."""
    return G.mean(over_space(G), keepdim=True) * A


@cam("hirescam", formula="sum_k G_k * A_k", source="Draelos & Carin 2020, eq. 3", relu=False)
def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """HiResCAM: gradient times activation, place by place.

    Signed, as in the paper (pytorch-grad-cam cuts it: ``relu=on``). Behind the layer a bias-free piecewise linear
    network makes it sum to the score.
    """
    return G * A


@cam("gradcam-elementwise", formula="sum_k relu(G_k * A_k)", source="pytorch-grad-cam, GradCAMElementWise", relu=True)
def gradcam_elementwise(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM, place by place and without cancelling: what speaks for the target in one channel stays."""
    return (G * A).relu()


@cam(
    "gradcam++",
    formula="relu(sum_k w_k A_k), w_k = sum(alpha_k relu(G_k)), alpha_k = G_k^2 / (2 G_k^2 + G_k^3 sum(A_k))",
    source="Chattopadhay et al. 2018, eq. 10 and 19",
    relu=True,
)
def gradcam_plus_plus(A: Tensor, G: Tensor, *, compat: Compat = "off") -> Tensor:
    """Grad-CAM++: positive gradients, weighted so that an object seen twice counts twice.

    Closed form for Y = exp(score) and a piecewise linear network; the factor exp(score), one positive number for each
    sample, is left out. Reduced by G^2, alpha = 1 / (2 + G sum(A)) has no constant to swamp small gradients; it is 0
    where the denominator is. ``compat=pytorch-grad-cam`` adds that package's 1e-6, which bends alpha where G is 1e-3
    or less.
    """
    total = A.sum(over_space(A), keepdim=True)
    if compat == "off":
        alpha = ratio(1, 2 + G * total, 2 + (G * total).abs())
    else:
        alpha = (G**2 / (2 * G**2 + total * G**3 + 1e-6)).where(G != 0, 0)
    return (alpha * G.relu()).sum(over_space(G), keepdim=True) * A


@cam("layercam", formula="relu(sum_k relu(G_k) * A_k)", source="Jiang et al. 2021, eq. 5-7", relu=True)
def layercam(A: Tensor, G: Tensor) -> Tensor:
    """LayerCAM: each place weighted by its own positive gradient; sharp on shallow layers too."""
    return G.relu() * A


@cam(
    "xgradcam",
    formula="relu(sum_k w_k A_k), w_k = sum(G_k * A_k) / sum(A_k)",
    source="Fu et al. 2020, eq. 8",
    relu=True,
)
def xgradcam(A: Tensor, G: Tensor, *, compat: Compat = "off") -> Tensor:
    """XGrad-CAM: channels weighted by their gradient, averaged with the activation as weight.

    A channel whose activations sum to 0 has no such average and gets weight 0. ``compat=pytorch-grad-cam`` adds that
    package's 1e-7 to the denominator instead.
    """
    total = A.sum(over_space(A), keepdim=True)
    numerator = (G * A).sum(over_space(A), keepdim=True)
    if compat == "off":
        return ratio(numerator, total, A.abs().sum(over_space(A), keepdim=True)) * A
    return numerator / (total + 1e-7) * A


@cam(
    "shapleycam",
    formula="relu(sum_k w_k A_k), w_k = mean(G_k - (H A)_k / 2)",
    source="Cai 2025, ShapleyCAM",
    relu=True,
)
def shapleycam(A: Tensor, G: Tensor, H: Tensor) -> Tensor:
    """Shapley-CAM: channels weighted by the second-order Taylor estimate of their Shapley value.

    Behind a piecewise linear network the curvature H A of a logit is 0 and this is Grad-CAM; with ``score =
    "log-probability"`` it is not.
    """
    return (G - H / 2).mean(over_space(G), keepdim=True) * A


BASES = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
}


def finer(target: Resolved, outputs: Outputs, *, alpha: float, ranks: str, classes: str, **_: Any) -> Resolved:
    """The score z_t - alpha sum_i q_i z_i, q the softmax of the compared classes' logits among themselves."""
    readout, index = target.readout, target.index.clamp(min=0)[:, None]
    if readout is None:
        raise RequestError("finercam compares classes; give a class as its target: predicted, label, class:..")
    logits = readout.logits(outputs.scores)
    named = [int(number) for number in (classes or ranks).split(".")]
    if classes:
        if max(named) >= readout.classes:
            raise RequestError(f"finercam: classes={classes} given, the model has 0..{readout.classes - 1}")
        compared = index.new_tensor(named).expand(len(index), -1)
    else:
        there = [rank for rank in named if 0 < rank < readout.classes]
        if not there:
            raise RequestError(f"finercam: ranks={ranks} given, expected some of 1..{readout.classes - 1}")
        distance = (logits - logits.gather(1, index)).abs().scatter(1, index, -1.0)
        compared = distance.argsort(dim=1, stable=True)[:, there]
    itself = compared == index
    alone = itself.all(1, keepdim=True)  # nothing to compare with: the score is the class's own
    weight = alpha * (~alone).to(logits.dtype)
    shut = itself & ~alone

    def value(given: Outputs) -> Tensor:
        rows = given.rows
        logits = readout.logits(given.scores)
        others = logits.gather(1, compared[rows])
        q = others.masked_fill(shut[rows], float("-inf")).softmax(1)
        return logits.gather(1, index[rows])[:, 0] - weight[rows, 0] * (q * others).sum(1)

    return replace(target, value=value, key=("finer", alpha, ranks, classes, target.key))


@cam(
    "finercam",
    formula="base CAM of z_t - alpha sum_i q_i z_i, q = softmax(z_i) over the compared classes i",
    source="Zhang et al. 2025, Finer-CAM",
    relu=True,
    aim=finer,
)
def finercam(
    A: Tensor, G: Tensor, *, alpha: float = 1.0, ranks: str = "1.2.3", classes: str = "", base: Base = "gradcam"
) -> Tensor:
    """Finer-CAM: what sets a class apart from those it is easily taken for.

    ``ranks`` are places in the order of likeness |z_i - z_t|, 1 the most alike (those that a model with few classes
    lacks are left out); ``classes`` are class numbers instead (the class itself is left out); both are joined by dots:
    ``ranks=1.2.3``. The weights q are a softmax among the compared classes, so they sum to 1 however unlikely those
    are (pytorch-grad-cam divides the probabilities by their sum + 1e-9, which vanishes for a confident model). It is
    about logits, whatever score is explained.
    """
    return BASES[base](A, G)


@cam(
    "refinecam",
    formula="product over layers of minmax(resize(base CAM))",
    source="arXiv 2605.14641, Refine-CAM",
    relu=True,
)
def refinecam(
    A: Tensor, G: Tensor, *, base: Base = "gradcam++", fuse: Literal["product", "mean", "max"] = "product"
) -> Tensor:
    """Refine-CAM: the maps of several layers multiplied, so that fine ones sharpen what deep ones find.

    ``gradcam++:fuse=product``, by its own name. Needs two layers or more.
    """
    return BASES[base](A, G)


@cam(
    "randomcam",
    formula="relu(sum_k w_k A_k), w_k uniform in [-1, 1]",
    source="a control",
    relu=True,
    units="activation",
)
def randomcam(A: Tensor, R: Tensor, *, draw: int = 0) -> Tensor:
    """Random weights: what any method must beat.

    Drawn from the run's seed, the sample's id, the layer and ``draw``, so a sample's map is the same in any batch.
    """
    return R.reshape(*R.shape, *[1] * (A.ndim - 2)) * A
