"""Graphs that are not imported: onnxruntime runs them, and all that needs no gradient comes out as it should."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from camsweep.backends.onnx import load
from camsweep.backends.onnx.backend import OnnxBackend
from camsweep.backends.onnx.running import RunningBackend
from camsweep.cli.app import main
from camsweep.core.backend import Tapping
from camsweep.core.errors import NotImportedError, RequestError
from camsweep.core.job import ModelSection
from camsweep.core.methods.registry import METHODS
from camsweep.core.results import open_results
from camsweep.tests import support
from camsweep.tests.backends.onnx.graphs import classifier, graph, saved, values
from camsweep.tests.backends.onnx.nets import exported, net

FORWARD = [name for name, each in METHODS.items() if RunningBackend.answers.issuperset(each.asks) and not each.concepts]
SMALLER = {"rise": "rise:n=60", "occlusion": "occlusion:window=8,stride=4"}
EXPRESSIONS = [SMALLER.get(name, name) for name in FORWARD]
CODES = {"int8": (-128, 127), "uint8": (0, 255)}
NETS = ("resnet", "resnet-1d", "conv-3d", "densenet", "unet-bilinear", "vit", "windows", "signals", "bilstm")


def running(model, folder, **more):
    return RunningBackend(saved(model, folder), "not imported: a test", device="cpu", **more)


def file_of(name, batch=None):
    return exported(name, False, 20, batch=1 if name == "vit" else batch)


def plain(model, feed, *extra):
    """Values as onnxruntime computes them, node by node."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def asked(backend, x, letters, layers=(), extra=None):
    """One pass of a batch."""
    backend.structure(x[:1], {name: each[:1] for name, each in (extra or {}).items()})
    with backend.tapped(Tapping(layers, x.ndim - 2, frozenset(letters))) as session:
        return session(session.tensor(x), {name: session.tensor(each) for name, each in (extra or {}).items()})


def maps(backend, x, expressions, layer, monkeypatch, **more):
    """As `support.answers` of a backend that is there."""
    monkeypatch.setattr(support, "TorchBackend", lambda given, **_: given)
    found = support.answers(backend, x, expressions, (layer,), dtype="float32", **{"target": 1, **more})
    return {key: values for key, (values, _) in found.items()}


def near(found, wanted, tolerance=1e-5):
    found, wanted = (torch.as_tensor(np.asarray(each)) for each in (found, wanted))
    assert found.shape == wanted.shape
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
    assert error <= tolerance, f"off by {error:.1e}"


