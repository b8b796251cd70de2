"""Metrics against the peers': deletion against Quantus' pixel flipping, ROAD against pytorch-grad-cam's, in one process.

    python tests/benchmarks/metrics.py [deletion] [defaults] [road] [both] [imputation] [--quick]

The parties of a row have the same net, inputs and maps, without ties. Ours packs changed inputs into batches of 32, images
channels-last, batch norms folded and freed memory kept, as `camsweep evaluate` does; the peers take them as they are built.
The bare forwards are those of our changed inputs, as the peers run them. For deletion the peer runs as many, so what is left
to be gained is what the peer does beside them; for ROAD it runs twice as many, the untouched inputs again for each share.
The numbers are compared as well.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import torch
from torch import nn

from camsweep.backends.torch.folding import FoldWatch, folded
from camsweep.core.allocator import keeping
from camsweep.core.metrics import Case, Curve, parse_metric, scores
from camsweep.core.metrics.imputation import impute
from camsweep.tests.benchmarks.peers import PGC, QUANTUS, peer
from camsweep.tests.benchmarks.race import OURS, Bench, Missing, Run
from camsweep.tests.benchmarks.relevance import SIZES, batch

ROWS = {"1-D": 64, "resnet-20": 16, "resnet-18": 8}
"""Nets, and how many maps of each."""
STEPS = 24
"""Of a curve; Quantus counts values, so at every third step of three channels it has whole places, as ours."""
BATCH = 32
PERCENT = (25, 50, 75)
"""Which are whole places of these pictures: elsewhere a quantile and a rounded count are one place apart."""


class Subject:
    """A net, inputs, classes and maps without ties: every place a rank of its own, by chance or, ``smooth``, as of a CAM."""

    def __init__(self, name: str, *, smooth: bool = False) -> None:
        x = batch(name, ROWS[name])
        self.net: nn.Module = SIZES[name][0]().eval()
        self.x = torch.from_numpy(x)
        self.layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        self.own = copy.deepcopy(self.net).to(memory_format=self.layout)
        with torch.inference_mode(), FoldWatch(self.own) as watch:
            given = self.own(self.x[:1].contiguous(memory_format=self.layout))
        self.folds = watch.folds(given)
        field = torch.from_numpy(np.random.default_rng(1).random((len(x), 1, *x.shape[2:])))
        if smooth:
            coarse = nn.functional.adaptive_avg_pool2d(field, 7)
            field = nn.functional.interpolate(coarse, x.shape[2:], mode="bilinear") + 1e-9 * field
        ranks = field.numpy().reshape(len(x), -1).argsort(1).argsort(1)
        self.maps = ranks.reshape(len(x), *x.shape[2:]) / ranks.shape[1]
        with torch.inference_mode():
            self.classes = self.net(self.x).argmax(1)

    def case(self) -> Case:
        """A fresh one: nothing that it keeps may be left from the turn before."""
        return Case(torch.from_numpy(self.maps)[:, None], x=self.x, seeds=[(i,) for i in range(len(self.x))])

    def score(self, x: torch.Tensor, i: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), folded(self.folds):
            return self.own(x.contiguous(memory_format=self.layout))[torch.arange(len(x)), self.classes[i]]

    def heights(self, text: str) -> np.ndarray:
        """The curve of a metric, (n, k)."""
        of, choice = self.case(), parse_metric(text)
        with keeping():
            answers = {"v": scores(choice.plan(of.places), of, self.score, BATCH)}
            if "y" in choice.metric.asks:
                answers["y"] = self.score(self.x, torch.arange(len(self.x)), torch.zeros(1))[:, None]
            found = choice(of, **answers)
        assert isinstance(found, Curve)
        return found.heights[:, 0].numpy()

    def forwards(self, count: int) -> None:
        """The bare forwards of so many batches."""
        with torch.inference_mode():
            for _ in range(count):
                self.net(self.x)


def apart(mine: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in parts of the largest number."""
    return np.abs(mine - theirs).max() / np.abs(theirs).max()


