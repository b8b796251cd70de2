"""CAMs of a batch in memory: one method, ten from one trace, all of them for two layers and three targets, and signals.

python tests/benchmarks/cams.py [gradcam] [ten] [many] [signals] [--quick]
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from camsweep.core.grid import resize
from camsweep.core.methods import METHODS
from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.inmemory import agreement, camsweep, ours, packages, rivals, versus
from camsweep.tests.benchmarks.peers import CAPTUM, PGC, SIGNAL, TORCHCAM
from camsweep.tests.benchmarks.race import OURS, Bench, Missing, Run

TEN = {
    "gradcam": "GradCAM",
    "hirescam:relu=on": "HiResCAM",
    "gradcam-elementwise": "GradCAMElementWise",
    "gradcam++:compat=pytorch-grad-cam": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "fem:compat=pytorch-grad-cam": "FEM",
    "randomcam": "RandomCAM",
}
"""Our method, and what pytorch-grad-cam calls it."""
FEWER = {"dff", "fullgrad", "refinecam"}
"""CAMs of another number of layers, or of all samples."""


def resnet18(bench: Bench) -> tuple[nn.Module, np.ndarray]:
    x = nets.noise(4 if bench.quick else 16, 3, 224, 224)
    return nets.settled(nets.ResNet18(), x), x


def case_gradcam(bench: Bench) -> None:
    """Grad-CAM at the last stage of one batch; ours and pytorch-grad-cam's are brought to the input's size."""
    module, x = resnet18(bench)
    size = x.shape[2:]
    parties: dict[str, Run | Missing] = {OURS: ours(bench.stack, module, x, ["gradcam"], "layer4", size=size)}
    parties |= rivals(module, "layer4", x, {PGC: ["GradCAM"], CAPTUM: ["LayerGradCam"], TORCHCAM: ["GradCAM"]})
    label = f"Grad-CAM, one batch of {len(x)} in memory, ResNet-18"
    versus(bench, label, parties, lambda times, name: agreement(times.given[OURS]["gradcam"], times.given[name][0]))


def case_ten(bench: Bench) -> None:
    """Ten methods at the last stage: ours from one trace, pytorch-grad-cam's one after the other."""
    module, x = resnet18(bench)
    size, methods = x.shape[2:], list(TEN)
    parties: dict[str, Run | Missing] = {OURS: ours(bench.stack, module, x, methods, "layer4", size=size)}
    parties |= rivals(module, "layer4", x, {PGC: list(TEN.values())})

    def same(times: Any, name: str) -> str:
        for method, theirs in zip(methods, times.given[name], strict=True):
            if method != "randomcam":
                print(
                    f"    {method:<36}{agreement(like(theirs, method, times.given[OURS][method], module, x), theirs)}"
                )
        return ""

    versus(bench, f"ten CAMs, one batch of {len(x)} in memory, ResNet-18", parties, same)


def like(theirs: np.ndarray, method: str, mine: np.ndarray, module: nn.Module, x: np.ndarray) -> np.ndarray:
    """Our maps as they are; of principal components, whose sign is left to chance there, with each sample's sign."""
    if not method.startswith("eigen"):
        return mine
    centred = theirs - theirs.mean((1, 2), keepdims=True)
    sign = np.where((centred * mine).sum((1, 2), keepdims=True) < 0, -1, 1).astype(np.float32)
    with contextlib.ExitStack() as stack:
        coarse = ours(stack, module, x, [method], "layer4")()[method]
    return resize(np.maximum(sign * coarse, 0), x.shape[2:])


LAYERS = ("layers.5", "layers.8")