@pytest.fixture
def quantised(tmp_path):
    """A net of another module in 8 bits: ``static`` with pairs of operators, ``codes`` with joined ones, ``dynamic``."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Samples(quantization.CalibrationDataReader):
        def __init__(self, x):
            self.left = iter([{"x": x}])

        def get_next(self):
            return next(self.left, None)

    def made(name, how):
        source, path, x = tmp_path / "float.onnx", tmp_path / f"{how}.onnx", net(name)[1]
        onnx.save(file_of(name), source)
        formats = {"static": quantization.QuantFormat.QDQ, "codes": quantization.QuantFormat.QOperator}
        logging.disable(logging.WARNING)
        try:
            if how == "dynamic":
                quantization.quantize_dynamic(source, path)
            else:
                quantization.quantize_static(source, path, Samples(x), quant_format=formats[how])
        finally:
            logging.disable(logging.NOTSET)
        return path

    return made


def test_which_methods_there_are():
    assert {"eigencam", "kpcacam", "fem", "scorecam", "ablationcam", "randomcam", "occlusion", "rise"} <= {*FORWARD}
    assert not {"gradcam", "ig", "lrp", "smoothgrad", "fullgrad", "guided"} & {*FORWARD}


@pytest.mark.parametrize("name", NETS)
def test_maps_are_those_of_the_imported_network(name, tmp_path, monkeypatch):
    model, x = file_of(name), net(name)[1]
    imported = OnnxBackend(saved(model, tmp_path), device=torch.device("cpu"), dtype="float32")
    here = running(model, tmp_path)
    theirs, ours = (each.structure(x[:1]) for each in (imported, here))
    assert (ours.outputs, ours.places, ours.final, ours.keys) == (
        theirs.outputs,
        theirs.places,
        theirs.final,
        theirs.keys,
    )
    wanted = maps(imported, x, EXPRESSIONS, theirs.auto, monkeypatch)
    found = maps(here, x, EXPRESSIONS, ours.auto, monkeypatch)
    for (expression, layer), expected in wanted.items():
        if theirs.auto == ours.auto or not expression.startswith("random"):  # whose seed is of the layer's name too
            near(found[expression, layer and ours.auto], expected)


@pytest.mark.parametrize("layer", ["stages.1.0.conv1", "stages.1.0.relu", "stages.1.1.conv2", "stages.1.1.Add"])
def test_ablation_through_shortcuts(layer, tmp_path):
    """Against the whole graph with a factor put in behind the layer."""
    model, x = file_of("resnet"), net("resnet")[1]
    backend = running(model, tmp_path)
    run = asked(backend, x, "AD", [layer])
    A = run.activations[layer]
    value = backend._places.found[layer].value
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for node in cut.graph.node:
        node.input[:] = [f"{name}/kept" if name == value else name for name in node.input]
    place = next(i for i, node in enumerate(cut.graph.node) if value in node.output)
    cut.graph.node.insert(place + 1, helper.make_node("Mul", [value, "kept"], [f"{value}/kept"]))
    cut.graph.input.append(helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1, A.shape[1], 1, 1]))
    for k in range(0, A.shape[1], 3):
        kept = torch.ones(1, A.shape[1], 1, 1).index_fill(1, torch.tensor([k]), 0)
        [wanted] = plain(cut, {"x": x, "kept": kept.numpy()})
        near(run.tail(layer, A * kept).scores, wanted)


def test_every_layer_alone_gives_what_the_whole_gives(tmp_path):
    for name in ("densenet", "windows", "unet"):
        x = net(name)[1]
        backend = running(file_of(name), tmp_path)
        layers = [each.name for each in backend.structure(x[:1]).layers if each.tappable]
        run = asked(backend, x, "AD", layers)
        for layer in layers:
            near(run.tail(layer, run.activations[layer]).scores, run.outputs.scores, 2e-6)


@pytest.mark.parametrize("name", ["resnet-1d", "resnet", "conv-3d"])
@pytest.mark.parametrize("how", ["static", "codes", "dynamic"])
def test_quantised_networks(name, how, quantised, monkeypatch):
    """Outputs are those of onnxruntime, samples do not change each other, a layer's tail is the whole's."""
    path, x = quantised(name, how), net(name)[1]
    backend = load(ModelSection(weights=str(path)), device="cpu", dtype="float32")
    assert isinstance(backend, RunningBackend)
    assert "forward only: operators that are not imported: " in backend.notes[0]
    structure = backend.structure(x[:1])
    run = asked(backend, x, "AD", [structure.auto])
    model = onnx.load(path)
    wanted = np.concatenate([plain(model, {"x": row[None]})[0] for row in x])
    assert np.array_equal(run.raw.numpy(), wanted)
    for each in structure.layers:
        if each.tappable:
            of = asked(backend, x, "AD", [each.name])
            assert torch.equal(of.tail(each.name, of.activations[each.name]).scores, of.outputs.scores), each.name
    A = run.activations[structure.auto]
    assert not torch.equal(run.tail(structure.auto, A * 0).scores, run.outputs.scores)
    floating = OnnxBackend(saved(file_of(name), path.parent), device=torch.device("cpu"), dtype="float32")
    theirs = asked(floating, x, "A", [floating.structure(x[:1]).auto])
    near(A, next(iter(theirs.activations.values())), 0.15)  # 8 bits
    together = maps(backend, x, EXPRESSIONS[:-1], structure.auto, monkeypatch)
    apart = [
        maps(backend, row[None], EXPRESSIONS[:-1], structure.auto, monkeypatch, ids=[f"{i:06d}"])
        for i, row in enumerate(x)
    ]
    for key, found in together.items():
        assert torch.equal(found, torch.cat([each[key] for each in apart])), key


def test_a_value_in_8_bits_is_changed_as_what_it_means(quantised):
    """Half of a channel of an addition's result, put in by hand in 8 bits."""
    path, x = quantised("resnet", "codes"), net("resnet")[1]
    backend = load(ModelSection(weights=str(path)), device="cpu", dtype="float32")
    layer = "stages.1.1.Add_quant"
    run = asked(backend, x, "AD", [layer])
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.name == "/stages/stages.1/stages.1.1/Add_quant")
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    scale, zero = (constants[name] for name in node.input[6:8])
    [code] = plain(model, {"x": x}, node.output[0])[1:]
    A = (code.astype(np.float32) - zero.astype(np.float32)) * scale
    assert np.array_equal(run.activations[layer].numpy(), A)
    changed = (np.rint(A * 0.5 / scale) + zero).clip(*CODES[code.dtype.name]).astype(code.dtype)
    value = node.output[0]
    for each in model.graph.node:
        each.input[:] = ["changed" if name == value else name for name in each.input]
    model.graph.initializer.append(numpy_helper.from_array(changed, "changed"))
    assert np.array_equal(run.tail(layer, torch.from_numpy(A * 0.5)).scores.numpy(), plain(model, {"x": x})[0])


