"""Make this folder's data and weights: ``python -m camsweep.sample_data.make [DIR]``, about two minutes on one core.

Every sample comes with a mask of the places that make it belong to its class, so that maps can be scored. All random
numbers come from generators seeded here: the same machine gives the same files, byte for byte. Needs scikit-learn, onnx
and keras.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

if __package__:
    from . import formats
    from .models import DigitNet, EcgNet, MotionNet
else:  # run as a script
    import formats  # type: ignore[import-not-found,no-redef]
    from models import DigitNet, EcgNet, MotionNet  # type: ignore[import-not-found,no-redef]

HERE = Path(__file__).parent
SEED = 20240607
ENOUGH = 0.95
"""With less accuracy than this nothing is written."""


@dataclass(frozen=True)
class Samples:
    """``x`` (N, ..) as it is stored, ``y`` (N,) the classes, ``mask`` (N, *spatial) where each shows its class."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    mask: NDArray[np.bool_]

    def __getitem__(self, rows: NDArray[np.int64]) -> Samples:
        return Samples(self.x[rows], self.y[rows], self.mask[rows])


Draw = Callable[[Generator, int], Samples]


# --- ECG: the class is the shape of the waves ------------------------------------------------------------------------

RATE, LENGTH = 100.0, 500
LEADS = ("I", "II", "V2")
RHYTHMS = ("normal", "pvc", "st-elevation", "absent-p")

SINUS = {  # wave: centre after R in s, width in s, height in mV in each lead
    "P": (-0.16, 0.022, (0.09, 0.15, 0.08)),
    "Q": (-0.035, 0.010, (-0.06, -0.10, 0.0)),
    "R": (0.0, 0.013, (0.6, 1.1, 0.35)),
    "S": (0.035, 0.014, (-0.12, -0.2, -0.9)),
    "T": (0.30, 0.050, (0.18, 0.3, 0.4)),
}
RAISED_ST = {"ST": (0.12, 0.045, (0.14, 0.24, 0.32))}
ECTOPIC = {"R": (0.02, 0.050, (0.9, 1.6, -1.3)), "T": (0.34, 0.070, (-0.3, -0.5, 0.5))}
"""A beat that starts in a ventricle: no P, wide and high, its T the other way."""

EVIDENCE = {"pvc": (-0.10, 0.45), "st-elevation": (0.05, 0.20), "absent-p": (-0.24, -0.05)}
"""Where a beat shows its class, in s after R: the whole beat, from J point to T, where P would have been."""


def draw_ecg(rng: Generator, count: int) -> Samples:
    """``count`` recordings, x (N, 3, 500) float32 in mV, mask (N, 500)."""
    y = rng.permutation(np.arange(count) % len(RHYTHMS))
    recordings = [_recording(rng, RHYTHMS[label]) for label in y]
    return Samples(np.stack([x for x, _ in recordings]), y, np.stack([mask for _, mask in recordings]))


