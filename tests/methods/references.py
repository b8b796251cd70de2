"""Each method once more, slowly: NumPy loops in float64 from the papers, one sample at a time.

``A`` and ``G`` are (channel, *s) at the layer, ``x`` and ``g`` at the input. Gradients come from central differences of
forward passes, not from the engine under test.
"""

import numpy as np


def weighted(weights, A):
    total = np.zeros(A.shape[1:])
    for weight, channel in zip(weights, A, strict=True):
        total += weight * channel
    return total


def relu(values):
    return np.maximum(values, 0)


def gradcam_plus_plus(A, G, **_):
    weights = []
    for a, g in zip(A, G, strict=True):
        total, weight = a.sum(), 0.0
        for value in g.flat:
            if value > 0:
                weight += value**2 / (2 * value**2 + total * value**3) * value
        weights.append(weight)
    return relu(weighted(weights, A))


def eigencam(A, **_):
    points = A.reshape(len(A), -1)
    points = points - points.mean(1, keepdims=True)
    left, _, _ = np.linalg.svd(points, full_matrices=False)
    component = left[:, 0] @ points
    return (component * np.sign(component[np.abs(component).argmax()])).reshape(A.shape[1:])


REFERENCES = {
    "gradcam": lambda A, G, **_: relu(weighted([g.mean() for g in G], A)),
    "hirescam": lambda A, G, **_: sum(a * g for a, g in zip(A, G, strict=True)),
    "gradcam++": gradcam_plus_plus,
    "layercam": lambda A, G, **_: relu(sum(a * relu(g) for a, g in zip(A, G, strict=True))),
    "xgradcam": lambda A, G, **_: relu(weighted([(a * g).sum() / a.sum() for a, g in zip(A, G, strict=True)], A)),
    "eigencam": eigencam,
    "grad": lambda g, **_: g,
}


def differences(function, point, step=1e-5):
    """Gradient of a scalar function by central differences."""
    gradient = np.zeros_like(point)
    for place in np.ndindex(point.shape):
        moved = point.copy()
        moved[place] += step
        up = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (up - function(moved)) / (2 * step)
    return gradient