BRANCH = """
    c = Conv <pads = [1,1,1,1]> (x, w, b)
    m = ReduceMean <keepdims = 0> (x, all)
    zero = Constant <value = float {0.0}> ()
    positive = Greater (m, zero)
    r = If (positive) <
        then_branch = yes () => (float[n,4,8,8] t) { t = Relu (c) },
        else_branch = no () => (float[n,4,8,8] f) { h = Mul (c, c) f = Neg (h) }
    >
    mean = GlobalAveragePool (r)
    flat = Flatten (mean)
    y = Gemm (flat, k, d)
"""
LOOP = """
    c = Conv <pads = [1,1,1,1]> (x, w, b)
    true = Constant <value = bool {1}> ()
    r = Loop (three, true, c) <
        body = step (int64 i, bool on, float[n,4,8,8] h) => (bool go, float[n,4,8,8] out) {
            go = Identity (on)
            a = Conv <pads = [1,1,1,1]> (h, v)
            s = Tanh (a)
            out = Add (s, c)
        }
    >
    mean = GlobalAveragePool (r)
    flat = Flatten (mean)
    y = Gemm (flat, k, d)
"""


def weights():
    return {"w": values(4, 3, 3, 3), "b": values(4, seed=2), "k": values(4, 5, seed=3), "d": values(5, seed=4)}


def branch():
    return graph(BRANCH, all=np.array([0, 1, 2, 3]), **weights())


def loop():
    return graph(LOOP, three=np.array(3), v=values(4, 4, 3, 3, seed=5) * 0.3, **weights())


def test_a_branch_is_taken_for_each_sample(tmp_path, monkeypatch):
    """Whichever way the mean of the batch would go."""
    x = values(5, 3, 8, 8) + np.array([1, -1, 1, -1, -1], "float32")[:, None, None, None]
    model = branch()
    backend = load(ModelSection(weights=str(saved(model, tmp_path))), device="cpu", dtype="float32")
    assert backend.notes == ["the graph runs in onnxruntime, forward only: operators that are not imported: If"]
    structure = backend.structure(x[:1])
    assert structure.auto == "c"  # what is in the branches has no one name
    assert [each.name for each in structure.layers] == ["c", "r", "mean", "flat", "y"]
    run = asked(backend, x, "AD", ["c"])
    w = {name: torch.from_numpy(each) for name, each in weights().items()}
    c = torch.nn.functional.conv2d(torch.from_numpy(x), w["w"], w["b"], padding=1)

    def head(c):
        up = (torch.from_numpy(x).mean((1, 2, 3)) > 0)[:, None, None, None]
        return torch.where(up, c.relu(), -c * c).mean((2, 3)) @ w["k"] + w["d"]

    near(run.raw, head(c))
    near(run.activations["c"], c)
    assert run.session.beside["c"] == ["positive"]
    for k in range(4):
        kept = torch.ones(4).index_fill(0, torch.tensor([k]), 0)[:, None, None]
        near(run.tail("c", c * kept).scores, head(c * kept))
    together = maps(backend, x, EXPRESSIONS, "c", monkeypatch)
    alone = maps(backend, x[3:4], EXPRESSIONS, "c", monkeypatch, ids=["000003"])
    for key, found in alone.items():
        near(together[key][3:4], found, 1e-6)


def test_a_loop(tmp_path):
    x, model = values(5, 3, 8, 8), loop()
    backend = load(ModelSection(weights=str(saved(model, tmp_path))), device="cpu", dtype="float32")
    assert backend.structure(x[:1]).auto == "c"
    assert backend._runner.chunk is None  # it runs as often for every sample
    run = asked(backend, x, "AD", ["c"])
    w = {name: torch.from_numpy(each) for name, each in weights().items()}
    v = torch.from_numpy(values(4, 4, 3, 3, seed=5) * np.float32(0.3))
    conv = torch.nn.functional.conv2d
    c = conv(torch.from_numpy(x), w["w"], w["b"], padding=1)

    def head(c):
        h = c
        for _ in range(3):
            h = conv(h, v, padding=1).tanh() + c
        return h.mean((2, 3)) @ w["k"] + w["d"]

    near(run.raw, head(c))
    near(run.tail("c", c * 0.5).scores, head(c * 0.5))