def _recording(rng: Generator, rhythm: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One recording (3, 500) and its mask (500,): Gaussian waves, baseline wander and noise.

    Rate and amplitudes are drawn alike for all classes. A pvc is early, so half of the other recordings have an early
    beat too, of the ordinary shape: to be early is not enough.
    """
    t = np.arange(LENGTH) / RATE
    rr = 60 / rng.uniform(50, 90)
    beats = rng.uniform(0, rr) + rr * np.arange(-1, 6 / rr)
    beats += rng.normal(0, 0.02 * rr, beats.shape)
    early = rng.choice(np.flatnonzero((beats > 1.0) & (beats < 4.4)))
    if rhythm == "pvc" or rng.random() < 0.5:
        beats[early] -= rng.uniform(0.2, 0.3) * rr

    height = {wave: rng.uniform(0.75, 1.25, len(LEADS)) for wave in (*SINUS, *RAISED_ST)}
    x = np.zeros((len(LEADS), LENGTH))
    mask = np.zeros(LENGTH, bool)
    for i, r in enumerate(beats):
        ectopic = rhythm == "pvc" and i == early
        waves = ECTOPIC if ectopic else SINUS | RAISED_ST if rhythm == "st-elevation" else SINUS
        for wave, (centre, width, millivolts) in waves.items():
            if wave == "P" and rhythm == "absent-p":
                continue
            late = np.sqrt(rr) if wave == "T" else 1  # a slower heart takes longer to recover
            x += np.outer(height[wave] * millivolts, np.exp(-0.5 * ((t - r - late * centre) / width) ** 2))
        if ectopic or rhythm in ("st-elevation", "absent-p"):
            start, stop = EVIDENCE[rhythm]
            mask |= (t >= r + start) & (t < r + stop)

    x *= rng.uniform(0.8, 1.3)
    frequency, phase = rng.uniform(0.1, 0.5), rng.uniform(0, 2 * np.pi, (len(LEADS), 1))
    x += rng.uniform(0, 0.1) * np.sin(2 * np.pi * frequency * t + phase)
    x += rng.normal(0, rng.uniform(0.01, 0.025), x.shape)
    return x.round(3).astype(np.float32), mask


# --- digits: the class is in the strokes -----------------------------------------------------------------------------

CANVAS = (32, 40)
ZOOM = 3
TRAINED = 1200
"""Of the 1797 digits, in the order of the file, which keeps neighbours by one hand on one side."""


def draw_digits(rng: Generator, count: int, *, held_out: bool) -> Samples:
    """At most ``count`` handwritten digits, zoomed and put anywhere on a noisy canvas.

    x (N, 32, 40, 1) uint8, mask (N, 32, 40).
    """
    images, labels = load_digits(return_X_y=True)
    rows = rng.permutation(np.arange(TRAINED, len(labels)) if held_out else np.arange(TRAINED))[:count]
    small = torch.from_numpy(images[rows] / 16).reshape(-1, 1, 8, 8)
    digits = F.interpolate(small, scale_factor=ZOOM, mode="bilinear")[:, 0].numpy()
    ink = np.zeros((len(rows), *CANVAS))
    height, width = digits.shape[1:]
    for canvas, digit in zip(ink, digits, strict=True):
        top, left = rng.integers(0, (CANVAS[0] - height, CANVAS[1] - width), endpoint=True)
        canvas[top : top + height, left : left + width] = digit
    return Samples(_to_bytes(np.maximum(ink, rng.normal(0.08, 0.04, ink.shape))), labels[rows], ink > 0.5)


def _to_bytes(brightness: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0..1 to 0..255, with a last axis for the one channel."""
    return (255 * brightness.clip(0, 1)).round().astype(np.uint8)[..., None]


# --- motion: the class is what one blob does -------------------------------------------------------------------------

FRAMES, HEIGHT, WIDTH = 12, 24, 32
ACTS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "flash": (0, 0), "still": (0, 0)}
"""Where the actor goes, along (H, W)."""


def draw_motion(rng: Generator, count: int) -> Samples:
    """``count`` clips, x (N, 12, 24, 32, 1) uint8, mask (N, 12, 24, 32)."""
    y = rng.permutation(np.arange(count) % len(ACTS))
    clips = [_clip(rng, list(ACTS)[label]) for label in y]
    return Samples(np.stack([x for x, _ in clips]), y, np.stack([mask for _, mask in clips]))