def case_many(bench: Bench) -> None:
    """All CAMs x 2 layers x the three highest classes: one call, against a call each, and against pytorch-grad-cam's."""
    x = nets.noise(4 if bench.quick else 16, 3, 32, 32)
    module = nets.settled(nets.ResNet20(), nets.noise(64, 3, 32, 32, seed=1))
    methods = [name for name, each in METHODS.items() if each.family == "cam" and name not in FEWER]
    ranked = torch.from_numpy(x)
    with torch.no_grad():
        top = module(ranked).topk(3, 1).indices
    shared = TEN | {"ablationcam": "AblationCAM", "scorecam": "ScoreCAM"}

    def theirs(package: Any, own: nn.Module) -> int:
        target, count = package.utils.model_targets.ClassifierOutputTarget, 0
        for name in shared.values():
            for layer in LAYERS:
                for place in range(3):
                    quiet = contextlib.redirect_stderr(io.StringIO())
                    with quiet, getattr(package, name)(model=own, target_layers=[own.get_submodule(layer)]) as cam:
                        cam(input_tensor=ranked, targets=[target(int(k)) for k in top[:, place]])
                        count += 1
        return count

    def calls(methods: Sequence[str], *layers: str) -> Run:
        session = bench.stack.enter_context(camsweep(copy.deepcopy(module), x, methods, *layers, target="top:3"))
        return lambda: len(session(methods))

    one, alone = "camsweep, a call each", [calls([method], layer) for method in methods for layer in LAYERS]
    parties: dict[str, Run | Missing] = {
        OURS: calls(methods, *LAYERS),
        one: lambda: sum(call() for call in alone),
    }
    label = f"{len(methods)} CAMs x 2 layers x 3 targets, batch {len(x)}, ResNet-20"
    times = bench.race(label, parties)
    bench.ratio(label, times, one, OURS, ">= 1", f"{times.given[OURS]} maps a sample")
    label = f"{len(shared)} CAMs x 2 layers x 3 targets, batch {len(x)}, ResNet-20"
    parties = {OURS: calls(list(shared), *LAYERS)}
    for name, package in packages([PGC]).items():
        parties[name] = (
            package
            if isinstance(package, Missing)
            else partial(theirs, package, copy.deepcopy(module).requires_grad_())
        )
    versus(bench, label, parties, lambda times, name: f"{times.given[name]} calls")


class SignalNet(nn.Module):
    """Three convolutions of 64 channels over 512 points, and a head of four classes."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv1d(1, 64, 7, padding=3)
            self.second = nn.Conv1d(64, 64, 7, padding=3)
            self.third = nn.Conv1d(64, 64, 7, padding=3)
            self.head = nn.Linear(64, 4)

    def forward(self, x):
        x = self.third(self.second(self.first(x).relu()).relu())
        return self.head(x.relu().mean(2))


def case_signals(bench: Bench) -> None:
    """Grad-CAM and HiResCAM of signals; of signal-grad-cam the computation of the raw maps alone."""
    x = nets.noise(32 if bench.quick else 128, 1, 512)
    methods, target = ["gradcam", "hirescam:relu=on"], 2
    parties: dict[str, Run | Missing] = {
        OURS: ours(bench.stack, SignalNet().eval(), x, methods, "third", target=target)
    }
    for name, package in packages([SIGNAL]).items():
        parties[name] = package if isinstance(package, Missing) else signals(package, x, methods, target)
    versus(
        bench, f"Grad-CAM and HiResCAM, {len(x)} signals in memory", parties,
        lambda times, name: "; ".join(agreement(times.given[OURS][m], times.given[name][m]) for m in methods)
        + "; without its transforms, 8 bits and figures",
    )  # fmt: skip


def signals(package: Any, x: np.ndarray, methods: Sequence[str], target: int) -> Run:
    theirs = SignalNet().eval()
    with contextlib.redirect_stdout(io.StringIO()):
        builder = package.TorchCamBuilder(theirs, class_names=list("abcd"))
    torch.use_deterministic_algorithms(False)  # the builder turns it on, for us too
    each = list(torch.from_numpy(x))

    def run() -> dict[str, np.ndarray]:
        kinds = zip(methods, ("Grad-CAM", "HiResCAM"), strict=True)
        one = partial(builder._create_raw_batched_cams, each, target, theirs.third, softmax_final=False)
        return {text: np.stack(one(explainer_type=kind)[0]) for text, kind in kinds}

    return run


CASES = {each.__name__[5:]: each for each in (case_gradcam, case_ten, case_many, case_signals)}

if __name__ == "__main__":
    Bench("cams", __doc__ or "", CASES).run()
