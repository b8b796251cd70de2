"""What costs many passes: perturbation, paths, noise and relevance, against captum, pytorch-grad-cam, torch-cam and zennit.

    python tests/benchmarks/methods.py [scorecam] [ablationcam] [occlusion] [rise] [ig] [smoothgrad] [lrp] [keras] [--quick]

Everything runs on one batch in memory, with batches of `CHUNK` for the inner passes where a party lets them be said. The bare
passes are the least that a method can cost: as many forwards, or forwards and gradients at the input, and nothing else.
The last case is of a Keras model: xplique in TensorFlow, each party in a process of its own.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from camsweep.core.allocator import keeping
from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.inmemory import agreement, alike, camsweep, ours, packages, rivals, versus
from camsweep.tests.benchmarks.peers import CAPTUM, PGC, TORCHCAM, XPLIQUE, ZENNIT, peer
from camsweep.tests.benchmarks.race import OURS, Bench, Elsewhere, Missing, Run

CHUNK, TARGET = 32, 1
BARE = "bare passes"


def cam_net(bench: Bench) -> tuple[nn.Module, np.ndarray, str]:
    """A ResNet-18, half as wide and 112 points high: for methods of hundreds of forwards each sample."""
    x = nets.noise(1 if bench.quick else 2, 3, 112, 112)
    return (
        nets.settled(nets.ResNet18(width=16 if bench.quick else 32), nets.noise(8, 3, 112, 112, seed=1)),
        x,
        "ResNet-18 of half width, 112 x 112",
    )


def forwards(module: nn.Module, x: np.ndarray, count: int) -> Run:
    """``count`` forwards of one sample, `CHUNK` at a time."""
    batch = torch.from_numpy(np.resize(x, (CHUNK, *x.shape[1:])))

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, count, CHUNK):
                module(batch[: min(CHUNK, count - start)])

    return run


def gradients(module: nn.Module, x: np.ndarray, count: int) -> Run:
    """As many forwards and gradients at the input."""
    batch = torch.from_numpy(np.resize(x, (CHUNK, *x.shape[1:])))

    def run() -> None:
        for start in range(0, count, CHUNK):
            leaf = batch[: min(CHUNK, count - start)].detach().requires_grad_()
            torch.autograd.grad(module(leaf)[:, TARGET].sum(), leaf)

    return run


def with_cams(
    bench: Bench, method: str, names: dict[str, list[str]], count: Callable[[nn.Module], int] | None = None
) -> None:
    module, x, label = cam_net(bench)
    mine = ours(bench.stack, module, x, [method], "layer4", size=x.shape[2:], chunk=CHUNK)
    parties: dict[str, Run | Missing] = {OURS: mine, **rivals(module, "layer4", x, names)}
    if count:
        parties[BARE] = forwards(copy.deepcopy(module), x, len(x) * count(module))
    same = lambda times, name: agreement(times.given[OURS][method], times.given[name][0])  # noqa: E731
    versus(bench, f"{method}, {label}, samples: {len(x)}", parties, same)


def case_scorecam(bench: Bench) -> None:
    """Score-CAM: a forward for each channel of the last stage."""
    with_cams(bench, "scorecam", {PGC: ["ScoreCAM"], TORCHCAM: ["ScoreCAM"]}, lambda module: module.head.in_features)


def case_ablationcam(bench: Bench) -> None:
    """Ablation-CAM: a pass behind the layer for each channel."""
    with_cams(bench, "ablationcam", {PGC: ["AblationCAM"]})


Party = Callable[[Any, nn.Module, torch.Tensor], Run]
"""(package, a net of its own, inputs) -> what takes a turn."""


def others(peers: Mapping[str, Party], module: nn.Module, x: np.ndarray) -> dict[str, Run | Missing]:
    """The peers of a row, each ready for its turns or missing."""
    return {
        name: package
        if isinstance(package, Missing)
        else peers[name](package, copy.deepcopy(module), torch.from_numpy(x))
        for name, package in packages(list(peers)).items()
    }


def attributed(
    bench: Bench, method: str, bare: Callable[..., Run], count: int, peers: dict[str, Party],
    same: Callable[[Any, Any], str] = alike,
) -> None:  # fmt: skip
    """One method over the input, of ``count`` passes a sample."""
    module, x, label = cam_net(bench)
    mine = ours(bench.stack, module, x, [method], target=TARGET, chunk=CHUNK)
    parties = {OURS: mine, BARE: bare(copy.deepcopy(module), x, len(x) * count), **others(peers, module, x)}
    versus(
        bench, f"{method}, {label}, samples: {len(x)}", parties,
        lambda times, name: same(times.given[OURS][method], np.asarray(times.given[name])),
    )  # fmt: skip


def summed(mine: np.ndarray, theirs: np.ndarray) -> str:
    """Theirs has the same value in all channels."""
    return alike(mine, theirs.mean(1) if theirs.ndim > mine.ndim else theirs)


def case_occlusion(bench: Bench) -> None:
    """Occlusion by windows of 28, every 14 points; captum takes several at once, zennit one."""
    places = ((112 - 28) // 14 + 1) ** 2

    def by_captum(package: Any, module: nn.Module, x: torch.Tensor) -> Run:
        one = package.Occlusion(module)
        at_once = max(1, CHUNK // len(x))
        return lambda: one.attribute(x, (3, 28, 28), (3, 14, 14), 0.0, TARGET, perturbations_per_eval=at_once).numpy()

    attributed(bench, "occlusion:window=28,stride=14", forwards, places, {CAPTUM: by_captum}, summed)


def case_rise(bench: Bench) -> None:
    """RISE with 256 masks; its peer, xplique, is in the Keras case."""
    attributed(bench, "rise:n=256", forwards, 256, {})


def case_ig(bench: Bench) -> None:
    """Integrated gradients by Gauss-Legendre, 50 points."""

    def by_captum(package: Any, module: nn.Module, x: torch.Tensor) -> Run:
        one = package.IntegratedGradients(module)
        return lambda: one.attribute(x, target=TARGET, n_steps=50, internal_batch_size=CHUNK).detach().numpy()

    attributed(bench, "ig:steps=50", gradients, 50, {CAPTUM: by_captum})


def case_smoothgrad(bench: Bench) -> None:
    """SmoothGrad, 50 draws; the noise of each party is its own."""

    def by_captum(package: Any, module: nn.Module, x: torch.Tensor) -> Run:
        one, sd = package.NoiseTunnel(package.Saliency(module)), float(0.2 * (x.max() - x.min()))
        keys = {
            "nt_type": "smoothgrad",
            "nt_samples": 50,
            "nt_samples_batch_size": max(1, CHUNK // len(x)),
            "stdevs": sd,
        }
        return lambda: one.attribute(x, target=TARGET, abs=False, **keys).detach().numpy()

    def by_zennit(package: Any, module: nn.Module, x: torch.Tensor) -> Run:
        attribution = __import__("zennit.attribution", fromlist=["SmoothGrad"])
        target = torch.eye(1000)[[TARGET] * len(x)]

        def run() -> np.ndarray:
            with attribution.SmoothGrad(module, noise_level=0.2, n_iter=50) as one:
                return one(x, target)[1].detach().numpy()

        return run

    attributed(bench, "smoothgrad:n=50", gradients, 50, {CAPTUM: by_captum, ZENNIT: by_zennit})


def zennit_lrp(rule: Callable[[Any], Any], package: Any, module: nn.Module, x: torch.Tensor) -> Run:
    kinds = [*package.composites.layer_map_base(), (package.types.Linear, rule(package.rules))]
    composite = package.composites.LayerMapComposite(kinds)

    def run() -> np.ndarray:
        with composite.context(module) as modified:
            leaf = x.detach().requires_grad_()
            score = modified(leaf)[:, TARGET]
            return torch.autograd.grad(score, leaf, score.detach())[0].numpy()

    return run


def captum_lrp(rule: str, keys: dict[str, Any], package: Any, module: nn.Module, x: torch.Tensor) -> Run:
    rules = __import__("captum.attr._utils.lrp_rules", fromlist=[rule])

    def run() -> np.ndarray:
        for each in module.modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                each.rule = getattr(rules, rule)(**keys)
        return package.LRP(module).attribute(x, target=TARGET).detach().numpy()

    return run


def case_lrp(bench: Bench) -> None:
    """LRP by epsilon and by alpha 2, beta 1 (captum: 1 and 0, all that it has), of a net that all three can take."""
    x, module = nets.noise(4 if bench.quick else 16, 3, 112, 112), nets.Plain().eval()
    asked: dict[str, dict[str, Any]] = {
        "lrp:eps=1e-6": {
            ZENNIT: partial(zennit_lrp, lambda rules: rules.Epsilon(1e-6)),
            CAPTUM: partial(captum_lrp, "EpsilonRule", {"epsilon": 1e-6}),
        },
        "lrp:a2b1": {ZENNIT: partial(zennit_lrp, lambda rules: rules.AlphaBeta(2, 1))},
        "lrp:zplus": {
            ZENNIT: partial(zennit_lrp, lambda rules: rules.AlphaBeta(1, 0)),
            CAPTUM: partial(captum_lrp, "Alpha1_Beta0_Rule", {"set_bias_to_zero": False}),
        },
    }
    for method, peers in asked.items():
        mine = ours(bench.stack, module, x, [method], target=TARGET, chunk=CHUNK)
        parties = {OURS: mine, "bare gradient": gradients(copy.deepcopy(module), x, len(x)), **others(peers, module, x)}
        versus(
            bench, f"{method}, plain net of 5 + 2 layers, 112 x 112, samples: {len(x)}", parties,
            lambda times, name, method=method: alike(times.given[OURS][method], times.given[name]),
        )  # fmt: skip


NATIVE = f"{OURS} --native"
KERAS = {
    "occlusion:window=8,stride=4": ("Occlusion", {"patch_size": 8, "patch_stride": 4}),
    "rise:n=256": ("Rise", {"nb_samples": 256}),
    "ig:steps=50": ("IntegratedGradients", {"steps": 50}),
    "smoothgrad:n=50": ("SmoothGrad", {"nb_samples": 50}),
}
"""Ours, and what xplique calls it; Grad-CAM of a Keras model is raced end to end, in `frameworks`."""


def keras_model(path: str) -> None:
    """A plain Keras net of 64 x 64 images, logits out; in TensorFlow, elsewhere."""
    import keras

    layers = [keras.layers.Input((64, 64, 3))]
    for width in (32, 64, 128):
        layers += [keras.layers.Conv2D(width, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
    keras.utils.set_random_seed(0)
    keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]).save(path)


def made(path: str, x: str) -> Run:
    keras_model(path)
    np.save(x, nets.noise(8, 64, 64, 3))
    return lambda: None


def by_xplique(name: str, keys: dict[str, Any], path: str, x: str, threads: int) -> Run:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    package = peer(XPLIQUE)
    import keras

    model, batch = keras.models.load_model(path), np.load(x)
    targets = np.eye(10, dtype=np.float32)[[TARGET] * len(batch)]
    one = getattr(package, name)(model, batch_size=CHUNK, **keys)
    return lambda: float(np.asarray(one.explain(batch, targets)).sum())


def by_camsweep(method: str, path: str, x: str, threads: int, *, native: bool = False) -> Run:
    """The imported model or, ``native``, TensorFlow's own, and a trace of the same batch."""
    from camsweep.backends import load
    from camsweep.core.job import ModelSection

    torch.set_num_threads(threads)
    if native:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    backend: Any = load(ModelSection(weights=path, native=native), device="cpu", dtype="float32")
    batch = np.ascontiguousarray(np.load(x).transpose(0, 3, 1, 2))
    session = camsweep(backend, batch, [method], target=TARGET, chunk=CHUNK)
    opened = session.__enter__()

    def run() -> float:
        with keeping():  # as a run does
            return float(opened([method])[0].sum())

    return run


