"""Layer-wise relevance once more, slowly: each layer as a dense matrix, each rule from its paper, one sample at a time.

A layer is z = W x + b. It has the contributions w_ji x_i and one more, b_j, of an input that is always 1: what a rule
gives to that is what the bias takes.
"""

import copy
import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

COMPOSITES = {
    "A": "conv.a1b0,dense.eps=0.1",
    "B": "conv.a2b1,dense.eps=0.1",
    "epsilon-plus": "conv.a1b0,dense.eps=0.000001",
    "epsilon-plus-flat": "conv.a1b0,dense.eps=0.000001@flat",
    "epsilon-gamma": "conv.gamma=0.25,dense.eps=0.000001",
    "epsilon-gamma-box": "conv.gamma=0.25,dense.eps=0.000001@zbox=data",
    "epsilon-alpha2-beta1": "conv.a2b1,dense.eps=0.000001",
    "epsilon-alpha2-beta1-flat": "conv.a2b1,dense.eps=0.000001@flat",
    "excitation-backprop": "a1b0",
}
RGB = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
BGR = (103.939, 116.779, 123.68)
BOXES = {
    "caffe": ([0 - BGR[2]], [255 - BGR[0]]),
    "caffe-perchannel": ([0 - mean for mean in BGR], [255 - mean for mean in BGR]),
    "torchvision": ([(0 - m) / s for m, s in RGB], [(1 - m) / s for m, s in RGB]),
}


@dataclass
class Layer:
    """One that ran: W (output, input), b and z (output,), x (input,); ``reach`` is 1 where an input reaches an output."""

    W: np.ndarray
    b: np.ndarray
    x: np.ndarray
    reach: np.ndarray
    shape: tuple
    name: str
    kind: str

    @property
    def z(self):
        return self.W @ self.x + self.b


# The rules: which share of each output the inputs and the bias get, (output, input + 1)


def stabilised(z, eps=0.0):
    """Away from 0, by the rounding of the largest z at least."""
    size = max(eps, np.finfo(float).eps * np.abs(z).max(), np.finfo(float).tiny)
    return np.where(z >= 0, z + size, z - size)[:, None]


def of_total(parts):
    """Where there is nothing to share, nothing is shared."""
    total = parts.sum(1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total != 0)


def epsilon(layer, eps=0.0):
    """Bach et al. 2015, eq. 58."""
    return np.column_stack([layer.W * layer.x, layer.b]) / stabilised(layer.z, eps)


def deviations(layer, k):
    """Of the layer's own input."""
    mean = layer.x.sum() / layer.x.size
    return k * math.sqrt(((layer.x - mean) ** 2).sum() / layer.x.size)


def alphabeta(layer, a, b):
    """Bach et al. 2015, eq. 60."""
    parts = np.column_stack([layer.W * layer.x, layer.b])
    return a * of_total(np.maximum(parts, 0)) - b * of_total(np.minimum(parts, 0))


def gamma(layer, g):
    """Zennit's four products, by the sign of z."""
    found = np.zeros((len(layer.b), len(layer.x) + 1))
    high, low = np.maximum(layer.x, 0), np.minimum(layer.x, 0)
    for j, (w, b, z) in enumerate(zip(layer.W, layer.b, layer.z, strict=True)):
        up, down = (np.maximum, np.minimum) if z > 0 else (np.minimum, np.maximum)
        parts = np.append(high * (w + g * up(w, 0)) + low * (w + g * down(w, 0)), b + g * up(b, 0))
        if z != 0:
            found[j] = parts / parts.sum()
    return found


def w2(layer):
    """Montavon et al. 2017; the bias is one more weight."""
    return of_total(np.column_stack([layer.W, layer.b]) ** 2)


def flat(layer):
    """Lapuschkin et al. 2019: alike for all inputs that there are; the bias has none."""
    return of_total(np.column_stack([layer.reach, np.zeros(len(layer.b))]))


