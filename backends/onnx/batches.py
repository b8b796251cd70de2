"""Whether a graph computes each sample of a batch alone; many are written for batches of one size."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

from .checking import first_rows
from .network import Network, rows_of
from .watching import inside_attention

TOLERANCE = 1e-4


def settle_batches(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Try a larger batch, given one of the declared size; where it does not give the same, take chunks from now on.

    Operators whose results do not begin with the axis of the samples are found on the way.
    """
    chunk = network.batch or 1
    small = {name: first_rows(tensor, chunk) for name, tensor in tensors.items()}
    others = [varied(small, seed) for seed in range(2 if chunk == 1 else 1)]
    many = {
        name: torch.cat([each[name] for each in (small, *others)])[: max(3, chunk + 1)] if tensor.ndim else tensor
        for name, tensor in small.items()
    }
    network.chunk, same, rows = chunk, False, rows_of(many)
    alone, together = dict[str, int](), dict[str, int]()
    try:
        with torch.no_grad():
            network.watched = lambda name, value: alone.update({name: len(value) if value.ndim else 0})
            wanted = _outputs(network(**many))
            network.chunk = None
            network.watched = lambda name, value: together.update({name: len(value) if value.ndim else 0})
            with suppress(RuntimeError, IndexError, ValueError):
                found = _outputs(network(**many))
                same = all(alike(found[name], wanted[name]) for name in wanted)
    finally:
        network.watched, network.chunk = None, None if same else chunk
    inside = inside_attention(network.steps)
    for step in network.steps:
        given = [name for name in step.outputs if name in alone]
        step.apart = step in inside or any(alone[name] != chunk or (same and together[name] != rows) for name in given)


def varied(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Other samples like these."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: t + 0.5 * torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
        for name, t in tensors.items()
    }


def _outputs(given: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {"": given} if isinstance(given, Tensor) else given


def alike(found: Tensor, wanted: Tensor) -> bool:
    """Whether they are the same values, to within the last digits."""
    if found.shape != wanted.shape:
        return False
    a, b = found.double().nan_to_num(), wanted.double().nan_to_num()
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max().clamp(min=1e-30)) if a.numel() else True
