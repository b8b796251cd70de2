"""Functions of TensorFlow's in the graphs of Keras 2, as operations of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .fallback import not_imported

Config = dict[str, Any]
TWO = {
    "math.add": "numpy.Add", "__operators__.add": "numpy.Add", "math.subtract": "numpy.Subtract",
    "math.multiply": "numpy.Multiply", "math.truediv": "numpy.TrueDivide", "math.divide": "numpy.Divide",
    "math.pow": "numpy.Power", "math.maximum": "numpy.Maximum", "math.minimum": "numpy.Minimum",
    "linalg.matmul": "numpy.Matmul",
}  # fmt: skip
"""Of two values, the second by the name in `SECOND`."""
SECOND = ("y", "b")
ONE = {
    "nn.relu": "nn.Relu", "nn.relu6": "nn.Relu6", "nn.sigmoid": "nn.Sigmoid", "math.sigmoid": "nn.Sigmoid",
    "nn.tanh": "numpy.Tanh", "math.tanh": "numpy.Tanh", "nn.silu": "nn.Silu", "nn.swish": "nn.Silu",
    "nn.elu": "nn.Elu", "nn.selu": "nn.Selu", "nn.softplus": "nn.Softplus", "math.softplus": "nn.Softplus",
    "math.exp": "numpy.Exp", "math.log": "numpy.Log", "math.sqrt": "numpy.Sqrt", "math.square": "numpy.Square",
    "math.abs": "numpy.Absolute", "math.negative": "numpy.Negative", "nn.softmax": "nn.Softmax",
    "nn.gelu": "nn.Gelu", "nn.leaky_relu": "nn.LeakyRelu", "math.reduce_mean": "numpy.Mean",
    "math.reduce_max": "numpy.Max", "math.reduce_sum": "numpy.Sum", "reshape": "numpy.Reshape",
    "transpose": "numpy.Transpose", "compat.v1.transpose": "numpy.Transpose", "expand_dims": "numpy.ExpandDims",
    "squeeze": "numpy.Squeeze", "compat.v1.squeeze": "numpy.Squeeze", "concat": "numpy.Concatenate",
    "stack": "numpy.Stack", "identity": "numpy.Copy",
}  # fmt: skip
"""Of one value, or of a list of them."""
SETTINGS = {
    "axis": "axis", "keepdims": "keepdims", "shape": "newshape", "perm": "axes", "approximate": "approximate",
    "alpha": "negative_slope",
}  # fmt: skip
"""What else such a function can be given, and how Keras 3 calls it."""
DEFAULTS: dict[str, Config] = {"nn.gelu": {"approximate": False}}


def operation_of(config: Config, tensors: Callable[[Any], Any]) -> Config:
    """One such layer, ``tensors`` turning what its calls are given into what Keras 3 reads."""
    name, symbol = config["name"], str(config["config"].get("function", config["class_name"]))
    if symbol not in TWO and symbol not in ONE:
        raise not_imported(f"layer {name!r} runs {symbol} of TensorFlow's, which Keras 3 does not read")
    [node, *others] = config["inbound_nodes"]
    if others:
        raise not_imported(f"layer {name!r} runs {symbol} in several places")
    first, *more = [node] if isinstance(node[0], str) else node
    kwargs = {key: value for key, value in (first[3] if len(first) > 3 else {}).items() if value is not None}
    kwargs.pop("name", None)
    settings: Config = dict(DEFAULTS.get(symbol, {}))
    given = [_value(first, tensors)] if not more else [[_value(each, tensors) for each in (first, *more)]]
    if symbol in TWO:
        given += [tensors(kwargs.pop(key)) for key in SECOND if key in kwargs]
    for key, value in kwargs.items():
        if key not in SETTINGS or isinstance(value, Mapping):
            raise not_imported(f"layer {name!r} gives {key}={value!r:.80} to {symbol}")
        settings[SETTINGS[key]] = value
    module, _, kind = (TWO.get(symbol) or ONE[symbol]).rpartition(".")
    plain = name.replace("/", "_").replace(".", "_")
    return {
        "module": f"keras.src.ops.{module}", "class_name": kind, "config": {"name": plain, **settings},
        "registered_name": kind, "name": plain, "inbound_nodes": [{"args": given, "kwargs": {}}],
    }  # fmt: skip


def _value(place: Any, tensors: Callable[[Any], Any]) -> Any:
    return place[2] if place[0] == "_CONSTANT_VALUE" else tensors(place[:3])
