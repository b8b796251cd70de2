"""A small job to kill, stop and starve: its folder, its command, and how its finished files are held side by side.

The model writes the rows of every batch it is given to a side file, so a test can count what was computed twice.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

MODEL = '''
import contextlib
import os
import time

import torch
from torch import nn


class Slow(nn.Module):
    """Three classes of 46 x 46 pictures; it notes the rows it is given (pixel 0, 0) and takes its time."""

    def __init__(self, pause=0.0):
        super().__init__()
        self.pause = pause
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        if len(x) > 1:  # the plan sends one sample, to see the shapes
            rows = " ".join(str(int(row)) for row in x.detach()[:, 0, 0, 0])
            log = os.open(os.environ["ROWS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with contextlib.suppress(OSError):  # a disk that fails is no fault of the model
                os.write(log, f"{rows}\\n".encode())
            os.close(log)
            time.sleep(self.pause)
        x = torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, 1:]], 2)
        return self.head(torch.relu(self.first(x)).flatten(2).mean(2))
'''

JOB = """
[model]
source = "model.py:Slow"
args = {{ pause = {pause} }}

[data]
path = "data.npz"
input = "x"
label = "y"
layout = "NCHW"

[explain]
methods = ["gradcam", "grad+input"]
layers = ["first"]
targets = ["predicted", "label"]
batch_size = {batch}
device = "cpu"

[output]
path = "{output}"
commit_every = 0
"""

BATCH = 8


def heed() -> None:
    """Let every signal have its default effect."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


class Bench:
    """A job of ``samples`` rows in ``folder``, with the results in ``output`` (another folder, for a small disk)."""

    def __init__(self, folder: Path, *, samples: int, pause: float, output: Path | None = None) -> None:
        self.folder, self.samples = folder, samples
        self.output = output or folder / "run.h5"
        self.parts = self.output.with_name(self.output.name + ".parts")
        self.log = folder / "rows.log"
        (folder / "model.py").write_text(MODEL)
        (folder / "job.toml").write_text(JOB.format(pause=float(pause), batch=BATCH, output=self.output))
        rng = np.random.default_rng(0)
        x = rng.normal(size=(samples, 1, 46, 46)).astype(np.float32)
        x[:, 0, 0, 0] = np.arange(samples)
        np.savez(folder / "data.npz", x=x, y=rng.integers(0, 3, samples))

    @property
    def environment(self) -> dict[str, str]:
        """One thread: the tests share their cores, and sums come out the same."""
        return {**os.environ, "ROWS_LOG": str(self.log), "OMP_NUM_THREADS": "1"}

    def start(self, *more: str, **options) -> subprocess.Popen[str]:
        """The command, begun; always the same."""
        command = [sys.executable, "-m", "camsweep", "explain", "job.toml", "--quiet", *more]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What runs in the background or under nohup ignores signals, and would hand that on to the run under test.
            **{"preexec_fn": heed, **options},
        )

    def finish(self, *more: str, timeout: float = 120, **options) -> tuple[int, str, str]:
        """The command, run to its end: exit code, stdout, stderr."""
        with self.start(*more, **options) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err

    def computed(self) -> Counter[int]:
        """How often each row was given to the model."""
        text = self.log.read_text() if self.log.exists() else ""
        return Counter(int(row) for line in text.splitlines() for row in line.split())

    def committed(self) -> tuple[set[int], dict[Path, str], list[str]]:
        """The rows in parts or in the finished file, the digest of each part, and what could not be read."""
        rows: set[int] = set()
        digests: dict[Path, str] = {}
        unreadable = []
        for path in sorted(self.parts.rglob("rows-*.h5")):
            digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            try:
                with h5py.File(path, "r", locking=False) as part:
                    rows |= {int(row) for row in part["row"][:]}
            except OSError as error:
                unreadable.append(f"{path.name}: {error}")
        if self.output.exists():
            try:
                with h5py.File(self.output, "r", locking=False) as file:
                    rows |= set(range(len(file["samples/status"])))
            except OSError as error:
                unreadable.append(f"{self.output.name}: {error}")
        return rows, digests, unreadable

    def litter(self) -> list[str]:
        """What a finished run should not have left."""
        found = [path for path in self.output.parent.rglob("*") if path.suffix in (".tmp", ".bad")]
        return sorted({path.name for path in [*found, *self.output.parent.glob("*.parts")]})


def contrast(one: Path, other: Path, *, but: tuple[str, ...] = ("started", "finished", "git")) -> list[str]:
    """Where two results files differ, bit by bit; ``but`` are attributes that may."""
    with h5py.File(one, "r") as a, h5py.File(other, "r") as b:
        first, second = contents_of(a, but), contents_of(b, but)
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def contents_of(file: h5py.File, but: tuple[str, ...] = ()) -> dict[str, object]:
    found: dict[str, object] = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST") and key not in but:
                found[f"{name}@{key}"] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = (values.dtype.str, values.shape, values.tobytes())

    take("", file)
    file.visititems(take)
    return found
