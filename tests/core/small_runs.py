"""Whole runs of a small net over a few signals."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.job import Job
from camsweep.core.results import open_results
from camsweep.core.run import run_job

from ..support import Net
from .test_sweep import Watch

RATE, LENGTH, ROWS = 100, 32, 7
METHODS = [
    "grad", "grad+sign=mean", "grad+input:domain=stft",
    "ig:steps=3", "ig:baseline=mean,rule=trapezoid,steps=3", "ig:baseline=blur,steps=3", "ig:baseline=uniform,steps=3",
    "ig:baseline=0.1/-0.2,steps=3", "ig:baseline=item 3,steps=3",
    "ig:steps=3,domain=fourier", "ig:steps=3,domain=fourier,sided=two", "ig:steps=3,domain=fourier,bands=low:0-10/20-40",
    "ig:steps=3,domain=stft", "ig:steps=3,domain=wavelet", "ig:steps=3,domain=wavelet,per=level,wavelet=haar",
    "ig:steps=3,domain=ica", "ig:steps=3,domain=ica,fit=dataset,n=1", "ig:steps=3,domain=parts,period=5",
    "ig:steps=3,domain=cepstrum",
    "smoothgrad:n=3", "smoothgrad2:n=3", "vargrad:n=3",
    "occlusion:window=16", "occlusion:channels=each,fill=mean,window=16", "rise:n=5",
]  # fmt: skip
FEW = ["ig:steps=2,domain=stft", "ig:steps=2", "ig:steps=2,domain=cepstrum", "grad+input:domain=fourier", "smoothgrad:n=2",
       "vargrad:n=2", "occlusion:window=16", "rise:n=3"]  # fmt: skip


def signals(count=ROWS, seed=1, shape=(2, LENGTH)):
    return np.random.default_rng(seed).uniform(-2, 2, (count, *shape)).astype(np.float32)


def smooth(classes=3, rank=1):
    return Net(rank, classes, smooth=True)


def job_of(folder, methods, *, name="run.h5", dtype="float64", data=None, **explain):
    sections = {
        "model": {"source": "tests:none"},
        "data": {"path": "x.npz", "input": "x", "id": "id", "layout": "NCT", "rate": RATE, **(data or {})},
        "explain": {"methods": methods, "targets": ["top:2"], **explain},
        "output": {"path": name, "dtype": dtype, "commit_every": 0},
    }
    sections["data"] = {key: value for key, value in sections["data"].items() if value is not None}
    return Job.load(None, sections, folder)


def run(folder, module, x, methods, *, stop=None, watch=None, force=False, arrays=None, **settings):
    """Explain ``x`` with ``module`` and open the results."""
    ids = np.array([f"item {row}" for row in range(len(x))])
    np.savez(folder / "x.npz", **{"x": x, "id": ids, **(arrays or {})})
    job = job_of(folder, methods, **settings)
    run_job(job, loader(module), watch=watch or Watch(), stop=stop, force=force)
    return open_results(job.output.path)


def loader(module):
    def load(job):
        return TorchBackend(
            module, device=torch.device("cpu"), dtype=job.output.compute_dtype, argument=job.data.argument
        )

    return load


def everything(results):
    """{(map, column): array}."""
    found = {}
    for name, view in results.maps.items():
        columns = {"values": view.read(), "residual": view.residual(), "signals": view.signals()}
        found |= {(name, key): values for key, values in columns.items() if values is not None}
    return found


def found_by(folder, module, x, methods, **settings):
    with run(folder, module, x, methods, **settings) as results:
        assert not {"failed", "non finite"} & results.counts().keys(), results.messages
        return everything(results)


def near(found, expected, share=1e-11, floor=0.0):
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() <= share * max(floor, np.abs(expected).max())


def from_file(folder, module, x, methods, **flags):
    ids = np.array([f"item {row}" for row in range(len(x))])
    np.savez(folder / "x.npz", x=x, id=ids)
    (folder / "job.toml").write_text(
        '[model]\nsource = "tests:none"\n[data]\npath = "x.npz"\ninput = "x"\nid = "id"\nlayout = "NCT"\n'
        f'[explain]\nmethods = {methods!r}\n[output]\npath = "run.h5"\ndtype = "float64"\n'
    )
    job = Job.load(folder / "job.toml", flags, Path("/"))
    run_job(job, loader(module), watch=Watch())
    with open_results(folder / "run.h5") as results:
        assert not {"failed", "non finite"} & results.counts().keys(), results.messages
        return {name: view.read() for name, view in results.maps.items()}


class Template(nn.Module):
    """A sum over the samples weighted with a 5 Hz wave: it hears nothing else."""

    def __init__(self, length):
        super().__init__()
        wave = np.sin(2 * np.pi * 5 * np.arange(length) / RATE)
        self.weight = nn.Parameter(torch.tensor(np.stack([wave, -wave])))

    def forward(self, x):
        return x[:, 0] @ self.weight.mT.to(x.dtype)
