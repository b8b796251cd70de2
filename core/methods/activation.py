"""Maps from what a layer does, and how it varies: principal components, thresholds, concepts.

``A`` is the layer's activation, ``G`` the gradient of the target's score at it, both (batch, channel, *s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .cam import Compat, over_space
from .registry import cam
from .spectrum import leading, principal, turned

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Literal["sigmoid", "rbf", "poly", "linear"]


@cam(
    "eigencam",
    formula="(A - mean(A)) v, v = first principal axis of A's channels",
    source="Muhammad & Yeasin 2020",
    relu=False,
    summands=False,
    units="activation",
)
def eigencam(A: Tensor) -> Tensor:
    """Eigen-CAM: the activation's first principal component; it does not depend on the target.

    Channels are centred over the places first, as pytorch-grad-cam does (the paper does not centre). A principal axis
    has no sign of its own; ours is turned so that the largest value in size is positive, where others leave it to the
    linear algebra library.
    """
    return principal(A)


@cam(
    "eigengradcam",
    formula="first principal component of G * A",
    source="pytorch-grad-cam, EigenGradCAM",
    relu=False,
    summands=False,
)
def eigengradcam(A: Tensor, G: Tensor) -> Tensor:
    """Eigen-CAM of gradient times activation: about the target, where Eigen-CAM is not."""
    return principal(G * A)


@cam(
    "segeigencam",
    formula="first principal component of |G| * A",
    source="Chung & Ying 2025, eq. 10-13",
    relu=False,
    summands=False,
)
def segeigencam(A: Tensor, G: Tensor) -> Tensor:
    """Seg-Eigen-CAM: Eigen-CAM of the activation weighted by the gradient's size, made for segmentation."""
    return principal(G.abs() * A)


@cam(
    "kpcacam",
    formula="first kernel principal component of A's places",
    source="Karmani et al. 2024",
    relu=False,
    summands=False,
    units="kernel component",
)
def kpcacam(A: Tensor, *, kernel: Kernel = "sigmoid", gamma: float = 0.0) -> Tensor:
    """KPCA-CAM: Eigen-CAM with a kernel k(x, y) between places, x and y their centred channels.

    sigmoid: tanh(gamma x.y + 1), rbf: exp(-gamma |x - y|^2), poly: (gamma x.y + 1)^3, linear: x.y. ``gamma=0`` is 1 / C
    for C channels. Each sample has a matrix of places^2 values, in float64: the layer should not be a large one.
    """
    points = A.flatten(2).double().mT
    points = points - points.mean(1, keepdim=True)
    scale = gamma or 1 / points.shape[2]
    gram = points @ points.mT
    match kernel:
        case "sigmoid":
            gram = (scale * gram + 1).tanh()
        case "rbf":
            square = gram.diagonal(dim1=1, dim2=2)
            gram = (-scale * (square[:, :, None] + square[:, None] - 2 * gram)).exp()
        case "poly":
            gram = (scale * gram + 1) ** 3
    gram = gram - gram.mean(1, keepdim=True) - gram.mean(2, keepdim=True) + gram.mean((1, 2), keepdim=True)
    value, vector = leading(gram)
    return turned(vector * value.clamp(min=0).sqrt()).to(A.dtype).reshape(len(A), *A.shape[2:])


@cam(
    "fem",
    formula="sum_k mean(A_k) [A_k > mean(A_k) + c std(A_k)]",
    source="Fuad et al. 2020",
    relu=False,
    units="activation",
)
def fem(A: Tensor, *, k: float = 2.0, compat: Compat = "off") -> Tensor:
    """FEM: where a channel is unusually strong, its mean; it does not depend on the target.

    Strong is more than ``k`` standard deviations (of the population) above the mean, which no place of a layer with
    k^2 + 1 places or fewer can be. ``compat=pytorch-grad-cam`` has the parts of mask and activation exchanged:
    sum_k mean(mask_k) A_k.
    """
    mean = A.mean(over_space(A), keepdim=True)
    strong = (mean + k * A.std(over_space(A), correction=0, keepdim=True) < A).to(A.dtype)
    return mean * strong if compat == "off" else strong.mean(over_space(A), keepdim=True) * A


@cam(
    "dff",
    formula="H >= 0 of least |A - offset - H C|, C = concepts of the dataset by NMF",
    source="Collins et al. 2018",
    relu=None,
    summands=False,
    concepts=True,
    units="activation",
)
def dff(A: Tensor, C: tuple[Tensor, Tensor], *, k: int = 5, samples: int = 500) -> Tensor:
    """Deep Feature Factorization: where each of ``k`` concepts of the dataset is, (batch, concept, *s).

    The concepts C (k, channel) are fitted once, by non-negative matrix factorization of the layer's activations (less
    each channel's ``offset``, its smallest value or 0) over ``samples`` samples spread evenly over the dataset; they
    lie in the results file with the scores that the model gives to a layer filled with each. The map is the
    non-negative least squares fit of each place, so it does not depend on the batch (pytorch-grad-cam factorizes each
    batch anew).
    """
    from .concepts import nonnegative_fit

    concepts, offset = C
    points = A.flatten(2).mT - offset
    return nonnegative_fit(points.double(), concepts.double()).mT.to(A.dtype).reshape(len(A), -1, *A.shape[2:])
