"""Convolutions and products with matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..graph import Node, Unsupported
from ..modules import Amounts, Padded, filled, padded
from ..registry import operator
from .windows import Window

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
CONVOLVE_BACK = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@operator("Conv")
def conv(node: Node) -> Any:
    """A layer of torch where the weights are known; one that pads unevenly stands behind a padding of its own."""
    groups, taken = node.get("group", 1), node.take(1, 2)
    if taken is None or (weight := taken[0]) is None:

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            window = Window.of(node, weight.shape[2:])
            x = padded(x, window.amounts(x.shape[2:]))
            return CONVOLVE[window.rank - 1](x, weight, bias, window.stride, 0, window.dilation, groups)

        return run
    window = Window.of(node, weight.shape[2:])
    settings: dict[str, Any] = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": window.size,
        "stride": window.stride,
        "padding": window.pads[: window.rank] if window.even else 0,
        "dilation": window.dilation,
        "groups": groups,
        "bias": taken[1] is not None,
        "device": "meta",
    }
    layer = filled(CONV[window.rank - 1](**settings), weight=weight, bias=taken[1])
    return layer if window.even else Padded(layer, window.amounts, name="conv")


@operator("ConvTranspose")
def conv_transpose(node: Node) -> Any:
    """The same upwards; what it makes is cut, or goes on, at its end as the graph says."""
    groups, taken = node.get("group", 1), node.take(1, 2)
    if taken is None or (weight := taken[0]) is None:

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            window = Window.of(node, weight.shape[2:])
            full = CONVOLVE_BACK[window.rank - 1](x, weight, None, window.stride, 0, 0, groups, window.dilation)
            full = padded(full, _cuts(node.attributes, window, x.shape[2:]))
            return full if bias is None else full + bias.reshape(-1, *[1] * window.rank)

        return run
    window = Window.of(node, weight.shape[2:])
    more = tuple(node.get("output_padding", [0] * window.rank))
    plain = window.even and "output_shape" not in node.attributes
    plain = plain and all(m < max(s, d) for m, s, d in zip(more, window.stride, window.dilation, strict=True))
    settings: dict[str, Any] = {
        "in_channels": weight.shape[0],
        "out_channels": weight.shape[1] * groups,
        "kernel_size": window.size,
        "stride": window.stride,
        "padding": window.pads[: window.rank] if plain else 0,
        "output_padding": more if plain else 0,
        "groups": groups,
        "bias": plain and taken[1] is not None,
        "dilation": window.dilation,
        "device": "meta",
    }
    layer = filled(TRANSPOSED[window.rank - 1](**settings), weight=weight)
    return filled(layer, bias=taken[1]) if plain else Cut(node.attributes, window, layer, taken[1])


class Cut(nn.Module):
    """A transposed convolution whose result is cut at its ends, or goes on there, where only the bias is."""

    def __init__(self, settings: dict[str, Any], window: Window, layer: nn.Module, bias: Tensor | None) -> None:
        super().__init__()
        self.settings, self.window = settings, window
        self.conv = layer
        self.register_buffer("offset", None if bias is None else bias.reshape(-1, *[1] * window.rank))

    def forward(self, x: Tensor) -> Tensor:
        """Of (batch, channel, *s)."""
        result = padded(self.conv(x), _cuts(self.settings, self.window, x.shape[2:]))
        offset = self._buffers["offset"]
        return result if offset is None else result + offset


def _cuts(settings: dict[str, Any], window: Window, sizes: Sequence[int]) -> Amounts:
    """What is put at the ends of the full result, mostly less than nothing."""
    more = settings.get("output_padding", [0] * window.rank)
    before, behind = window.pads[: window.rank], window.pads[window.rank :]
    shape = settings.get("output_shape")
    if shape is None and window.auto != "NOTSET":
        shape = [size * stride for size, stride in zip(sizes, window.stride, strict=True)]
    if shape is not None:
        shape = shape[-window.rank :]
        full = [s * (n - 1) + r for n, s, r in zip(sizes, window.stride, window.reach, strict=True)]
        total = [f + m - n for f, m, n in zip(full, more, shape, strict=True)]
        less = [t // 2 for t in total]
        rest = [t - u for t, u in zip(total, less, strict=True)]
        before, behind = (less, rest) if window.auto == "SAME_UPPER" else (rest, less)  # type: ignore[assignment]
    return [(-b, m - e) for b, e, m in zip(before, behind, more, strict=True)]


@operator("Gemm")
def gemm(node: Node) -> Any:
    """A linear layer where matrix and bias are known; factors are multiplied into them."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    first, second = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    matrix, offset = node.constant(1), node.constant(2)
    width = None if matrix is None else matrix.shape[0 if second else 1]
    flat = not node.has(2) or (offset is not None and offset.numel() in (1, width) and offset.shape[-1:] != (0,))
    flat = flat and (offset is None or offset.ndim == 0 or offset.shape[-1] == offset.numel())
    if matrix is not None and matrix.is_floating_point() and flat and not first and node.constant(0) is None:
        node.take(1, 2)
        weight = (matrix if second else matrix.t()) * alpha if alpha != 1 else (matrix if second else matrix.t())
        bias = None if offset is None else (offset * beta if beta != 1 else offset).reshape(-1).expand(len(weight))
        return linear_layer(weight, bias)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.t() if first else a) @ (b.t() if second else b)
        product = product if alpha == 1 else product * alpha
        return product if c is None else product + (c if beta == 1 else c * beta)

    return run


@operator("MatMul")
def matmul(node: Node) -> Any:
    """A linear layer where the second factor is a known matrix."""
    matrix = node.constant(1)
    if matrix is None or node.constant(0) is not None or not matrix.is_floating_point():
        return torch.matmul
    rank = node.rank(0)
    if matrix.ndim > 2 and math.prod(matrix.shape[:-2]) == 1 and rank is not None and rank >= matrix.ndim:
        matrix = matrix.reshape(matrix.shape[-2:])
    if matrix.ndim != 2 or rank == 1:
        return torch.matmul
    node.take(1)
    return linear_layer(matrix.t())


@operator("Linear")
def linear(node: Node) -> Any:
    """A product and a sum that `fusion` has put together."""
    taken = node.take(1, 2)
    if taken is None or taken[0] is None:
        raise Unsupported("Linear without weights")
    return linear_layer(taken[0].t(), taken[1])


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """Of weight (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return filled(layer, weight=weight, bias=bias)


@operator("Einsum")
def einsum(node: Node) -> Any:
    """As torch's."""
    equation = node.get("equation").replace(" ", "")
    return lambda *factors: torch.einsum(equation, *factors)


@operator("Det")
def det(_: Node) -> Any:
    """The determinant of the last two axes."""
    return torch.det
