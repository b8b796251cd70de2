"""A small bench of models and data, and a way to call the command line without a new process."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from camsweep.cli.app import main

from .apart import Apart

MODELS = '''
import torch
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d}


class Net(nn.Module):
    """first -> tanh -> second -> relu -> mean -> linear, some fifty parameters."""

    def __init__(self, rank=1, channels=2, classes=3, final="none"):
        super().__init__()
        self.first = CONV[rank](channels, 3, 3, stride=2, padding=1)
        self.second = CONV[rank](3, 2, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(2, classes)
        self.final = final

    def forward(self, x):
        hidden = self.act(self.second(torch.tanh(self.first(x))))
        scores = self.head(hidden.flatten(2).mean(2))
        return scores.softmax(1) if self.final == "softmax" else scores


class Twice(Net):
    def forward(self, x):
        hidden = torch.tanh(self.act(self.first(x)))
        return self.head(self.act(self.second(hidden)).flatten(2).mean(2))


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Loud(Net):
    def forward(self, x):
        raise ValueError("loud\\nand clear")


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Once(Net):
    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 1:
            raise ZeroDivisionError("once is enough")
        return super().forward(x)


class Chatty(Net):
    def __init__(self):
        print("being built")
        super().__init__()

    def forward(self, x):
        print("forward", tuple(x.shape))
        return super().forward(x)


def raises():
    raise ValueError("no such\\nmodel")


def number():
    return 3
'''

IMAGES = """
[model]
source = "models.py:Net"
weights = "weights2d.pt"
args = { rank = 2, channels = 3 }
[data]
path = "images"
transforms = [{ scale = 0.00392156862745098 }, { normalize = { mean = [0.5], std = [0.25] } }]
[explain]
methods = ["hirescam"]
layers = ["first"]
targets = ["label"]
device = "cpu"
[output]
path = "images.h5"
"""
"""A job for the bench's folder of images."""

CLASSES = ["sinus", "flutter", "noise"]


@dataclass(frozen=True)
class Answer:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, which must be one JSON object and nothing else."""
        parsed = json.loads(self.out)
        assert isinstance(parsed, dict)
        return parsed


@pytest.fixture
def call(capfd, monkeypatch):
    """``call("explain", "job.toml", cwd=folder)``: as from a shell in ``cwd``, in this process."""

    def run(*words: object, cwd: Path | None = None) -> Answer:
        with monkeypatch.context() as patch:
            if cwd is not None:
                patch.chdir(cwd)
            patch.setattr(sys, "argv", ["camsweep", *map(str, words)])
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capfd.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def apart(tmp_path_factory):
    """``apart("explain", "job.toml", cwd=folder)``: as `call`, in a process where no framework was imported before."""
    one = Apart(tmp_path_factory.mktemp("apart"))
    yield one
    one.close()


def load_models(path: Path) -> Any:
    """The bench's models.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(module: torch.nn.Module, seed: int = 3) -> torch.nn.Module:
    """Weights large enough that no map is zero everywhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        module.second.bias.fill_(0.5)
    return module.eval()


def job_text(**changes: str) -> str:
    """A job for the bench's signals; ``data="limit = 3"`` adds a line to a section."""
    lines = {
        "model": 'source = "models.py:Net"\nweights = "weights.pt"',
        "data": 'path = "signals.npz"\ninput = "x"\nlabel = "y"\nid = "id"\nclasses = "classes"\nlayout = "NCT"',
        "explain": 'methods = ["hirescam"]\nlayers = ["first"]\nbatch_size = 4\ndevice = "cpu"',
        "output": 'path = "run.h5"\ncommit_every = 0',
    }
    return "\n".join(f"[{name}]\n{text}\n{changes.get(name, '')}" for name, text in lines.items())


def save_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def workbench(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "models.py").write_text(MODELS)
    models = load_models(folder / "models.py")
    torch.save(fill(models.Net()).state_dict(), folder / "weights.pt")
    torch.save(fill(models.Net(rank=2, channels=3)).state_dict(), folder / "weights2d.pt")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(10, 2, 17)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    ids = np.array([f"patient {i}" for i in range(10)])
    np.savez(folder / "signals.npz", x=x, y=y, id=ids, classes=np.array(CLASSES))
    (folder / "job.toml").write_text(job_text())
    for i in range(6):
        pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        save_png(folder / "images" / ("cat", "dog", "emu")[i % 3] / f"{i}.png", pixels)
    return folder


@pytest.fixture
def bench(workbench, tmp_path) -> Path:
    """models.py, weights.pt, weights2d.pt, signals.npz, images/ and job.toml, in a folder of the test's own."""
    folder = tmp_path / "bench"
    shutil.copytree(workbench, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def net(bench):
    """The bench's own network, with its weights."""
    module = load_models(bench / "models.py").Net()
    module.load_state_dict(torch.load(bench / "weights.pt", weights_only=True))
    return module.eval()


@pytest.fixture
def signals(bench):
    with np.load(bench / "signals.npz") as file:
        return dict(file)


@pytest.fixture
def explained(bench, call):
    assert call("explain", "job.toml", "-m", "hirescam", "-m", "grad", "--limit", 4, cwd=bench).code == 0
    return bench


def pngs(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != "__pycache__"} - {
        path.relative_to(folder).as_posix() for path in folder.rglob("__pycache__/*")
    }
