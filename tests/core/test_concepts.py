"""Deep Feature Factorization: concepts of a dataset, fitted once, and where they are in each sample."""

import threading

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import camsweep
from camsweep.cli.console import Progress
from camsweep.cli.explain import load_backend
from camsweep.core import concepts
from camsweep.core.errors import RequestError, Stopped
from camsweep.core.job import Job
from camsweep.core.methods.concepts import factorize, nonnegative_fit
from camsweep.core.run import run_job

MODEL = """
import torch
from torch import nn

class Mixed(nn.Module):
    \"\"\"Its layer gives the input itself; the head is linear behind an average.\"\"\"

    def __init__(self, channels=6):
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(channels, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.arange(3 * channels).reshape(3, channels) / 10 - 0.7)
            self.head.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, x):
        return self.head(self.layer(x).flatten(2).mean(2))
"""
TRUE = np.array([[1, 0, 0, 0.5, 0, 0], [0, 1, 0, 0, 0.5, 0], [0, 0, 1, 0, 0, 0.5]])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Samples made of three concepts, each alone somewhere."""
    folder = tmp_path_factory.mktemp("concepts")
    rng = np.random.default_rng(0)
    shares = rng.exponential(size=(12, 3, 5, 4)) * (rng.random((12, 3, 5, 4)) < 0.5)
    np.savez(folder / "x.npz", x=np.einsum("nkhw,kc->nchw", shares, TRUE).astype(np.float32))
    (folder / "models.py").write_text(MODEL)
    return folder, shares


def run(folder, name="run.h5", method="dff:k=3", **explain):
    return camsweep.explain(
        model={"source": f"{folder / 'models.py'}:Mixed"},
        data={"path": str(folder / "x.npz"), "layout": "NCHW"},
        explain={"methods": [method], "layers": ["layer"], "device": "cpu", **explain},
        output={"path": str(folder / name), "dtype": "float64"},
    )


def test_the_concepts_that_the_data_are_made_of_are_found_with_their_maps_and_scores(mixed):
    folder, shares = mixed
    with camsweep.open_results(run(folder)) as results:
        fitted = results.concepts("dff:k=3@layer")
        maps = results.map("dff:k=3@layer").read()[:, 0]
    lengths = np.linalg.norm(TRUE, axis=1)
    order = (fitted["vectors"] @ (TRUE.T / lengths)).argmax(0)
    assert sorted(order) == [0, 1, 2]
    found = fitted["vectors"][order]
    assert np.allclose(found, TRUE / lengths[:, None], atol=0.02)
    assert np.allclose(maps[:, order], shares * lengths[:, None, None], atol=0.1)
    assert np.allclose(fitted["offset"], 0)
    # Each concept's scores: the model's for a layer that is that concept everywhere.
    weight, bias = np.arange(18).reshape(3, 6) / 10 - 0.7, np.array([0.1, 0.2, 0.3])
    assert np.allclose(fitted["scores"], fitted["vectors"] @ weight.T + bias, atol=1e-6)


def test_neither_batch_size_nor_stopping_changes_them(mixed):
    folder, _ = mixed
    with camsweep.open_results(run(folder, "a.h5", batch_size=1)) as one:
        alone, fitted = one.map("dff:k=3@layer").read(), one.concepts("dff:k=3@layer")
    with camsweep.open_results(run(folder, "b.h5", batch_size=8)) as eight:
        assert np.allclose(eight.map("dff:k=3@layer").read(), alone, rtol=1e-9, atol=1e-12)
        assert np.allclose(eight.concepts("dff:k=3@layer")["vectors"], fitted["vectors"], rtol=1e-9, atol=1e-12)


def test_a_run_that_was_stopped_goes_on_with_the_same_concepts(mixed, monkeypatch):
    folder, _ = mixed
    sections = {
        "model": {"source": f"{folder / 'models.py'}:Mixed"},
        "data": {"path": str(folder / "x.npz"), "layout": "NCHW"},
        "explain": {"methods": ["dff:k=3"], "layers": ["layer"], "device": "cpu", "batch_size": 4},
        "output": {"path": str(folder / "stopped.h5"), "dtype": "float64"},
    }
    stop = threading.Event()

    class Watch(Progress):
        def advance(self, rows):
            stop.set()

    job = Job.load(None, sections)
    with pytest.raises(Stopped), Watch("", quiet=True) as watch:
        run_job(job, load_backend, watch=watch, stop=stop)
    monkeypatch.setattr(concepts, "factorize", None)  # fitted once: a second time would fail
    path = camsweep.explain(**sections)
    monkeypatch.undo()
    with camsweep.open_results(path) as results, camsweep.open_results(run(folder, "whole.h5")) as whole:
        assert np.array_equal(results.map("dff:k=3@layer").read(), whole.map("dff:k=3@layer").read())


def test_signed_activations_are_lifted_by_their_smallest_value():
    points = np.random.default_rng(1).normal(size=(200, 4))
    vectors, offset = factorize(points, 3)
    assert np.array_equal(offset, points.min(0))
    assert (vectors >= 0).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(2)
    parts, points = rng.random((4, 7)), rng.normal(size=(30, 7))
    found = nonnegative_fit(torch.from_numpy(points), torch.from_numpy(parts)).numpy()
    expected = np.array([nnls(parts.T, each)[0] for each in points])
    assert np.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("k", [0, 7])
def test_no_more_concepts_than_channels(mixed, k):
    with pytest.raises(RequestError, match=f"dff: k={k} given, (expected 1 or more|the layer has 6 channels)"):
        run(mixed[0], f"k{k}.h5", f"dff:k={k}")