def row(
    bench: Bench, label: str, peer: str, mine: Run, theirs: Run, bare: Run | None = None, off: float | None = None,
    goal: str = ">= 1",
) -> None:  # fmt: skip
    """The peer's time over ours, and ours over the bare forwards'; ``off`` where what ran is not what is compared."""
    parties = {OURS: mine, peer: theirs, **({"bare forwards": bare} if bare else {})}
    times = bench.race(label, parties)
    apart_by = apart(times.given[OURS], times.given[peer]) if off is None else off
    bench.against(label, times, goal=goal, notes={peer: f"off by <= {apart_by:.0e}"})


def package(bench: Bench, name: str, *unused: str) -> Any:
    """A peer's, or None and a row that says why."""
    try:
        return peer(name, *unused)
    except Missing as why:
        bench.add("metrics", name, note=str(why))
        return None


def case_deletion(bench: Bench) -> None:
    """Deletion and pixel flipping, as many steps of as many values, 0 in their place; the curves where they meet."""
    if not (quantus := package(bench, QUANTUS)):
        return
    for name in ROWS:
        of = Subject(name)
        x, y = of.x.numpy(), of.classes.numpy()
        flip = quantus.PixelFlipping(
            features_in_step=x[0].size // STEPS, perturb_baseline=0.0, normalise=False, disable_warnings=True
        )

        def theirs(of=of, flip=flip, x=x, y=y) -> np.ndarray:
            maps = of.maps.reshape(len(x), 1, *x.shape[2:])
            keys = {"channel_first": True, "softmax": False, "batch_size": len(x), "device": "cpu"}
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                return np.array(flip(of.net, x, y, a_batch=maps, **keys))

        whole = np.s_[:, len(x[0]) - 1 :: len(x[0])]
        row(
            bench, f"deletion, {name}, {len(x)} x {STEPS}", QUANTUS,
            lambda of=of, whole=whole: of.heights(f"deletion:steps={STEPS}")[:, 1:][whole],
            lambda theirs=theirs, whole=whole: theirs()[whole],
            lambda of=of: of.forwards(STEPS),
        )  # fmt: skip


def case_defaults(bench: Bench) -> None:
    """The same area by each one's own defaults: 20 steps over places here, a forward for every value in Quantus."""
    if not (quantus := package(bench, QUANTUS)):
        return
    of = Subject("1-D")
    x, y = of.x.numpy(), of.classes.numpy()
    flip = quantus.PixelFlipping(perturb_baseline=0.0, normalise=False, disable_warnings=True)

    def theirs() -> np.ndarray:
        maps = of.maps.reshape(len(x), 1, *x.shape[2:])
        with contextlib.redirect_stderr(io.StringIO()):
            curves = np.array(
                flip(of.net, x, y, a_batch=maps, channel_first=True, softmax=False, batch_size=len(x), device="cpu")
            )
        whole = curves[:, len(x[0]) - 1 :: len(x[0])]  # values of one place go one after the other
        start = of.score(of.x, torch.arange(len(x)), torch.zeros(1))[:, None].numpy()
        return np.trapezoid(np.concatenate([start, whole], 1), dx=1 / whole.shape[1], axis=1)

    def mine() -> np.ndarray:
        heights = of.heights("deletion")
        return np.trapezoid(heights, dx=1 / (heights.shape[1] - 1), axis=1)

    case = f"deletion by defaults, 1-D, {len(x)} x 20, {x[0].size}"
    row(bench, case, QUANTUS, mine, theirs, lambda: of.forwards(20), goal=">= 5")


