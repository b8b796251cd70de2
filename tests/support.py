"""What tests share: small nets of every rank, and a way to ask for maps without a dataset."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.backend import Tapping
from camsweep.core.checks import settle_domains
from camsweep.core.data.axes import Axis
from camsweep.core.domains import Space
from camsweep.core.methods import parse_expression
from camsweep.core.outputs import Readout, settled
from camsweep.core.relevance.bounds import bounds
from camsweep.core.targets import Reading, parse_target, settle
from camsweep.core.trace import Circumstances, Trace

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


@contextmanager
def traced(
    module, x, letters, layers=("first",), target="predicted", dtype="float64", device="cpu", score="logit", **around
):
    """A trace through the real backend, or another one that is given for a module, and its one target: a class's number,
    or a target as it is written.
    """
    backend = module if hasattr(module, "tapped") else TorchBackend(module, device=torch.device(device), dtype=dtype)
    structure = backend.structure(x[:1])
    activation = settled("auto", structure.final, structure.outputs)
    readout = Readout(structure.outputs, structure.places, score, activation, structure.final)
    reading = Reading(readout, torch.full((len(x),), -1, device=device), np.arange(len(x)))
    wanted = parse_target(f"class:{target}" if isinstance(target, int) else target)
    around["references"] = {k: torch.as_tensor(v, device=device) for k, v in around.pop("references", {}).items()}
    given = Circumstances(**{"ids": [f"{row:06d}" for row in range(len(x))], **around})
    with backend.tapped(Tapping(layers, x.ndim - 2, frozenset(letters))) as session:
        trace = Trace(session, session.tensor(x), lambda outputs: settle(wanted, outputs, reading), given)
        yield trace, trace.targets[0]


AXES = {1: (Axis("time", "s", 0.01),), 2: (Axis("height", "px"), Axis("width", "px")),
        3: (Axis("depth", "px"), Axis("height", "px"), Axis("width", "px"))}  # fmt: skip


def answers(
    module,
    x,
    expressions,
    layers=("first",),
    target="predicted",
    dtype="float64",
    device="cpu",
    score="logit",
    **around,
):
    """{(expression, layer): (map, residual or None)}; the layers of a fused map are joined by a comma."""
    parsed = [parse_expression(text) for text in expressions]
    letters = frozenset().union(*(each.asks for each in parsed))
    space = Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2])
    around = {"domains": settle_domains(parsed, space), "boxes": boxes(parsed, x, dtype), **around}
    found = {}
    with traced(module, x, letters, layers, target, dtype, device, score, **around) as (trace, resolved):
        for each in parsed:
            places = [()] if not each.layered else [tuple(layers)] if each.fused else [(layer,) for layer in layers]
            for at in places:
                values = trace.map(each, resolved, at, x.shape[2:])
                residual = trace.residual(each, resolved, values) if each.complete else None
                found[str(each), ",".join(at) or None] = values.detach().clone(), residual
    return found


def boxes(expressions, x, dtype):
    """The bounds that expressions name, ``data`` being those of ``x``."""
    over = (0, *range(2, x.ndim))
    named = {each.box for each in expressions} - {None}
    found = {each: bounds(each, x.shape[1:], [x.min(over), x.max(over)]) for each in named}
    return {
        key: {k: torch.as_tensor(v, dtype=getattr(torch, dtype)) for k, v in each.items()}
        for key, each in found.items()
    }


def maps(*args, **kwargs):
    """{(expression, layer): map}, asked for as of `answers`."""
    return {key: values for key, (values, _) in answers(*args, **kwargs).items()}


def residuals(*args, **kwargs):
    """{(expression, layer): residual (batch,)} of complete methods, asked for as of `answers`."""
    return {key: residual for key, (_, residual) in answers(*args, **kwargs).items()}
