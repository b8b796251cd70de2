"""Deep Feature Factorization: concepts that the activations of a whole dataset are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 50_000
"""So many places, spread evenly over those of all samples, are factorized at most."""
SWEEPS = 2000


def factorize(points: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Concepts (k, channel) and offset (channel,) of points (n, channel): points - offset ~ H concepts, both >= 0.

    ``offset`` is each channel's smallest value, or 0 where it is never negative. Each concept has length 1. By
    scikit-learn's coordinate descent from the deterministic NNDSVD start, in float64.
    """
    try:
        from sklearn.decomposition import NMF
        from sklearn.exceptions import ConvergenceWarning
    except ImportError:
        raise RequestError("dff needs scikit-learn: pip install 'camsweep[concepts]'") from None
    import warnings

    if not 0 < k <= min(points.shape):
        raise RequestError(f"dff: k={k} given, the layer has {points.shape[1]} channels and {len(points)} places")
    offset = np.minimum(points.min(0), 0)
    model = NMF(k, init="nndsvda", random_state=0, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points.astype(np.float64) - offset)
    lengths = np.linalg.norm(model.components_, axis=1, keepdims=True)
    return model.components_ / np.where(lengths > 0, lengths, 1), offset


def nonnegative_fit(points: Tensor, concepts: Tensor) -> Tensor:
    """H >= 0 of least |points - H concepts|, (.., n, k) for points (.., n, channel) and concepts (k, channel).

    By coordinate descent on all points at once, h_j <- max(0, h_j + (b_j - (H C)_j) / C_jj), C = concepts concepts^T,
    b = points concepts^T, until no value moves by more than 1e-12 of the largest.
    """
    gram, target = concepts @ concepts.mT, points @ concepts.mT
    size = gram.diagonal().clamp(min=1e-300)
    fit = (target / size).clamp(min=0)
    for _ in range(SWEEPS):
        moved = 0.0
        for j in range(len(concepts)):
            step = (fit[..., j] + (target[..., j] - fit @ gram[:, j]) / size[j]).clamp(min=0)
            moved = max(moved, float((step - fit[..., j]).abs().max()))
            fit[..., j] = step
        if moved <= 1e-12 * float(fit.max()):
            break
    return fit