def _clip(rng: Generator, act: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One clip (12, 24, 32, 1) and its mask (12, 24, 32): an actor among three blobs that never change.

    The mask is where the actor has half its brightness or more; a flash only while it is lit, ``still`` nowhere.
    Brightness, size and speed are drawn alike for all classes.
    """
    clock = np.arange(FRAMES) - (FRAMES - 1) / 2
    way = np.outer(clock * rng.uniform(0.8, 1.3), ACTS[act])
    reach = way.max(0)
    middle = rng.uniform(4 + reach, (HEIGHT - 5, WIDTH - 5) - reach)
    brightness = rng.uniform(0.5, 0.8)
    actor = brightness * _blob(middle + way, rng.uniform(1.6, 2.2))
    if act == "flash":
        lit = np.exp(-0.5 * ((clock - rng.uniform(-3, 3)) / 1.5) ** 2)
        actor *= lit[:, None, None]
    others = np.zeros_like(actor)
    for _ in range(3):
        place = np.tile(rng.uniform(4, (HEIGHT - 5, WIDTH - 5)), (FRAMES, 1))
        others = np.maximum(others, rng.uniform(0.3, 0.8) * _blob(place, rng.uniform(1.6, 2.2)))
    noise = rng.normal(rng.uniform(0.05, 0.2), 0.03, actor.shape)
    return _to_bytes(actor + others + noise), (actor > brightness / 2) & (act != "still")


def _blob(places: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """A Gaussian of height 1 at ``places`` (T, 2), as (T, H, W)."""
    h, w = np.ogrid[:HEIGHT, :WIDTH]
    down, across = places.T[:, :, None, None]
    blob: NDArray[np.float64] = np.exp(-0.5 * ((h - down) ** 2 + (w - across) ** 2) / width**2)
    return blob


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a set is made: train on samples drawn anew for each epoch, test on others, ship some of those."""

    network: type[nn.Module]
    classes: tuple[str, ...]
    train: Draw
    test: Draw
    epochs: int
    per_epoch: int
    shipped: int
    """Of each class."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More arrays for the file."""


RECIPES = {
    "ecg": Recipe(EcgNet, RHYTHMS, draw_ecg, draw_ecg, 20, 600, 16, {"leads": LEADS}),
    "digits": Recipe(
        DigitNet, tuple("0123456789"), partial(draw_digits, held_out=False), partial(draw_digits, held_out=True),
        25, TRAINED, 8,
    ),
    "motion": Recipe(MotionNet, tuple(ACTS), draw_motion, draw_motion, 14, 480, 12),
}  # fmt: skip
TESTED = 600
"""Samples that accuracy is measured on, where there are so many."""


def to_input(x: NDArray[Any], data: Mapping[str, Any]) -> Tensor:
    """From stored arrays to the network's input (N, C, *spatial) float32, as ``[data]`` of the job file says."""
    x = np.moveaxis(x, data["layout"].index("C"), 1).astype(np.float32)
    for transform in data["transforms"]:
        match transform:
            case {"scale": factor}:
                x = x * np.float32(factor)
            case {"normalize": {"mean": mean, "std": std}}:
                each_channel = (-1, *[1] * (x.ndim - 2))
                x = (x - np.float32(mean).reshape(each_channel)) / np.float32(std).reshape(each_channel)
    return torch.from_numpy(np.ascontiguousarray(x))


def train(recipe: Recipe, data: Mapping[str, Any], rng: Generator) -> nn.Module:
    """Cross-entropy, AdamW, one cycle of the learning rate, batches of 32."""
    network = recipe.network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = recipe.epochs * -(-recipe.per_epoch // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for _ in range(recipe.epochs):
        drawn = recipe.train(rng, recipe.per_epoch)
        batches = (torch.split(tensor, 32) for tensor in (to_input(drawn.x, data), torch.from_numpy(drawn.y)))
        for x, y in zip(*batches, strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(x), y))
            optimizer.step()
            schedule.step()
    return network.eval()


def accuracy(network: nn.Module, samples: Samples, data: Mapping[str, Any]) -> float:
    """The part of ``samples`` whose class has the highest logit."""
    with torch.inference_mode():
        predicted = torch.cat([network(x).argmax(1) for x in torch.split(to_input(samples.x, data), 100)])
    return float((predicted.numpy() == samples.y).mean())


def make(name: str, folder: Path) -> str:
    """Write ``folder/name.npz`` and ``folder/name.pt``; one line that tells how good they are."""
    started = perf_counter()
    recipe = RECIPES[name]
    data = tomllib.loads((HERE / f"{name}.toml").read_text("utf-8"))["data"]
    rng = np.random.default_rng([SEED, *name.encode()])
    test = recipe.test(rng, TESTED)
    network = train(recipe, data, rng)

    of_each = [np.flatnonzero(test.y == label)[: recipe.shipped] for label in range(len(recipe.classes))]
    shipped = test[np.sort(np.concatenate(of_each))]
    of_all, of_shipped = accuracy(network, test, data), accuracy(network, shipped, data)
    told = f"{name}: accuracy {of_all:.4f} of {len(test.y)} held out, {of_shipped:.4f} of {len(shipped.y)} shipped"
    if min(of_all, of_shipped) <= ENOUGH:
        raise AssertionError(f"{told}; expected more than {ENOUGH}")

    ids = [f"{name}-{i:04d}-{recipe.classes[label]}" for i, label in enumerate(shipped.y)]
    arrays: dict[str, Any] = {"x": shipped.x, "y": shipped.y, "mask": shipped.mask, "id": ids}
    np.savez_compressed(folder / f"{name}.npz", **arrays, classes=recipe.classes, **recipe.extra)
    torch.save(network.state_dict(), folder / f"{name}.pt")
    return f"{told}, {perf_counter() - started:.0f} s"


@contextmanager
def reproducible() -> Iterator[None]:
    """Seeded weights, one thread and deterministic algorithms, until the end of the block."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(SEED)
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)


def main(folder: Path = HERE) -> None:
    """Make all sets in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        with reproducible():
            print(make(name, folder), flush=True)
    formats.main(folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
