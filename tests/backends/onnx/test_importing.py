"""What becomes of a graph: names, layouts, batches, several inputs and outputs, dtypes, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

import onnx

from camsweep.backends.onnx.batches import settle_batches
from camsweep.backends.onnx.checking import check, likely
from camsweep.backends.onnx.importing import network
from camsweep.core.errors import RequestError
from camsweep.tests.backends.onnx.graphs import classifier, graph, leaves, named, tensor, values
from camsweep.tests.backends.onnx.nets import exported, net


def conv(w, x, **settings):
    return torch.nn.functional.conv2d(x, torch.from_numpy(w), **settings)


# Names


def test_layers_are_called_as_in_the_exported_model():
    model = named(
        graph(
            "a = Conv (x, w) \n b = Relu (a) \n c = Relu (b) \n d = Add (c, a) \n f = Sigmoid (d) \n y = GlobalAveragePool (f)",
            outputs="float[n,3,1,1] y",
            w=values(3, 3, 1, 1),
        ),
        "/stem/stem.0/Conv", "/layer1/layer1.0/relu/Relu", "/layer1/layer1.0/relu_1/Relu", "/layer1/layer1.0/Add",
        "/to/Sigmoid", "pool",
    )  # fmt: skip
    assert list(leaves(network(model))) == ["stem.0", "layer1.0.relu", "layer1.0.relu_1", "layer1.0.Add", "to_", "pool"]


def test_scopes_of_tensorflow_lose_what_they_all_begin_with():
    model = named(
        graph("a = Conv (x, w) \n b = Relu (a) \n y = Sigmoid (b)", outputs="float[n,3,8,8] y", w=values(3, 3, 1, 1)),
        "StatefulPartitionedCall/model/conv1/Conv2D", "StatefulPartitionedCall/model/conv1/Relu",
        "StatefulPartitionedCall/model/out/Sigmoid;1",
    )  # fmt: skip
    assert list(leaves(network(model))) == ["conv1.Conv2D", "conv1.Relu", "out"]


def test_nodes_without_names_and_names_without_sense():
    body = "a = Conv (x, w) \n b = Relu (a) \n b2 = Relu (a) \n c = Add (b, b2) \n y = Sigmoid (c)"
    model = graph(body, outputs="float[n,3,8,8] y", w=values(3, 3, 1, 1))
    assert list(leaves(network(model))) == ["a", "b", "b2", "c", "y"]
    model = named(model, "same", "same", "same/inner", "same/inner", "forward")
    names = list(leaves(network(model)))
    assert len(names) == len(set(names)) == 5
    assert all(network(model).get_submodule(name) is not None for name in names)


def test_scopes_noted_by_the_newer_exporter():
    model = graph("a = Conv (x, w) \n y = Relu (a)", outputs="float[n,3,8,8] y", w=values(3, 3, 1, 1))
    for node, scopes in zip(model.graph.node, (["", "net.conv", "conv2d"], ["", "relu_3"]), strict=True):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
    assert list(leaves(network(model))) == ["net.conv", "relu_3"]
    for node, text in zip(
        model.graph.node, (": Net/net: Seq/net.conv: Conv2d/conv2d: aten", ": Net/relu_3: aten"), strict=True
    ):
        del node.metadata_props[:]
        node.metadata_props.add(key="namespace", value=text)
    assert list(leaves(network(model))) == ["net.conv", "relu_3"]


# Layouts


def test_a_transpose_at_the_start_tells_where_the_channels_are():
    w = values(4, 3, 3, 3)
    body = "t = Transpose <perm = [0,3,1,2]> (x) \n y = Conv (t, w)"
    x = tensor(2, 3, 7, 7)
    for shape in ("n,7,7,3", "n,h,w,3", "n,h,w,c"):
        imported = network(graph(body, inputs=f"float[{shape}] x", outputs="float[n,4,5,5] y", w=w))
        assert torch.allclose(imported(x), conv(w, x), atol=1e-5)


def test_declared_sizes_tell_where_the_channels_are():
    body = "s = Shape <start = 1> (x) \n m = ReduceMean (x, axes) \n y = MatMul (m, w)"
    imported = network(
        graph(body, inputs="float[n,9,6] x", w=values(6, 2), axes=np.array([1]), outputs="float[n,1,2] y")
    )
    x = tensor(2, 6, 9)
    assert torch.allclose(
        imported(x), x.transpose(1, 2).mean(1, keepdim=True) @ torch.from_numpy(values(6, 2)), atol=1e-5
    )
    with pytest.raises(RequestError, match=r"a sample of shape \(6, 8\) was given, .* takes \(9, 6\)"):
        imported(tensor(2, 6, 8))


def test_a_square_input_goes_by_what_its_users_say():
    w = values(4, 3, 1, 1)
    first = network(graph("y = Conv (x, w)", inputs="float[n,3,3,3] x", outputs="float[n,4,3,3] y", w=w))
    body = "t = Transpose <perm = [0,3,1,2]> (x) \n y = Conv (t, w)"
    last = network(graph(body, inputs="float[n,3,3,3] x", outputs="float[n,4,3,3] y", w=w))
    x = tensor(2, 3, 3, 3)
    assert torch.allclose(first(x), last(x))


def test_keras_signals_pass_through_two_axes_of_space():
    w = values(4, 6, 1, 3)
    body = "u = Unsqueeze (x, one) \n t = Transpose <perm = [0,3,1,2]> (u) \n y = Conv (t, w)"
    imported = network(graph(body, inputs="float[n,t,c] x", outputs="float[n,4,1,7] y", w=w, one=np.array([1])))
    x = tensor(2, 6, 9)
    assert torch.allclose(imported(x), conv(w, x[:, :, None]), atol=1e-5)


def test_a_signal_for_a_network_that_knows_no_channels():
    imported = network(graph("y = MatMul (x, w)", inputs="float[n,9] x", outputs="float[n,2] y", w=values(9, 2)))
    assert imported(tensor(2, 1, 9)).shape == (2, 2)


# Batches


def lifted(body, shape, **arrays):
    sizes = ",".join(map(str, shape))
    imported = network(graph(body, inputs=f"float[{sizes}] x", outputs=arrays.pop("outputs", "float[1,k] y"), **arrays))
    settle_batches(imported, likely(imported))
    return imported


def test_reshapes_that_hold_the_batch():
    body = "f = Reshape (x, s) \n y = Gemm (f, m)"
    imported = lifted(body, (1, 3, 2, 2), s=np.array([1, -1]), m=values(12, 4))
    assert imported.chunk is None
    assert imported(tensor(5, 3, 2, 2)).shape == (5, 4)


def test_a_constant_token_is_there_for_each_sample():
    body = "z = Concat <axis = 1> (t, x) \n y = ReduceMean <keepdims = 0> (z, one)"
    for token in (values(1, 1, 4), np.repeat(values(1, 1, 4), 2, 0)):
        imported = lifted(body, (len(token), 3, 4), t=token, one=np.array([1]))
        x = tensor(5, 3, 4)
        assert imported.chunk is None
        expected = torch.cat([torch.from_numpy(token[:1]).expand(5, 1, 4), x], 1).mean(1)
        assert torch.allclose(imported(x), expected, atol=1e-6)


def test_what_cannot_be_lifted_runs_in_chunks():
    """The batch is squeezed away: a graph for one sample only."""
    body = "s = Squeeze (x, zero) \n m = MatMul (s, w) \n y = Unsqueeze (m, zero)"
    imported = lifted(body, (1, 3, 4), w=values(4, 2), zero=np.array([0]), outputs="float[1,3,2] y")
    assert imported.chunk == 1
    x = tensor(5, 3, 4)
    assert torch.allclose(imported(x), x @ torch.from_numpy(values(4, 2)), atol=1e-6)
    imported.get_submodule("m").register_forward_hook(lambda *_: None)
    assert imported(x[:1]).shape == (1, 3, 2)
    with pytest.raises(RequestError, match=r"made for batches of 1 and for no others.*--batch-size 1"):
        imported(x)


def test_samples_that_see_each_other_are_kept_apart():
    body = "m = ReduceMean (x, zero) \n y = Sub (x, m)"
    imported = network(graph(body, inputs="float[n,4] x", outputs="float[n,4] y", zero=np.array([0])))
    settle_batches(imported, likely(imported))
    assert imported.chunk == 1


def test_chunks_of_several_samples():
    body = "s = Reshape (x, shape) \n r = ReduceMean (s, axes) \n y = Add (x, r)"
    model = graph(body, inputs="float[2,4] x", outputs="float[2,4] y", shape=np.array([8]), axes=np.array([0]))
    imported = network(model)
    settle_batches(imported, likely(imported))
    assert imported.chunk == 2
    x = tensor(5, 4)
    expected = torch.cat([part + part.mean() for part in (x[:2], x[2:4], x[[4, 4]])])[:5]
    assert torch.allclose(imported(x), expected, atol=1e-6)


# Inputs, outputs, dtypes


def test_further_inputs_come_by_name_and_several_outputs_go_by_name():
    body = "a = Mul (x, mask) \n s = ReduceSum (a, one) \n p = Sigmoid (s)"
    model = graph(body, inputs="float[n,4] x, float[n,4] mask", outputs="float[n,1] s, float[n,1] p", one=np.array([1]))
    imported = network(model)
    x, mask = tensor(3, 4), torch.ones(3, 4)
    found = imported(x, mask=mask)
    assert list(found) == ["s", "p"]
    assert torch.equal(imported(mask=mask, x=x)["p"], found["p"])
    with pytest.raises(RequestError, match="needs the input 'mask' too"):
        imported(x)
    with pytest.raises(RequestError, match="has no input 'other'"):
        imported(x, mask=mask, other=mask)
    assert list(network(model, "s")(x, mask=mask)) == ["s"]
    with pytest.raises(RequestError, match="gives no output 't'"):
        network(model, "t")


def test_inputs_that_nobody_reads_are_not_asked_for():
    model = graph("y = Relu (x)", inputs="float[n,4] x, float[1] lr", outputs="float[n,4] y")
    assert network(model)(tensor(2, 4)).shape == (2, 4)


def test_whole_numbers_for_a_network_of_pictures():
    """A gradient finds its way through an input that is declared to be bytes."""
    body = "f = Cast <to = 1> (x) \n c = Conv (f, w) \n y = GlobalAveragePool (c)"
    imported = network(graph(body, inputs="uint8[n,3,5,5] x", outputs="float[n,2,1,1] y", w=values(2, 3, 3, 3)))
    x = (torch.rand(2, 3, 5, 5) * 255).round().requires_grad_()
    [gradient] = torch.autograd.grad(imported(x).sum(), x)
    assert gradient.abs().sum() > 0
    assert torch.allclose(imported(x), imported(x.detach().to(torch.uint8)), atol=1e-4)


def test_constants_follow_the_dtype():
    body = """
        s = Shape (x)
        z = ConstantOfShape <value = float[1] {0.1}> (s)
        a = Add (x, z)
        c = Cast <to = 1> (a)
        d = Mul (c, scale)
        i = Cast <to = 7> (d)
        f = Cast <to = 1> (i)
        y = Add (d, f)
    """
    imported = network(graph(body, inputs="float[n,4] x", outputs="float[n,4] y", scale=values(4)))
    x = tensor(3, 4)
    assert imported(x).dtype == torch.float32
    twice = copy.deepcopy(imported).double()
    assert twice(x.double()).dtype == torch.float64
    assert torch.allclose(twice(x.double()).float(), imported(x), atol=1e-6)
    assert torch.equal(twice.float()(x), imported(x))


def test_shapes_are_computed_once_for_each_shape():
    body = "s = Shape (x) \n a = Gather (s, zero) \n b = Unsqueeze (a, axis) \n c = Concat <axis = 0> (b, rest) \n y = Reshape (x, c)"
    arrays = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    imported = network(graph(body, inputs="float[n,2,3] x", **arrays))
    ran = []
    host = next(step for step in imported.steps if step.host)
    host.run.register_forward_hook(lambda *_: ran.append(1))
    for rows in (2, 3, 2, 3, 2):
        assert imported(tensor(rows, 2, 3)).shape == (rows, 6)
    assert len(ran) == 2
    assert list(leaves(imported)) == ["y"]  # arithmetic with shapes is no layer


def test_shapes_that_depend_on_values_are_not_remembered():
    body = "c = Compress <axis = 1> (x, marks) \n s = Shape <start = 1> (c) \n f = Cast <to = 1> (s) \n y = Mul (x, f)"
    model = graph(body, inputs="float[n,4] x, bool[4] marks", outputs="float[n,4] y")
    imported, x = network(model), tensor(2, 4)
    for count in (1, 3, 2):
        marks = torch.arange(4) < count
        assert torch.allclose(imported(x, marks=marks), x * count)


# What is refused, all at once


def test_operators_that_are_not_imported_are_named_together():
    body = """
        a = elsewhere.Magic (x)
        b = QuantizeLinear (x, one, zero)
        c = DequantizeLinear (b, one, zero)
        d = Add (a, c)
        e = elsewhere.Magic (d)
        y = RandomNormalLike (e)
    """
    model = graph(body, outputs="float[n,3,8,8] y, float[n,3,8,8] fine", one=np.float32(1), zero=np.uint8(0))
    fine = onnx.helper.make_node("Relu", ["x"], ["fine"])
    model.graph.node.append(fine)
    with pytest.raises(RequestError) as error:
        network(model)
    text = str(error.value)
    assert "operators that are not imported: elsewhere.Magic (2), " in text
    assert all(name in text for name in ("QuantizeLinear", "DequantizeLinear", "RandomNormalLike"))
    assert text.endswith("without them: --output fine")
    assert network(model, "fine")(tensor(1, 3, 8, 8))["fine"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(op):
    model = graph("y = Relu (x)", outputs="float[n,3,8,8] y")
    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node[0].CopyFrom(onnx.helper.make_node(op, ["x"], ["y"], body=inner))
    with pytest.raises(RequestError, match=f"not imported: {op}"):
        network(model)


def test_ways_of_using_an_operator_are_refused_by_name():
    with pytest.raises(RequestError, match="not imported: Dropout in training mode"):
        network(graph("y = Dropout (x, r, t)", outputs="float[n,3,8,8] y", r=np.float32(0.5), t=np.array(True)))
    body = "y = BatchNormalization <training_mode = 1> (x, a, a, a, a)"
    with pytest.raises(RequestError, match="BatchNormalization in training mode"):
        network(graph(body, outputs="float[n,3,8,8] y", a=values(3)))
    with pytest.raises(RequestError, match="Conv over 4 axes"):
        network(
            graph(
                "y = Conv (x, w)",
                inputs="float[n,1,4,4,4,4] x",
                outputs="float[n,1,4,4,4,4] y",
                w=values(1, 1, 1, 1, 1, 1),
            )
        )


def test_a_model_for_strings():
    model = graph("y = Relu (x)", outputs="float[n,3,8,8] y")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    with pytest.raises(RequestError, match="input 'x' is of type STRING"):
        network(model)


# Functions


def test_functions_of_the_model_are_written_out():
    text = """
        <ir_version: 9, opset_import: ["" : 20, "own" : 1]>
        g (float[n,4] x) => (float[n,4] y) { a = own.twice (x)  y = Relu (a) }
        <domain: "own", opset_import: ["" : 20]>
        twice (v) => (w) { w = Add (v, v) }
    """
    x = tensor(2, 4)
    assert torch.equal(network(onnx.parser.parse_model(text))(x), (2 * x).relu())


def test_operators_that_onnx_defines_by_others():
    body = "y = CenterCropPad (x, s)"
    imported = network(graph(body, outputs="float[n,3,4,10] y", s=np.array([2, 3, 4, 10])))
    assert imported(tensor(2, 3, 8, 8)).shape == (2, 3, 4, 10)


def test_what_onnxruntime_has_joined_is_taken_apart():
    body = """
        a = com.microsoft.FusedConv <activation = "LeakyRelu", activation_params = [0.3]> (x, w, b, z)
        f = Flatten (a)
        g = com.microsoft.FusedGemm <activation = "Tanh"> (f, m)
        h = com.microsoft.BiasGelu (g, c)
        n, mean, rest, sum = com.microsoft.SkipLayerNormalization <epsilon = 0.001> (g, h, c, c)
        y = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (n, k)
    """
    arrays = {
        "w": values(4, 3, 1, 1),
        "b": values(4),
        "z": values(1, 4, 8, 8),
        "m": values(256, 6),
        "c": values(6),
        "k": values(2, 6),
    }
    model = named(graph(body, **arrays), "/a/Conv", "/Flatten", "/g/Gemm", "/h/Gelu", "/n/Norm", "/y/MatMul")
    imported, x = network(model), tensor(2, 3, 8, 8)
    assert list(leaves(imported)) == ["a.Conv", "a.Add", "a.LeakyRelu", "Flatten", "g.Gemm", "g.Tanh", "h", "n", "y"]
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    f = torch.nn.functional
    g = (f.leaky_relu(f.conv2d(x, t["w"], t["b"]) + t["z"], 0.3).flatten(1) @ t["m"]).tanh()
    n = f.layer_norm(g + f.gelu(g + t["c"]), (6,), t["c"], t["c"], 0.001)
    assert torch.allclose(imported(x), n @ t["k"].t() * 0.5, atol=1e-5)


def test_old_files():
    """Attributes that have become inputs, broadcasting that had to be asked for, constants among the inputs."""
    body = """
        p = Pad <paddings = [0,0,1,1,0,0,1,1], mode = "constant"> (x)
        c = Conv <kernel_shape = [3,3]> (p, w)
        n = BatchNormalization <is_test = 1, epsilon = 0.001> (c, a, b, mean, var)
        s = Add <broadcast = 1, axis = 1> (n, a)
        d = Dropout <is_test = 1> (s)
        t = Slice <axes = [2], starts = [0], ends = [4]> (d)
        r = Reshape <shape = [0,-1]> (t)
        y = Softmax (r)
    """
    arrays = {"w": values(4, 3, 3, 3), "a": values(4), "b": values(4), "mean": values(4), "var": np.abs(values(4)) + 1}
    model = graph(body, opset=1, **arrays)
    for name, array in arrays.items():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, array.shape))
    imported, x = network(model), tensor(2, 3, 8, 8)
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    z = conv(arrays["w"], x, padding=1)
    z = torch.nn.functional.batch_norm(z, t["mean"], t["var"], t["a"], t["b"], eps=0.001) + t["a"][:, None, None]
    assert torch.allclose(imported(x), z[:, :, :4].flatten(1).softmax(1), atol=1e-6)


# Against onnxruntime


def test_a_difference_is_told_with_the_node_where_it_begins():
    pytest.importorskip("onnxruntime")
    model = classifier()
    imported = network(model)
    check(model, imported, likely(imported), "model.onnx")
    with torch.no_grad():
        imported.get_submodule("stem.conv").weight[0] *= 1.01
    with pytest.raises(RequestError, match=r"other values than onnxruntime.* first at Conv '/stem/conv/Conv'"):
        check(model, imported, likely(imported), "model.onnx")


def test_a_padding_before_a_pooling_is_not_taken_for_its_own():
    """onnxruntime would fuse them, and pool the zeros away."""
    pytest.importorskip("onnxruntime")
    body = "a = Abs (x) \n b = Neg (a) \n p = Pad (b, pads) \n y = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (p)"
    model = graph(body, outputs="float[n,3,10,10] y", pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    imported = network(model)
    check(model, imported, likely(imported), "model.onnx")
    assert (imported(tensor(1, 3, 8, 8))[..., 0, :] == 0).all()


def test_samples_that_see_each_other_are_checked_alone():
    pytest.importorskip("onnxruntime")
    body = "m = ReduceMean (x, zero) \n s = Sub (x, m) \n y = Add (s, x)"
    model = graph(body, inputs="float[n,4] x", outputs="float[n,4] y", zero=np.array([0]))
    imported = network(model)
    settle_batches(imported, likely(imported))
    check(model, imported, likely(imported), "model.onnx")


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit-mean", "unet", "bilstm", "windows", "mixed", "signals"])
def test_all_that_meets_data_lies_where_the_data_lies(name):
    """On a device that holds no values but says where they would be."""
    imported = network(exported(name, False))
    x = torch.from_numpy(net(name)[1])
    assert imported.to("meta")(x.to("meta")).device.type == "meta"


def test_an_input_that_is_one_number():
    body = "a = Mul (x, k) \n s = Reshape (a, shape) \n r = ReduceMean (s, axes) \n y = Add (a, r)"
    model = graph(body, inputs="float k, float[2,4] x", outputs="float[2,4] y", shape=np.array([8]), axes=np.array([0]))
    imported = network(model)
    settle_batches(imported, likely(imported))
    assert imported.chunk == 2
    x = tensor(3, 4)
    assert torch.allclose(imported(x=x, k=torch.tensor(2.0))[:2], 2 * x[:2] + 2 * x[:2].mean(), atol=1e-6)
    assert imported(x=x[:1], k=torch.tensor(2.0)).shape == (1, 4)
