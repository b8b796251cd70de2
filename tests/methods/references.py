"""Each method once more, slowly: NumPy loops in float64 from the papers, one sample at a time.

``A`` and ``G`` are (channel, *s) at the layer, ``x`` and ``g`` at the input; ``letters`` makes them and the rest. Gradients
come from central differences of forward passes, not from the engine under test.
"""

import copy
import itertools
import math
from functools import partial

import numpy as np
import torch
from scipy.optimize import nnls

from .relevance_references import lrp

# Building blocks


def weighted(weights, A):
    total = np.zeros(A.shape[1:])
    for weight, channel in zip(weights, A, strict=True):
        total += weight * channel
    return total


def relu(values):
    return np.maximum(values, 0)


def scaled(values):
    """Min-max to 0..1; what is constant becomes 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def signed(component):
    """The direction of a principal component is free: the value largest in size is made positive."""
    return component * np.sign(component.flat[np.abs(component).argmax()])


def first_component(maps):
    """First principal component over the channels, centred over the places."""
    points = maps.reshape(len(maps), -1)
    points = points - points.mean(1, keepdims=True)
    left, _, _ = np.linalg.svd(points, full_matrices=False)
    return signed(left[:, 0] @ points).reshape(maps.shape[1:])


def softmax(values):
    powers = np.exp(values - np.max(values))
    return powers / powers.sum()


def resized(values, grid):
    """Linear resampling of the trailing axes, the centre of a place at its half; beyond the last centre, its value."""
    first = values.ndim - len(grid)
    for axis, new in enumerate(grid, start=first):
        old = values.shape[axis]
        parts = []
        for i in range(new):
            at = max((i + 0.5) * old / new - 0.5, 0)
            below = min(int(at), old - 1)
            above = min(below + 1, old - 1)
            share = at - below
            parts.append((1 - share) * values.take(below, axis) + share * values.take(above, axis))
        values = np.stack(parts, axis)
    return values


TWO = {1: 1 / 2}
SIX = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}
"""Stencils of central differences: the weight of f(+i h) - f(-i h), by i; the error grows as h^2 and as h^6."""


def slopes(function, point, step=1e-5, stencil=TWO):
    """Gradients by central differences; ``function`` takes many points at once, (n, ...) to (n, scores)."""
    moves = step * np.eye(point.size).reshape(point.size, *point.shape)
    total = 0
    for i, weight in stencil.items():
        total = total + weight * (function(point + i * moves) - function(point - i * moves))
    return (total / step).T.reshape(-1, *point.shape)


# Methods


def gradcam(A, G, **_):
    return relu(weighted([g.mean() for g in G], A))


def hirescam(A, G, **_):
    return sum(a * g for a, g in zip(A, G, strict=True))


def gradcam_elementwise(A, G, **_):
    return sum(relu(a * g) for a, g in zip(A, G, strict=True))


def gradcam_plus_plus(A, G, **_):
    weights = []
    for a, g in zip(A, G, strict=True):
        total, weight = a.sum(), 0.0
        for value in g.flat:
            if value > 0:
                weight += value**2 / (2 * value**2 + total * value**3) * value
        weights.append(weight)
    return relu(weighted(weights, A))


def layercam(A, G, **_):
    return relu(sum(a * relu(g) for a, g in zip(A, G, strict=True)))


def xgradcam(A, G, **_):
    return relu(weighted([(a * g).sum() / a.sum() for a, g in zip(A, G, strict=True)], A))


def eigencam(A, **_):
    return first_component(A)


def eigengradcam(A, G, **_):
    return first_component(G * A)


def segeigencam(A, G, **_):
    return first_component(np.abs(G) * A)


def kpcacam(A, kernel="sigmoid", gamma=0, **_):
    points = A.reshape(len(A), -1).T
    points = points - points.mean(0)
    count, gamma = len(points), gamma or 1 / len(A)
    between = np.zeros((count, count))
    for i, j in np.ndindex(between.shape):
        product, gap = points[i] @ points[j], points[i] - points[j]
        between[i, j] = {
            "linear": product,
            "poly": (gamma * product + 1) ** 3,
            "rbf": math.exp(-gamma * (gap @ gap)),
            "sigmoid": math.tanh(gamma * product + 1),
        }[kernel]
    centring = np.eye(count) - 1 / count
    sizes, vectors = np.linalg.eigh(centring @ between @ centring)
    # The sigmoid kernel is not positive: its largest eigenvalue counts, not the one largest in size.
    return signed(vectors[:, -1] * math.sqrt(max(sizes[-1], 0))).reshape(A.shape[1:])


def fem(A, k=2.0, compat=False, **_):
    total = np.zeros(A.shape[1:])
    for a in A:
        mean = a.sum() / a.size
        strong = a > mean + k * math.sqrt(((a - mean) ** 2).sum() / a.size)
        total += strong.mean() * a if compat else mean * strong
    return total


def shapleycam(A, G, HA, **_):
    return relu(weighted([(g - h / 2).mean() for g, h in zip(G, HA, strict=True)], A))


def finercam(A, tail, target, alpha=1.0, ranks=(1, 2, 3), classes=(), base="gradcam", derive=slopes, **_):
    logits = tail(A)
    order = sorted(range(len(logits)), key=lambda i: (abs(logits[i] - logits[target]), i != target, i))
    others = list(classes) or [order[rank] for rank in ranks if rank < len(order)]
    others = [i for i in others if i != target]

    def score(points):
        found = []
        for scores in tail(points):
            rivals = np.array([scores[i] for i in others])
            found.append(scores[target] - alpha * (softmax(rivals) * rivals).sum())
        return np.array(found)[:, None]

    [G] = derive(score, A)
    return relu(REFERENCES[base](A=A, G=G))


def refinecam(layers, grid, base="gradcam++", **_):
    product = np.ones(grid)
    for A, G in layers:
        product *= scaled(resized(relu(REFERENCES[base](A=A, G=G)), grid))
    return product


def ablationcam(A, tail, target, fill="zero", compat=False, **_):
    score = tail(A)[target]
    weights = []
    for k in range(len(A)):
        without = A.copy()
        if compat:
            without[k] = 0 if A.min() == 0 else A.min() - 1e7
        else:
            without[k] = {"zero": 0, "mean": A[k].mean()}[fill]
        weights.append((score - tail(without)[target]) / (score if compat else abs(score)))
    return relu(weighted(weights, A))


def scorecam(A, x, forward, target, top=0, **_):
    spread = [a.var() for a in A]
    kept = sorted(range(len(A)), key=lambda k: -spread[k])[: top or len(A)]
    kept = [k for k in kept if A[k].max() > A[k].min()]
    total = np.zeros(A.shape[1:])
    if kept:
        scores = [forward(x * scaled(resized(A[k], x.shape[1:])))[target] for k in kept]
        for k, weight in zip(kept, softmax(np.array(scores)), strict=True):
            total += weight * A[k]
    return relu(total)


def fullgrad(x, g, biases, compat=False, **_):
    terms = [x * g]
    for b, gradient in biases:
        terms.append(np.stack([value * channel for value, channel in zip(b, gradient, strict=True)]))
    total = np.zeros(x.shape[1:])
    for term in terms:
        size = np.abs(term)
        size = np.stack([scaled(channel) for channel in size]) if compat else scaled(size)
        for channel in size:
            total += resized(channel, x.shape[1:])
    return total


def guided_gradcam(A, G, x, u, **_):
    cam = resized(gradcam(A, G), x.shape[1:])
    return np.stack([cam * channel for channel in u])


def randomcam(A, weights, **_):
    return relu(weighted(weights, A))


def dff(A, concepts, offset, **_):
    shares = np.zeros((len(concepts), *A.shape[1:]))
    for place in np.ndindex(A.shape[1:]):
        shares[:, *place], _ = nnls(concepts.T, A[:, *place] - offset)
    return shares


def ig(x, derive, forward, target, o=0.0, steps=32, **_):
    """By the same nodes, each gradient by differences of scores."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros(x.shape)
    for place, weight in zip(places, weights, strict=True):
        total += weight / 2 * derive(forward, o + (place + 1) / 2 * (x - o))[target]
    return (x - o) * total


