"""Whole models: written by Keras, read back, and held against Keras itself."""

from __future__ import annotations

import pytest
import torch

from camsweep.core.errors import RequestError

from . import zoo
from .harness import agrees, close, keras, loaded, needs_keras, quiet, turned

pytestmark = needs_keras
ON_TORCH = [name for name in zoo.ZOO if name not in ("uneven", "own_net")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{name: (files, x, y, g)}, each made when it is asked for."""
    folder, found = tmp_path_factory.mktemp("zoo"), {}

    def ask(name):
        if name not in found:
            with quiet():
                model, x = zoo.built(keras(), name), zoo.samples(name)
                found[name] = (x, *zoo.outputs_and_gradients(keras(), model, x))
                model.save(folder / f"{name}.keras")
                model.save(folder / f"{name}.h5")
        return folder, *found[name]

    return ask


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", ON_TORCH)
def test_forward_and_gradient_are_keras_own(written, name, ending):
    folder, x, y, g = written(name)
    backend = loaded(folder / f"{name}{ending}")
    agrees(backend.module, x, y, g, first=name == "first")
    assert backend.name == "tensorflow"
    assert backend.versions["keras"] == keras().__version__


@pytest.mark.parametrize("name", ON_TORCH)
def test_double_precision_reaches_every_constant(written, name):
    folder, x, y, _ = written(name)
    module = loaded(folder / f"{name}.keras").module.double()
    found = module(torch.from_numpy(x if name == "first" else turned(x)).double())
    assert found.dtype == torch.float64
    if found.ndim > 2:
        found = found.movedim(1, -1)
    close(found.numpy(), y, 1e-5)


@pytest.mark.parametrize("name", ON_TORCH)
def test_module_is_frozen_and_in_evaluation(written, name):
    folder, *_ = written(name)
    module = loaded(folder / f"{name}.keras").module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(each.training for each in module.modules())


def test_names_are_those_of_keras(written):
    folder, *_ = written("nested")
    names = dict(loaded(folder / "nested.keras").module.named_modules())
    blocks = [name for name in names if name.startswith("block.")]
    assert [name.rpartition(".")[2].rstrip("_0123456789") for name in blocks] == [
        "conv2d",
        "batch_normalization",
        "re_lu",
        "add",
    ]
    conv = next(name for name in names if name.startswith("head.conv2d"))
    assert f"{conv}.conv" in names
    assert f"{conv}.relu" in names


@pytest.mark.parametrize(
    ("name", "final"),
    [
        ("signal", "softmax"),
        ("volume", "sigmoid"),
        ("unet", "softmax"),
        ("places", "softmax"),
        ("norms", "log-softmax"),
        ("image", None),
    ],
)
def test_targets_step_behind_a_final_activation(written, name, final):
    folder, x, *_ = written(name)
    assert loaded(folder / f"{name}.keras").structure(turned(x)[:1]).final == final


def test_scores_are_the_logits(written):
    folder, x, *_ = written("signal")
    structure = loaded(folder / "signal.keras").structure(turned(x)[:1])
    names = [layer.name for layer in structure.layers]
    assert structure.outputs == 4
    assert structure.auto is not None
    assert any(name.endswith(".linear") for name in names)


def test_layers_before_the_head_have_the_channels_first(written):
    folder, x, *_ = written("image")
    structure = loaded(folder / "image.keras").structure(turned(x)[:1])
    for layer in structure.layers:
        if layer.rank == 2:
            assert layer.grid == "", layer


@pytest.mark.parametrize(("name", "auto"), [
    ("lstm", "lstm"), ("gru", "simple_rnn"), ("bidirectional", "time_distributed"), ("attention", "layer_normalization"),
    ("heads", "einsum_dense"), ("places", "dense"), ("tokens", None),
])  # fmt: skip
def test_the_points_of_a_signal_are_no_tokens(written, name, auto):
    folder, x, *_ = written(name)
    structure = loaded(folder / f"{name}.keras").structure(turned(x)[:1])
    assert (structure.auto or "").rstrip("_0123456789").partition(".")[0].rstrip("_0123456789") == (auto or "")
    for layer in structure.layers:
        assert "prefix" not in layer.grid, layer
        assert layer.rank in (0, 1) or name == "tokens", layer
        assert not layer.doubt or (layer.name.startswith("time_distributed") and "." in layer.name), (
            layer
        )  # steps as rows
    if auto:
        [last] = [layer for layer in structure.layers if layer.name == structure.auto]
        assert last.shape[1:] == x.shape[1:-1]


def test_the_backward_half_of_a_layer_is_in_the_order_of_time(written):
    import numpy as np

    folder, x, *_ = written("bidirectional")
    module = loaded(folder / "bidirectional.keras").module
    [layer] = [
        each for name, each in module.named_children() if name.startswith("bidirectional") and each.ahead.sequences
    ]
    given = torch.from_numpy(x)
    other = given.clone()
    other[:, 4] += 1
    change = (layer.back(other) - layer.back(given)).abs().amax((0, 2)).detach().numpy()
    assert np.flatnonzero(change).max() == 4  # it has seen what comes later only


def test_loading_leaves_no_trace(written, monkeypatch):
    import os
    import random

    folder, *_ = written("image")
    before = dict(os.environ), random.getstate(), torch.get_rng_state()
    loaded(folder / "image.keras")
    assert dict(os.environ) == before[0]
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_default_dtype() == torch.float32


def test_what_keras_only_looks_at_is_not_imported():
    import subprocess
    import sys

    code = ("import sys, torch\nfrom camsweep.backends.tensorflow.framework import keras\nimport os\n"
            "before = dict(os.environ); keras(); assert dict(os.environ) == before\n"
            "print([n for n in ('tensorflow', 'matplotlib', 'sklearn', 'pandas', 'torch._dynamo') if n in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
    code = (
        "import camsweep.backends.tensorflow, sys; print([n for n in ('torch', 'keras', 'h5py') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_keras_on_another_backend_is_told(monkeypatch):
    import sys
    from types import SimpleNamespace

    elsewhere = SimpleNamespace(__version__="3.15.0", config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", elsewhere)
    with pytest.raises(RequestError, match="keras runs on jax in this process already"):
        keras()
    elsewhere.__version__ = "3.5.0"
    with pytest.raises(RequestError, match=r"keras 3.5.0 is too old to be safe: pip install 'keras>=3.12'"):
        keras()
