"""Integrated gradients in several domains: what more domains cost, and the same asked of two peers, in this one process.

    python tests/benchmarks/paths.py [domains] [crossdomain] [captum] [--quick]

Each party has its own copy of the net (random weights) and starts from the same batch in memory; ours keeps its session
open, as a run does from batch to batch, and begins with the batch's own forward. A bare loop is the least that a path can
cost: for each point of it one forward and the gradient at the input, nothing else.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camsweep.core.checks import settle_domains
from camsweep.core.domains import Space
from camsweep.core.methods import parse_expression
from camsweep.core.trace import Trace
from camsweep.tests.benchmarks.inmemory import packages
from camsweep.tests.benchmarks.peers import CAPTUM, CROSS
from camsweep.tests.benchmarks.race import OURS, Bench, Missing, Run
from camsweep.tests.support import AXES, CONV, traced

BARE = "bare loop: forward + input gradient"
NETS = {"small": (32, 64, 64), "large": (64, 128, 256, 256)}
"""Channels of the convolutions behind the input's."""
TARGET, STEPS, CHUNK = 1, 100, 32
FOUR = ("", "domain=fourier", "domain=stft", "domain=wavelet")
THEIRS = (
    "",
    "domain=fourier,sided=two",
    "domain=stft,window=boxcar,length=64,hop=16",
    "domain=wavelet,wavelet=haar,levels=3,per=level",
)
"""What `cross_domain` gives, in our words."""
RULES = {"gauss": "gausslegendre", "riemann": "riemann_right", "trapezoid": "riemann_trapezoid"}
"""Our rule, and what captum calls it."""


