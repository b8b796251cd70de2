"""SavedModels: converted to ONNX in another process, and imported from there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.errors import RequestError
from .fallback import not_imported
from .freezing import FAILED, REFUSED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...core.job import ModelSection

NEEDED = ("tensorflow", "tf2onnx", "onnx")
TOLERANCE = 1e-3
"""Of the largest output, in single precision; what is wrong is wrong by far more."""


def imported_saved_model(model: ModelSection, folder: Path) -> tuple[nn.Module, tuple[int, ...] | None, dict[str, str]]:
    """The module of a signature, (channel, *s) of a sample, and the versions of what it went through."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise RequestError(f"a SavedModel needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    import onnx

    from ..onnx.importing import network

    if unknown := sorted(model.args.keys() - {"signature"}):
        raise RequestError(f"a SavedModel takes the argument signature, not {unknown[0]!r}")
    with tempfile.TemporaryDirectory() as out:
        _converted(folder, str(model.args.get("signature", "")), out, trust=model.trust_checkpoint)
        try:
            module = network(onnx.load(Path(out) / "model.onnx"), model.output).eval()
        except RequestError as error:
            raise not_imported(f"{folder}: {error}") from None
        with np.load(Path(out) / "sample.npz") as sample:
            _checked(module, {key: torch.from_numpy(np.asarray(sample[key])) for key in sample}, folder)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    entry = module.entries[0]
    sample, last = entry.sample, entry.channels_last is None  # then nothing says so, and TensorFlow has them last
    shape = (sample[-1], *sample[:-1]) if sample and last else sample
    packages = packages_distributions()  # TensorFlow goes by several names
    return module, shape, {name: version(packages[name][0]) for name in NEEDED}


def _converted(folder: Path, signature: str, out: str, *, trust: bool) -> None:
    """Run `freezing`."""
    given = [sys.executable, "-m", f"{__package__}.freezing", str(folder), signature, out, "trust" if trust else ""]
    # The package is found there as it was here, however it was put on the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(given, capture_output=True, text=True, env=environment, check=False)  # noqa: S603  (our own program)
    if done.returncode == 0:
        return
    if done.returncode == REFUSED:
        raise RequestError(done.stdout.strip().splitlines()[-1])
    lines = (done.stdout if done.returncode == FAILED else done.stderr).strip().splitlines()
    raise not_imported(lines[-1][:400] if lines else f"converting {folder} ended with code {done.returncode}")


def _checked(module: nn.Module, sample: Mapping[str, Tensor], folder: Path) -> None:
    """The module gives what TensorFlow did."""
    given = {key[3:]: each for key, each in sample.items() if key.startswith("in:")}
    if not given:
        return
    first = next(iter(given))
    given[first] = given[first].movedim(-1, 1) if given[first].ndim > 2 else given[first]
    with torch.no_grad():
        found = module(**given)
    for name, each in (found if isinstance(found, dict) else {"": found}).items():
        expected = sample[f"out:{name}"] if name else next(v for k, v in sample.items() if k.startswith("out:"))
        if each.shape == expected.shape:
            error = float((each - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
            if not error <= TOLERANCE:
                raise not_imported(f"{folder} was imported, but gives other values than in TensorFlow (by {error:.0e})")