def zbox(layer, low, high):
    """Montavon et al. 2017: for inputs in [l, h]. The bias cancels."""
    parts = layer.W * layer.x - np.maximum(layer.W, 0) * low - np.minimum(layer.W, 0) * high
    parts = parts / stabilised(parts.sum(1))
    return np.column_stack([parts, np.zeros(len(parts))])


def sign(layer, mu, eps):
    """Gumpfer et al. 2023: what x_i is multiplied with by LRP-epsilon, times the sign of x_i - mu."""
    signs = [-1.0 if x < m else 1.0 for x, m in zip(layer.x, mu, strict=True)]
    return np.column_stack([layer.W * signs, layer.b]) / stabilised(layer.z, eps)


def size(text, layer):
    """Of ``0.1`` or ``0.25std``."""
    return deviations(layer, float(text[:-3])) if text.endswith("std") else float(text)


def shares(layer, rule):
    """By the rule's text."""
    if found := re.fullmatch(r"eps=(.+)", rule):
        return epsilon(layer, size(found[1], layer))
    if found := re.fullmatch(r"gamma=(.+)", rule):
        return gamma(layer, float(found[1]))
    if found := re.fullmatch(r"a(.+)b(.+)", rule):
        return alphabeta(layer, float(found[1]), float(found[2]))
    return {"z": epsilon, "w2": w2, "flat": flat, "zplus": lambda layer: alphabeta(layer, 1, 0)}[rule](layer)


def at_input(layer, rule, data):
    """By the input rule's text; ``data`` is the range of its channels. Bounds are numbers as the samples are, float32."""

    def everywhere(values):
        return np.broadcast_to(np.reshape(values, (-1, *[1] * (len(layer.shape) - 1))), layer.shape).ravel()

    if found := re.fullmatch(r"sign=(.+?)(,eps=(.+))?", rule):
        mu = everywhere([float(each) for each in found[1].split("/")])
        return sign(layer, mu, size(found[3], layer) if found[3] else 0.0)
    if found := re.fullmatch(r"zbox=(.+)", rule):
        ends = BOXES.get(found[1]) or data
        if ":" in found[1]:
            ends = [[float(each) for each in end.split("/")] for end in found[1].split(":")]
        return zbox(layer, *(everywhere(np.float32(each).astype(float)) for each in ends))
    return shares(layer, rule)


def of(layer, rules):
    """The first that fits; what names no place is for the rest."""
    rest = "z"
    for each in rules.split(","):
        place, rule = re.fullmatch(r"(?:(\w+)\.)?(z|zplus|w2|flat|a[\d.]+b[\d.]+|(?:eps|gamma)=.+)", each).groups()
        if place is None:
            rest = rule
        elif place in (layer.kind, layer.name):
            return rule
    return rest


# The net


def matrix(run, shape):
    """Of a function of (n, channel, *s), column by column; and what it adds."""
    size = math.prod(shape)
    with torch.no_grad():
        b = run(torch.zeros(1, *shape, dtype=torch.float64))
        W = run(torch.eye(size, dtype=torch.float64).reshape(size, *shape)) - b
    return W.reshape(size, -1).numpy().T, b.numpy().ravel()


def steps(net):
    """[(name, kind, function)] of a `support.Net` or a sequence: conv, dense, mean (linear, no weights), elementwise."""
    if not isinstance(net, nn.Sequential):
        act = "", "elementwise", net.act
        mean = "", "mean", lambda h: h.flatten(2).mean(2)
        return [("first", "conv", net.first), act, ("second", "conv", net.second), act, mean, ("head", "dense", net.head)]

    def kind(module):
        name = type(module).__name__
        return next((k for k, v in {"Conv": "conv", "Linear": "dense", "AvgPool": "mean"}.items() if k in name), None)

    return [(name, {"Conv": "conv"}.get("", kind(module)) or "elementwise", module) for name, module in net.named_children()]