def case_road(bench: Bench) -> None:
    """ROAD at three shares, in both orders, where the map is blobs and where it is noise, with the noise of 0.01; without it the scores are compared."""
    if not (cam := package(bench, PGC, "cv2", "ttach")):
        return
    road, percent = cam.metrics.road, ".".join(map(str, PERCENT))
    for name, smooth in ((name, smooth) for name in ("resnet-20", "resnet-18") for smooth in (True, False)):
        of = Subject(name, smooth=smooth)
        targets = [lambda scores, k=k: scores[k] for k in of.classes.tolist()]
        maps = of.maps.astype(np.float32)

        def theirs(of=of, maps=maps, targets=targets) -> np.ndarray:
            return road.ROADCombined(list(PERCENT))(of.x, maps, targets, of.net)

        ours = f"road-confidence:percent={percent}"
        with quiet(road):
            off = apart(of.heights(f"{ours},noise=0").mean(1), theirs())
        row(
            bench, f"ROAD, {name}, {'maps as of a CAM' if smooth else 'maps of noise'}, {len(of.x)} x {2 * len(PERCENT)}", PGC, lambda of=of, ours=ours: of.heights(ours).mean(1),
            theirs, lambda of=of: of.forwards(2 * len(PERCENT)), off, goal=">= 5",
        )  # fmt: skip


def case_both(bench: Bench) -> None:
    """Deletion and ROAD of the same maps, one after the other, each package by its own defaults."""
    quantus, cam = package(bench, QUANTUS), package(bench, PGC, "cv2", "ttach")
    if not (quantus and cam):
        return
    of = Subject("resnet-20", smooth=True)
    x, y = of.x.numpy(), of.classes.numpy()
    flip = quantus.PixelFlipping(perturb_baseline=0.0, normalise=False, disable_warnings=True)
    targets = [lambda scores, k=k: scores[k] for k in of.classes.tolist()]

    def theirs() -> None:
        maps = of.maps.reshape(len(x), 1, *x.shape[2:])
        with contextlib.redirect_stderr(io.StringIO()):
            flip(of.net, x, y, a_batch=maps, channel_first=True, softmax=False, batch_size=len(x), device="cpu")
        cam.metrics.road.ROADCombined()(of.x, of.maps.astype(np.float32), targets, of.net)

    def mine() -> None:
        of.heights("deletion")
        of.heights("road-confidence")

    case = f"deletion and ROAD by defaults, resnet-20, {len(x)} maps"
    times = bench.race(case, {OURS: mine, f"{QUANTUS} and {PGC}": theirs})
    bench.against(case, times, goal=">= 5")


@contextlib.contextmanager
def quiet(road: Any) -> Any:
    """pytorch-grad-cam without noise, which its metrics give no way to ask for."""
    defaults = road.NoisyLinearImputer.__init__.__defaults__
    road.NoisyLinearImputer.__init__.__defaults__ = (0, *defaults[1:])
    try:
        yield
    finally:
        road.NoisyLinearImputer.__init__.__defaults__ = defaults


def case_imputation(bench: Bench) -> None:
    """Half the places of a picture from the other half, without noise."""
    if not (cam := package(bench, PGC, "cv2", "ttach")):
        return
    solve = cam.metrics.road.NoisyLinearImputer(noise=0)
    for size, rows in ((32, 16), (224, 1)):
        rng = np.random.default_rng(0)
        x = torch.from_numpy(rng.normal(size=(rows, 3, size, size)).astype(np.float32))
        gone = torch.from_numpy(rng.random((rows, size, size)) < 0.5)
        row(
            bench, f"imputation, {rows} x 3 x {size} x {size}", PGC,
            lambda x=x, gone=gone: impute(x.double(), gone).numpy(),
            lambda x=x, gone=gone: np.stack([solve(*each).numpy() for each in zip(x, (~gone).float(), strict=True)]),
        )  # fmt: skip


CASES = {each.__name__[5:]: each for each in (case_deletion, case_defaults, case_road, case_both, case_imputation)}

if __name__ == "__main__":
    Bench("metrics", __doc__ or "", CASES).run()