def test_a_loop_that_the_data_end(tmp_path):
    """It ends for all samples at once: each goes alone."""
    body = LOOP.replace(
        "go = Identity (on)",
        "q = ReduceMax <keepdims = 0> (h) two = Constant <value = float {2.0}> () go = Less (q, two)",
    )
    backend = running(graph(body, three=np.array(3), v=values(4, 4, 3, 3), **weights()), tmp_path)
    assert (backend._runner.chunk, backend._runner.alone) == (1, True)


@pytest.mark.parametrize("name", ["resnet-1d", "conv-3d", "windows"])
def test_graphs_of_one_size_of_batch(name, tmp_path, monkeypatch):
    x = np.concatenate([net(name)[1], net(name)[1][:2] * 0.7])
    assert len(x) % 2
    fixed, free = running(exported(name, False, 20, batch=2), tmp_path), running(file_of(name), tmp_path)
    layer = free.structure(x[:1]).auto
    fixed.structure(x[:1])
    fixed._runner.chunk = 2  # as if it could take no other
    near(asked(free, x, "A", [layer]).raw, plain(file_of(name), {"x": x})[0])
    wanted = maps(free, x, EXPRESSIONS, layer, monkeypatch)
    fixed.structure = lambda *_: free.structure(x[:1])
    for key, found in maps(fixed, x, EXPRESSIONS, layer, monkeypatch).items():
        near(found, wanted[key])
    for key, found in maps(free, x[:1], EXPRESSIONS, layer, monkeypatch).items():
        near(found, wanted[key][:1])


def test_a_batch_of_one_size_is_seen(tmp_path):
    model = classifier()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 4]), "size"))
    model.graph.node[3].CopyFrom(helper.make_node("Reshape", ["mean", "size"], ["flat"], name="/Flatten"))
    backend, x = running(model, tmp_path), values(5, 3, 8, 8)
    backend.structure(x[:1])
    assert backend._runner.chunk == 2
    near(asked(backend, x, "A").raw, asked(running(classifier(), tmp_path), x, "A").raw)
    assert asked(backend, x, "A", ["stem.relu"]).activations["stem.relu"].shape == (5, 4, 8, 8)


