"""Recurrent layers in all their variants against onnxruntime: torch's own layer where it fits, else step by step."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import numpy_helper

from camsweep.backends.onnx.importing import network
from camsweep.tests.backends.onnx.graphs import leaves, values

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, ROWS, FEATURES, HIDDEN = 5, 3, 4, 6
CASES = {
    "plain": {},
    "lengths": {"lengths": [5, 2, 3]},
    "all as long": {"lengths": [5, 5, 5]},
    "first states": {"states": True},
    "no bias": {"bias": False},
    "clipped": {"clip": 0.4},
}
MORE = [
    ("LSTM", "peepholes", {"peep": True, "states": True}),
    ("LSTM", "coupled", {"input_forget": 1}),
    ("LSTM", "others", {"activations": ["HardSigmoid", "Softsign", "Relu"], "activation_alpha": [0.25], "activation_beta": [0.4]}),
    ("GRU", "others", {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.2]}),
    ("RNN", "relu", {"activations": ["Relu"]}),
    ("RNN", "elu", {"activations": ["Elu"], "activation_alpha": [0.7], "lengths": [5, 4, 1]}),
    ("RNN", "scaled", {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [1.3]}),
]  # fmt: skip


def layer(kind, direction, settings):
    """A graph of one layer with constant weights."""
    settings, d = dict(settings), 2 if direction == "bidirectional" else 1
    gates, arrays, inputs = GATES[kind], {}, ["x", "w", "r", "b", "", "", "", ""]
    arrays["w"] = values(d, gates * HIDDEN, FEATURES, seed=1)
    arrays["r"] = values(d, gates * HIDDEN, HIDDEN, seed=2) * 0.5
    if settings.pop("bias", True):
        arrays["b"] = values(d, 2 * gates * HIDDEN, seed=3)
    else:
        inputs[3] = ""
    if (lengths := settings.pop("lengths", None)) is not None:
        arrays["lengths"], inputs[4] = np.array(lengths, "int32"), "lengths"
    if settings.pop("states", False):
        arrays["h"], inputs[5] = values(d, ROWS, HIDDEN, seed=4), "h"
        if kind == "LSTM":
            arrays["c"], inputs[6] = values(d, ROWS, HIDDEN, seed=5), "c"
    if settings.pop("peep", False):
        arrays["p"], inputs[7] = values(d, 3 * HIDDEN, seed=6), "p"
    if "activations" in settings:
        settings = {k: v * d if isinstance(v, list) else v for k, v in settings.items()}
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    while not inputs[-1]:
        inputs.pop()
    node = onnx.helper.make_node(kind, inputs, outputs, "layer", hidden_size=HIDDEN, direction=direction, **settings)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [info("x", 1, [STEPS, ROWS, FEATURES])], [info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def same(model) -> torch.nn.Module:
    x = values(STEPS, ROWS, FEATURES, seed=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    imported = network(model)
    imported.entries[0].channels_last = False
    found = imported(torch.from_numpy(x))
    for (name, tensor), wanted in zip(found.items(), session.run(None, {"x": x}), strict=True):
        assert np.abs(tensor.detach().numpy() - wanted).max() < 1e-5, name
    return imported


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_variants(kind, direction):
    for settings in CASES.values():
        same(layer(kind, direction, settings))
    for own, _, settings in MORE:
        if own == kind:
            same(layer(kind, direction, settings))
    if kind == "GRU":
        for settings in CASES.values():
            same(layer(kind, direction, {**settings, "linear_before_reset": 1}))


def test_torchs_own_layer_is_there_where_it_fits():
    for kind, direction in product(GATES, ("forward", "reverse", "bidirectional")):
        later = {"linear_before_reset": 1} if kind == "GRU" else {}
        assert leaves(network(layer(kind, direction, later)))["layer.layer"] == kind
        fits = direction != "reverse"
        assert ("layer.layer" in leaves(network(layer(kind, direction, {**later, "lengths": [5, 1, 2]})))) == fits
    assert "layer.layer" not in leaves(network(layer("GRU", "forward", {})))


def test_an_activation_that_nobody_knows():
    from camsweep.core.errors import RequestError

    with pytest.raises(RequestError, match="not imported: RNN with the activation wobble"):
        network(layer("RNN", "forward", {"activations": ["Wobble"]}))
