"""Grad-CAM over a dataset, end to end, against the bare forward of the same batches.

    python tests/benchmarks/overhead.py [--batches 12] [--repeats 5] [--threads 2]

A ResNet-18-shaped net with random weights at 224 x 224, batch 16. One repeat times, alternating, the bare
``torch.inference_mode()`` forwards (in memory, as the module is and in channels-last) and ``camsweep.explain`` (reading
the NPZ file, transforms, Grad-CAM, compression, fsync and merge included). Prints ratios: median, and smallest and
largest of the repeats. Then the memory of one run over 200 batches of a small net, early and late.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

import camsweep
from camsweep.cli.explain import load_backend
from camsweep.core.errors import CamsweepError
from camsweep.core.job import Job
from camsweep.core.run import run_job


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.down = (
            nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride > 1 else None
        )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.down is None else self.down(x)))


class ResNet18(nn.Module):
    """(N, 3, 224, 224) -> (N, 1000), 11.7 million parameters, random but repeatable."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(
                nn.Conv2d(3, width, 7, 2, 3, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, 1),
            )
            widths = [width, width, 2 * width, 4 * width, 8 * width]
            for i in range(1, 5):
                first = Block(widths[i - 1], widths[i], 1 if i == 1 else 2)
                setattr(self, f"layer{i}", nn.Sequential(first, Block(widths[i], widths[i], 1)))
            self.head = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.head(x.mean((2, 3)))


def bare(model: nn.Module, batches: list[torch.Tensor]) -> float:
    """Seconds of the forwards alone."""
    began = perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(batch)
    return perf_counter() - began


def sweep(folder: Path) -> float:
    """Seconds of the whole job, in this process."""
    began = perf_counter()
    camsweep.explain(
        model={"source": f"{__file__}:ResNet18"},
        data={"path": str(folder / "x.npy"), "layout": "NCHW"},
        explain={"methods": ["gradcam"], "batch_size": 16},
        output={"path": str(folder / "run.h5")},
        force=True,
    )
    return perf_counter() - began


class Memory:
    """Watches a sweep, and notes the memory that the process holds of its own (mapped files left out), in MB."""

    def __init__(self) -> None:
        self.held: list[float] = []

    def start(self, done: int, total: int) -> None:
        """Nothing yet."""

    def advance(self, rows: int) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.held.append(int(status["RssAnon"].split()[0]) / 1e3)

    def note(self, message: str) -> None:
        """Nothing to say."""


def memory(folder: Path, batches: int = 200) -> dict[str, float]:
    """Memory after 20, 100 and all batches of one run of a small net."""
    np.save(folder / "m.npy", np.random.default_rng(0).normal(size=(batches * 16, 3, 64, 64)).astype(np.float32))
    job = Job.load(
        None,
        {
            "model": {"source": f"{__file__}:ResNet18", "args": {"width": 16}},
            "data": {"path": str(folder / "m.npy"), "layout": "NCHW"},
            "explain": {"batch_size": 16},
            "output": {"path": str(folder / "m.h5")},
        },
    )
    watch = Memory()
    run_job(job, load_backend, watch=watch)
    return {f"MB after {count} batches": round(watch.held[count - 1], 1) for count in (20, 100, batches)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = np.random.default_rng(0).normal(size=(options.batches * 16, 3, 224, 224)).astype(np.float32)
        np.save(folder / "x.npy", x)
        model = ResNet18().eval()
        plain = list(torch.from_numpy(x).split(16))
        last = [batch.contiguous(memory_format=torch.channels_last) for batch in plain]
        model_last = ResNet18().eval().to(memory_format=torch.channels_last)
        bare(model, plain[:2]), sweep(folder)
        rows = []
        for _ in range(options.repeats):
            rows.append((bare(model, plain), bare(model_last, last), sweep(folder)))
            print("  ".join(f"{seconds:.2f} s" for seconds in rows[-1]), file=sys.stderr)
        answer: dict[str, object] = {"threads": options.threads, "batches": options.batches}
        for label, place in (("bare forward", 0), ("bare forward, channels-last", 1)):
            ratios = [row[2] / row[place] for row in rows]
            answer[f"camsweep / {label}"] = {
                "median": round(statistics.median(ratios), 3),
                "min": round(min(ratios), 3),
                "max": round(max(ratios), 3),
            }
        answer |= memory(folder)
    print(json.dumps(answer, indent=2))
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2))


if __name__ == "__main__":
    try:
        main()
    except CamsweepError as error:
        sys.exit(f"error: {error}")
