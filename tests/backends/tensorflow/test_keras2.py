"""Files of Keras 2, in whose place hand-written ones stand; and real ones, where ``tf_keras`` can write them."""

from __future__ import annotations

import json
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
import torch

from camsweep.core.errors import RequestError

from . import zoo
from .harness import agrees, keras, loaded, needs_keras, quiet, turned, written_by

pytestmark = needs_keras


def layer(kind, name, inbound=None, **config):
    found = {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}
    if inbound is not None:
        found |= {"name": name, "inbound_nodes": inbound}
    return found


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}


def functional(layers, ends):
    config = {
        "name": "model",
        "layers": layers,
        "input_layers": [[layers[0]["name"], 0, 0]],
        "output_layers": [[ends, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def start(shape, name="input_1"):
    return layer("InputLayer", name, [], batch_input_shape=[None, *shape], sparse=False, ragged=False)


def write(path, config, weights, version="2.4.0"):
    """A whole-model file: weights are {layer: {name: array}}."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}/{each}:0".encode() for each in arrays]
            for each, array in arrays.items():
                inner[f"{name}/{each}:0"] = array.astype("float32")
    return path


RNG = np.random.default_rng(0)
CONV = {"filters": 3, "kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1,
        "activation": "linear", "use_bias": True, "kernel_initializer": {"class_name": "HeNormal", "config": {"seed": None}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 1e-4}}, "bias_constraint": None}  # fmt: skip


def conv(inputs=2, outputs=3):
    return {"kernel": RNG.normal(size=(3, 3, inputs, outputs)), "bias": RNG.normal(size=outputs)}


def run(path, *shape):
    x = RNG.normal(size=(2, *shape)).astype("float32")
    return x, loaded(path).module(torch.from_numpy(turned(x))).numpy()


def told(path):
    with pytest.raises(RequestError) as caught:
        loaded(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sequential_without_an_input_layer(tmp_path):
    weights = {
        "c": conv(),
        "b": {
            "gamma": RNG.uniform(0.5, 1, 3),
            "beta": RNG.normal(size=3),
            "moving_mean": RNG.normal(size=3),
            "moving_variance": RNG.uniform(0.5, 1, 3),
        },
    }
    config = sequential(
        layer("Conv2D", "c", batch_input_shape=[None, 6, 5, 2], **CONV), layer("BatchNormalization", "b", axis=[3], epsilon=0.001, momentum=0.99, fused=True),
        layer("LeakyReLU", "l", alpha=0.3), layer("SpatialDropout2D", "d", rate=0.2, noise_shape=None, seed=None), layer("ThresholdedReLU", "t", theta=0.1), layer("GlobalAveragePooling2D", "g", data_format="channels_last"))  # fmt: skip
    x, y = run(write(tmp_path / "a.h5", config, weights), 6, 5, 2)
    a, b = weights["c"], weights["b"]
    z = torch.nn.functional.conv2d(
        torch.from_numpy(turned(x)).double(),
        torch.from_numpy(a["kernel"]).permute(3, 2, 0, 1),
        torch.from_numpy(a["bias"]),
        padding=1,
    ).numpy()

    def column(v):
        return v[:, None, None]

    z = (z - column(b["moving_mean"])) / np.sqrt(column(b["moving_variance"]) + 0.001) * column(b["gamma"]) + column(
        b["beta"]
    )
    z = np.where(z > 0, z, 0.3 * z)
    np.testing.assert_allclose(y, np.where(z > 0.1, z, 0).mean((2, 3)), atol=1e-5)


def test_sequential_that_is_a_list(tmp_path):
    config = {
        "class_name": "Sequential",
        "config": [layer("Dense", "d", batch_input_shape=[None, 4], units=2, activation="hard_sigmoid", use_bias=True)],
    }
    kernel, bias = RNG.normal(size=(4, 2)), RNG.normal(size=2)
    x, y = run(write(tmp_path / "a.h5", config, {"d": {"kernel": kernel, "bias": bias}}, "2.2.4"), 4)
    np.testing.assert_allclose(
        y, (0.2 * (x @ kernel + bias) + 0.5).clip(0, 1), atol=1e-6
    )  # not Keras 3's slope of 1 / 6


def test_a_gru_of_before_it_could_reset_after(tmp_path):
    config = sequential(
        layer(
            "GRU",
            "g",
            batch_input_shape=[None, 5, 3],
            units=2,
            activation="tanh",
            recurrent_activation="hard_sigmoid",
            use_bias=True,
            implementation=1,
            return_sequences=False,
        )
    )
    kernel, recurrent, bias = RNG.normal(size=(3, 6)), RNG.normal(size=(2, 6)), RNG.normal(size=6)
    x, y = run(
        write(tmp_path / "a.h5", config, {"g": {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}}), 5, 3
    )
    h = np.zeros((2, 2))

    def gate(v):
        return (0.2 * v + 0.5).clip(0, 1)

    for step in range(5):
        a = x[:, step] @ kernel + bias
        z, r = gate(a[:, :2] + h @ recurrent[:, :2]), gate(a[:, 2:4] + h @ recurrent[:, 2:4])
        h = z * h + (1 - z) * np.tanh(a[:, 4:] + (r * h) @ recurrent[:, 4:])
    np.testing.assert_allclose(y, h, atol=1e-5)


def test_weights_go_to_the_layer_of_their_name(tmp_path):
    """In a file in whatever order, even inside a model."""
    inner = functional(
        [
            start((6, 5, 2), "i"),
            layer("Conv2D", "p", [[["i", 0, 0, {}]]], **(CONV | {"filters": 2})),
            layer("Conv2D", "q", [[["p", 0, 0, {}]]], **(CONV | {"filters": 2})),
        ],
        "q",
    )
    config = functional([start((6, 5, 2)), {**inner, "name": "inner", "inbound_nodes": [[["input_1", 0, 0, {}]], [["inner", 1, 0, {}]]], "config": {**inner["config"], "name": "inner"}},
                         layer("Conv2D", "s", [[["inner", 2, 0, {}]]], **(CONV | {"filters": 2}))], "s")  # fmt: skip
    p, q, s = conv(2, 2), conv(2, 2), conv(2, 2)
    path = write(tmp_path / "a.h5", config, {"s": s, "inner": {}})
    with h5py.File(path, "r+") as file:
        group = file["model_weights/inner"]
        names = [f"{n}/{k}:0" for n in "qp" for k in ("bias", "kernel")]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name in names:
            group[name] = {"p": p, "q": q}[name[0]][name[2:-2]].astype("float32")
    x, y = run(path, 6, 5, 2)

    def step(z, w):
        return torch.nn.functional.conv2d(
            z, torch.from_numpy(w["kernel"]).permute(3, 2, 0, 1), torch.from_numpy(w["bias"]), padding=1
        )

    z = torch.from_numpy(turned(x)).double()
    for w in (p, q, p, q, s):
        z = step(z, w)
    np.testing.assert_allclose(y, z.numpy(), rtol=1e-4, atol=1e-4)


def test_functions_of_tensorflow(tmp_path):

    def op(name, function, node):
        return layer("TFOpLambda", name, [node], function=function)

    config = functional([
        start((6, 5, 2)), layer("Conv2D", "a/b", [[["input_1", 0, 0, {}]]], **CONV), op("tf.add", "__operators__.add", ["a/b", 0, 0, {"y": 3.0, "name": None}]),
        op("tf.relu6", "nn.relu6", ["tf.add", 0, 0, {"name": None}]), op("tf.mul", "math.multiply", ["tf.relu6", 0, 0, {"y": ["a/b", 0, 0], "name": None}]),
        op("tf.cat", "concat", [["tf.mul", 0, 0, {"axis": -1}], ["a/b", 0, 0, {"axis": -1}]]), op("tf.mean", "math.reduce_mean", ["tf.cat", 0, 0, {"axis": [1, 2], "keepdims": False}])], "tf.mean")  # fmt: skip
    w = conv()
    path = write(tmp_path / "a.h5", config, {"a/b": w})
    x, y = run(path, 6, 5, 2)
    z = torch.nn.functional.conv2d(
        torch.from_numpy(turned(x)).double(),
        torch.from_numpy(w["kernel"]).permute(3, 2, 0, 1),
        torch.from_numpy(w["bias"]),
        padding=1,
    )
    np.testing.assert_allclose(y, torch.cat([z * (z + 3).clamp(0, 6), z], 1).mean((2, 3)).numpy(), atol=1e-5)
    assert next(name for name, _ in loaded(path).module.named_children()) == "a_b"


@pytest.mark.parametrize(("change", "line"), [
    ({"time_major": True}, "has time_major=True, which Keras 3 does not know"),
    ({"something_new": 3}, "has something_new=3, which Keras 3 does not know"),
    ({"class_name": "LocallyConnected1D"}, "of a class of somebody's own, LocallyConnected1D"),
    ({"class_name": "Lambda"}, "holds Python code"),
], ids=str)  # fmt: skip
def test_what_is_not_known_is_an_error(tmp_path, change, line):
    one = layer("LSTM", "l", batch_input_shape=[None, 5, 3], units=2, time_major=False, implementation=2)
    one = {**one, "class_name": change.pop("class_name", "LSTM"), "config": {**one["config"], **change}}
    message = told(write(tmp_path / "a.h5", sequential(one), {}))
    assert line in message
    assert "'l'" in message


def test_other_functions_of_tensorflow_are_told(tmp_path):
    config = functional([start((6,)), layer("TFOpLambda", "t", [["input_1", 0, 0, {}]], function="io.read_file")], "t")
    assert "layer 't' runs io.read_file of TensorFlow's" in told(write(tmp_path / "a.h5", config, {}))


def test_the_first_keras_is_too_old(tmp_path):
    assert "is of Keras 1.2.0, which is too old" in told(write(tmp_path / "a.h5", sequential(), {}, "1.2.0"))


@pytest.mark.full
@pytest.mark.skipif(find_spec("tf_keras") is None, reason="tf_keras is not installed")
def test_files_that_keras_2_wrote(tmp_path):
    written_by("zoo.py", "tf_keras", tmp_path, *zoo.KERAS_2)
    for name in zoo.KERAS_2:
        with np.load(tmp_path / f"{name}.npz") as stored:
            for ending in (".keras", ".h5"):
                agrees(loaded(tmp_path / f"{name}{ending}").module, stored["x"], stored["y"], stored["g"])


@pytest.mark.full
@pytest.mark.skipif(find_spec("tf_keras") is None, reason="tf_keras is not installed")
def test_architectures_that_keras_2_wrote(tmp_path):
    names = ("MobileNetV2", "MobileNetV3Small", "ResNet50")
    written_by("zoo.py", "tf_keras", tmp_path, *names)
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as stored:
            for ending in (".keras", ".h5"):
                module = loaded(tmp_path / f"{name}{ending}").module
                for part in module.modules():
                    if type(part).__name__ == "Affine":  # whose constant Keras 2 rounds to single precision, always
                        part.scale = part.scale.float()
                agrees(module, stored["x"], stored["y"], stored["g"], tolerance=1e-10)


def test_keras_is_left_as_it_was():
    with quiet():
        assert keras().config.floatx() == "float32"
