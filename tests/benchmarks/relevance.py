"""Layer-wise relevance: what it costs over a bare gradient, over zennit, and what many of its methods cost together.

    python tests/benchmarks/relevance.py [time] [names] [memory] [--quick]

Each party has its own copy of the net (random weights, frozen) and starts from the same batch in memory; ours and
zennit's keep their session and hooks, as a run does from batch to batch. A bare gradient is the least that relevance can
cost: one forward and the gradient at the input, nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camsweep.core.methods import parse_expression
from camsweep.tests.benchmarks.inmemory import Ours, alike, camsweep, packages
from camsweep.tests.benchmarks.nets import Block, ResNet18, ResNet20, Signals, noise, settled
from camsweep.tests.benchmarks.peers import ZENNIT
from camsweep.tests.benchmarks.race import OURS, Bench, Missing, Run

TARGET = 1
BARE, LAST = "bare gradient", "bare gradient, channels-last"
SIZES = {"resnet-18": (ResNet18, (8, 3, 224, 224)), "resnet-20": (ResNet20, (64, 3, 32, 32)), "1-D": (Signals, (16, 6, 100))}  # fmt: skip
"""Nets, and the batch of each."""


def batch(name: str, count: int | None = None) -> np.ndarray:
    rows, *shape = SIZES[name][1]
    return noise(count or rows, *shape)


def net(name: str) -> nn.Module:
    return settled(SIZES[name][0](), batch(name))


def bare(module: nn.Module, x: Tensor) -> Tensor:
    """One forward, and the gradient of a score at the input."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(module(leaf)[:, TARGET].sum(), leaf)[0]


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


EPSILON = ("lrp:eps=1e-6", "lrp:eps=0.25std")


def case_time(bench: Bench) -> None:
    """LRP-epsilon against a bare gradient of the same net, and against zennit's, in the faster of their two layouts.

    Zennit's map is a little another: norms that it merges keep their epsilon, and its sums have a stabiliser.
    """
    package = packages([ZENNIT])[ZENNIT]
    for name in ("resnet-20",) if bench.quick else ("resnet-18", "resnet-20"):
        x = batch(name)
        last = torch.channels_last
        kinds = {"": (net(name), torch.from_numpy(x))}
        kinds[", channels-last"] = (net(name).to(memory_format=last), kinds[""][1].contiguous(memory_format=last))
        parties: dict[str, Run | Missing] = {
            BARE: partial(bare, *kinds[""]),
            LAST: partial(bare, *kinds[", channels-last"]),
        }
        for text in EPSILON:
            ours = bench.stack.enter_context(camsweep(net(name), x, [text], target=TARGET))
            parties[f"{OURS} {text}"] = partial(ours, [text])
        for label, (module, given) in kinds.items():
            one = package if isinstance(package, Missing) else hooked(package, copy.deepcopy(module), given, 1e-6)
            parties[f"{ZENNIT}{label}"] = one if isinstance(one, Missing) else bench.stack.enter_context(one)
        case = f"LRP-epsilon, {name}, batch {' x '.join(map(str, x.shape))}"
        times = bench.race(case, parties)
        limit = times.fastest([BARE, LAST])
        for text in EPSILON:
            bench.ratio(case, times, f"{OURS} {text}", limit, "<= 2.5")
        for party in [each for each in times.seconds if each.startswith(ZENNIT)]:
            same = alike(times.given[f"{OURS} {EPSILON[0]}"][0].numpy(), times.given[party].numpy())
            for text in EPSILON:
                bench.ratio(case, times, party, f"{OURS} {text}", ">= 1.5", same if text == EPSILON[0] else "")


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


def sessions(bench: Bench, name: str, x: np.ndarray) -> list[Any]:
    """One for all names; and (names, session) for those that ask the same, as a run of one method would have it."""
    alike: dict[frozenset[str], list[str]] = {}
    for each in NAMES:
        alike.setdefault(parse_expression(each).asks, []).append(each)

    def opened(names: Sequence[str]) -> Ours:
        layers = [LAYERS[name]] if any(parse_expression(each).layered for each in names) else []
        ours: Ours = bench.stack.enter_context(camsweep(net(name), x, names, *layers, target=TARGET))
        ours(names[:1])
        return ours

    return [opened(NAMES), *((names, opened(names)) for names in alike.values())]


def case_names(bench: Bench) -> None:
    """All of SIGN-XAI's names from one trace, against a trace for each; those of 50 points each apart."""
    many = [name for name in NAMES if name.startswith(MANY)]
    parts = {"few points": [name for name in NAMES if name not in many], "50 points": many}
    for name in ("1-D",) if bench.quick else ("1-D", "resnet-20"):
        ours, *own = sessions(bench, name, batch(name, 8))
        alone = {each: session for names, session in own for each in names}
        for part, names in parts.items():
            case, each_own = f"{len(names)} names of SIGN-XAI, {part}, {name}", f"{OURS}, a call each"
            before = ours.session.passes.copy()
            ours(names)
            passes: Counter[str] = ours.session.passes - before
            times = bench.race(case, {
                OURS: partial(ours, names), each_own: lambda names=names, alone=alone: [alone[each]([each])[0] for each in names],
            })  # fmt: skip
            for one, other in zip(times.given[OURS], times.given[each_own], strict=True):
                assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
            bench.ratio(
                case, times, each_own, OURS, ">= 1", f"forwards: {passes['forward']}, backwards: {passes['backward']}"
            )
            goal = ">= 4" if names is not many else ""
            bench.add(case, "names for each backward of one call", len(names) / passes["backward"], unit="", goal=goal)
        bench.add(case, "SIGN-XAI", note="not raced: it asks for NumPy 1 and an older TensorFlow")


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


def case_memory(bench: Bench) -> None:
    """The peak of LRP-epsilon beside that of a bare gradient, of the same batch."""
    package = packages([ZENNIT])[ZENNIT]
    for name in ("resnet-20",) if bench.quick else ("resnet-18", "resnet-20"):
        x = batch(name)
        tensor = torch.from_numpy(x)
        parties: dict[str, Run] = {BARE: partial(bare, net(name), tensor)}
        for text in (EPSILON[0], "lrp:A"):
            ours = bench.stack.enter_context(camsweep(net(name), x, [text], target=TARGET))
            parties[f"{OURS} {text}"] = partial(ours, [text])
        if not isinstance(package, Missing):
            parties[ZENNIT] = bench.stack.enter_context(hooked(package, net(name), tensor, 1e-6))
        found: dict[str, list[float]] = {party: [] for party in parties}
        for _ in range(4):  # what is kept from batch to batch is there from the second turn on
            for party, run in parties.items():
                found[party].append(peak(run))
        least = statistics.median(found[BARE][1:])
        for party, sizes in found.items():
            size = statistics.median(sizes[1:])
            case = f"peak of memory, {name}, batch {' x '.join(map(str, x.shape))}"
            bench.add(case, party, size, unit="MB", note=f"{size / least:.2f} x the bare gradient's")


CASES = {each.__name__[5:]: each for each in (case_time, case_names, case_memory)}

if __name__ == "__main__":
    Bench("relevance", __doc__ or "", CASES).run()
