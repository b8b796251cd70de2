"""What these tests share: Keras on torch, a loader, and comparisons."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from camsweep.backends.tensorflow import load
from camsweep.core.job import ModelSection

from . import zoo

HERE = Path(__file__).parent
CODE = {"own_net": {"source": f"{HERE / 'own_net.py'}:Net"}}
"""What is named besides a file of the zoo."""
needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")
needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="tensorflow is not installed")


def keras():
    """On torch, which it stays on in this process."""
    from camsweep.backends.tensorflow.framework import keras as on_torch

    return on_torch()


def quiet():
    from camsweep.backends.tensorflow.framework import quiet as quietly

    return quietly()


def loaded(path=None, *, dtype="float32", argument=None, **section):
    section |= {} if path is None else {"weights": str(path)}
    return load(ModelSection(**section), device="cpu", dtype=dtype, argument=argument)


def made(layers, shape, dtype="float32"):
    """A functional model of Keras layers one after the other, with weights of no kind in particular."""
    with quiet():
        x = inputs = keras().Input(shape, dtype=dtype)
        for layer in layers:
            x = layer(x)
        model = keras().Model(inputs, x)
        zoo.scattered(model)
    return model


def imported(model):
    from camsweep.backends.tensorflow.conversion import imported as convert

    return convert(model, None)


def turned(x):
    """(batch, *s, channel) to (batch, channel, *s)."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 2 else x


def back(x):
    return np.moveaxis(x, 1, -1) if x.ndim > 2 else x


def close(found, expected, tolerance=1e-5):
    """Within a part of the largest."""
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error <= tolerance, f"off by {error:.1e}"


def agrees(module, x, y, g, *, first=False, tolerance=1e-5):
    """Outputs and gradient of an imported module, for ``x`` as the Keras model takes it; as precise as ``y``."""
    dtype = torch.from_numpy(y).dtype
    given = torch.from_numpy(x if first else turned(x)).to(dtype).requires_grad_()
    module.to(dtype)
    output = module(given)
    own = output if first or output.ndim < 3 else output.movedim(1, -1)
    close(own.detach().numpy(), y, tolerance)
    (own * zoo.weights(own.shape, torch.from_numpy)).sum().backward()
    close(given.grad.numpy() if first else back(given.grad.numpy()), g, tolerance)


def same(model, x, *, tolerance=1e-5, first=False):
    """A Keras model and what it is imported as."""
    with quiet():
        y, g = zoo.outputs_and_gradients(keras(), model, x)
    module = imported(model)
    agrees(module, x, y, g, first=first, tolerance=tolerance)
    return module


def once(tmp_path_factory, name, make):
    """The text that ``make`` gives, made by one of the processes that run tests, while others that ask wait."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    path, claim = folder / f"{name}.txt", folder / f"{name}.claim"
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        for _ in range(9000):
            if path.exists():
                break
            time.sleep(0.1)
    else:
        half, made = path.with_suffix(".half"), ""
        try:
            made = make()
        finally:  # those that wait are not to wait for what has failed
            half.write_text(made)
            half.rename(path)
    return path.read_text()


def written_by(program, *arguments, backend="tensorflow"):
    """Run a script of this folder in a process of its own, where Keras runs on TensorFlow."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(HERE / program), *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
