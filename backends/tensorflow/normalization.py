"""Normalizations, and layers that only scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .activations import placed
from .graph import Leaf
from .table import filled, made, makes, refused, values

F = nn.functional
BATCH: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@makes("BatchNormalization")
def _batch(layer: Any, rank: int) -> Leaf:
    order, axis = placed(layer.axis, rank)
    if axis != 1 or rank not in BATCH:
        raise refused(layer, f"is over axis {layer.axis} of {rank}; only the channels are supported")
    mean, variance = values(layer.moving_mean), values(layer.moving_variance)
    module = BATCH[rank](len(mean), layer.epsilon)
    gamma, beta = _affine(layer, mean)
    filled(module, weight=gamma, bias=beta)
    module.running_mean, module.running_var = mean, variance
    return Leaf(module, order)


def _affine(layer: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    gamma = values(layer.gamma) if layer.scale else torch.ones_like(like)
    return gamma, values(layer.beta) if layer.center else torch.zeros_like(like)


def _trailing(layer: Any, rank: int) -> int:
    """How many last axes a layer is over."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    found = sorted(axis % rank for axis in axes)
    if found != list(range(rank - len(found), rank)):
        raise refused(layer, f"is over the axes {tuple(axes)}; only the last ones are supported")
    return len(found)


@makes("LayerNormalization")
def _layer(layer: Any, rank: int) -> Leaf:
    _trailing(layer, rank)
    if layer.rms_scaling:
        raise refused(layer, "has rms_scaling, which is not supported")
    like = next((values(each) for each in (layer.gamma, layer.beta) if each is not None), None)
    if like is None:
        raise refused(layer, "has neither scale nor center, which is not supported")
    gamma, beta = _affine(layer, like)
    module = nn.LayerNorm(tuple(like.shape), layer.epsilon, device="meta")
    return Leaf(filled(module, weight=gamma, bias=beta), "keras")


@makes("RMSNormalization")
def _rms(layer: Any, rank: int) -> Leaf:
    _trailing(layer, rank)
    scale = values(layer.scale)
    return Leaf(filled(nn.RMSNorm(tuple(scale.shape), layer.epsilon, device="meta"), weight=scale), "keras")


@makes("GroupNormalization")
def _group(layer: Any, rank: int) -> Leaf:
    order, axis = placed(layer.axis, rank)
    if axis != 1:
        raise refused(layer, f"is over axis {layer.axis} of {rank}; only the channels are supported")
    like = torch.ones(layer.input_spec.axes[layer.axis])
    gamma, beta = _affine(layer, like)
    module = nn.GroupNorm(layer.groups, len(like), layer.epsilon, device="meta")
    return Leaf(filled(module, weight=gamma, bias=beta), order)


class UnitNorm(nn.Module):
    """Vectors of length 1."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Along one axis."""
        return F.normalize(x, dim=self.axis, eps=1e-12)


@makes("UnitNormalization")
def _unit(layer: Any, rank: int) -> Leaf:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if len(axes) > 1:
        raise refused(layer, f"is over the axes {tuple(axes)}; only one axis is supported")
    order, axis = placed(axes[0], rank)
    return Leaf(UnitNorm(axis), order)


class Affine(nn.Module):
    """x scale + offset, known in double precision."""

    scale: Tensor
    offset: Tensor | None

    def __init__(self, scale: Tensor, offset: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale.double())
        self.register_buffer("offset", None if offset is None else offset.double())

    def forward(self, x: Tensor) -> Tensor:
        """Broadcasting."""
        x = x * self.scale.to(x.dtype)
        return x if self.offset is None else x + self.offset.to(x.dtype)


def _spread(constant: Any, rank: int) -> Tensor:
    """What broadcasts with values of Keras' order, for values with the channels first."""
    tensor = values(torch.as_tensor(constant, dtype=torch.float64))
    tensor = tensor.reshape(*[1] * (rank - tensor.ndim), *tensor.shape)
    return tensor.movedim(-1, 1) if tensor.numel() > 1 else tensor.flatten()[0]


@makes("Rescaling")
def _rescaling(layer: Any, rank: int) -> Leaf:
    offset = _spread(layer.offset, rank)
    return Leaf(Affine(_spread(layer.scale, rank), offset if offset.any() else None), "first")


@makes("Normalization")
def _normalization(layer: Any, rank: int) -> Leaf:
    if layer.mean is None:
        raise refused(layer, "was never adapted to data, nor given a mean")
    given = (layer.mean, layer.variance) if layer.input_mean is None else (layer.input_mean, layer.input_variance)
    mean, variance = (values(torch.as_tensor(each, dtype=torch.float64)) for each in given)
    deviation = variance.sqrt().clamp(min=1e-7)
    scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
    return Leaf(Affine(_spread(scale, rank), _spread(offset, rank)), "first")


@makes("LayerScale")
def _layer_scale(layer: Any, rank: int) -> Leaf:
    return Leaf(Affine(_spread(values(layer.gamma), rank)), "first")


@makes("CustomScaleLayer")
def _custom_scale(layer: Any) -> Leaf:
    return Leaf(ScaledSum(layer.scale))


class ScaledSum(nn.Module):
    """The first and a part of the second."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Elementwise."""
        return inputs[0] + inputs[1] * self.scale


@makes("SpectralNormalization")
def _spectral(layer: Any, rank: int) -> Leaf:
    leaf = made(layer.layer, rank)  # in evaluation its kernel is as the training left it
    if leaf is None:
        raise refused(layer.layer, "is not one of Keras' own")
    return leaf