def case_keras(bench: Bench) -> None:
    """A Keras model: ours brought into torch and in TensorFlow, xplique's in TensorFlow, each in a process of its own."""
    here, tensorflow = "camsweep.tests.benchmarks.methods:", {"KERAS_BACKEND": "tensorflow"}
    with tempfile.TemporaryDirectory() as folder:
        path, x = str(Path(folder) / "net.keras"), str(Path(folder) / "x.npy")
        maker = Elsewhere.start(f"{here}made", tensorflow, path=path, x=x)
        if isinstance(maker, Missing):
            bench.add("a Keras model", XPLIQUE, note=str(maker))
            return
        for method, (name, keys) in KERAS.items():
            common = {"path": path, "x": x, "threads": bench.threads}
            parties = {
                OURS: Elsewhere.start(f"{here}by_camsweep", method=method, **common),
                NATIVE: Elsewhere.start(f"{here}by_camsweep", tensorflow, method=method, native=True, **common),
                XPLIQUE: Elsewhere.start(f"{here}by_xplique", tensorflow, name=name, keys=keys, **common),
            }
            case = f"{method}, Keras, 64 x 64, samples: 8"
            times = bench.race(case, parties)
            best = times.fastest([OURS, NATIVE])
            for each in (OURS, NATIVE):  # one of them is what a user would take
                bench.ratio(case, times, XPLIQUE, each, goal=">= 1" if each == best else "")


CASES = {
    each.__name__[5:]: each
    for each in (
        case_scorecam,
        case_ablationcam,
        case_occlusion,
        case_rise,
        case_ig,
        case_smoothgrad,
        case_lrp,
        case_keras,
    )
}

if __name__ == "__main__":
    Bench("methods", __doc__ or "", CASES).run()
