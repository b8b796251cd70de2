"""Integrated gradients in several domains: what more domains cost, and the same asked of two peers, in this one process.

    python tests/benchmarks/paths.py [domains] [crossdomain] [captum] [--threads 2]

The parties of a case take turns, and the best of each one's turns counts. Each has its own copy of the net (random
weights) and starts from the same batch in memory; ours keeps its session open, as a run does from batch to batch, and
begins with the batch's own forward. A bare loop is the least that a path can cost: for each point of it one forward and
the gradient at the input, nothing else. Factors are the party's time over ours.

A peer that is not installed is left out. Both fit beside camsweep in one environment:

    pip install --no-deps cross-domain-saliency-maps==0.0.8 captum==0.9.0 tqdm
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camsweep.core.checks import settle_domains
from camsweep.core.domains import Space
from camsweep.core.errors import CamsweepError
from camsweep.core.methods import parse_expression
from camsweep.core.trace import Trace
from camsweep.tests.benchmarks.peers import Run, race
from camsweep.tests.support import AXES, CONV, traced

CROSS, CAPTUM = "cross-domain-saliency-maps", "captum"
PEERS = {
    CROSS: ("cross_domain_saliency_maps.torch_ig.cross_domain_integrated_gradients", f"{CROSS}==0.0.8 tqdm"),
    CAPTUM: ("captum.attr", "captum==0.9.0 tqdm"),
}
"""Module, and what to install."""

OURS, BARE = "camsweep", "bare loop: forward + input gradient"
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


def peer(name: str) -> Any:
    """The package, or None and a line that says how to install it."""
    module, install = PEERS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"  {name} left out ({error}): pip install --no-deps {install}")
        return None


def batch(count: int, rank: int = 1) -> np.ndarray:
    shape = {1: (12, 512), 2: (3, 32, 32)}[rank]
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def ig(domain: str = "", *, steps: int = STEPS, rule: str = "gauss") -> str:
    return f"ig:steps={steps},rule={rule}{',' if domain else ''}{domain}"


def ready(methods: Sequence[str]) -> bool:
    """Whether all can be asked for, and a line where they cannot."""
    try:
        for text in methods:
            parse_expression(text)
    except CamsweepError as error:
        print(f"  camsweep left out: {error}")
        return False
    return True


@contextlib.contextmanager
def camsweep(module: nn.Module, x: np.ndarray, methods: Sequence[str], dtype: str = "float32") -> Iterator[Run]:
    """What asks a new trace of ``x`` for all maps and their residuals, from a session that stays open."""
    parsed = [parse_expression(text) for text in methods]
    letters = frozenset().union(*(each.asks for each in parsed))
    domains = settle_domains(parsed, Space(x.shape[1], x.shape[2:], AXES[x.ndim - 2]))
    with traced(module, x, letters, [], TARGET, dtype, chunk=CHUNK, domains=domains) as (first, target):

        def run() -> list[Tensor]:
            trace = Trace(first.session, first.session.tensor(x), lambda _: [target], first.around)
            maps = [trace.map(each, target, (), x.shape[2:]) for each in parsed]
            for each, found in zip(parsed, maps, strict=True):
                trace.residual(each, target, found)
            return maps

        yield run


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


def line(party: str, seconds: float, factor: float | None = None, goal: str = "") -> None:
    """``goal``: ``>= 10`` or ``<= 1.15``, what the factor should be."""
    told = "" if factor is None else f"{factor:8.2f}x"
    sign, _, limit = goal.partition(" ")
    met = goal and (factor >= float(limit) if sign == ">=" else factor <= float(limit))
    wanted = f"{'ok' if met else 'MISSED'} ({goal}x)" if goal else ""
    print(f"    {party:<44}{seconds:10.4f} s{told:>10}  {wanted}".rstrip(), flush=True)


def table(seconds: dict[str, float], judged: str, goal: str) -> None:
    """A row for each party, its factor over ours where we are one; the goal is for those whose name begins so."""
    mine = seconds.get(OURS)
    for party, time in seconds.items():
        line(party, time, time / mine if mine else None, goal if mine and party.startswith(judged) else "")


def case_domains() -> None:
    """Integrated gradients in time, frequency, time-frequency and wavelets, from one trace, over time alone."""
    if not ready(methods := [ig(each) for each in FOUR]):
        return
    for name, count, turns in (("small", 1, 15), ("small", 16, 3), ("large", 1, 5)):
        x, widths = batch(count), NETS[name]
        with (
            camsweep(net(1, widths=widths), x, methods[:1]) as one,
            camsweep(net(1, widths=widths), x, methods) as four,
        ):
            loop = partial(bare, net(1, widths=widths), torch.from_numpy(x), STEPS)
            seconds, _ = race({BARE: loop, OURS: one, "camsweep, ig in four domains": four}, turns, warm=True)
        print(f"  {name} net, samples: {count}, steps: {STEPS}")
        table(seconds, "camsweep, ig in four", "<= 1.15")


def case_crossdomain() -> None:
    """The same four of one sample by cross-domain-saliency-maps, by the right Riemann sum."""
    x, methods = batch(1), [ig(each, rule="riemann") for each in THEIRS]
    package, known = peer(CROSS), ready(methods)
    for name, widths in NETS.items():
        tensor = torch.from_numpy(x)
        parties: dict[str, Run] = {BARE: partial(bare, net(1, widths=widths), tensor, STEPS)}
        parties["bare loop, one point at a time"] = partial(bare, net(1, widths=widths), tensor, STEPS, 1)
        with contextlib.ExitStack() as stack:
            if known:
                parties[OURS] = stack.enter_context(camsweep(net(1, widths=widths), x, methods))
            if package:
                parties[CROSS] = partial(cross_domain, package, net(1, widths=widths), x, STEPS)
            seconds, given = race(parties, turns=3, warm=True)
        print(f"  {name} net, samples: 1, steps: {STEPS}; ours in all four domains too")
        table(seconds, CROSS, ">= 10")
        if known and package:
            for text, mine, theirs in zip(methods, given[OURS], given[CROSS], strict=True):
                inner = slice(4, -4) if mine.ndim == 4 else slice(None)  # frames that see no padding, which differs
                a, b = mine.numpy()[..., inner], theirs[..., inner]
                print(f"      {text:<84}off by <= {np.abs(a - b).max() / np.abs(b).max():.1e} of its largest")


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


def case_captum() -> None:
    """The same integrated gradients by captum: time, and how far the shares miss f(x) - f(0)."""
    package = peer(CAPTUM)
    known = ready([ig()])
    for rank in (1, 2):
        print(f"  samples: 16 of {' x '.join(map(str, batch(1, rank).shape[1:]))}, ReLU")
        for steps, rule, dtype in TIMED if rank == 1 else TIMED[:4]:
            print(f"  {rule}, steps: {steps}, {dtype}")
            timed(package, known, rank, steps, rule, dtype)
    if package and known:
        print(f"  largest error of a sum, ours / captum's, samples: 4, steps: {', '.join(map(str, MISSED))}")
        for rank, smooth, dtype in itertools.product((1, 2), (True, False), ("float32", "float64")):
            for rule in RULES:
                missed(package, rank, smooth, dtype, rule)


def timed(package: Any, known: bool, rank: int, steps: int, rule: str, dtype: str) -> None:
    """One row for each party, the peer both with all points at once and 16 at a time."""
    x, kind = batch(16, rank), getattr(torch, dtype)
    tensor = torch.from_numpy(x).to(kind)
    parties: dict[str, Run] = {BARE: partial(bare, net(rank, dtype), tensor, steps)}
    with contextlib.ExitStack() as stack:
        if known:
            methods = [ig(steps=steps, rule=rule)]
            parties[OURS] = stack.enter_context(camsweep(net(rank, dtype), x, methods, dtype))
        for at_once in (None, 16) if package else ():
            label = f"{CAPTUM}, internal_batch_size={at_once}"
            parties[label] = partial(captum_ig, package, net(rank, dtype), tensor, steps, rule, at_once)
        seconds, _ = race(parties, turns=3, warm=True)
    table(seconds, CAPTUM, ">= 1")


def missed(package: Any, rank: int, smooth: bool, dtype: str, rule: str) -> None:
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
        with camsweep(net(rank, dtype, smooth=smooth), x, [ig(steps=steps, rule=rule)], dtype) as run:
            [mine] = run()
        off, goal = (float((m.double().flatten(1).sum(1) - (at - origin)).abs().max()) for m in (mine, theirs))
        told.append(f"{off:.1e} / {goal:.1e}")
        excess = max(excess, off - goal)
    label = f"{rank}-D {'tanh' if smooth else 'ReLU'} {dtype} {rule}"
    size = f"of {float((at - origin).abs().max()):.2f}"
    verdict = "ok" if excess <= rounding else "MISSED"
    print(f"    {label:<28}{size:<10}{'   '.join(told)}   {verdict}, larger by <= {max(excess, 0):.0e}", flush=True)


CASES = {each.__name__[5:]: each for each in (case_domains, case_crossdomain, case_captum)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, "all"], default="all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, torch {torch.__version__}; float32 unless said")
    for name in CASES if "all" in options.cases else options.cases:
        print(f"{name}: {CASES[name].__doc__}")
        began = perf_counter()
        CASES[name]()
        print(f"  ({perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except CamsweepError as error:
        sys.exit(f"error: {error}")
