"""Layer-wise relevance once more, slowly: each layer as a dense matrix, each rule from its paper, one sample at a time.

A layer is z = W x + b. It has the contributions w_ji x_i and one more, b_j, of an input that is always 1: what a rule
gives to that is what the bias takes.
"""

import copy
import math
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

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
    """By the input rule's text; ``data`` is the range of its channels. Bounds are float32, as samples are."""

    def everywhere(values):
        values = np.asarray(values)
        values = values.reshape(-1, *[1] * (len(layer.shape) - 1)) if values.ndim < 2 else values
        return np.broadcast_to(values, layer.shape).ravel()

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
        place, rule = re.fullmatch(r"(?:([\w*]+)\.)?(z|zplus|w2|flat|a[\d.]+b[\d.]+|(?:eps|gamma)=.+)", each).groups()
        if place is None:
            rest = rule
        elif place == layer.kind or fnmatchcase(layer.name, place):
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
    """[(name, kind, function)] of a `support.Net` or a sequence; mean is linear without weights, "" elementwise."""
    if not isinstance(net, nn.Sequential):
        act, mean = ("", "", net.act), ("", "mean", lambda h: h.flatten(2).mean(2))
        first, second, head = ("first", "conv", net.first), ("second", "conv", net.second), ("head", "dense", net.head)
        return [first, act, second, act, mean, head]
    found = []
    for name, module in net._modules.items():  # one may be there twice
        text = type(module).__name__
        kind = "conv" if "Conv" in text else "dense" if text == "Linear" else "mean" if "AvgPool" in text else ""
        found.append((name, kind, module))
    return found


def ran(net, x):
    """The layers of a forward of x (channel, *s); what is elementwise lets relevance through."""
    found, h = [], torch.from_numpy(np.array(x, np.float64))[None]
    for name, kind, run in steps(net):
        if kind:
            W, b = matrix(run, h.shape[1:])
            ones = copy.deepcopy(run)
            if kind != "mean":
                nn.init.ones_(ones.weight)
            reach = matrix(ones, h.shape[1:])[0] > 0.5
            found.append(Layer(W, b, h.numpy().ravel(), reach.astype(float), tuple(h.shape[1:]), name, kind))
        with torch.no_grad():
            h = run(h)
    return found


def start(logits, target, init):
    wanted = {"logit": logits[target], "one": 1.0, "probability": np.exp(logits - logits.max())[target]}[init]
    if init == "probability":
        wanted /= np.exp(logits - logits.max()).sum()
    return np.where(np.arange(len(logits)) == target, wanted, 0.0)


@dataclass
class Share:
    """What a layer got, and what of it its bias took, and what nobody."""

    got: float
    bias: float
    kept: float


def handed_down(x, net, target, text="z", data=None, known=None):
    """The relevance at x by what stands behind ``lrp:``, and the layers' `Share`, from the last one."""
    base, _, first = text.partition("@")
    settings = {"init": "logit", "bias": "absorb"}
    settings.update(each.split("=") for each in base.split(",") if each.split("=")[0] in settings)
    rules = ",".join(each for each in base.split(",") if each.split("=")[0] not in settings) or "z"
    rules, _, own = COMPOSITES.get(rules, rules).partition("@")
    first, layers, flow = first or own, known or ran(net, x), []
    R = start(layers[-1].z, target, settings["init"])
    for i, layer in reversed(list(enumerate(layers))):
        if settings["bias"] == "ignore":
            layer = replace(layer, b=0 * layer.b)
        rule = "z" if layer.kind == "mean" else of(layer, rules)
        S = at_input(layer, first, data) if first and i == 0 else shares(layer, rule)
        *below, bias = S.T @ R
        flow.append(Share(R.sum(), bias, ((1 - S.sum(1)) * R).sum()))
        R = np.array(below)
    return R.reshape(np.shape(x)), flow


def lrp(x, net, target, text="z", data=None, known=None, **_):
    """``known``: what `ran` gives, where several expressions are asked of one sample."""
    return handed_down(x, net, target, text, data, known)[0]


# Attention: AttnLRP (Achtibat et al. 2024) and CP-LRP (Ali et al. 2022)


def linear(W, x, R, b=0.0):
    """LRP-z for rows of x."""
    z = x @ W.T + b
    return x * ((R / z) @ W)


def added(a, b, R):
    return a / (a + b) * R, b / (a + b) * R


def normed(x, w, b, R, eps=1e-5):
    """A layer norm: linear, its deviation being a constant."""
    n = x.shape[-1]
    J = (np.eye(n) - 1 / n)[None] * w[:, None] / np.sqrt(x.var(-1) + eps)[:, None, None]
    y = np.einsum("tji,ti->tj", J, x) + b
    return y, (x * np.einsum("tji,tj->ti", J, R / y) if R is not None else None)


def attended(x, weights, R=None, gates=True):
    """One head, (token, feature): its output, and the relevance at x of R there. ``weights``: of q, k, v and the output."""
    Wq, Wk, Wv, Wo = weights
    q, k, v = x @ Wq.T, x @ Wk.T, x @ Wv.T
    a = q @ k.T / math.sqrt(len(Wq))
    s = np.exp(a - a.max(1, keepdims=True))
    s /= s.sum(1, keepdims=True)
    o = s @ v
    if R is None:
        return o @ Wo.T
    R = linear(Wo, o, R)
    if not gates:
        return linear(Wv, x, v * (s.T @ (R / o)))
    at_s, at_v = s * ((R / (2 * o)) @ v.T), v * (s.T @ (R / (2 * o)))
    at_a = a * (at_s - s * at_s.sum(1, keepdims=True))
    product = q @ k.T
    at_q, at_k = q * ((at_a / (2 * product)) @ k), k * ((at_a / (2 * product)).T @ q)
    return linear(Wq, x, at_q) + linear(Wk, x, at_k) + linear(Wv, x, at_v)


def transformer(x, norm, weights, head, target, gates=True):
    """The relevance of a score of ``head`` over the tokens of x + attention(norm(x)), (token, feature)."""
    y, _ = normed(x, *norm, None)
    a = attended(y, weights)
    h = (x + a).mean(0)
    R = linear(head, h, start(head @ h, target, "logit"))
    R = (x + a) / (x + a).sum(0) * R
    at_x, at_a = added(x, a, R)
    return at_x + normed(x, *norm, attended(y, weights, at_a, gates))[1]
