"""From a path to a `NativeBackend`, without running code that was not asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import RequestError
from ..files import Stored, layers_in, recognized
from ..framework import told
from ..migration import SYMBOLIC
from ..own_code import built, classes
from ..vetting import vet
from .backend import NativeBackend
from .framework import keras, legacy_keras, on, settle_device
from .precision import doubled
from .saved_model import load_signature

if TYPE_CHECKING:
    from ....core.job import ModelSection

SYMBOLS = ("math.", "nn.", "linalg.", "__operators__.")
"""Functions of TensorFlow that a graph of Keras 2 may name begin with these, ... """
PLAIN = frozenset(
    {"reshape", "transpose", "concat", "stack", "unstack", "split", "expand_dims", "squeeze", "cast", "identity", "pad",
     "shape", "compat.v1.shape", "compat.v1.transpose", "compat.v1.squeeze", "compat.v1.nn.relu", "tile", "gather",
     "convert_to_tensor", "ones_like", "zeros_like", "clip_by_value", "stop_gradient", "image.resize"}
)  # fmt: skip
"""... or are one of these."""


def load_native(
    path: Path | str | None, model: ModelSection, device: str, dtype: str, argument: str | None = None
) -> NativeBackend:
    """The backend of the model at ``path``: a ``.keras`` or ``.h5`` file, or the folder of a SavedModel.

    ``model.source`` is code with the classes of the user's own that the file names, or that builds the model where
    there is no file, or one of weights. ``model.args["signature"]`` names the function of a SavedModel.
    """
    where = settle_device(device)
    stored = None if path is None else recognized(Path(path))
    with on(where), told(path or model.source), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if stored is not None and stored.kind == "saved_model":
            wanted = model.args.get("signature")
            loaded: Any = load_signature(stored.path, name=wanted, trust=model.trust_checkpoint)
        else:
            loaded = _keras_model(stored, model)
        if dtype == "float64":
            loaded = doubled(loaded)
    return NativeBackend(loaded, device=where, dtype=dtype, output=model.output, tokens=model.tokens, argument=argument)


def _keras_model(stored: Stored | None, model: ModelSection) -> Any:
    package = keras()  # before the user's code can import it on something else
    if stored is None or stored.kind == "weights":
        if model.source is None:
            what = "no model" if stored is None else f"{stored.path} holds weights only, and no model"
            raise RequestError(f"{what} given: name the code that builds it, --model FILE.py:FUNCTION")
        made = built(model.source, model.args)
        if not hasattr(made, "_flatten_layers"):
            raise RequestError(f"{model.source} gave a {type(made).__name__}, expected a Keras model")
        if stored is not None:
            made.load_weights(str(stored.path))
        return made
    if stored.kind not in ("keras", "h5"):
        raise RequestError(f"--native does not read {stored.path}; expected a .keras or .h5 file, or a SavedModel")
    if stored.migrates:
        package = legacy_keras()
    custom = {} if model.source is None else classes(model.source, package.layers.Layer)
    vet(stored, lambda name: name in custom or package.saving.get_registered_object(name), trust=model.trust_checkpoint)
    if not model.trust_checkpoint:
        _check(stored)
    loaded = package.models.load_model(
        str(stored.path), custom_objects=custom, compile=False, safe_mode=not model.trust_checkpoint
    )
    if not loaded.built:
        raise RequestError(f"the model in {stored.path} was never built: call it once on a batch, and save it again")
    return loaded


def _check(stored: Stored) -> None:
    """`RequestError` where a graph of Keras 2 calls what is no mathematics."""
    for each in layers_in(stored.config):
        settings = each.get("config")
        symbol = str(settings.get("function", "")) if isinstance(settings, Mapping) else ""
        if each["class_name"] in SYMBOLIC and symbol not in PLAIN and not symbol.startswith(SYMBOLS):
            raise RequestError(
                f"{stored.path} calls {symbol} of TensorFlow's (layer {each.get('name')!r}), which may be more than "
                "mathematics; give --trust-checkpoint if you trust where it came from"
            )
