"""Layer-wise relevance: what it costs over a bare gradient, over zennit, and what many of its methods cost together.

    python tests/benchmarks/relevance.py [time] [names] [memory] [--threads 2]

The parties of a case take turns, and the median of each one's turns counts; ratios are of the same turn. Each has its
own copy of the net (random weights, frozen) and starts from the same batch in memory; ours and zennit's keep their
session and hooks, as a run does from batch to batch. A bare gradient is the least that relevance can cost: one forward
and the gradient at the input, with the net as it is, and in channels-last, which is how ours runs in the plane.

Without zennit its rows are left out. It fits beside camsweep in one environment:

    pip install --no-deps zennit==0.5.1

What it imports but does not need here (torchvision) is stood in for where it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import gc
import importlib
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camsweep.core.checks import settle_domains
from camsweep.core.domains import Space
from camsweep.core.errors import CamsweepError
from camsweep.core.methods import parse_expression
from camsweep.core.trace import Trace
from camsweep.tests.benchmarks.overhead import Block, ResNet18
from camsweep.tests.benchmarks.peers import standing_in
from camsweep.tests.support import AXES, boxes, traced

TARGET, CHUNK = 1, 32
OURS, ZENNIT = "camsweep", "zennit"
BARE, LAST = "bare gradient", "bare gradient, channels-last"
Run = Callable[[], Any]


class ResNet20(nn.Module):
    """(N, 3, 32, 32) -> (N, 10), the net that He et al. (2016) take for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
            widths = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2)]
            self.layers = nn.Sequential(*(Block(*each) for each in (*widths, (64, 64, 1), (64, 64, 1))))
            self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Signals(nn.Module):
    """(N, 6, 100) -> (N, 4): three convolutions and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv1d(6, 32, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(32, 64, 5, padding=2), nn.ReLU(),
                nn.MaxPool1d(2), nn.Conv1d(64, 64, 3, padding=1), nn.ReLU(),
            )  # fmt: skip
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(64 * 25, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x):
        return self.head(self.layers(x))


SIZES = {"resnet-18": (ResNet18, (8, 3, 224, 224)), "resnet-20": (ResNet20, (64, 3, 32, 32)), "1-D": (Signals, (16, 6, 100))}  # fmt: skip
"""Nets, and the batch of each."""


def batch(name: str, count: int | None = None) -> np.ndarray:
    rows, *shape = SIZES[name][1]
    return np.random.default_rng(0).normal(size=(count or rows, *shape)).astype(np.float32)


def net(name: str) -> nn.Module:
    """Frozen, its batch norms settled: untrained ones let next to nothing through to the scores."""
    module = SIZES[name][0]()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0
    with torch.no_grad():
        module(torch.from_numpy(batch(name)))
    return module.eval().requires_grad_(False)


def bare(module: nn.Module, x: Tensor) -> Tensor:
    """One forward, and the gradient of a score at the input."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(module(leaf)[:, TARGET].sum(), leaf)[0]


class Ours:
    """A session that stays open, and is asked for maps of one batch."""

    def __init__(self, first: Trace, target: Any, x: np.ndarray, layer: str) -> None:
        self.session: Any = first.session
        self.around, self.target, self.x, self.layer = first.around, target, x, layer

    def trace(self) -> Trace:
        """A new one, behind its forward."""
        return Trace(self.session, self.session.tensor(self.x), lambda _: [self.target], self.around)

    def __call__(self, methods: Sequence[str], trace: Trace | None = None) -> list[Tensor]:
        """The maps of a trace."""
        trace, found = trace or self.trace(), []
        for text in methods:
            each = parse_expression(text)
            found.append(trace.map(each, self.target, (self.layer,) if each.layered else (), self.x.shape[2:]))
        return found


@contextlib.contextmanager
def camsweep(module: nn.Module, x: np.ndarray, methods: Sequence[str], layer: str = "") -> Iterator[Ours]:
    parsed = [parse_expression(text) for text in methods]
    letters = frozenset().union(*(each.asks for each in parsed))
    around = {
        "domains": settle_domains(parsed, Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2])),
        "boxes": boxes(parsed, x, "float32"),
        "references": {"mean": torch.from_numpy(x.mean((0, *range(2, x.ndim)), keepdims=True)[0])},
        "chunk": CHUNK,
    }
    with traced(module, x, letters, [layer] if layer else [], TARGET, "float32", **around) as (first, target):
        yield Ours(first, target, x, layer)


