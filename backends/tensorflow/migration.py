"""Configurations that Keras 2 wrote, as Keras 3 reads them. Strictly: what no table below knows is an error.

To drop a key unseen changes what a model computes without a word, as that of a LeakyReLU's slope does.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from .fallback import not_imported
from .symbols import operation_of

Config = dict[str, Any]
ANY = object()
NEUTRAL: dict[tuple[str, str], tuple[Any, ...]] = {
    ("", "time_major"): (False,),
    ("", "groups"): (1,),
    ("", "noise_shape"): (None,),
    ("", "virtual_batch_size"): (None,),
    ("", "adjustment"): (None,),
    ("", "ragged"): (False,),
    ("", "sparse"): (False,),
    ("", "softmax_robust_masking"): (False,),
    ("BatchNormalization", "renorm"): (False,),
    ("BatchNormalization", "renorm_clipping"): (None,),
    **dict.fromkeys(
        [("", key) for key in ("batch_input_shape", "input_length", "input_dtype", "input_shape", "input_dim")]
        + [("", key) for key in ("implementation", "rng_type", "fused", "vocabulary_size", "autocast", "trainable")]
        + [("", key) for key in ("query_shape", "key_shape", "value_shape", "num_constants", "renorm_momentum")],
        (ANY,),
    ),
}
"""By class, "" being all, and key: the values with which it says nothing that Keras 3 does not do anyway."""
RENAMED = {
    ("LeakyReLU", "alpha"): "negative_slope",
    ("ThresholdedReLU", "theta"): "threshold",
    ("InputLayer", "batch_input_shape"): "batch_shape",
}
CLASSES = {"ThresholdedReLU": "ReLU", "RandomHeight": "Identity", "RandomWidth": "Identity", "Model": "Functional"}
"""Those that Keras 3 has under another name; the random ones do nothing in evaluation."""
MODELS = {"Functional": "keras.src.models.functional", "Model": "keras.src.models.functional", "Sequential": "keras"}
"""And where Keras 3 has them."""
APPLIED = {
    "LayerScale": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}
"""Layers of single architectures."""
ZEROS: Config = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
"""What weights are until they are read; to draw them at random takes longer than all else."""
SYMBOLIC = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""Layers that are a function of TensorFlow's."""
UNUSED = ("_initializer", "_regularizer", "_constraint")
"""Ends of keys that say how a layer was trained."""


def migrated(config: Config) -> Config:
    """That of a model, or of a layer."""
    kind = _class(config)
    if kind in MODELS:
        return _model(config, kind)
    settings = dict(config["config"])
    name = settings.get("name") or config.get("name") or kind
    if kind == "Lambda":
        raise not_imported(f"layer {name!r} is Python code of Keras 2, which Keras 3 does not read")
    found: Config = {}
    for key, value in settings.items():
        key, kept = RENAMED.get((kind, key), key), value
        if key.endswith(UNUSED) and key in _arguments(CLASSES.get(kind, kind)):
            found[key] = ZEROS if key.endswith("_initializer") else None
        elif key.endswith(UNUSED) or (kind in ("RandomHeight", "RandomWidth") and key != "name"):
            pass
        elif key in _arguments(CLASSES.get(kind, kind)):
            found[key] = _setting(key, kept, kind)
        elif not any(value == neutral or neutral is ANY for neutral in _neutral(kind, key)):
            raise not_imported(f"layer {name!r} ({kind}) has {key}={value!r:.80}, which Keras 3 does not know")
    if kind == "GRU":
        found.setdefault("reset_after", False)  # as it was before the key was
    found["name"] = plain(str(name))
    return {"module": module_of(kind), "class_name": CLASSES.get(kind, kind), "config": found, "registered_name": None}


def _model(config: Config, kind: str) -> Config:
    settings = config["config"] if isinstance(config["config"], Mapping) else {"layers": config["config"]}
    name = settings.get("name") or config.get("name") or kind.lower()
    found: Config = {"name": plain(name), "layers": [_layer(each, settings) for each in settings["layers"]]}
    if kind == "Sequential":
        first = settings["layers"][0]
        shape = first["config"].get("batch_input_shape") if isinstance(first["config"], Mapping) else None
        shape = shape or settings.get("build_input_shape")
        if _class(first) != "InputLayer" and shape is not None:
            start = {"class_name": "InputLayer", "config": {"batch_shape": _untupled(shape), "name": "input"}}
            found["layers"].insert(0, migrated(start))
    else:
        ends = {key: _places(settings[key], settings) for key in ("input_layers", "output_layers")}
        found |= ends
    return {"module": MODELS[kind], "class_name": kind, "config": found, "registered_name": None}


