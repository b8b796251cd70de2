"""Layers with several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from .activations import placed
from .functions import Function
from .graph import Leaf
from .table import makes


class Merge(nn.Module):
    """Several tensors, taken two by two. What has fewer axes gets them behind the batch's."""

    run: Any
    """Of two tensors."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """All of them in one."""
        axes = max(each.ndim for each in inputs)
        spread = [each.reshape(len(each), *[1] * (axes - each.ndim), *each.shape[1:]) for each in inputs]
        found: Tensor = reduce(type(self).run, spread)
        return found


class Add(Merge):
    """Their sum."""

    run = torch.add


class Subtract(Merge):
    """The first without the second."""

    run = torch.sub


class Multiply(Merge):
    """Their product."""

    run = torch.mul


class Maximum(Merge):
    """The largest at each place."""

    run = torch.maximum


class Minimum(Merge):
    """The smallest at each place."""

    run = torch.minimum


class Average(Add):
    """Their mean."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """All of them in one."""
        return super().forward(inputs) / len(inputs)


MERGES = {kind.__name__: kind for kind in (Add, Subtract, Multiply, Average, Maximum, Minimum)}


@makes(*MERGES)
def _merge(layer: Any) -> Leaf:
    return Leaf(MERGES[type(layer).__name__]())


class Concatenate(nn.Module):
    """One behind the other."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """All of them in one."""
        return torch.cat(list(inputs), self.axis)


@makes("Concatenate")
def _concatenate(layer: Any, rank: int) -> Leaf:
    order, axis = placed(layer.axis, rank)
    return Leaf(Concatenate(axis), order)


@makes("Dot")
def _dot(layer: Any) -> Leaf:
    return Leaf(Function("Dot", layer.call), "keras")
