"""Results of a small net with masks, and a way to evaluate them."""

import numpy as np
import torch

from camsweep.backends.torch import TorchBackend
from camsweep.core.evaluation.plan import Request
from camsweep.core.evaluation.run import evaluate
from camsweep.core.job import Job
from camsweep.core.results import open_results
from camsweep.core.run import run_job

from ..core.test_sweep import Watch
from ..support import Net, inputs

LAYOUT = {1: "NCT", 2: "NCHW", 3: "NCDHW"}


def masks(rank, count):
    """The first is empty; the others hold about a third."""
    found = np.random.default_rng(5).random((count, *inputs(rank, 1).shape[2:])) < 0.3
    found[0] = False
    return found


def job(folder, methods, rank=2, count=5, name="run.h5", targets=("predicted",), layers=("first",), **sections):
    if not (folder / "x.npz").exists():
        labels = np.arange(count) % 3
        np.savez(folder / "x.npz", x=inputs(rank, count), mask=masks(rank, count), y=labels)
    return Job.load(
        None,
        {
            "model": {"source": "tests:none"},
            "data": {"path": "x.npz", "input": "x", "layout": LAYOUT[rank], "label": "y", **sections.get("data", {})},
            "explain": {
                "methods": list(methods),
                "layers": list(layers),
                "targets": list(targets),
                **sections.get("explain", {}),
            },
            "output": {"path": name, "dtype": "float64", "commit_every": 0, **sections.get("output", {})},
        },
        folder,
    )


def loader(module, loads=None):
    def load(job):
        if loads is not None:
            loads.append(job)
        return TorchBackend(module, device=torch.device("cpu"), dtype=job.output.compute_dtype)

    return load


def explained(folder, module, methods, **how):
    """The path of the results of ``methods``."""
    found = job(folder, methods, **how)
    run_job(found, loader(module), watch=Watch())
    return found.output.path


def measured(
    path, module, metrics, *, batch=32, mask=True, stop=None, force=False, loads=None, maps=None, seed=0, watch=None
):
    """The outcome of an evaluation."""
    overrides = {"explain": {"batch_size": batch}, **({"data": {"mask": "mask"}} if mask else {})}
    request = Request(path, [metrics] if isinstance(metrics, str) else metrics, maps, overrides, seed, force)
    return evaluate(request, loader(module, loads), watch=watch or Watch(), stop=stop)


def numbers(outcome):
    """Every column of numbers, by path."""
    return {path: values for path, values in outcome.file.columns().items() if values.dtype == np.float64}


__all__ = ["Net", "explained", "inputs", "job", "loader", "masks", "measured", "numbers", "open_results"]
