"""From a `ModelSection` to a Keras model, without running code that was not asked for."""

from __future__ import annotations

import importlib
import inspect
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import torch
from torch import nn

from ...core.errors import CamsweepError, RequestError
from ..torch.loading import build
from . import weights
from .absence import NEEDLESS, TENSORFLOW
from .fallback import not_imported
from .files import Stored, architecture, layers_in
from .framework import in_a_line, keras, quiet, told
from .graph import mapped
from .hosted import UNKNOWN, shapes_of
from .migration import APPLIED, CLASSES, MODELS, SYMBOLIC, ZEROS, Config, migrated, plain
from .own_code import classes
from .vetting import CODE, foreign, vet

if TYPE_CHECKING:
    from ...core.job import ModelSection

INSTEAD = "re-save it from Keras 3, export it to ONNX, or pip install tf_keras to convert it"


def load_keras(model: ModelSection, stored: Stored | None) -> Any:
    """The Keras model, built and filled. ``stored`` is what its weights are, where it has some."""
    code = model.source is not None and not model.source.endswith(".json")
    if not code and model.args:
        raise RequestError(f"{model.weights} takes no arguments, {', '.join(model.args)} given; they are for code")
    with quiet(TENSORFLOW if code else NEEDLESS), told(model.weights or model.source, f"; {INSTEAD}"):
        try:
            return _loaded(model, stored, str(model.source) if code else None)
        except RequestError as error:
            missing = getattr(error.__cause__, "name", None) or ""
            if not isinstance(error.__cause__, ModuleNotFoundError) or missing.partition(".")[0] not in TENSORFLOW:
                raise
            raise not_imported(f"{model.source} imports {missing}, which does not run on torch") from error


def _loaded(model: ModelSection, stored: Stored | None, code: str | None) -> Any:
    if stored is None or (code and stored.kind == "weights"):
        return _coded(model, stored)
    custom = {} if code is None else classes(code, keras().Layer)
    shape = architecture(stored.path, model.source) if stored.kind == "weights" else stored
    made = _built(_settled(shape, custom, trust=model.trust_checkpoint), custom, trust=model.trust_checkpoint)
    if shape.migrates:
        _as_keras_2(made)
    if stored.kind != "json":
        _filled(made, stored, shape)
    return made


def _settled(stored: Stored, custom: Mapping[str, Any], *, trust: bool) -> Config:
    """Its configuration as Keras 3 builds from it."""
    vet(stored, lambda name: name in custom or keras().saving.get_registered_object(name), trust=trust)
    config = {key: each for key, each in (stored.config or {}).items() if key != "compile_config"}
    layers = [
        each for each in layers_in(config) if isinstance(each.get("config"), Mapping) and "name" in each["config"]
    ]
    for each in layers:
        if not _known(each, custom):
            raise foreign(stored, str(each["class_name"]).rpartition(">")[2], str(each["config"]["name"]))
    if stored.migrates:
        return migrated(config)
    names = {str(each["config"]["name"]) for each in layers}
    odd = {name: plain(name) for name in names if plain(name) != name}
    made: Config = modern(mapped(config, lambda each: odd.get(each, each) if isinstance(each, str) else each), custom)
    return made


def _known(config: Mapping[str, Any], custom: Mapping[str, Any]) -> bool:
    """Whether a layer's class, where the file does not say of which module it is, is Keras' own, or was given."""
    kind = str(config["class_name"])
    return (
        bool(config.get("module"))
        or kind.rpartition(">")[2] in {*custom, *MODELS, *APPLIED, *CLASSES, *SYMBOLIC, *CODE}
        or keras().saving.get_registered_object(str(config.get("registered_name") or kind)) is not None
        or _place(kind, config["config"], custom) is not None
    )


def modern(config: Any, custom: Mapping[str, Any]) -> Any:
    """With the module of each class, which is not in an ``.h5``; and no random numbers drawn for weights to come."""
    if isinstance(config, list):
        return [modern(each, custom) for each in config]
    if not isinstance(config, Mapping):
        return config
    found = {key: modern(each, custom) for key, each in config.items()}
    for key, each in found.items():
        if key.endswith("_initializer") and isinstance(each, Mapping) and each.get("module") == "keras.initializers":
            found[key] = ZEROS
    if "module" not in found and isinstance(found.get("config"), Mapping) and "class_name" in found:
        kind = str(found["class_name"])
        if not kind.startswith("__") and (place := _place(kind, found["config"], custom)):
            found |= {"module": place, "class_name": kind.rpartition(">")[2], "registered_name": kind}
    return found


