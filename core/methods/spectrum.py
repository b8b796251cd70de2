"""The first component of a set of maps, with a sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = 256
"""Matrices of up to so many rows are decomposed whole; of larger ones only the first eigenvector is found."""


def principal(maps: Tensor) -> Tensor:
    """First principal component over the channels of (batch, channel, *s), as (batch, *s).

    The channels are centred over the places, X = maps - mean(maps); the component is X v, v the first principal axis.
    An axis has no sign of its own: `turned` gives it one. It comes from the smaller of the two Gram matrices, in
    float64.
    """
    points = maps.flatten(2).double()
    points = points - points.mean(2, keepdim=True)
    channels, places = points.shape[1:]
    if channels <= places:
        _, axis = leading(points @ points.mT)
        component = (axis[:, None] @ points)[:, 0]
    else:
        value, vector = leading(points.mT @ points)
        component = vector * value.clamp(min=0).sqrt()
    return turned(component).to(maps.dtype).reshape(len(maps), *maps.shape[2:])


def leading(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue (batch, 1) and its unit eigenvector (batch, n) of symmetric matrices (batch, n, n)."""
    import torch

    n = gram.shape[1]
    if n <= WHOLE:
        values, vectors = torch.linalg.eigh(gram)
        return values[:, -1:], vectors[:, :, -1]
    nothing = (gram == 0).all(2).all(1)[:, None, None]
    gram = gram.where(~nothing, torch.eye(n, dtype=gram.dtype, device=gram.device))
    start = gram.gather(2, gram.diagonal(dim1=1, dim2=2).argmax(1)[:, None, None].expand(-1, n, 1))
    values, vectors = torch.lobpcg(gram, k=1, X=start, largest=True, niter=1000, tol=1e-13)
    return values.where(~nothing[:, 0], 0), vectors[:, :, 0]


def turned(component: Tensor) -> Tensor:
    """(batch, n) with the sign that makes the value largest in size positive."""
    peak = component.gather(1, component.abs().argmax(1, keepdim=True))
    result: Tensor = component.mul(peak.sign())
    return result
