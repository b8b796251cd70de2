"""Keras, imported on torch and without what it would only look at: 0.5 s instead of 9."""

from __future__ import annotations

import importlib
import os
import random
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from ...core.errors import CamsweepError, RequestError
from .absence import NEEDLESS, imported, without

SETTINGS = {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu", "KERAS_HOME": os.devnull}
"""The last keeps the user's own settings, which can change how a file is read, and his home folder as they are."""
OLDEST = (3, 12)
"""Older ones run code that some files hold."""


def keras() -> Any:
    """The package, on torch; `RequestError` where it is not here, too old, or running on something else already."""
    if "keras" not in sys.modules:
        with _instead_of_dynamo():
            imported(
                "keras", NEEDLESS, SETTINGS,
                "the tensorflow backend is not installed: pip install 'camsweep[tensorflow]'",
            )  # fmt: skip
    found = safe(sys.modules["keras"])
    if (backend := found.config.backend()) != "torch":
        raise RequestError(
            f"keras runs on {backend} in this process already; import it after camsweep, or set KERAS_BACKEND=torch"
        )
    return found


def safe(package: Any) -> Any:
    """Keras 3, of a version that runs no code which a file holds."""
    if tuple(int(part) for part in package.__version__.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RequestError(f"keras {package.__version__} is too old to be safe: pip install 'keras>={oldest}'")
    return package


@contextmanager
def quiet(absent: frozenset[str] = NEEDLESS) -> Iterator[None]:
    """Keras inside neither imports what is to be ``absent``, nor warns, nor draws from the process's random numbers."""
    keras()
    drawn = random.getstate()
    with without(absent), warnings.catch_warnings(), torch.random.fork_rng(devices=()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(drawn)


@contextmanager
def running(given: Iterable[Any]) -> Iterator[None]:
    """Keras' functions inside run where these tensors are, and as precisely, which they would not by themselves."""
    tensors = [each for each in given if isinstance(each, torch.Tensor)]
    narrowed: dict[str, str] = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    double = any(each.dtype == torch.float64 for each in tensors)
    config = keras().config
    before, floats = narrowed["float64"], config.floatx()
    with keras().device(str(tensors[0].device if tensors else "cpu")):
        if double:
            narrowed["float64"] = "float64"
            config.set_floatx("float64")  # that of constants
        try:
            yield
        finally:
            narrowed["float64"] = before
            config.set_floatx(floats)


@contextmanager
def _instead_of_dynamo() -> Iterator[None]:
    """Keras imports torch's compiler, which takes 2 s, to exempt two functions from it."""
    if (name := "torch._dynamo") in sys.modules:
        yield
        return
    stub = ModuleType(name)
    stub.disable = lambda: lambda function: function  # type: ignore[attr-defined]
    sys.modules[name] = stub
    try:
        yield
    finally:
        del sys.modules[name]


def in_a_line(error: BaseException) -> str:
    """What went wrong, without the colours and the lines below that TensorFlow and Keras add."""
    cause = str(error).rpartition("Exception encountered: ")[2]  # Keras tells one inside the other
    lines = re.sub(r"\x1b\[\d*m", "", cause).splitlines()
    return f"{type(error).__name__}: {next((line.strip() for line in lines if line.strip()), '')}"[:220]


@contextmanager
def told(what: object, advice: str = "", kind: type[RequestError] = RequestError) -> Iterator[None]:
    """Turn what Keras and TensorFlow raise into one line."""
    try:
        yield
    except CamsweepError:
        raise
    except Exception as error:
        raise kind(f"{what} cannot be loaded: {in_a_line(error)}{advice}") from error