def _place(kind: str, config: Mapping[str, Any], custom: Mapping[str, Any]) -> str | None:
    """The module of a class that a legacy configuration names."""
    if kind.rpartition(">")[2] in custom:
        return None
    if kind in MODELS:
        return MODELS[kind]
    if kind in APPLIED:
        return APPLIED[kind]
    if not {"trainable", "dtype"} & config.keys() and kind != "InputLayer":  # as layers have, and not operations
        for each in ("numpy", "nn", "math", "core", "image", "linalg"):
            if hasattr(importlib.import_module(f"keras.src.ops.{each}"), kind):
                return f"keras.src.ops.{each}"
    if hasattr(keras().layers, kind):
        return "keras.layers"
    kinds = (each for each in vars(keras().layers).values() if inspect.isclass(each))
    return next((each.__module__ for each in kinds if each.__name__ == kind), None)  # it may be exported by another


def _built(config: dict[str, Any], custom: Mapping[str, Any], *, trust: bool) -> Any:
    try:
        made = keras().saving.deserialize_keras_object(config, custom_objects=dict(custom), safe_mode=not trust)
    except CamsweepError:
        raise
    except Exception as error:
        if "safe_mode" in str(error):  # TensorFlow would not be let run it either
            raise
        raise not_imported(f"the model cannot be built on torch: {in_a_line(error)}") from error
    if not isinstance(made, keras().Model):
        raise RequestError(f"the file's configuration is that of a {type(made).__name__}, not of a model")
    if not made.built or (type(made) is keras().Sequential and made._functional is None):
        raise RequestError("the model was never built: call it once on a batch, or give it an Input, and save it again")
    return made


def _filled(made: Any, stored: Stored, shape: Stored) -> None:
    """The weights put into the model."""
    if stored.kind == "h5":
        with h5py.File(stored.path) as file:
            weights.fill(made, weights._group(file, "model_weights"), stored.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = stored.path / "model.weights.h5" if stored.kind == "folder" else stored.path
        if stored.kind == "keras":
            with zipfile.ZipFile(stored.path) as archive:
                path = Path(archive.extract("model.weights.h5", folder))
        with h5py.File(path) as file:
            legacy = "layer_names" in file.attrs
            if legacy:
                weights.fill(made, file, stored.path)
            elif shape.migrates:
                weights.fill_in_order(made, file, shape.config or {}, stored.path)
        if not legacy and not shape.migrates:
            if not path.name.endswith(".weights.h5"):  # which is how Keras tells them
                named = Path(folder) / "model.weights.h5"
                named.symlink_to(path.resolve())
                path = named
            made.load_weights(str(path))


def _as_keras_2(made: Any) -> None:
    """One function's values changed with Keras 3, its name did not."""
    hard_sigmoid = keras().activations.hard_sigmoid
    for layer in made._flatten_layers():
        for name in ("activation", "recurrent_activation"):
            if vars(layer).get(name) is hard_sigmoid:
                setattr(layer, name, steep_sigmoid)


def steep_sigmoid(x: Any) -> Any:
    """Keras 2's ``hard_sigmoid``: 0.2 x + 0.5 between 0 and 1, where Keras 3 has x / 6 + 0.5."""
    return nn.functional.hardsigmoid(x * 1.2)


def _coded(model: ModelSection, stored: Stored | None) -> Any:
    """The model that the user's code builds, filled."""
    if model.source is None:
        raise RequestError("no model given: a .keras or .h5 file, a SavedModel folder, or FILE.py:FUNCTION")
    made = build(model.source, model.args)  # a Keras layer on torch is a torch module
    if not isinstance(made, keras().Model):
        raise RequestError(f"{model.source} gave a {type(made).__name__}, expected a keras.Model")
    if not made.built:
        raise RequestError(
            f"{model.source} gave a model that was never built; call it once on a batch, or give it an Input"
        )
    if not hasattr(made, "_nodes_by_depth") and getattr(made, "_functional", None) is None:
        made(*(torch.zeros([1, *(size or UNKNOWN for size in shape[1:])]) for shape in shapes_of(made)))
    if stored is not None:
        _filled(made, stored, stored)
    return made
