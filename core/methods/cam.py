"""Class activation maps, for any layer with spatial axes and any number of them.

``A`` is the layer's activation, ``G`` the gradient of the target's score at it, both (batch, channel, *s); a map is
(batch, *s). Formulas are written without the final ReLU, which is the key ``relu`` of every CAM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .registry import cam

if TYPE_CHECKING:
    from torch import Tensor

Compat = Literal["off", "pytorch-grad-cam"]


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
    weights = G.mean(over_space(G), keepdim=True)
    return (weights * A).sum(1)


@cam("hirescam", formula="sum_k G_k * A_k", source="Draelos & Carin 2020, eq. 3", relu=False)
def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """HiResCAM: gradient times activation, place by place.

    Signed, as in the paper (pytorch-grad-cam cuts it: ``relu=on``). Behind the layer a bias-free piecewise linear
    network makes it sum to the score.
    """
    return (G * A).sum(1)


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
    weights = (alpha * G.relu()).sum(over_space(G), keepdim=True)
    return (weights * A).sum(1)


@cam("layercam", formula="relu(sum_k relu(G_k) * A_k)", source="Jiang et al. 2021, eq. 5-7", relu=True)
def layercam(A: Tensor, G: Tensor) -> Tensor:
    """LayerCAM: each place weighted by its own positive gradient; sharp on shallow layers too."""
    return (G.relu() * A).sum(1)


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
        weights = ratio(numerator, total, A.abs().sum(over_space(A), keepdim=True))
    else:
        weights = numerator / (total + 1e-7)
    return (weights * A).sum(1)


@cam("eigencam", formula="(A - mean(A)) v, v = first principal axis of A's channels", source="Muhammad & Yeasin 2020",
     relu=False)  # fmt: skip
def eigencam(A: Tensor) -> Tensor:
    """Eigen-CAM: the activation's first principal component; it does not depend on the target.

    Channels are centred over the places first, as pytorch-grad-cam does (the paper does not centre). A principal axis
    has no sign of its own; ours is turned so that the largest value in size is positive, where others leave it to the
    linear algebra library. The axis comes from the smaller of the two Gram matrices, in float64.
    """
    import torch

    points = A.flatten(2).double()
    points = points - points.mean(2, keepdim=True)
    channels, places = points.shape[1:]
    if channels <= places:
        axis = torch.linalg.eigh(points @ points.mT).eigenvectors[:, :, -1:]
        component = (axis.mT @ points)[:, 0]
    else:
        values, vectors = torch.linalg.eigh(points.mT @ points)
        component = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    peak = component.gather(1, component.abs().argmax(1, keepdim=True))
    turned: Tensor = (component * peak.sign()).to(A.dtype)
    return turned.reshape(len(A), *A.shape[2:])
