"""Input attributions by the gradient.

``x`` is the input, ``g`` the gradient of the target's score at it, both (batch, channel, *s), as is the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..grid import resize
from .cam import Compat, gradcam, over_space, ratio
from .registry import cam, gradient

if TYPE_CHECKING:
    from torch import Tensor


@gradient("grad", formula="d score / d x", source="Simonyan et al. 2014", units="score / input")
def grad(g: Tensor) -> Tensor:
    """Gradient of the score at the input, signed (the paper shows its largest absolute value over the channels)."""
    return g


@gradient(
    "guided",
    formula="d score / d x, through a ReLU where its input and the gradient are positive",
    source="Springenberg et al. 2015",
    units="score / input",
)
def guided(u: Tensor) -> Tensor:
    """Guided backpropagation: sharp, and nearly the same for every class and even for random weights.

    The ReLUs are found as they run, modules, functions and in-place ones alike; a model without any is refused. The
    gradient starts from 1 at the target's score (packages that start from the score turn the map where it is negative).
    """
    return u


@gradient(
    "deconv",
    formula="d score / d x, through a ReLU where the gradient is positive",
    source="Zeiler & Fergus 2014",
    units="score / input",
)
def deconv(d: Tensor) -> Tensor:
    """Deconvnet: what goes back through a ReLU is cut at 0, whatever its input was; else as ``guided``."""
    return d


@gradient(
    "guided-gradcam",
    formula="resize(gradcam) * guided gradient",
    source="Selvaraju et al. 2017, section 3.2",
    units="score^2 / input",
)
def guided_gradcam(A: Tensor, G: Tensor, u: Tensor) -> Tensor:
    """Guided Grad-CAM: Grad-CAM says where, guided backpropagation which points there.

    Guided backpropagation (Springenberg et al. 2015) lets the gradient through a ReLU where both it and the ReLU's
    input are positive. The ReLUs are found as they run, modules and functions alike.
    """
    where = gradcam(A, G).sum(1, keepdim=True).relu()
    return resize(where, u.shape[2:]) * u


@cam(
    "fullgrad",
    formula="sum_k psi(|x g|)_k + sum_layers sum_k psi(|b G|)_k, psi = resize(minmax)",
    source="Srinivas & Fleuret 2019, eq. 4",
    relu=None,
    summands=False,
    units="share of each operator",
)
def fullgrad(x: Tensor, g: Tensor, b: list[Tensor], *, compat: Compat = "off") -> Tensor:
    """FullGrad: the input's gradient and that of every bias, at the input's resolution.

    The biases are those of the operators that really ran, of every kind, in their order; one without spatial axes
    (a classifier's) has no place on the map. Batch norm counts with its bias in evaluation, beta - mu gamma / sigma.
    psi brings each operator's term to 0..1 over all its channels and places, as in the paper;
    ``compat=pytorch-grad-cam`` does so for each channel by itself.
    """
    grid = x.shape[2:]
    terms = [x * g, *(each for each in b if each.ndim == x.ndim)]
    return sum(resize(_rescaled(term.abs(), compat).sum(1), grid) for term in terms)  # type: ignore[return-value]


def _rescaled(term: Tensor, compat: Compat) -> Tensor:
    axes = over_space(term) if compat != "off" else tuple(range(1, term.ndim))
    low, high = term.amin(axes, keepdim=True), term.amax(axes, keepdim=True)
    return ratio(1, high - low, high) * (term - low)
