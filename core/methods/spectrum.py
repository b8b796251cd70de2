"""The first component of a set of maps, with a sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def principal(maps: Tensor) -> Tensor:
    """First principal component over the channels of (batch, channel, *s), as (batch, *s).

    The channels are centred over the places, X = maps - mean(maps); the component is X v, v the first principal axis.
    An axis has no sign of its own: `turned` gives it one. It comes from the smaller of the two Gram matrices, in
    float64.
    """
    import torch

    points = maps.flatten(2).double()
    points = points - points.mean(2, keepdim=True)
    channels, places = points.shape[1:]
    if channels <= places:
        axis = torch.linalg.eigh(points @ points.mT).eigenvectors[:, :, -1:]
        component = (axis.mT @ points)[:, 0]
    else:
        component = leading(points.mT @ points)
    return turned(component).to(maps.dtype).reshape(len(maps), *maps.shape[2:])


def leading(gram: Tensor) -> Tensor:
    """Eigenvector of the largest eigenvalue, times its root: (batch, n, n) -> (batch, n)."""
    import torch

    values, vectors = torch.linalg.eigh(gram)
    component: Tensor = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    return component


def turned(component: Tensor) -> Tensor:
    """(batch, n) with the sign that makes the value largest in size positive."""
    peak = component.gather(1, component.abs().argmax(1, keepdim=True))
    result: Tensor = component.mul(peak.sign())
    return result