def test_no_session_is_made_for_a_batch(tmp_path, monkeypatch):
    backend, x = running(file_of("resnet"), tmp_path), net("resnet")[1]
    layer = backend.structure(x[:1]).auto
    run = asked(backend, x, "AD", [layer])
    run.tail(layer, run.activations[layer])
    run.session.forward(run.inputs, torch.arange(len(x)))
    before = backend._sessions.started
    for size in (1, 2, 3):
        again = run.session(run.inputs[:size])
        again.tail(layer, again.activations[layer])
        run.session.forward(run.inputs[:size], torch.arange(size))
    assert backend._sessions.started == before


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_a_final_activation_is_stepped_behind(kind, tmp_path):
    model = classifier()
    model.graph.node.append(helper.make_node(kind, ["y"], ["p"]))
    model.graph.node.append(helper.make_node("Identity", ["p"], ["q"]))
    model.graph.output[0].name = "q"
    backend, x = running(model, tmp_path), values(3, 3, 8, 8)
    found = backend.structure(x[:1])
    assert found.final == {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log-softmax"}[kind]
    assert found.auto == "stem.relu"
    run = asked(backend, x, "AD", ["stem.relu"])
    near(run.raw, plain(model, {"x": x})[0])
    near(run.outputs.scores, plain(classifier(), {"x": x})[0])
    near(run.tail("stem.relu", run.activations["stem.relu"]).scores, run.outputs.scores)


def test_a_softmax_over_places_is_none(tmp_path):
    body = "c = Conv (x, w) \n y = Softmax <axis = {}> (c)"
    for axis, final in ((1, "softmax"), (-1, None), (-3, "softmax")):
        model = graph(body.replace("{}", str(axis)), outputs="float[n,4,8,8] y", w=values(4, 3, 1, 1))
        found = running(model, tmp_path).structure(values(1, 3, 8, 8))
        assert (found.final, found.places, found.outputs) == (final, (8, 8), 4)
        assert found.auto == "c"


def test_a_softmax_in_8_bits(tmp_path):
    body = """
        f = Flatten (q)
        v = QLinearMatMul (f, s, z, k, s, z, t, z)
        p = com.microsoft.QLinearSoftmax <axis = -1, opset = 20> (v, t, z, u, z)
        y = DequantizeLinear (p, u, z)
    """
    body = "q = QuantizeLinear (x, s, z)" + body
    constants = {"s": np.float32(0.02), "t": np.float32(0.05), "u": np.float32(1 / 256), "z": np.uint8(0)}
    model = graph(body, inputs="float[n,1,6] x", k=np.arange(18, dtype="uint8").reshape(6, 3), **constants)
    backend, x = running(model, tmp_path), np.abs(values(4, 1, 6))
    assert backend.structure(x[:1]).final == "softmax"
    run = asked(backend, x, "A")
    codes = np.rint(x[:, 0] / np.float32(0.02)).clip(0, 255) * np.float32(0.02)
    wanted = np.rint(codes @ (np.arange(18).reshape(6, 3) * 0.02) / 0.05).clip(0, 255) * 0.05
    near(run.outputs.scores, wanted.astype("float32"))
    near(run.raw, run.outputs.scores.softmax(1), 0.02)


def test_outputs_and_arguments_by_name(tmp_path):
    body = "a = Mul (x, mask) \n s = ReduceSum <keepdims = 0> (a, axes) \n p = Sigmoid (s) \n o = If (on) <then_branch = t () => (float[n,3] u) { u = Neg (s) }, else_branch = e () => (float[n,3] v) { v = Exp (s) }>"
    model = graph(body, inputs="float[n,3,4,4] mask, float[n,3,4,4] x", outputs="float[n,3] s, float[n,3] p, float[n,3] o",
                  axes=np.array([2, 3]), on=np.array(True))  # fmt: skip
    x, extra = values(3, 3, 4, 4), {"mask": values(3, 3, 4, 4, seed=3)}
    section = {"weights": str(saved(model, tmp_path))}

    def of(**more):
        return load(ModelSection(**section, output=more.pop("output", None)), device="cpu", dtype="float32", **more)

    assert isinstance(of(argument="x", output="p"), OnnxBackend)  # what this output needs can be imported
    backend = of(argument="x", output="o")
    assert backend.structure(x[:1], {"mask": extra["mask"][:1]}).keys == ("o",)
    run = asked(backend, x, "A", extra=extra)
    near(run.raw, -(x * extra["mask"]).sum((2, 3)))
    near(
        run.session.forward(
            run.inputs[[2, 0]], torch.arange(2), {"mask": torch.from_numpy(extra["mask"][[2, 0]])}
        ).scores,
        run.raw[[2, 0]],
    )
    with pytest.raises(RequestError, match="choose one with --output"):
        of(argument="x").structure(x[:1], {"mask": extra["mask"][:1]})
    with pytest.raises(RequestError, match="no output 'q'"):
        of(output="q")
    with pytest.raises(RequestError, match="needs the input 'mask' too"):
        of(argument="x", output="o").structure(x[:1])
    with pytest.raises(RequestError, match="no input 'z'"):
        of(argument="z", output="o").structure(x[:1])
    with pytest.raises(RequestError, match=r"was given, but the model's input 'x' takes \(3, 4, 4\)"):
        of(argument="x", output="o").structure(values(1, 3, 5, 4), {"mask": extra["mask"][:1]})


def test_channels_last(tmp_path):
    body = "q = QuantizeLinear (x, s, z) \n d = DequantizeLinear (q, s, z) \n t = Transpose <perm = [0,3,1,2]> (d) \n c = Conv (t, w) \n m = GlobalAveragePool (c) \n y = Flatten (m)"
    model = graph(body, inputs="float[n,8,6,3] x", s=np.float32(0.05), z=np.uint8(128), w=values(4, 3, 3, 3))
    backend, x = (
        load(ModelSection(weights=str(saved(model, tmp_path))), device="cpu", dtype="float32"),
        values(2, 3, 8, 6),
    )
    assert isinstance(backend, RunningBackend)
    assert backend.input_shape == (3, 8, 6)
    found = backend.structure(x[:1])
    assert found.auto == "c"
    assert {each.name: each.shape for each in found.layers}["d"] == (3, 8, 6)
    run = asked(backend, x, "AD", ["d"])
    near(run.activations["d"], x, 0.02)
    near(
        run.tail("d", run.activations["d"]).scores, plain(model, {"x": np.ascontiguousarray(np.moveaxis(x, 1, -1))})[0]
    )


def test_float64(tmp_path):
    with pytest.raises(RequestError, match="float64 asked for, but the graph runs in onnxruntime, forward only"):
        running(loop(), tmp_path, dtype="float64")
    body = "h = Mul (x, w) \n y = If (on) <then_branch = t () => (double[n,1,3] u) { u = Neg (h) }, else_branch = e () => (double[n,1,3] v) { v = Exp (h) }>"
    model = graph(
        body, inputs="double[n,1,3] x", outputs="double[n,1,3] y", w=values(3, dtype="float64"), on=np.array(True)
    )
    x = values(2, 1, 3)
    for dtype in ("float64", "float32"):
        run = asked(running(model, tmp_path, dtype=dtype), x, "A")
        assert run.raw.dtype == getattr(torch, dtype)
        near(run.raw, -(x * values(3, dtype="float64")).astype(dtype), 1e-7)


def one_line(refused, *parts):
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


def test_what_onnxruntime_does_not_know_either(tmp_path):
    path = saved(graph("y = elsewhere.Strange (x)"), tmp_path)
    with pytest.raises(RequestError) as refused:
        load(ModelSection(weights=str(path)), device="cpu", dtype="float32")
    one_line(refused, str(path), "not imported: elsewhere.Strange; onnxruntime cannot run it either: ", "Strange")


def test_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotImportedError) as refused:
        load(ModelSection(weights=str(saved(branch(), tmp_path))), device="cpu", dtype="float32")
    one_line(refused, "operators that are not imported: If", "pip install onnxruntime")