def zennit() -> Any:
    """The package, or None and a line that says how to install it."""
    try:
        with standing_in(("torchvision", "torchvision.models", "torchvision.models.resnet")):
            return importlib.import_module("zennit")
    except ImportError as error:
        print(f"  zennit left out ({error}): pip install --no-deps zennit==0.5.1")
        return None


def rewritten(package: Any, _: str, module: nn.Module) -> dict[str, Any] | None:
    """Sums and means as modules, for which it has rules."""
    if isinstance(module, Block):

        def block(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(self.total(torch.stack([y, x if self.down is None else self.down(x)], -1)))

        return {"total": package.layer.Sum(), "forward": MethodType(block, module)}
    if isinstance(module, ResNet18 | ResNet20):

        def forward(self, x):
            names = ["stem", "layers"] if isinstance(self, ResNet20) else ["stem", *(f"layer{i}" for i in range(1, 5))]
            for name in names:
                x = getattr(self, name)(x)
            return self.head(self.pool(x).flatten(1))

        return {"pool": nn.AdaptiveAvgPool2d(1), "forward": MethodType(forward, module)}
    return None


@contextlib.contextmanager
def hooked(package: Any, module: nn.Module, x: Tensor, epsilon: float) -> Iterator[Run]:
    """Its Epsilon rule everywhere, batch norms merged; from the score down, as ours."""
    rules, canonizers = package.rules, package.canonizers
    merged = [canonizers.SequentialMergeBatchNorm(), canonizers.AttributeCanonizer(partial(rewritten, package))]
    kinds = [*package.composites.layer_map_base(epsilon), (package.types.Linear, rules.Epsilon(epsilon))]
    composite = package.composites.LayerMapComposite(kinds, canonizers=merged)

    def run() -> Tensor:
        leaf = x.detach().requires_grad_()
        score = module(leaf)[:, TARGET]
        return torch.autograd.grad(score, leaf, score.detach())[0]

    with composite.context(module):
        yield run


def race(parties: Mapping[str, Run], turns: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each party's turns, all taking turns behind one that does not count, and what each gave last."""
    given = {name: run() for name, run in parties.items()}
    seconds: dict[str, list[float]] = {name: [] for name in parties}
    for _ in range(turns):
        for name, run in parties.items():
            began = perf_counter()
            given[name] = run()
            seconds[name].append(perf_counter() - began)
    return seconds, given


def line(party: str, told: str, factor: float | None = None, goal: str = "") -> None:
    """``goal``: ``>= 1.5`` or ``<= 2.5``, what the factor should be."""
    sign, _, limit = goal.partition(" ")
    met = goal and (factor >= float(limit) if sign == ">=" else factor <= float(limit))
    wanted = f"{'ok' if met else 'MISSED'} ({goal}x)" if goal else ""
    shown = "" if factor is None else f"{factor:8.2f}x"
    print(f"    {party:<50}{told:>12}{shown:>10}  {wanted}".rstrip(), flush=True)


EPSILON = ("lrp:eps=1e-6", "lrp:eps=0.25std")


def case_time() -> None:
    """LRP-epsilon against a bare gradient of the same net, and against zennit's; factors are over the bare gradient.

    Its map is a little another: norms that it merges keep their epsilon, and its sums have a stabiliser.
    """
    package = zennit()
    for name, turns in (("resnet-18", 7), ("resnet-20", 15)):
        x = batch(name)
        tensor = torch.from_numpy(x)
        last = tensor.contiguous(memory_format=torch.channels_last)
        module = net(name)
        parties: dict[str, Run] = {
            BARE: partial(bare, copy.deepcopy(module), tensor),
            LAST: partial(bare, copy.deepcopy(module).to(memory_format=torch.channels_last), last),
        }
        with contextlib.ExitStack() as stack:
            for text in EPSILON:
                ours = stack.enter_context(camsweep(copy.deepcopy(module), x, [text]))
                parties[f"{OURS} {text}"] = partial(ours, [text])
            if package:
                # In the faster of its two ways.
                kinds = {ZENNIT: (copy.deepcopy(module), tensor)}
                kinds[f"{ZENNIT}, channels-last"] = copy.deepcopy(module).to(memory_format=torch.channels_last), last
                for label, (own, given) in kinds.items():
                    parties[f"{label} Epsilon(1e-6)"] = stack.enter_context(hooked(package, own, given, 1e-6))
            seconds, given = race(parties, turns)
        print(f"  {name}, batch {' x '.join(map(str, x.shape))}, turns: {turns}")

        def ratio(party: str, other: str, seconds: Mapping[str, list[float]] = seconds) -> float:
            return statistics.median(a / b for a, b in zip(seconds[party], seconds[other], strict=True))

        for party, taken in seconds.items():
            goal = "<= 2.5" if party.startswith(OURS) else ""
            line(party, f"{statistics.median(taken):.4f} s", ratio(party, BARE), goal)
            if goal:
                line("", "over channels-last", ratio(party, LAST), goal)
        for party in [party for party in seconds if party.startswith(ZENNIT)]:
            line(f"{party} over", "", None)
            for text in EPSILON:
                line(f"  {OURS} {text}", "", ratio(party, f"{OURS} {text}"), ">= 1.5")
            mine, theirs = (each.flatten(1) for each in (given[f"{OURS} {EPSILON[0]}"][0], given[party]))
            r = min(float(torch.corrcoef(torch.stack(each))[0, 1]) for each in zip(mine, theirs, strict=True))
            line("  the same map, of the sample that is least alike", f"r = {r:.5f}")


KINDS = {"n": "lrp", "s": "lrpsign", "i": "lrpz", "b": "zblrp", "w": "w2lrp", "f": "flatlrp"}
LRP = {
    "z": "nsbwf",
    "epsilon_0_001": "nsbi", "epsilon_0_01": "nsbiwf", "epsilon_0_1": "nsbiwf", "epsilon_0_2": "nsbi",
    "epsilon_0_5": "nsbi", "epsilon_1": "nsbiwf", "epsilon_5": "nsbi", "epsilon_10": "nsbiwf", "epsilon_20": "nsbiwf",
    "epsilon_50": "nsi", "epsilon_75": "nsi", "epsilon_100": "nsibwf",
    "epsilon_100_mu_0": "s", "epsilon_100_mu_0_5": "s", "epsilon_100_mu_neg_0_5": "s",
    "epsilon_0_1_std_x": "nsibwf", "epsilon_0_25_std_x": "nsibwf", "epsilon_0_5_std_x": "nsibwf",
    "epsilon_0_25_std_x_mu_0": "s", "epsilon_0_25_std_x_mu_0_5": "s", "epsilon_0_25_std_x_mu_neg_0_5": "s",
    "epsilon_1_std_x": "nsi", "epsilon_2_std_x": "nsi", "epsilon_3_std_x": "nsi",
    "alpha_1_beta_0": "nsibwf", "sequential_composite_a": "nsibwf", "sequential_composite_b": "nsibwf",
}  # fmt: skip
SIGNS = ("_x_sign", "_x_sign_mu", "_x_sign_mu_0", "_x_sign_mu_0_5", "_x_sign_mu_neg_0_5")
NAMES = [
    "gradient", "input_t_gradient", "gradient_x_input", "integrated_gradients", "vargrad", "grad_cam",
    "grad_cam_timeseries", "grad_cam_VGG16ILSVRC", "guided_grad_cam_VGG16ILSVRC", "guided_backprop", "smoothgrad",
    "deconvnet",
    *(base + sign for base in ("gradient", "guided_backprop", "smoothgrad", "deconvnet") for sign in SIGNS),
    *(f"{KINDS[kind]}_{base}{'_VGG16ILSVRC' if kind == 'b' else ''}" for base, kinds in LRP.items() for kind in kinds),
]  # fmt: skip
"""All of SIGN-XAI's, but that four are spelt as they were meant."""
MANY = ("smoothgrad", "vargrad", "integrated_gradients")
"""Begin the names of those that ask for many points each, fifty here."""
LAYERS = {"1-D": "layers.6", "resnet-20": "layers"}


def sessions(stack: contextlib.ExitStack, name: str, x: np.ndarray) -> list[Any]:
    """One for all names; and (names, session) for those that ask the same, as a run of one method would have it."""
    alike: dict[frozenset[str], list[str]] = {}
    for each in NAMES:
        alike.setdefault(parse_expression(each).asks, []).append(each)

    def opened(names: Sequence[str]) -> Ours:
        layer = LAYERS[name] if any(parse_expression(each).layered for each in names) else ""
        ours: Ours = stack.enter_context(camsweep(net(name), x, names, layer))
        ours(names[:1])
        return ours

    return [opened(NAMES), *((names, opened(names)) for names in alike.values())]


def case_names() -> None:
    """All of SIGN-XAI's names from one trace, against a trace for each; those of 50 points each come last, and apart."""
    many = [name for name in NAMES if name.startswith(MANY)]
    parts = {"few points": [name for name in NAMES if name not in many], "50 points": many}
    for name, turns in (("1-D", 5), ("resnet-20", 1)):
        x = batch(name, 8)
        print(f"  {name}, batch {' x '.join(map(str, x.shape))}, names: {len(NAMES)}, turns: {turns}", flush=True)
        with contextlib.ExitStack() as stack:
            ours, *own = sessions(stack, name, x)
            alone = {each: session for names, session in own for each in names}
            seconds: dict[tuple[str, str], list[float]] = {}
            passes, given = {}, {}
            for _ in range(turns):
                trace = None
                for part, names in parts.items():
                    for way in ("one trace", "a trace for each"):
                        asked = [ours] if way == "one trace" else [session for _, session in own]
                        before = sum((each.session.passes for each in asked), Counter())
                        began = perf_counter()
                        if way == "one trace":
                            trace = trace or ours.trace()
                            given[way] = ours(names, trace)
                        else:
                            given[way] = [alone[each]([each])[0] for each in names]
                        seconds.setdefault((part, way), []).append(perf_counter() - began)
                        passes[part, way] = sum((each.session.passes for each in asked), Counter()) - before
                    for one, other in zip(*given.values(), strict=True):
                        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
        for part, names in parts.items():
            print(f"   {len(names)} of {part}")
            for way in given:
                counts = passes[part, way]
                told = f"forwards: {counts['forward']}, backwards: {counts['backward']}"
                line(f"{way}; {told}", f"{statistics.median(seconds[part, way]):.3f} s")
            goal = ">= 4" if names is not many else ""
            line("names for each backward of one trace", "", len(names) / passes[part, "one trace"]["backward"], goal)
            faster = [b / a for a, b in zip(*(seconds[part, way] for way in given), strict=True)]
            line("times as fast", "", statistics.median(faster))


def peak(run: Run) -> float:
    """MB that a run holds at most beyond what was held before (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = held("VmRSS")
    given = run()
    found = held("VmHWM") - before
    del given
    return found


def held(what: str) -> float:
    status = dict(each.split(":", 1) for each in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) / 1e3


def case_memory() -> None:
    """The peak of LRP-epsilon beside that of a bare gradient, of the same batch."""
    package = zennit()
    for name in ("resnet-18", "resnet-20"):
        x = batch(name)
        tensor = torch.from_numpy(x)
        with contextlib.ExitStack() as stack:
            parties: dict[str, Run] = {BARE: partial(bare, net(name), tensor)}
            for text in (EPSILON[0], "lrp:A"):
                ours = stack.enter_context(camsweep(net(name), x, [text]))
                parties[f"{OURS} {text}"] = partial(ours, [text])
            if package:
                parties[ZENNIT] = stack.enter_context(hooked(package, net(name), tensor, 1e-6))
            found = {party: [] for party in parties}
            for _ in range(4):  # what is kept from batch to batch is there from the second turn on
                for party, run in parties.items():
                    found[party].append(peak(run))
        print(f"  {name}, batch {' x '.join(map(str, x.shape))}")
        least = {party: statistics.median(each[1:]) for party, each in found.items()}
        for party, size in least.items():
            line(party, f"{size:.0f} MB", size / least[BARE])


CASES = {each.__name__[5:]: each for each in (case_time, case_names, case_memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, "all"], default="all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, torch {torch.__version__}; float32")
    for name in CASES if "all" in options.cases else options.cases:
        print(f"{name}: {CASES[name].__doc__.strip()}")
        began = perf_counter()
        CASES[name]()
        print(f"  ({perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except CamsweepError as error:
        sys.exit(f"error: {error}")
