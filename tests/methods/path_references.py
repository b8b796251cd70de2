"""Paths, domains, noise and perturbations once more, slowly: dense matrices and loops in float64, one sample at a time.

``x``, ``o`` and ``g`` are (channel, *s): input, baseline, gradient; ``net`` is any module with outputs (n, class). The
gradient of the net is autograd's; nothing else here is differentiated but by hand.
"""

import copy
import itertools
import math
import zlib
from functools import cache

import numpy as np
import pywt
import torch
from scipy.signal import get_window
from scipy.special import roots_legendre
from torch import nn

# Models whose maps are known in closed form


class Linear(nn.Module):
    """f_j = w_j . x + b_j, two classes."""

    power = 1

    def __init__(self, shape, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.w = nn.Parameter(torch.from_numpy(rng.normal(size=(2, *shape))))
        self.b = nn.Parameter(torch.from_numpy(rng.normal(size=2)))

    def forward(self, x):
        return (torch.tensordot(x, self.w, [[*range(1, x.ndim)]] * 2) + self.b) ** self.power

    def of(self, target):
        return self.w.detach().double().numpy()[target]


class Quadratic(Linear):
    """f_j = (w_j . x + b_j)^2."""

    power = 2


class Squares(Linear):
    """f_j = sum (w_j x)^2."""

    def forward(self, x):
        return ((x[:, None] * self.w) ** 2).flatten(2).sum(2)


class Product(nn.Module):
    """f_0 = sum x_0 x_1 of the two channels; f_1 is its negative."""

    def forward(self, x):
        product = (x[:, 0] * x[:, 1]).flatten(1).sum(1)
        return torch.stack([product, -product], 1)


# The net


def double(net):
    """The net itself where it is in float64: copies are slow."""
    return net if all(each.dtype == torch.float64 for each in net.parameters()) else copy.deepcopy(net).double()


def outputs(net, points):
    """(n, class) of (n, channel, *s)."""
    with torch.no_grad():
        return double(net)(torch.as_tensor(np.asarray(points, np.float64))).numpy()


def score(net, x, target):
    return outputs(net, x[None])[0, target]


def predicted(net, x):
    return int(outputs(net, x[None])[0].argmax())


def gradients(net, points, target):
    at = torch.tensor(np.asarray(points, np.float64), requires_grad=True)
    [found] = torch.autograd.grad(double(net)(at)[:, target].sum(), at)
    return found.numpy()


def gradient(net, x, target):
    return gradients(net, x[None], target)[0]


# Baselines


def numbers(values, x):
    """One for all channels, or one for each."""
    o = np.zeros(x.shape)
    for channel in range(len(x)):
        o[channel] = values[channel] if len(values) > 1 else values[0]
    return o


def blurred(x, share=0.1):
    """Along one axis after the other: Gaussian weights up to four deviations, beyond an edge its value."""
    for axis in range(1, x.ndim):
        size = x.shape[axis]
        deviation = share * size
        reach = int(4 * deviation + 0.5)
        weights = {d: math.exp(-(d**2) / (2 * deviation**2)) for d in range(-reach, reach + 1)}
        total = sum(weights.values())
        parts = []
        for i in range(size):
            near = [w / total * x.take(min(max(i + d, 0), size - 1), axis) for d, w in weights.items()]
            parts.append(sum(near))
        x = np.stack(parts, axis)
    return x


# Paths


def quadrature(rule, steps):
    """[(place, weight)] on 0..1."""
    if rule == "gauss":
        places, weights = roots_legendre(steps)
        return [((a + 1) / 2, w / 2) for a, w in zip(places, weights, strict=True)]
    if rule == "riemann":
        return [(i / steps, 1 / steps) for i in range(1, steps + 1)]
    last = steps - 1
    return [(i / last, (0.5 if i in (0, last) else 1) / last) for i in range(steps)]


def mean_gradient(net, x, o, target, rule="gauss", steps=32):
    """On the straight path from o to x."""
    places = quadrature(rule, steps)
    slopes = gradients(net, [o + a * (x - o) for a, _ in places], target)
    return sum(w * g for (_, w), g in zip(places, slopes, strict=True))


def ig(net, x, o, target, rule="gauss", steps=32):
    return (x - o) * mean_gradient(net, x, o, target, rule, steps)


# Domains: shares of the coefficients of dx, the mean gradient at the input being g


def waves(sizes):
    """exp(-2 pi i k . t / S), (frequency, place), both in C order."""
    places = np.array(list(np.ndindex(*sizes)))
    return np.exp(-2j * np.pi * (places / np.array(sizes)) @ places.T)


def fourier(dx, g, sided="one"):
    """x = W^H z / N: with z = W dx and p = W g / N, Re(z conj(p)); one-sided, a frequency has its negative's share too."""
    sizes, W = dx.shape[1:], waves(dx.shape[1:])
    N = math.prod(sizes)
    found = np.zeros((len(dx), *sizes[:-1], sizes[-1] if sided == "two" else sizes[-1] // 2 + 1))
    for channel in range(len(dx)):
        z, p = W @ dx[channel].ravel(), W @ g[channel].ravel() / N
        for k, share in zip(np.ndindex(*sizes), (z * p.conj()).real, strict=True):
            if sided == "one" and k[-1] > sizes[-1] // 2:
                k = tuple(-i % size for i, size in zip(k, sizes, strict=True))
            shifted = [(i + size // 2) % size for i, size in zip(k, sizes, strict=True)]
            if sided == "one":
                shifted[-1] = k[-1]
            found[channel, *shifted] += share
    return found


def bands(dx, g, rate, edges):
    """[(low, high)] in Hz, half-open; last what is in none."""
    shares = fourier(dx, g)
    found = np.zeros((len(dx), len(edges) + 1))
    for k in range(shares.shape[1]):
        frequency = k * rate / dx.shape[1]
        inside = [low <= frequency < high for low, high in edges]
        for band, member in enumerate([*inside, not any(inside)]):
            found[:, band] += member * shares[:, k]
    return found


def stft(dx, g, window, length, hop):
    """(channel, frequency, frame), frame m centred at m hop, zeros beyond the ends; the last centre is at or behind the end.

    Inverse: x(t) = sum_m w(t - m) frame_m(t) / sum_m w(t - m)^2.
    """
    size = dx.shape[1]
    w = get_window(window, length)
    frames = math.ceil(size / hop) + 1
    weight = np.zeros(size)
    inside = []
    for m, n in itertools.product(range(frames), range(length)):
        t = m * hop + n - length // 2
        if 0 <= t < size:
            weight[t] += w[n] ** 2
            inside.append((m, n, t))
    z, p = np.zeros((2, len(dx), length // 2 + 1, frames), complex)
    for k in range(length // 2 + 1):
        twins = 1 if k in (0, length / 2) else 2
        for m, n, t in inside:
            wave = w[n] * np.exp(-2j * np.pi * k * n / length)
            z[:, k, m] += wave * dx[:, t]
            p[:, k, m] += wave * g[:, t] / weight[t] * twins / length
    return (z * p.conj()).real


@cache
def delay(name, width, smooth):
    """How far the energy of a coefficient's wave lies from the middle of the ``width`` points it is written at."""
    depth = int(np.log2(width))
    size, at = 1024 * width, 512
    unit = [np.zeros(1024), *(np.zeros(1024 * 2**level) for level in range(depth))]
    unit[0 if smooth else 1][at] = 1
    energy = pywt.waverec(unit, name, mode="periodization") ** 2
    behind = (energy * np.arange(size)).sum() / energy.sum() - (at * width + (width - 1) / 2)
    return math.floor(behind + 0.500001)


def wavelet(dx, g, name, levels, per="coefficient"):
    """Columns of the inverse from unit vectors; the coefficients by solving with it."""
    sizes = dx.shape[1:]
    long = tuple(-(-size // 2**levels) * 2**levels for size in sizes)
    names = ["".join(each) for each in itertools.product("ad", repeat=len(sizes))][1:]
    rows, columns = [], []
    for row in range(levels + 1):
        width = 2 ** (levels - max(row - 1, 0))
        shape = tuple(size // width for size in long)
        for band in names if row else ["a"]:
            for at in np.ndindex(*shape):
                unit = [np.zeros(tuple(size // 2**levels for size in long))]
                for level in range(levels, 0, -1):
                    unit.append({each: np.zeros(tuple(size // 2**level for size in long)) for each in names})
                (unit[row][band] if row else unit[0])[at] = 1
                columns.append(pywt.waverecn(unit, name, mode="periodization").ravel())
                rows.append((row, width, at, band))
    J = np.array(columns).T
    found = np.zeros((len(dx), levels + 1, *sizes))
    padding = [(0, b - a) for a, b in zip(sizes, long, strict=True)]
    for channel in range(len(dx)):
        z = np.linalg.solve(J, np.pad(dx[channel], padding).ravel())
        p = J.T @ np.pad(g[channel], padding).ravel()
        for (row, width, at, band), share in zip(rows, z * p, strict=True):
            # The places that it stands for; where all of them are padding, the last one.
            places = []
            for i, size, whole, letter in zip(at, sizes, long, band if row else "a" * len(sizes), strict=True):
                here = {(i * width + k + delay(name, width, letter == "a")) % whole for k in range(width)}
                places.append(sorted(k for k in here if k < size) or [size - 1])
            places = np.ix_(*places)
            found[channel, row][places] += share / found[channel, row][places].size
    return found if per == "coefficient" else found.reshape(*found.shape[:2], -1).sum(2)


def ica(dx, g, mixing):
    """(component + 1,): of each, and of what none explains."""
    flat, slope = dx.reshape(len(dx), -1), g.reshape(len(g), -1)
    sources = np.linalg.pinv(mixing) @ flat
    found = [(np.outer(mixing[:, k], sources[k]) * slope).sum() for k in range(mixing.shape[1])]
    return np.array([*found, ((flat - mixing @ sources) * slope).sum()])


def parts(pieces, dx, g):
    """(channel, part + 1) of named pieces of dx, and of what they leave."""
    pieces = [*pieces, dx - sum(pieces)]
    return np.stack([(piece * g).reshape(len(g), -1).sum(1) for piece in pieces], 1)


def logarithm(W, x, at):
    """(channel, quefrency) of the complex cepstrum, principal branch: arg in (-pi, pi], at what is real and negative pi."""
    spectrum = x.reshape(len(x), -1) @ W.T + at
    alone = [k for k, wave in enumerate(W) if np.abs(wave.imag).max() < 1e-9]  # of frequencies that are their own twins
    spectrum[:, alone] = spectrum[:, alone].real + 0j
    return np.log(spectrum) @ W.conj() / len(W)


def cepstrum(net, x, o, target, floor=1e-3, relative=True, rule="gauss", steps=32):
    """Path straight in z, x = Re(W^H (exp(W z) - floor)) / N; W is symmetric. Adjoint: W^H (conj(exp(W z)) W g / N)."""
    W = waves(x.shape[1:])
    at = floor * np.abs(x.reshape(len(x), -1) @ W.T).max() if relative else floor
    start, end = logarithm(W, o, at), logarithm(W, x, at)
    p = np.zeros_like(start)
    for a, w in quadrature(rule, steps):
        grown = np.exp((start + a * (end - start)) @ W.T)
        here = ((grown - at) @ W.conj()).real / len(W)
        g = gradient(net, here.reshape(x.shape), target).reshape(len(x), -1)
        p += w * (grown.conj() * (g @ W.T) / len(W)) @ W.conj()
    return ((end - start) * p.conj()).real.reshape(x.shape)


# Noise


def noisy_gradients(net, x, target, name, n=50, sd=0.2, seed=0):
    stream = np.random.default_rng((seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))))
    noise = stream.standard_normal(size=(n, *x.shape), dtype=np.float32).astype(np.float64)
    return gradients(net, [x + sd * (x.max() - x.min()) * each for each in noise], target)


def smoothgrad(gradients):
    return sum(gradients) / len(gradients)


def smoothgrad2(gradients):
    return sum(g**2 for g in gradients) / len(gradients)


def vargrad(gradients):
    mean = smoothgrad(gradients)
    return sum((g - mean) ** 2 for g in gradients) / len(gradients)


# Perturbations


def starts(size, window, stride):
    found, start = [], 0
    while start < size - window:
        found.append(start)
        start += stride
    return [*found, size - window]


def occlusion(net, x, o, target, window, stride, channels="joint"):
    """``window`` and ``stride`` for each axis."""
    rows = [slice(None)] if channels == "joint" else [slice(c, c + 1) for c in range(len(x))]
    total, count = np.zeros((2, len(rows), *x.shape[1:]))
    at = [starts(*each) for each in zip(x.shape[1:], window, stride, strict=True)]
    for row, channel in enumerate(rows):
        boxes = [
            tuple(slice(a, a + length) for a, length in zip(corner, window, strict=True))
            for corner in itertools.product(*at)
        ]
        changed = np.stack([x] * len(boxes))
        for each, box in zip(changed, boxes, strict=True):
            each[channel, *box] = o[channel, *box]
        for after, box in zip(outputs(net, changed)[:, target], boxes, strict=True):
            total[row, *box] += score(net, x, target) - after
            count[row, *box] += 1
    found = total / count
    return found[0] if channels == "joint" else found


def masks(sizes, n, cells=7, p=0.5, seed=0):
    """(n, *s) in 0..1; beyond the last node, its value."""
    stream = np.random.default_rng((seed, zlib.crc32(b"rise")))
    found = np.zeros((n, *sizes))
    for mask in found:
        grid = stream.random((cells + 1,) * len(sizes)) < p
        shift = stream.random(len(sizes))
        for place in np.ndindex(*sizes):
            u = [t * cells / size + s for t, size, s in zip(place, sizes, shift, strict=True)]
            for corner in itertools.product((0, 1), repeat=len(sizes)):
                share = math.prod(v % 1 if up else 1 - v % 1 for v, up in zip(u, corner, strict=True))
                mask[place] += share * grid[tuple(min(int(v) + up, cells) for v, up in zip(u, corner, strict=True))]
    return found


def rise(net, x, o, target, n, cells=7, p=0.5, seed=0):
    seen = masks(x.shape[1:], n, cells, p, seed)
    scores = outputs(net, np.stack([o + mask * (x - o) for mask in seen]))[:, target]
    return sum(value * mask for value, mask in zip(scores, seen, strict=True)) / (n * p)