class PathNet(nn.Module):
    """Convolutions, all but the first of stride 2, and a head of four classes behind the mean over all places.

    Its biases are no zeros: without them a ReLU net is straight along the path from zero, and any rule is exact.
    """

    def __init__(self, rank: int = 1, widths: Sequence[int] = NETS["small"], *, smooth: bool = False) -> None:
        super().__init__()
        self.act = torch.tanh if smooth else torch.relu
        size, channels = {1: (7, 12), 2: (3, 3)}[rank]
        sizes = zip((channels, *widths), widths, strict=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            convs = [CONV[rank](n, m, size, 2 if i else 1, size // 2) for i, (n, m) in enumerate(sizes)]
            self.convs, self.head = nn.ModuleList(convs), nn.Linear(widths[-1], 4)
            for each in (*convs, self.head):
                nn.init.kaiming_normal_(each.weight)
                nn.init.normal_(each.bias, std=0.3)

    def forward(self, x):
        for conv in self.convs:
            x = self.act(conv(x))
        return self.head(x.flatten(2).mean(2))


def net(rank: int, dtype: str = "float32", **kind: Any) -> nn.Module:
    return PathNet(rank, **kind).eval().to(getattr(torch, dtype))


def batch(count: int, rank: int = 1) -> np.ndarray:
    shape = {1: (12, 512), 2: (3, 32, 32)}[rank]
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def ig(domain: str = "", *, steps: int = STEPS, rule: str = "gauss") -> str:
    return f"ig:steps={steps},rule={rule}{',' if domain else ''}{domain}"


def turn(bench: Bench, module: nn.Module, x: np.ndarray, methods: Sequence[str], dtype: str = "float32") -> Run:
    """What asks a new trace of ``x`` for all maps and their residuals, from a session that stays open."""
    parsed = [parse_expression(text) for text in methods]
    letters = frozenset().union(*(each.asks for each in parsed))
    domains = settle_domains(parsed, Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2]))
    opened = traced(module, x, letters, [], TARGET, dtype, chunk=CHUNK, domains=domains)
    first, target = bench.stack.enter_context(opened)

    def run() -> list[Tensor]:
        trace = Trace(first.session, first.session.tensor(x), lambda _: [target], first.around)
        maps = [trace.map(each, target, (), x.shape[2:]) for each in parsed]
        for each, found in zip(parsed, maps, strict=True):
            trace.residual(each, target, found)
        return maps

    return run


def bare(module: nn.Module, x: Tensor, steps: int, chunk: int = CHUNK) -> None:
    """Forward and gradient at the input of ``steps`` points for each sample, ``chunk`` of them at a time."""
    points = x.repeat(steps, *[1] * (x.ndim - 1)) * torch.rand(steps * len(x), *[1] * (x.ndim - 1), dtype=x.dtype)
    for each in points.split(chunk):
        torch.autograd.grad(module(each.requires_grad_())[:, TARGET].sum(), each)


def cross_domain(package: Any, module: nn.Module, x: np.ndarray, steps: int) -> list[np.ndarray]:
    """Its maps of one sample in the four domains, laid out as ours."""
    common = {"model": module, "n_iterations": steps, "output_channel": TARGET, "device": torch.device("cpu")}
    asked = [
        package.TimeIG(**common),
        package.FourierIG(**common),
        package.STFTIG(**common, n_fft=64, hop_length=16, win_length=64),
        package.DWTIG(**common, levels=3),
    ]
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        time, fourier, stft, levels = (each.run(x, np.zeros_like(x)).detach().numpy() for each in asked)
    return [time, np.fft.fftshift(fourier, -1), stft, levels[:, :, [0, 3, 2, 1], 0]]


def captum_ig(package: Any, module: nn.Module, x: Tensor, steps: int, rule: str, at_once: int | None) -> Tensor:
    one = package.IntegratedGradients(module)
    found = one.attribute(x, target=TARGET, n_steps=steps, method=RULES[rule], internal_batch_size=at_once)
    return found.detach()


def case_domains(bench: Bench) -> None:
    """Integrated gradients in time, frequency, time-frequency and wavelets, from one trace, over time alone."""
    methods, four, each_own = [ig(each) for each in FOUR], "camsweep, ig in four domains", "camsweep, a call each"
    for name, count in (("small", 1), ("small", 16), ("large", 1))[: 2 if bench.quick else 3]:
        x, widths = batch(count), NETS[name]
        alone = [turn(bench, net(1, widths=widths), x, [method]) for method in methods]
        parties: dict[str, Run | Missing] = {
            BARE: partial(bare, net(1, widths=widths), torch.from_numpy(x), STEPS),
            OURS: alone[0],
            four: turn(bench, net(1, widths=widths), x, methods),
            each_own: lambda alone=alone: [call() for call in alone],
        }
        case = f"ig in four domains, {name} 1-D net, samples: {count}, steps: {STEPS}"
        times = bench.race(case, parties)
        bench.ratio(case, times, OURS, BARE)
        bench.ratio(case, times, four, OURS, "<= 1.15")
        bench.ratio(case, times, each_own, four, ">= 1")


def case_crossdomain(bench: Bench) -> None:
    """The same four of one sample by cross-domain-saliency-maps, by the right Riemann sum."""
    x, methods, steps = batch(1), [ig(each, rule="riemann") for each in THEIRS], STEPS
    package = packages([CROSS])[CROSS]
    for name, widths in NETS.items():
        case = f"four domains, {name} 1-D net, samples: 1, steps: {steps}"
        parties: dict[str, Run | Missing] = {
            BARE: partial(bare, net(1, widths=widths), torch.from_numpy(x), steps),
            OURS: turn(bench, net(1, widths=widths), x, methods),
            CROSS: package
            if isinstance(package, Missing)
            else partial(cross_domain, package, net(1, widths=widths), x, steps),
        }
        times = bench.race(case, parties)
        off = 0.0
        for mine, theirs in zip(times.given[OURS], times.given.get(CROSS, []), strict=False):
            inner = slice(4, -4) if mine.ndim == 4 else slice(None)  # frames that see no padding, which differs
            a, b = mine.numpy()[..., inner], theirs[..., inner]
            off = max(off, float(np.abs(a - b).max() / np.abs(b).max()))
        bench.against(case, times, notes={CROSS: f"off by <= {off:.0e} of the largest; one point at a time there"})


TIMED = (
    (32, "gauss", "float32"),
    (50, "gauss", "float32"),
    (100, "gauss", "float32"),
    (50, "gauss", "float64"),
    (50, "riemann", "float32"),
    (50, "trapezoid", "float32"),
)
MISSED = (32, 50, 100)
"""Steps, rules and types whose time is taken, of images without the last two; and steps whose error is."""


def case_captum(bench: Bench) -> None:
    """The same integrated gradients by captum: time, and how far the shares miss f(x) - f(0)."""
    package = packages([CAPTUM])[CAPTUM]
    for rank in (1, 2):
        for steps, rule, dtype in (TIMED if rank == 1 else TIMED[:4])[: 1 if bench.quick else None]:
            timed(bench, package, rank, steps, rule, dtype)
    if not isinstance(package, Missing) and not bench.quick:
        print(f"  largest error of a sum, ours / captum's, samples: 4, steps: {', '.join(map(str, MISSED))}")
        for rank, smooth, dtype in itertools.product((1, 2), (True, False), ("float32", "float64")):
            for rule in RULES:
                missed(bench, package, rank, smooth, dtype, rule)


def timed(bench: Bench, package: Any, rank: int, steps: int, rule: str, dtype: str) -> None:
    """A row for the peer both with all points at once and 16 at a time."""
    x = batch(16, rank)
    tensor = torch.from_numpy(x).to(getattr(torch, dtype))
    parties: dict[str, Run | Missing] = {
        BARE: partial(bare, net(rank, dtype), tensor, steps),
        OURS: turn(bench, net(rank, dtype), x, [ig(steps=steps, rule=rule)], dtype),
    }
    for at_once in (None, 16):
        made = partial(captum_ig, package, net(rank, dtype), tensor, steps, rule, at_once)
        label = f"{CAPTUM}, all points at once" if at_once is None else f"{CAPTUM}, {at_once} at a time"
        parties[label] = package if isinstance(package, Missing) else made
    case = f"ig, 16 x {' x '.join(map(str, x.shape[1:]))}, {rule}, steps: {steps}, {dtype}"
    bench.against(case, bench.race(case, parties))


def missed(bench: Bench, package: Any, rank: int, smooth: bool, dtype: str, rule: str) -> None:
    """Against the difference in float64.

    By the same rule both errors are the rule's, and apart by no more than rounding: 8 float32 epsilons of the largest
    score are let through, in float64 too, where captum's weights are float32.
    """
    x = batch(4, rank)
    tensor = torch.from_numpy(x).to(getattr(torch, dtype))
    exact = net(rank, "float64", smooth=smooth)
    with torch.no_grad():
        at, origin = (exact(each)[:, TARGET] for each in (tensor.double(), tensor.double() * 0))
    rounding = 8 * torch.finfo(torch.float32).eps * float(torch.cat([at, origin]).abs().max())
    told, excess = [], -math.inf
    for steps in MISSED:
        theirs = captum_ig(package, net(rank, dtype, smooth=smooth), tensor, steps, rule, 16)
        [mine] = turn(bench, net(rank, dtype, smooth=smooth), x, [ig(steps=steps, rule=rule)], dtype)()
        off, goal = (float((m.double().flatten(1).sum(1) - (at - origin)).abs().max()) for m in (mine, theirs))
        told.append(f"{off:.1e} / {goal:.1e}")
        excess = max(excess, off - goal)
    label = f"{rank}-D, {'tanh' if smooth else 'ReLU'}, {dtype}, {rule}, of {float((at - origin).abs().max()):.2f}"
    told = f"of ours / captum's, steps {', '.join(map(str, MISSED))}: {',  '.join(told)}"
    bench.add("ig: error of the sum", label, max(excess, 0.0), unit="", goal=f"<= {rounding:.0e}", note=told)


CASES = {each.__name__[5:]: each for each in (case_domains, case_crossdomain, case_captum)}

if __name__ == "__main__":
    Bench("paths", __doc__ or "", CASES).run()