def test_what_is_damaged_or_hostile_stays_refused(tmp_path):
    """None of it gets as far as onnxruntime."""
    model = branch()
    body = model.graph.node[4].attribute[1].g
    tensor = body.initializer.add(name="far", data_type=TensorProto.FLOAT, dims=[10**6])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../far.bin")
    huge = branch()
    huge.graph.initializer.append(
        TensorProto(name="bomb", data_type=TensorProto.FLOAT, dims=[10**7, 10**6], raw_data=b"1234")
    )
    lost = branch()
    lost.graph.node[0].input[0] = "nowhere"
    bomb = branch()
    bomb.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 10**6]), "sizes"))
    bomb.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["ones"]))
    bomb.graph.node.append(helper.make_node("ReduceSum", ["ones"], ["sum"]))
    bomb.graph.node.append(helper.make_node("Add", ["y", "sum"], ["z"]))
    bomb.graph.output[0].name = "z"
    for each, reason in ((model, "outside the model's folder"), (huge, "but holds 4 bytes"), (lost, "which nothing gives"),
                         (bomb, "out of nothing")):  # fmt: skip
        path = tmp_path / "model.onnx"
        path.write_bytes(each.SerializeToString())
        with pytest.raises(RequestError) as refused:
            load(ModelSection(weights=str(path)), device="cpu", dtype="float32")
        one_line(refused, reason)
        assert not isinstance(refused.value, NotImportedError)


def test_weights_beside_the_file(tmp_path):
    x, path = values(3, 3, 8, 8), tmp_path / "outside.onnx"
    onnx.save(loop(), path, save_as_external_data=True, location="outside.bin", size_threshold=0)
    backend = load(ModelSection(weights=str(path)), device="cpu", dtype="float32")
    near(asked(backend, x, "A").raw, plain(loop(), {"x": x})[0])


def test_large_weights_are_lent(tmp_path, monkeypatch):
    """They are held once, for all sessions."""
    monkeypatch.setattr("camsweep.backends.onnx.running.sessions.SMALL", 64)
    for name in ("resnet", "windows", "bilstm"):
        model, x = file_of(name), net(name)[1]
        backend = running(model, tmp_path)
        layer = backend.structure(x[:1]).auto
        run = asked(backend, x, "AD", [layer])
        assert backend._sessions._lent
        near(run.raw, plain(model, {"x": x})[0])
        near(run.tail(layer, run.activations[layer]).scores, run.outputs.scores)


def test_devices(tmp_path):
    assert running(loop(), tmp_path).device == "cpu"
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        assert RunningBackend(saved(loop(), tmp_path), "a test", device="auto").device == "cpu"
        with pytest.raises(RequestError, match=r"CPU only|is not here"):
            RunningBackend(saved(loop(), tmp_path), "a test", device="cuda")


def test_memory_that_gives_out(tmp_path):
    body = "o = ConstantOfShape <value = float[1] {1.0}> (sizes) \n r = ReduceMax <keepdims = 0> (o) \n y = Mul (x, r)"
    model = graph(body, inputs="float[n,3] x, int64[2] sizes", outputs="float[n,3] y")
    backend = running(model, tmp_path, argument="x")
    with pytest.raises(Exception, match="allocate") as refused:
        backend._sessions({"x": values(2, 3), "sizes": np.array([10**7, 10**6])}, ["y"])
    assert backend.is_out_of_memory(refused.value)
    assert not backend.is_out_of_memory(RuntimeError("something else"))