def noisy(x, derive, forward, target, stream, n=50, sd=0.2, **_):
    """The gradient at each noisy input."""
    width = sd * (x.max() - x.min())
    return [
        derive(forward, x + width * stream.standard_normal((1, *x.shape), np.float32)[0].astype(np.float64))[target]
        for _ in range(n)
    ]


def smoothgrad(**known):
    return np.mean(noisy(**known), 0)


def smoothgrad2(**known):
    return np.mean(np.square(noisy(**known)), 0)


def vargrad(**known):
    gradients = noisy(**known)
    return np.mean(np.square(gradients - np.mean(gradients, 0)), 0)


def occlusion(x, forward, target, fill=0.0, channels="joint", window=None, stride=None, **_):
    grid = x.shape[1:]
    window = window or [max(1, size // 8) for size in grid]
    stride = stride or [max(1, size // 2) for size in window]
    starts = [
        [*range(0, size - length, step), size - length] for size, length, step in zip(grid, window, stride, strict=True)
    ]
    lost, covered = np.zeros(x.shape), np.zeros(x.shape)
    for rows in [[c] for c in range(len(x))] if channels == "each" else [list(range(len(x)))]:
        for corner in itertools.product(*starts):
            without = x.copy()
            box = tuple(slice(a, a + length) for a, length in zip(corner, window, strict=True))
            for c in rows:
                without[c, *box] = fill
            for c in rows:
                lost[c, *box] += forward(x)[target] - forward(without)[target]
                covered[c, *box] += 1
    return lost / covered if channels == "each" else (lost / covered)[0]


def rise(x, forward, target, masks, n=4000, cells=7, p=0.5, centred=False, **_):
    """Each point of a mask between the 2^rank nodes around it."""
    grid = x.shape[1:]
    drawn, scores = [], []
    for _ in range(n):
        nodes = masks.random((cells + 1,) * len(grid)) < p
        shift = masks.random(len(grid))
        mask = np.zeros(grid)
        for place in np.ndindex(grid):
            u = [i * cells / size + s for i, size, s in zip(place, grid, shift, strict=True)]
            for corner in itertools.product((0, 1), repeat=len(grid)):
                weight = math.prod(t - int(t) if up else 1 - (t - int(t)) for t, up in zip(u, corner, strict=True))
                if weight:
                    mask[place] += (
                        weight * nodes[tuple(min(int(t) + up, cells) for t, up in zip(u, corner, strict=True))]
                    )
        drawn.append(mask)
        scores.append(forward(x * mask)[target])
    less = np.mean(scores) if centred else 0.0
    return sum((score - less) * mask for score, mask in zip(scores, drawn, strict=True)) / (n * p)


REFERENCES = {
    "ig": ig,
    "smoothgrad": smoothgrad,
    "smoothgrad2": smoothgrad2,
    "vargrad": vargrad,
    "occlusion": occlusion,
    "rise": rise,
    "gradcam": gradcam,
    "hirescam": hirescam,
    "gradcam-elementwise": gradcam_elementwise,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
    "xgradcam": xgradcam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "segeigencam": segeigencam,
    "kpcacam": kpcacam,
    "fem": fem,
    "shapleycam": shapleycam,
    "finercam": finercam,
    "refinecam": refinecam,
    "ablationcam": ablationcam,
    "scorecam": scorecam,
    "fullgrad": fullgrad,
    "guided-gradcam": guided_gradcam,
    "guided": lambda u, **_: u,
    "deconv": lambda d, **_: d,
    "randomcam": randomcam,
    "dff": dff,
    "grad": lambda g, **_: g,
    "lrp": lrp,
}


# Letters


def differences(function, point, step=1e-5):
    """Gradient of a scalar function of one point by central differences."""
    [gradient] = slopes(lambda points: np.array([[function(each)] for each in points]), point, step)
    return gradient


KNOWN = {}


def letters(net, sample, target=None):
    """What the references take, of one sample (channel, *s) and the likeliest class of a ``support.Net`` (or ``target``).

    Not here, since they belong to a run: ``weights`` (randomcam), ``concepts`` and ``offset`` (dff).
    """
    x = np.array(sample, np.float64)
    key = (net.act, target, x.shape, x.tobytes(), *(each.detach().numpy().tobytes() for each in net.parameters()))
    if key not in KNOWN:
        KNOWN[key] = measured(net, x, target)
    return dict(KNOWN[key])


def measured(net, x, target):
    net = net if net.first.weight.dtype == torch.float64 else copy.deepcopy(net).double()
    smooth = net.act is not torch.relu

    def plain(module):
        """One point or many at once, as arrays."""

        @torch.no_grad()
        def call(values):
            single = values.ndim == x.ndim
            found = module(torch.from_numpy(values[None] if single else values)).numpy()
            return found[0] if single else found

        return call

    forward, tail = plain(net), plain(net.tail)
    last = plain(lambda hidden: net.head(net.act(hidden).flatten(2).mean(2)))
    A = plain(net.first)(x)
    B = plain(lambda activation: net.second(net.act(activation)))(A)
    if target is None:
        target = int(forward(x).argmax())

    # Wide steps lose fewer digits, but where the net has kinks a step must not cross one.
    derive = partial(slopes, step=1e-2, stencil=SIX) if smooth else slopes

    def gradient(function, point):
        return derive(function, point)[target]

    G, GB = gradient(tail, A), gradient(last, B)
    HA = np.zeros_like(A)  # between its kinks a net with ReLU is linear
    if smooth:
        step = 3e-3
        for i, weight in SIX.items():
            HA += weight / step * (gradient(tail, A * (1 + i * step)) - gradient(tail, A * (1 - i * step)))

    biases = []
    for module, at in ((net.first, G), (net.second, GB)):
        if module.bias is not None:
            biases.append((module.bias.detach().numpy(), at))
    return {
        "net": net,
        "A": A,
        "G": G,
        "x": x,
        "g": gradient(forward, x),
        "grid": x.shape[1:],
        "tail": tail,
        "forward": forward,
        "target": target,
        "derive": derive,
        "HA": HA,
        "u": None if smooth else rectified(net, x, A, B, target),
        "d": None if smooth else rectified(net, x, np.ones_like(A), np.ones_like(B), target),
        "biases": biases,
        "layers": [(A, G), (B, GB)],
    }


def rectified(net, x, A, B, target):
    """At each ReLU, what goes back is what is positive there, and only where the activation is (in a deconvnet, all)."""
    weight = net.head.weight.detach().numpy()[target] / B[0].size
    at_second = np.zeros_like(B)
    for k, place in itertools.product(range(len(B)), np.ndindex(B.shape[1:])):
        if B[k][place] > 0 and weight[k] > 0:
            at_second[k][place] = weight[k]
    at_first = transposed(net.second, at_second, A.shape)
    at_first = np.where((A > 0) & (at_first > 0), at_first, 0)
    return transposed(net.first, at_first, x.shape)


def transposed(conv, values, shape):
    """What a convolution sends back to its input of ``shape`` (channel, *s)."""
    kernel = conv.weight.detach().numpy()
    padded = np.zeros((shape[0], *(size + 2 * pad for size, pad in zip(shape[1:], conv.padding, strict=True))))
    for place in np.ndindex(values.shape[1:]):
        window = tuple(
            slice(i * stride, i * stride + size)
            for i, stride, size in zip(place, conv.stride, conv.kernel_size, strict=True)
        )
        padded[:, *window] += np.tensordot(values[:, *place], kernel, 1)
    inner = tuple(slice(pad, pad + size) for size, pad in zip(shape[1:], conv.padding, strict=True))
    return padded[:, *inner]