def _layer(config: Config, model: Mapping[str, Any]) -> Config:
    """A layer in a model's list, with what it is called on."""
    if _class(config) in SYMBOLIC:
        return operation_of(config, lambda nest: _tensors(nest, model))
    found = migrated(config)
    if "inbound_nodes" in config:
        found["name"] = plain(config["name"])
        found["inbound_nodes"] = [_node(node, model) for node in config["inbound_nodes"]]
    return found


def _node(node: Any, model: Mapping[str, Any]) -> Config:
    if isinstance(node, Mapping):  # already as Keras 3 has it
        return dict(node)
    tensors = [_tensor(each, model) for each in node]
    kwargs = {key: _tensors(value, model) for key, value in (node[0][3] if len(node[0]) > 3 else {}).items()}
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}


def _tensor(place: Any, model: Mapping[str, Any]) -> Config:
    name, index, which = place[:3]
    if name == "_CONSTANT_VALUE":
        raise not_imported("the model has a constant among a layer's inputs")
    history = [plain(name), index - _own_nodes(name, model), which]
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}


def _tensors(nest: Any, model: Mapping[str, Any]) -> Any:
    """Arguments in which places of tensors lie among values."""
    if isinstance(nest, list):
        if len(nest) in (3, 4) and isinstance(nest[0], str) and all(isinstance(each, int) for each in nest[1:3]):
            return _tensor(nest, model)
        return [_tensors(each, model) for each in nest]
    return {k: _tensors(v, model) for k, v in nest.items()} if isinstance(nest, Mapping) else nest


def _places(places: Any, model: Mapping[str, Any]) -> Any:
    """Inputs or outputs of a model."""
    if isinstance(places, Mapping):
        return {key: _places(each, model) for key, each in places.items()}
    if isinstance(places[0], str):
        name, index, which = places
        first = 1 if _kind_of(name, model) == "Functional" else 0  # as Keras 3 counts the calls of a model here
        return [plain(name), index - _own_nodes(name, model) + first, which]
    return [_places(each, model) for each in places]


def _own_nodes(name: str, model: Mapping[str, Any]) -> int:
    """How many calls of a layer Keras 2 counts before the first: a model's own, where it says what it takes."""
    if _kind_of(name, model) not in MODELS:
        return 0
    [inner] = [each for each in model["layers"] if each.get("name", each["config"].get("name")) == name]
    return int(_class(inner["config"]["layers"][0]) == "InputLayer")


def _kind_of(name: str, model: Mapping[str, Any]) -> str:
    return next((_class(each) for each in model["layers"] if each.get("name") == name), "")


def _class(config: Mapping[str, Any]) -> str:
    name = str(config["class_name"]).rpartition(">")[2]
    return "Functional" if name == "Model" else name


def _setting(key: str, value: Any, kind: str) -> Any:
    """A value of a key that Keras 3 knows."""
    value = _untupled(value)
    if isinstance(value, Mapping) and "class_name" in value and key not in ("dtype", "activation"):
        return migrated(dict(value))  # a layer or cell in another
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "class_name" in value[0]:
        return [migrated(dict(each)) for each in value]
    if key == "dtype":
        return value if isinstance(value, str) else None
    if key == "axis" and kind == "BatchNormalization" and isinstance(value, list):
        return value[0]
    if isinstance(value, Mapping) and value.get("class_name") == "function":
        return value["config"] if isinstance(value["config"], str) else value.get("registered_name")
    return value


def _untupled(value: Any) -> Any:
    """Keras 2 marks tuples."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__tuple__", "TensorShape"):
        return [_untupled(each) for each in value.get("items", [])]
    return value


def plain(name: str) -> str:
    """A layer's name without what Keras 3 and torch do not take in one."""
    return name.replace("/", "_").replace(".", "_")


def _neutral(kind: str, key: str) -> tuple[Any, ...]:
    return NEUTRAL.get((kind, key), NEUTRAL.get(("", key), ()))


def module_of(kind: str) -> str:
    """Where Keras 3 has a layer."""
    return APPLIED.get(kind, "keras.layers")


@cache
def _arguments(kind: str) -> frozenset[str]:
    """What the constructor of a class of Keras takes."""
    found: set[str] = {"name", "dtype"}
    module = importlib.import_module(module_of(kind))
    if (start := getattr(module, kind, None)) is None:
        raise not_imported(f"the model has a layer of the class {kind}, which is not one of Keras 3's")
    for each in inspect.getmro(start):
        if "__init__" not in vars(each) or each is object:
            continue
        parameters = inspect.signature(each.__init__).parameters.values()  # type: ignore[misc]
        found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(found - {"self", "activity_regularizer", "trainable"})
