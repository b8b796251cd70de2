"""One folder per framework. A backend is imported only when its model is to be loaded."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.data.guard import hdf5_fault
from ..core.errors import RequestError, nearest
from .checkpoints import BACKENDS_OF, check, check_sums, kind_of
from .code import check_code

if TYPE_CHECKING:
    from ..core.backend import Backend
    from ..core.job import ModelSection

BACKENDS = {"torch": "torch", "onnx": "onnx", "tensorflow": "keras"}
"""Name of each backend (the folder, and the extra that installs it) to the module it needs."""


def installed() -> list[str]:
    """The backends whose framework can be imported here, found without importing it."""
    return [name for name, module in BACKENDS.items() if importlib.util.find_spec(module)]


def guess(model: ModelSection) -> str:
    """The backend for a model: the one named, or the one its files are of."""
    if model.backend is not None:
        if model.backend not in BACKENDS:
            raise RequestError(f"unknown backend {model.backend!r}. {nearest(model.backend, BACKENDS)}")
        return model.backend
    kind = None if model.weights is None else kind_of(Path(model.weights))
    if (model.source or "").endswith(".json") or (model.native and kind != "onnx"):
        return "tensorflow"
    if model.source is not None and kind not in ("keras", "hdf5"):
        return "torch"
    if kind is None:
        raise RequestError("no model given: a checkpoint file, or the code that builds it, --model FILE.py:CLASS")
    return BACKENDS_OF[kind]


def load(model: ModelSection, *, device: str, dtype: str, argument: str | None = None) -> Backend:
    """Load ``model`` to ``device`` ("auto", "cpu", "cuda", ..), computing in ``dtype`` ("float32" or "float64").

    ``argument`` names the model's argument that gets the input, where it is not the first.
    """
    name = guess(model)
    onnx = name == "onnx" and model.weights is not None and kind_of(Path(model.weights)) == "onnx"
    if model.native and not (onnx or name == "tensorflow"):
        raise RequestError(
            f"native is for Keras models, SavedModels and ONNX graphs, not for the {name} backend; leave one out"
        )
    if name not in installed():
        raise RequestError(f"the {name} backend is not installed: pip install 'camsweep[{name}]'")
    _check(model, name)
    module = importlib.import_module(f".{name}", __name__)
    backend: Backend = module.load(model, device=device, dtype=dtype, argument=argument)
    return backend


def _check(model: ModelSection, name: str) -> None:
    """`RequestError` for what can be told in milliseconds, before seconds go by in importing a framework."""
    if model.source is not None and not model.source.endswith(".json"):
        check_code(model.source)
    if model.weights is None:
        return
    path = Path(model.weights)
    if name == "tensorflow":
        from .tensorflow.files import recognized
        from .tensorflow.vetting import check_no_code

        if not path.is_dir() and kind_of(path) == "hdf5" and (fault := hdf5_fault(path)):
            raise RequestError(f"{path}: {fault}")
        check_no_code(recognized(path), trust=model.trust_checkpoint)
    else:
        check(path)
        check_sums(path)