def test_layers_are_checked(tmp_path):
    backend = running(loop(), tmp_path)
    with (
        pytest.raises(RequestError, match="no layer 'conv' in the model"),
        backend.tapped(Tapping(["conv"], 2, frozenset("A"))),
    ):
        pass
    with (
        backend.tapped(Tapping(["c"], 2, frozenset("A"))) as session,
        pytest.raises(RequestError, match="forward only"),
    ):
        session.bare(torch.zeros(1, 3, 8, 8), torch.zeros(1))


@pytest.fixture
def told(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["camsweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_from_the_command_line(told, tmp_path):
    path, data, out = saved(branch(), tmp_path), tmp_path / "x.npz", tmp_path / "run.h5"
    np.savez(data, x=values(5, 3, 8, 8))
    code, shown, _ = told("inspect", path, "--shape", "3,8,8", "--json")
    answer = json.loads(shown)
    assert code == 0
    assert answer["auto"] == "c"
    assert [each["name"] for each in answer["layers"]] == ["c", "r", "mean", "flat", "y"]
    assert answer["notes"] == ["the graph runs in onnxruntime, forward only: operators that are not imported: If"]
    job = ["explain", "--model", path, "--data", data, "--layout", "NCHW", "--out", out]
    code, _, line = told(*job, "-m", "gradcam")
    assert code == 2
    assert "gradcam" in line
    assert "forward only: operators that are not imported: If" in line
    assert line.splitlines()[-1].startswith("error: gradcam asks for the gradient at the layer")
    code, shown, line = told(*job, *(part for each in EXPRESSIONS for part in ("-m", each)), "--json", "-m", "dff:k=2")
    assert code == 0, line
    assert json.loads(shown)["samples"] == 5


def test_any_graph_on_request(told, tmp_path):
    """`--native` runs a graph in onnxruntime that could be imported: the same maps, and no gradients."""
    model, x = file_of("resnet"), net("resnet")[1]
    path, data = saved(model, tmp_path), tmp_path / "x.npy"
    np.save(data, x)
    layout = {3: "NCT", 4: "NCHW", 5: "NCDHW"}[x.ndim]
    job = [
        "explain",
        "--model",
        path,
        "--data",
        data,
        "--layout",
        layout,
        "-m",
        "rise:n=32",
        "-m",
        "eigencam",
        "--json",
    ]
    for name, words in (("imported", []), ("native", ["--native"])):
        code, _, line = told(*job, "--out", tmp_path / f"{name}.h5", *words)
        assert code == 0, line
    assert "the graph runs in onnxruntime, forward only: --native asks for it" in line
    with open_results(tmp_path / "imported.h5") as imported, open_results(tmp_path / "native.h5") as native:
        for each in imported.maps:
            near(native.map(each).read(), imported.map(each).read())
    code, _, line = told(*job, "--out", tmp_path / "no.h5", "--native", "-m", "grad")
    assert code == 2
    assert line.splitlines()[-1].startswith("error: grad asks for the gradient")


def test_what_is_no_tensor_is_computed_again(tmp_path):
    """A sequence that is read on both sides of the layer cannot be handed over: the tail begins at the inputs."""
    body = """
        c = Conv <pads = [1,1,1,1]> (x, w, b)
        both = SequenceConstruct (c, x)
        a = Relu (c)
        zero = Constant <value = int64 {0}> ()
        first = SequenceAt (both, zero)
        s = Add (a, first)
        mean = GlobalAveragePool (s)
        flat = Flatten (mean)
        y = Gemm (flat, k, d)
    """
    x = values(3, 3, 8, 8)
    backend = load(ModelSection(weights=str(saved(graph(body, **weights()), tmp_path))), device="cpu", dtype="float32")
    assert isinstance(backend, RunningBackend)
    assert backend.structure(x[:1]).auto == "s"
    w = {name: torch.from_numpy(each) for name, each in weights().items()}
    c = torch.nn.functional.conv2d(torch.from_numpy(x), w["w"], w["b"], padding=1)
    run = asked(backend, x, "AD", ["a", "c"])
    assert run.session.beside == {"a": ["first"], "c": ["x"]}
    near(run.tail("a", c.relu() * 0.5).scores, (c.relu() * 0.5 + c).mean((2, 3)) @ w["k"] + w["d"])
    near(run.tail("c", c * 0.5).scores, (c.relu() * 0.5 + c * 0.5).mean((2, 3)) @ w["k"] + w["d"])


def test_several_values_of_one_node(tmp_path):
    """One half is changed, the other is handed over, or computed again beside it."""
    body = """
        c = Conv (x, w, b)
        low, high = Split <axis = 1, num_outputs = 2> (c)
        r = If (on) <then_branch = t () => (float[n,2,6,6] u) { u = Mul (low, high) }, else_branch = e () => (float[n,2,6,6] v) { v = Exp (high) }>
        mean = GlobalAveragePool (r)
        y = Flatten (mean)
    """
    x, w = values(3, 3, 8, 8), {name: torch.from_numpy(weights()[name]) for name in "wb"}
    model = graph(body, on=np.array(True), w=w["w"].numpy(), b=w["b"].numpy())
    low, high = torch.nn.functional.conv2d(torch.from_numpy(x), w["w"], w["b"]).chunk(2, 1)
    backend = load(ModelSection(weights=str(saved(model, tmp_path))), device="cpu", dtype="float32")
    run = asked(backend, x, "AD", ["low"])
    near(run.tail("low", low * 0.5).scores, (low * 0.5 * high).mean((2, 3)))
    near(backend._sessions({"x": x, "low": (low * 0.5).numpy()}, ["y"])["y"], (low * 0.5 * high).mean((2, 3)))


def test_half_precision(tmp_path):
    model = loop()
    body = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    for each in model.graph.initializer:
        if each.data_type == TensorProto.FLOAT:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype("float16"), each.name))
    for each in [*model.graph.input, *model.graph.output, body.input[2], body.output[1]]:
        each.type.tensor_type.elem_type = TensorProto.FLOAT16
    x = values(3, 3, 8, 8)
    run, wanted = (asked(running(each, tmp_path), x, "AD", ["c"]) for each in (model, loop()))
    assert run.raw.dtype == run.activations["c"].dtype == torch.float32
    near(run.raw, wanted.raw, 1e-2)
    near(run.tail("c", run.activations["c"] * 0.5).scores, wanted.tail("c", wanted.activations["c"] * 0.5).scores, 1e-2)


