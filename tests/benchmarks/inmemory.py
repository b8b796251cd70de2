"""What the races of methods share: our maps and the peers' of one batch in memory, and whether they are the same.

Each party has its own copy of the net. Ours comes from a trace through the real backend, as in a run, without reading and
writing; peers are told the predicted classes, so that none needs a forward for them.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camsweep.core.allocator import keeping
from camsweep.core.checks import settle_domains
from camsweep.core.domains import Space
from camsweep.core.grid import resize
from camsweep.core.methods import parse_expression
from camsweep.core.trace import Trace
from camsweep.tests.benchmarks.peers import CAPTUM, PGC, TORCHCAM, peer
from camsweep.tests.benchmarks.race import Bench, Missing, Run, Times
from camsweep.tests.support import AXES, boxes, traced


class Ours:
    """A session that stays open, as a run's does from batch to batch, and is asked for maps of one batch."""

    def __init__(self, first: Trace, x: np.ndarray, layers: Sequence[str]) -> None:
        self.session: Any = first.session
        self.around, self.targets, self.x, self.layers = first.around, list(first.targets), x, layers

    def trace(self) -> Trace:
        """A new one, behind its forward."""
        return Trace(self.session, self.session.tensor(self.x), lambda _: self.targets, self.around)

    def __call__(self, methods: Sequence[str], trace: Trace | None = None) -> list[Tensor]:
        """The maps of a trace: methods x layers x targets."""
        trace, found = trace or self.trace(), []
        for text, target in itertools.product(methods, self.targets):
            each = parse_expression(text)
            for at in [(layer,) for layer in self.layers] if each.layered else [()]:
                found.append(trace.map(each, target, at, self.x.shape[2:]))
        return found


@contextlib.contextmanager
def camsweep(
    module: Any, x: np.ndarray, methods: Sequence[str], *layers: str, target: int | str = "predicted", chunk: int = 32
) -> Iterator[Ours]:  # fmt: skip
    """A session of a module, or of a backend, for these methods, layers and targets."""
    parsed = [parse_expression(text) for text in methods]
    letters = frozenset().union(*(each.asks for each in parsed))
    around = {
        "domains": settle_domains(parsed, Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2])),
        "boxes": boxes(parsed, x, "float32"),
        "references": {"mean": torch.from_numpy(x.mean((0, *range(2, x.ndim)), keepdims=True)[0])},
        "chunk": chunk,
    }
    with traced(module, x, letters, layers, target, "float32", **around) as (first, _):
        yield Ours(first, x, layers)


def ours(
    stack: contextlib.ExitStack, module: nn.Module, x: np.ndarray, methods: Sequence[str], *layers: str,
    size: tuple[int, ...] | None = None, **more: Any,
) -> Callable[[], dict[str, np.ndarray]]:  # fmt: skip
    """Our turn: all methods of one trace, of one layer and one target; at the layer's grid, or on one of ``size``."""
    session = stack.enter_context(camsweep(copy.deepcopy(module), x, methods, *layers, **more))

    def run() -> dict[str, np.ndarray]:
        with keeping():  # as a run does
            maps = session(methods)
            return {m: (resize(each, size) if size else each).numpy() for m, each in zip(methods, maps, strict=True)}

    return run


def pgc(package: Any, name: str, module: nn.Module, layer: str, x: torch.Tensor, _: torch.Tensor) -> np.ndarray:
    """Its hooks put on and taken off; it finds the predicted class itself."""
    quiet = contextlib.redirect_stderr(io.StringIO())  # progress bars
    with quiet, getattr(package, name)(model=module, target_layers=[module.get_submodule(layer)]) as cam:
        return cam(input_tensor=x, targets=None)


def captum(
    package: Any, name: str, module: nn.Module, layer: str, x: torch.Tensor, classes: torch.Tensor
) -> np.ndarray:
    cam = getattr(package, name)(module, module.get_submodule(layer))
    return cam.attribute(x, classes, relu_attributions=True).detach().squeeze(1).numpy()


def torchcam(
    package: Any, name: str, module: nn.Module, layer: str, x: torch.Tensor, classes: torch.Tensor
) -> np.ndarray:
    with getattr(package, name)(module, layer) as cam:
        return cam(classes.tolist(), module(x))[0].numpy()


CAMS: dict[str, Callable[..., np.ndarray]] = {PGC: pgc, CAPTUM: captum, TORCHCAM: torchcam}


def packages(names: Sequence[str]) -> dict[str, Any]:
    """Each peer's package, or why it is missing."""
    found = {}
    for name in names:
        try:
            found[name] = peer(name)
        except Missing as why:
            found[name] = why
    return found


def rivals(module: nn.Module, layer: str, x: np.ndarray, names: dict[str, list[str]]) -> dict[str, Run | Missing]:
    """For each peer its CAMs ``names``, one after the other; two of them ask for parameters that can have gradients."""
    tensor, found = torch.from_numpy(x), {}
    with torch.no_grad():
        classes = module(tensor).argmax(1)
    for each, package in packages(list(names)).items():
        found[each] = (
            package
            if isinstance(package, Missing)
            else _all(each, package, names[each], copy.deepcopy(module).requires_grad_(), layer, tensor, classes)
        )
    return found


def _all(party: str, package: Any, names: list[str], *given: Any) -> Run:
    return lambda: [CAMS[party](package, name, *given) for name in names]


def unit(values: np.ndarray) -> np.ndarray:
    """(batch, everything), each sample cut at 0 and scaled to 0..1."""
    flat = np.maximum(values.reshape(len(values), -1).astype(np.float64), 0)
    flat -= flat.min(1, keepdims=True)
    return flat / np.maximum(flat.max(1, keepdims=True), 1e-300)


def agreement(mine: np.ndarray, theirs: np.ndarray) -> str:
    """How far two parties' maps are the same, outside a scale for each sample; the peer's are brought to our grid."""
    a, b = unit(mine), unit(resize(theirs, mine.shape[1:]))
    return f"{alike(a, b)}, off by <= {np.abs(a - b).max():.0e}"


def alike(mine: np.ndarray, theirs: np.ndarray) -> str:
    """The correlation of the sample that is least alike, maps of as many numbers."""
    a, b = (each.reshape(len(each), -1).astype(np.float64) for each in (mine, theirs))
    shaped = (a.std(1) > 0) & (b.std(1) > 0)
    r = min((np.corrcoef(p, q)[0, 1] for p, q in zip(a[shaped], b[shaped], strict=True)), default=math.nan)
    return f"r >= {r:.5f}"


def versus(
    bench: Bench, case: str, parties: dict[str, Run | Missing], same: Callable[[Times, str], str], goal: str = ">= 1"
) -> Times:
    """Race, and a row for each peer with what `same` says of its maps."""
    times = bench.race(case, parties)
    peers = [name for name in times.seconds if not name.startswith(("camsweep", "bare"))]
    bench.against(case, times, goal=goal, notes={name: same(times, name) for name in peers})
    return times
