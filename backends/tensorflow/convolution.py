"""Convolutions, and what is made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .activations import ended
from .graph import Leaf, Order
from .table import filled, makes, tupled, values

F = nn.functional
Pads = list[tuple[int, int]]
RUN: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def same(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    """What TensorFlow pads with before and behind each axis, for an output of size / stride, rounded up."""
    pads = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """``x`` (batch, channel, *s) with ``value`` around it."""
    flat = [each for pair in reversed(pads) for each in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


class Same:
    """A convolution with TensorFlow's padding, which depends on the size and can be uneven."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(batch, channel, *s)."""
        pads = same(x.shape[2:], self.kernel_size, self.stride, self.dilation)
        even = tuple(before for before, _ in pads)
        if any(before != behind for before, behind in pads):
            x, even = padded(x, pads), (0,) * len(pads)
        run = RUN[len(pads)]
        found: Tensor = run(x, self.weight, self.bias, self.stride, even, self.dilation, self.groups)
        return found


class SameConv1d(Same, nn.Conv1d):
    """See `Same`."""


class SameConv2d(Same, nn.Conv2d):
    """See `Same`."""


class SameConv3d(Same, nn.Conv3d):
    """See `Same`."""


class CausalConv1d(nn.Conv1d):
    """It sees no later point."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, point)."""
        return super().forward(padded(x, [(self.dilation[0] * (self.kernel_size[0] - 1), 0)]))


PLAIN: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SAME: dict[int, Any] = {1: SameConv1d, 2: SameConv2d, 3: SameConv3d}


def order(layer: Any) -> Order:
    """That of a layer which says where the channels are."""
    return "first" if layer.data_format == "channels_last" else "keras"


def convolution(layer: Any, weight: Tensor, bias: Tensor | None, groups: int = 1, padding: str = "") -> nn.Module:
    """One of ``weight`` (out, in, *kernel) with the layer's strides, dilation and padding, or another padding."""
    rank = weight.ndim - 2
    kernel, stride = tuple(weight.shape[2:]), tupled(layer.strides, rank)
    dilation = tupled(layer.dilation_rate, rank)
    if padding == "pointwise":
        kernel = stride = dilation = (1,) * rank
    inputs = weight.shape[1] * groups
    kind = {"same": SAME[rank], "causal": CausalConv1d}.get(padding or layer.padding, PLAIN[rank])
    even: Any = 0
    extents = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if kind is SAME[rank] and set(stride) == {1} and not any(extent % 2 for extent in extents):
        kind, even = PLAIN[rank], tuple(extent // 2 for extent in extents)
    module = kind(inputs, len(weight), kernel, stride, even, dilation, groups, bias is not None, device="meta")
    return filled(module, weight=weight, bias=bias)


def _bias(layer: Any) -> Tensor | None:
    return values(layer.bias) if layer.use_bias else None


@makes("Conv1D", "Conv2D", "Conv3D")
def _conv(layer: Any) -> Leaf:
    weight = values(layer.kernel).movedim((-1, -2), (0, 1))
    leaf = Leaf(convolution(layer, weight, _bias(layer), layer.groups), order(layer))
    return ended(layer, leaf, "conv", layer.rank + 2)


def _depthwise(layer: Any, kernel: Tensor, bias: Tensor | None) -> nn.Module:
    channels, multiplier = kernel.shape[-2:]
    weight = kernel.movedim((-2, -1), (0, 1)).reshape(channels * multiplier, 1, *kernel.shape[:-2])
    return convolution(layer, weight, bias, channels)


@makes("DepthwiseConv1D", "DepthwiseConv2D")
def _depthwise_conv(layer: Any) -> Leaf:
    leaf = Leaf(_depthwise(layer, values(layer.kernel), _bias(layer)), order(layer))
    return ended(layer, leaf, "conv", layer.rank + 2)


@makes("SeparableConv1D", "SeparableConv2D")
def _separable_conv(layer: Any) -> Leaf:
    weight = values(layer.pointwise_kernel).movedim((-1, -2), (0, 1))
    depthwise = _depthwise(layer, values(layer.depthwise_kernel), None)
    pointwise = convolution(layer, weight, _bias(layer), padding="pointwise")
    both = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
    return ended(layer, Leaf(both, order(layer)), "conv", layer.rank + 2)


class Transposed:
    """A transposed convolution of TensorFlow's: cut at the end to ``lengths`` more than size x stride."""

    more: tuple[int, ...]
    stride: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, *s)."""
        y: Tensor = super().forward(x)  # type: ignore[misc]
        for axis, (size, stride, more) in enumerate(zip(x.shape[2:], self.stride, self.more, strict=True), 2):
            if (length := size * stride + more) != y.shape[axis]:
                y = y.narrow(axis, 0, length)
        return y


class TransposedConv1d(Transposed, nn.ConvTranspose1d):  # type: ignore[misc]
    """See `Transposed`."""


class TransposedConv2d(Transposed, nn.ConvTranspose2d):  # type: ignore[misc]
    """See `Transposed`."""


class TransposedConv3d(Transposed, nn.ConvTranspose3d):  # type: ignore[misc]
    """See `Transposed`."""


TRANSPOSED: dict[int, Any] = {1: TransposedConv1d, 2: TransposedConv2d, 3: TransposedConv3d}


@makes("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _conv_transpose(layer: Any) -> Leaf:
    rank = layer.rank
    kernel, stride = tupled(layer.kernel_size, rank), tupled(layer.strides, rank)
    dilation = tupled(layer.dilation_rate, rank)
    extra = (None,) * rank if layer.output_padding is None else tupled(layer.output_padding, rank)
    more, cuts, outs = [], [], []
    for k, s, d, given in zip(kernel, stride, dilation, extra, strict=True):
        extent = d * (k - 1) + 1
        if given is not None:
            length = extent - s + given - (2 * (extent // 2) if layer.padding == "same" else 0)
        else:
            length = 0 if layer.padding == "same" else max(extent - s, 0)
        # TensorFlow's is the gradient of a convolution from that length, with that one's padding before.
        cut = max(extent - s - length, 0) // 2 if layer.padding == "same" else 0
        more.append(length)
        cuts.append(cut)
        outs.append(max(length + s - extent + 2 * cut, 0))
    weight = values(layer.kernel).movedim((-1, -2), (0, 1))
    module = TRANSPOSED[rank](
        weight.shape[0], weight.shape[1], kernel, stride, cuts, outs, dilation=dilation, bias=layer.use_bias,
        device="meta",
    )  # fmt: skip
    module.more = tuple(more)
    return ended(layer, Leaf(filled(module, weight=weight, bias=_bias(layer)), order(layer)), "conv", rank + 2)


@makes("Dense")
def _dense(layer: Any, rank: int) -> Leaf:
    weight = values(layer.kernel).t()
    linear = nn.Linear(weight.shape[1], weight.shape[0], layer.use_bias, device="meta")
    return ended(layer, Leaf(filled(linear, weight=weight, bias=_bias(layer)), "keras"), "linear", rank)


@makes("Embedding")
def _embedding(layer: Any) -> Leaf:
    return Leaf(Embedding(values(layer.embeddings)), "keras")


class Embedding(nn.Embedding):
    """Of numbers that come as floats."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[0], weight.shape[1], device="meta")
        filled(self, weight=weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., feature)."""
        return super().forward(x.to(torch.int64))
