"""An ONNX file as a backend: the same layers and maps as the torch model that it was exported from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

import onnx
import onnx.helper

from camsweep.backends.onnx import load
from camsweep.backends.onnx.batches import settle_batches
from camsweep.backends.onnx.checking import likely
from camsweep.backends.onnx.importing import network
from camsweep.core.errors import RequestError
from camsweep.core.job import ModelSection
from camsweep.tests.backends.onnx.graphs import classifier, graph, saved, values
from camsweep.tests.backends.onnx.nets import NETS, exported, net
from camsweep.tests.support import answers

GRADIENT = ["grad", "ig:steps=4"]
RELEVANCE = ["lrp:eps=1e-3", "lrp:B"]
SOME = ("resnet", "densenet", "unet-bilinear", "mobilenet", "vit", "conv-3d", "inception", "gru", "windows", "mixed")
CAMS = ["gradcam", "layercam", "scorecam", "ablationcam"]
LAST = {
    "resnet": ("stages.2.1", "stages.2.1.relu_1"),
    "resnet-1d": ("stages.2.1", "stages.2.1.relu_1"),
    "densenet": ("second.2.conv2", "second.2.conv2"),
    "unet": ("head", "head"),
    "unet-bilinear": ("head", "head"),
    "lstm": ("rnn", "rnn.LSTM.layer"),
    "bilstm": ("rnn", "rnn.LSTM_1.layer"),
    "windows": ("norm3", "norm3"),
    "signals": ("layers.layers.1.norm2", "layers.1.norm2"),
    "vit-mean": ("norm", "norm"),
    "conv-3d": ("6", "6"),
}
"""A layer of the torch model, and what it is called in the file."""


def loaded(model, folder, **more):
    settings = {"device": "cpu", "dtype": "float32", "argument": more.pop("argument", None)}
    return load(ModelSection(weights=str(saved(model, folder)), **more), **settings)


def imported(name):
    twin = network(exported(name, False, 20, batch=1 if name == "vit" else None))
    settle_batches(twin, likely(twin))
    return twin


@pytest.mark.parametrize("name", [n if n in SOME else pytest.param(n, marks=pytest.mark.full) for n in NETS])
def test_maps_are_those_of_the_torch_model(name):
    module, x = net(name)
    twin = imported(name)
    for expressions in (GRADIENT, RELEVANCE):
        found, wanted = (answers(each, x, expressions, (), 1) for each in (twin, module))
        for key, (expected, _) in wanted.items():
            assert (found[key][0] - expected).abs().max() <= 1e-4 * expected.abs().max(), key


@pytest.mark.parametrize("name", LAST)
def test_maps_at_layers(name):
    """Behind batch norms that the exporter folded, both have the same values; a shared name means the same layer."""
    (theirs, ours), (module, x) = LAST[name], net(name)
    twin = imported(name)
    wanted, found = (answers(each, x, CAMS, (at,), 1) for each, at in ((module, theirs), (twin, ours)))
    for expression in CAMS:
        a, b = found[expression, ours][0], wanted[expression, theirs][0]
        assert (a - b).abs().max() <= 1e-4 * b.abs().max().clamp(min=1e-6), expression


@pytest.mark.parametrize(
    "name", ["resnet", "resnet-1d", "unet", "windows", "vit", "vit-mean", "signals", "bilstm", "conv-3d"]
)
def test_auto_means_the_layer_that_it_means_in_torch(name, tmp_path):
    backend = loaded(exported(name, False, 20, batch=1 if name == "vit" else None), tmp_path)
    found = backend.structure(net(name)[1][:1])
    meant = {**LAST, "vit": ("", "blocks.2.norm1"), "unet": ("", "head"), "conv-3d": ("", "9")}
    assert found.auto == meant[name][1]
    assert found.outputs == 5 or found.places
    assert backend.name == "onnx"
    assert set(backend.versions) == {"torch", "onnx"}


@pytest.mark.parametrize("name", ["resnet", "vit", "bilstm", "windows"])
def test_one_sample_at_a_time_gives_what_all_give(name, tmp_path):
    backend = loaded(exported(name, False, 20, batch=1), tmp_path)
    x = torch.from_numpy(net(name)[1])
    with torch.no_grad():
        together = backend.network(x)
        alone = torch.cat([backend.network(row[None]) for row in x])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_final_activation_is_stepped_behind(tmp_path):
    model = classifier()
    model.graph.node.append(onnx.helper.make_node("Softmax", ["y"], ["p"]))
    model.graph.output[0].name = "p"
    found = loaded(model, tmp_path).structure(values(1, 3, 8, 8))
    assert found.final == "softmax"
    assert found.auto == "stem.relu"
    assert [layer.name for layer in found.layers][:3] == ["stem.conv", "stem.relu", "pool"]


def test_shapes_that_are_not_declared_are_checked_with_the_first_sample(tmp_path):
    model = classifier()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "s"
    backend = loaded(model, tmp_path)
    assert not backend._checked
    assert backend.structure(values(1, 3, 6, 9)).outputs == 5
    assert backend._checked
    with pytest.raises(RequestError, match=r"cannot take a sample|was given, but"):
        loaded(model, tmp_path).structure(values(1, 2, 6, 9))


def test_outputs_and_arguments_by_name(tmp_path):
    body = "a = Mul (x, mask) \n s = ReduceSum <keepdims = 0> (a, axes) \n p = Sigmoid (s)"
    model = graph(
        body,
        inputs="float[n,3,4,4] mask, float[n,3,4,4] x",
        outputs="float[n,3] s, float[n,3] p",
        axes=np.array([2, 3]),
    )
    example, extra = values(1, 3, 4, 4), {"mask": np.ones((1, 3, 4, 4), "float32")}
    backend = loaded(model, tmp_path, argument="x", output="p")
    found = backend.structure(example, extra)
    assert found.keys == ("p",)
    assert found.final == "sigmoid"
    with pytest.raises(RequestError, match="choose one with --output"):
        loaded(model, tmp_path, argument="x").structure(example, extra)
    with pytest.raises(RequestError, match="no output 'q'"):
        loaded(model, tmp_path, output="q")


def test_half_precision_is_computed_in_float32(tmp_path):
    model = classifier()
    for each in model.graph.initializer:
        each.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each).astype("float16"), each.name))
    for each in [*model.graph.input, *model.graph.output]:
        each.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    backend = loaded(model, tmp_path)
    assert {each.dtype for each in backend.network.parameters()} == {torch.float32}
    plain = loaded(classifier(), tmp_path)
    x = torch.from_numpy(values(2, 3, 8, 8))
    assert torch.allclose(backend.network(x), plain.network(x), rtol=1e-2, atol=1e-2)
    assert backend.structure(values(1, 3, 8, 8)).outputs == 5


def test_nothing_global_is_left_changed(tmp_path):
    state, threads, default = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    numbers = np.random.get_state()[1].copy()  # noqa: NPY002
    backend = loaded(classifier(), tmp_path)
    backend.structure(values(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, default)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert not any(each.requires_grad for each in backend.network.parameters())
    assert not any(each.training for each in backend.network.modules())
    assert not any(each._forward_hooks for each in backend.network.modules())
