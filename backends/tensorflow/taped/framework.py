"""TensorFlow, and Keras running on it, imported without what they would only look at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ....core.errors import RequestError
from ..absence import NEEDLESS, TENSORFLOW, imported
from ..framework import safe

SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""While they are imported. The second keeps the user's own settings of Keras as they are."""
ALIGNMENT = 64
"""Bytes. TensorFlow's kernels take memory that begins anywhere else, and may end the process."""


@cache
def tensorflow() -> Any:
    """The package, on as many threads as torch has."""
    with _muted():
        found = _imported("tensorflow")
        try:
            found.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
            for each in found.config.list_physical_devices("GPU"):  # else it would take all memory, and torch has none
                found.config.experimental.set_memory_growth(each, True)
            found.zeros(1) + 1  # its first operation looks for devices, aloud
        except RuntimeError:  # something has run already
            pass
    return found


@contextmanager
def _muted() -> Iterator[None]:
    """What C++ writes to stderr is not shown: it greets, whatever it is asked to do."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def keras() -> Any:
    """Keras 3; `RequestError` where it runs on something else than TensorFlow already."""
    tensorflow()
    found = safe(_imported("keras"))
    if (backend := found.config.backend()) != "tensorflow":
        raise RequestError(
            f"keras runs on {backend} in this process already, and --native needs it on TensorFlow; start another one"
        )
    return found


def legacy_keras() -> Any:
    """Keras 2, which reads what it wrote; `RequestError` where it is not here."""
    tensorflow()
    return _imported("tf_keras")


def _imported(name: str) -> Any:
    settings = {} if "keras" in sys.modules else SETTINGS
    return imported(
        name, NEEDLESS - TENSORFLOW, settings, f"--native needs {name}, which is not installed: pip install {name}"
    )


def settle_device(name: str) -> torch.device:
    """``auto`` is the first GPU that both torch and TensorFlow see, else the CPU."""
    tf = tensorflow()
    count = min(len(tf.config.list_physical_devices("GPU")), torch.cuda.device_count())
    if name == "auto":
        name = "cuda" if count else "cpu"
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind == "cuda" and (index or "0").isdecimal() and int(index or 0) < count:
        return torch.device("cuda", int(index or 0))
    there = ["cpu", *(f"cuda:{i}" for i in range(count))]
    raise RequestError(f"device {name!r} is not here; choose auto or one of: {', '.join(there)}")


def on(device: torch.device) -> AbstractContextManager[Any]:
    """What is computed inside is computed there."""
    name = "CPU:0" if device.type == "cpu" else f"GPU:{device.index or 0}"
    scope: AbstractContextManager[Any] = tensorflow().device(name)
    return scope


@contextmanager
def plainly() -> Iterator[None]:
    """What is raised inside a layer comes out as it is. Keras would make another error of it, of whatever class."""
    debugging = tensorflow().debugging
    settings: list[Any] = [debugging, *([sys.modules["keras"].config] if "keras" in sys.modules else [])]
    changed = [each for each in settings if each.is_traceback_filtering_enabled()]
    for each in changed:
        each.disable_traceback_filtering()
    try:
        yield
    finally:
        for each in changed:
            each.enable_traceback_filtering()


def to_tensorflow(tensor: Tensor) -> Any:
    """The same memory, where it is contiguous; not to be written to."""
    tensor = tensor.detach().contiguous()
    if tensor.data_ptr() % ALIGNMENT:
        tensor = tensor.clone()
    if tensor.is_cuda:  # the two have streams of their own
        torch.cuda.synchronize(tensor.device)
    return tensorflow().experimental.dlpack.from_dlpack(tensor.__dlpack__())


def to_torch(tensor: Any) -> Tensor:
    """The same memory; not to be written to."""
    tf = tensorflow()
    if "GPU" in tensor.device:
        tf.test.experimental.sync_devices()
    return torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(tensor))
