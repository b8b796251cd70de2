"""A Keras model once more, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....core.errors import RequestError
from ..framework import in_a_line
from .framework import keras

NARROW = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
ADVICE = "--native computes this model in float32 only; leave out float64"


def doubled(model: Any) -> Any:
    """The model built again from its own configuration, with its weights."""
    if not type(model).__module__.startswith("tf_keras") and hasattr(model, "_flatten_layers"):
        try:
            return _rebuilt(model)
        except Exception as error:
            raise RequestError(f"{ADVICE} ({in_a_line(error)})") from error
    raise RequestError(ADVICE)


def _rebuilt(model: Any) -> Any:
    k = keras()
    own = {type(each).__name__: type(each) for each in model._flatten_layers()}
    own = {name: kind for name, kind in own.items() if not kind.__module__.startswith("keras.")}
    config = k.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    floats, policy = k.config.floatx(), k.config.dtype_policy()
    try:  # layers that somebody's code makes in its constructor have what is the default then
        k.config.set_floatx("float64")
        k.config.set_dtype_policy("float64")
        made = k.saving.deserialize_keras_object(_wide(config), custom_objects=own, safe_mode=False)
    finally:
        k.config.set_floatx(floats)
        k.config.set_dtype_policy(policy)
    made.set_weights(model.get_weights())
    for variable in made.weights:
        if variable.dtype in NARROW:
            raise TypeError(f"{variable.path} stays {variable.dtype}")
    return made


def _wide(config: Any) -> Any:
    """A configuration with float64 for every other width."""
    if isinstance(config, list | tuple):
        return type(config)(map(_wide, config))
    if not isinstance(config, Mapping):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float64"}}
    return {key: "float64" if key == "dtype" and each in NARROW else _wide(each) for key, each in config.items()}