def test_a_scan_and_functions(tmp_path):
    """A sum along the axis of time; what a function holds has names of its own."""
    text = """<ir_version: 9, opset_import: ["" : 20, "own" : 1]>
        g (float[n,2,30] x) => (float[n,k] y) {
            h = own.block (x, w)
            t = Transpose <perm = [2,0,1]> (h)
            first = Constant <value = float {0.0}> ()
            start = Mul (last, first)
            sum, all = Scan <num_scan_inputs = 1, body = step (float[n,4] s, float[n,4] e) => (float[n,4] o, float[n,4] p) {
                o = Add (s, e)
                p = Identity (o)
            }> (start, t)
            y = MatMul (sum, m)
        }
        <domain: "own", opset_import: ["" : 20]>
        block (a, b) => (r) { c = Conv <pads = [1,1]> (a, b) r = Tanh (c) }
    """
    text = text.replace(
        "start = Mul (last, first)", "last = ReduceMax <keepdims = 0> (h, two) start = Mul (last, first)"
    )
    model = onnx.parser.parse_model(text)
    w, m = values(4, 2, 3), values(4, 3, seed=1)
    arrays = {"w": w, "m": m, "two": np.array([2])}
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in arrays.items())
    backend, x = (
        load(ModelSection(weights=str(saved(model, tmp_path))), device="cpu", dtype="float32"),
        values(3, 2, 30),
    )
    assert isinstance(backend, RunningBackend)
    found = backend.structure(x[:1])
    h = torch.nn.functional.conv1d(torch.from_numpy(x), torch.from_numpy(w), padding=1).tanh()
    run = asked(backend, x, "AD", [found.auto])
    near(run.activations[found.auto], h)
    near(run.raw, h.sum(2) @ torch.from_numpy(m))
    near(run.tail(found.auto, h * 0.5).scores, h.sum(2) * 0.5 @ torch.from_numpy(m))


def test_the_same_twice(tmp_path, monkeypatch):
    x = net("densenet")[1]
    first, second = (running(file_of("densenet"), tmp_path) for _ in range(2))
    layer = first.structure(x[:1]).auto
    once, again = (maps(each, x, EXPRESSIONS, layer, monkeypatch) for each in (first, second))
    for key, found in once.items():
        assert torch.equal(found, again[key]), key
