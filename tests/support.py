"""What tests share: small nets of every rank, and a way to ask for maps without a dataset."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.methods import parse_expression
from camsweep.core.trace import Resolved, Trace

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SHAPES = {1: (2, 23), 2: (2, 9, 14), 3: (2, 5, 8, 7)}
"""Input of one sample for each rank, no two sizes alike."""


class Net(nn.Module):
    """trunk -> first -> second -> mean -> linear, for inputs of ``rank`` spatial axes."""

    def __init__(
        self, rank: int = 2, classes: int = 3, *, smooth: bool = False, bias: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        self.act = torch.tanh if smooth else torch.relu
        self.first = CONV[rank](2, 4, 3, stride=2, padding=1, bias=bias)
        self.second = CONV[rank](4, 5, 3, padding=1, bias=bias)
        self.head = nn.Linear(5, classes, bias=bias)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)

    def tail(self, activation):
        """From the output of ``first``."""
        hidden = self.act(self.second(self.act(activation)))
        return self.head(hidden.flatten(2).mean(2))

    def forward(self, x):
        return self.tail(self.first(x))


def inputs(rank: int, batch: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, *SHAPES[rank])).astype(np.float32)


def maps(module, x, expressions, layers=("first",), target="predicted", dtype="float64", device="cpu"):
    """{(expression, layer): map} through the real backend and trace; ``target`` is a class or "predicted"."""
    backend = TorchBackend(module, device=torch.device(device), dtype=dtype)
    parsed = [parse_expression(text) for text in expressions]
    wants_input = any(letter in "xg" for each in parsed for letter in each.asks)
    with backend.tapped(layers, rank=x.ndim - 2, inputs=wants_input, gradients=True) as send:
        trace = Trace(send(x))
        scores = trace.run.scores
        index = scores.argmax(1) if target == "predicted" else torch.full((len(x),), target)
        resolved = Resolved.of(index, scores)
        return {
            (str(each), layer): trace.map(each, resolved, layer).detach().clone()
            for each in parsed
            for layer in (layers if not each.method.per_channel else [None])
        }
