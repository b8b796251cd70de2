"""Functions of each element, and softmaxes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..graph import Node
from ..modules import filled
from ..registry import operator


@operator("Relu")
def relu(_: Node) -> Any:
    """max(x, 0)"""
    return nn.ReLU()


@operator("Sigmoid")
def sigmoid(_: Node) -> Any:
    """1 / (1 + exp(-x))"""
    return nn.Sigmoid()


@operator("Tanh")
def tanh(_: Node) -> Any:
    """As it is called."""
    return nn.Tanh()


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Any:
    """Below 0 ``alpha`` x."""
    return nn.LeakyReLU(node.get("alpha", 0.01))


@operator("Elu")
def elu(node: Node) -> Any:
    """Below 0 ``alpha`` (exp(x) - 1)."""
    return nn.ELU(node.get("alpha", 1.0))


@operator("Celu")
def celu(node: Node) -> Any:
    """Below 0 ``alpha`` (exp(x / alpha) - 1)."""
    return nn.CELU(node.get("alpha", 1.0))


@operator("Selu")
def selu(node: Node) -> Any:
    """A scaled ELU."""
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    if math.isclose(alpha, 1.6732632, rel_tol=1e-6) and math.isclose(gamma, 1.0507010, rel_tol=1e-6):
        return nn.SELU()
    return lambda x: F.elu(x, alpha) * gamma


@operator("Softplus")
def softplus(_: Node) -> Any:
    """log(1 + exp(x))"""
    return nn.Softplus(threshold=40)


@operator("Softsign")
def softsign(_: Node) -> Any:
    """= x / (1 + abs(x))"""
    return nn.Softsign()


@operator("Mish")
def mish(_: Node) -> Any:
    """= x tanh(softplus(x))"""
    return nn.Mish()


@operator("Gelu", "com.microsoft.Gelu")
def gelu(node: Node) -> Any:
    """= x Phi(x)"""
    return nn.GELU(node.get("approximate", "none"))


@operator("com.microsoft.FastGelu", "com.microsoft.BiasGelu")
def bias_gelu(node: Node) -> Any:
    """Of a sum, as onnxruntime's optimizer writes it."""
    kind = "tanh" if node.op.endswith("FastGelu") else "none"
    return lambda x, bias=None: F.gelu(x if bias is None else x + bias, approximate=kind)


@operator("Swish", "com.microsoft.QuickGelu")
def swish(node: Node) -> Any:
    """= x sigmoid(alpha x)"""
    alpha = node.get("alpha", 1.702 if node.op.endswith("QuickGelu") else 1.0)
    return nn.SiLU() if alpha == 1 else lambda x: x * torch.sigmoid(x * alpha)


@operator("HardSwish")
def hard_swish(_: Node) -> Any:
    """= x clamp(x / 6 + 1/2, 0, 1)"""
    return nn.Hardswish()


@operator("HardSigmoid")
def hard_sigmoid(node: Node) -> Any:
    """clamp(alpha x + beta, 0, 1); torch's has alpha = 1/6."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return nn.Hardsigmoid()
    return lambda x: F.hardsigmoid(x * (6 * alpha) + (6 * beta - 3) if beta != 0.5 else x * (6 * alpha))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Any:
    """What is above ``alpha``, else 0."""
    return nn.Threshold(node.get("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(node: Node) -> Any:
    """Nearer to 0 by ``bias`` outside ``lambd``, 0 inside."""
    edge, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return lambda x: torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, torch.zeros_like(x))).to(x.dtype)


@operator("PRelu")
def prelu(node: Node) -> Any:
    """A slope below 0 for each channel, or for each place."""
    slope = node.constant(1)
    if slope is not None and slope.is_floating_point():
        values = slope.reshape(-1)
        of_channels = slope.ndim > 1 and slope.numel() == slope.shape[0] and (node.rank(0) or 0) == slope.ndim + 1
        if slope.numel() == 1 or of_channels:
            node.take(1)
            return filled(nn.PReLU(len(values), device="meta"), weight=values)

    def run(x: Tensor, slope: Tensor) -> Tensor:
        if node.version < 9 and slope.ndim == 1 and slope.numel() > 1:
            slope = slope.reshape(-1, *[1] * (x.ndim - 2))
        return torch.where(x >= 0, x, x * slope)

    return run


@operator("Clip")
def clip(node: Node) -> Any:
    """Between two bounds, each of which may be missing."""
    low, high = node.get("min"), node.get("max")
    if node.version < 11 or (taken := node.take(1, 2)) is not None:
        if node.version >= 11 and taken is not None:
            low, high = (None if each is None else each.item() for each in taken)
            if (low, high) == (0.0, 6.0) and taken[0] is not None and taken[0].is_floating_point():
                return nn.ReLU6()
        if low is None and high is None:
            return lambda x, *_: x.clone()
        return lambda x, *_: x.clamp(low, high)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return run


@operator("Softmax", "LogSoftmax")
def softmax(node: Node) -> Any:
    """Along an axis; until opset 12 along all from that one on."""
    make = nn.Softmax if node.op == "Softmax" else nn.LogSoftmax
    axis, rank = node.get("axis", -1 if node.version >= 13 else 1), node.rank(0)
    if node.version >= 13 or axis == -1 or (rank is not None and axis % rank == rank - 1):
        return make(axis)
    along = torch.softmax if node.op == "Softmax" else torch.log_softmax

    def run(x: Tensor) -> Tensor:
        rows = math.prod(x.shape[: axis % max(x.ndim, 1)])
        return along(x.reshape(rows, -1), 1).reshape(x.shape)

    return run


@operator("MaskedSoftmax")
def guarded_softmax(node: Node) -> Any:
    """A softmax behind a mask, as `fusion` calls it: nan where everything is masked, as the file says, but flat."""
    axis = node.get("axis", -1)

    def run(x: Tensor) -> Tensor:
        return masked_softmax(x, axis).masked_fill((x == -math.inf).all(axis, keepdim=True), math.nan)

    return run


def masked_softmax(x: Tensor, axis: int) -> Tensor:
    """0 where a whole row is -inf. The softmax itself has nan there, and a gradient of nan whatever is made of that."""
    empty = (x == -math.inf).all(axis, keepdim=True)
    return torch.softmax(x.masked_fill(empty, 0.0), axis).masked_fill(empty, 0.0)


@operator("Hardmax")
def hardmax(node: Node) -> Any:
    """1 at the first largest element, else 0."""
    axis = node.get("axis", -1 if node.version >= 13 else 1)

    def run(x: Tensor) -> Tensor:
        flat = x if node.version >= 13 else x.reshape(math.prod(x.shape[: axis % max(x.ndim, 1)]), -1)
        along = axis if node.version >= 13 else 1
        found = F.one_hot(flat.argmax(along), flat.shape[along]).movedim(-1, along).to(x.dtype)
        return found.reshape(x.shape)

    return run
