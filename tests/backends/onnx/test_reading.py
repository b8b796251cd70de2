"""Files that are damaged, foreign, too new, or made to do harm: each is refused in one line, before it costs anything."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import external_data_helper

from camsweep.backends.onnx.backend import load_network
from camsweep.backends.onnx.importing import network
from camsweep.backends.onnx.reading import read
from camsweep.core.errors import RequestError
from camsweep.tests.backends.onnx.graphs import classifier, graph, saved, tensor, values


def refused(path, match):
    with pytest.raises(RequestError, match=match) as error:
        load_network(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_are_no_model(tmp_path):
    whole = classifier().SerializeToString()
    for content, match in (
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no whole ONNX file|no ONNX file"),
        (b"PK\x03\x04" + bytes(100), "no whole ONNX file|no ONNX file"),
        (whole[: len(whole) // 2], "damaged|cut short"),
        (whole[:40], "damaged|cut short|no ONNX file"),
    ):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        refused(path, match)
    refused(tmp_path / "modell.onnx", "Did you mean 'model.onnx'")
    refused(tmp_path, "is not a file")


def test_every_way_of_cutting_a_file_short(tmp_path):
    """However much is missing: an error of ours, or a model that is whole."""
    whole, path = classifier().SerializeToString(), tmp_path / "model.onnx"
    for size in range(0, len(whole), 61):
        path.write_bytes(whole[:size])
        with pytest.raises(RequestError):
            load_network(path)


def test_bits_that_flipped(tmp_path):
    """Nothing but an error of ours, or a network."""
    whole, path = bytearray(classifier().SerializeToString()), tmp_path / "model.onnx"
    generator = np.random.default_rng(0)
    for at in generator.integers(0, 700, 150):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(generator.integers(8))
        path.write_bytes(flipped)
        with contextlib.suppress(RequestError):
            load_network(path)


def test_versions_that_are_too_new(tmp_path):
    model = classifier()
    model.opset_import[0].version = 999
    refused(saved(model, tmp_path), r"opset 999, the onnx installed here \(.*\) knows up to \d+: pip install -U onnx")
    model = classifier()
    model.ir_version = 99
    refused(saved(model, tmp_path), "IR version 99, .* pip install -U onnx")


def test_graphs_that_do_not_hang_together(tmp_path):
    refused(saved(graph("y = Relu (missing)", outputs="float[n] y"), tmp_path), "reads 'missing', which nothing gives")
    model = graph("z = Relu (x)", outputs="float[n] y")
    refused(saved(model, tmp_path), "nothing gives the output 'y'")
    model = graph("a = Relu (b) \n b = Relu (x) \n y = Add (a, b)", outputs="float[n] y")
    refused(saved(model, tmp_path), "reads 'b', which nothing gives")
    model = graph("y = Conv (x, w)", outputs="float[n] y", w=values(2, 3, 3, 3))
    model.graph.node[0].attribute.add(name="group", type=onnx.AttributeProto.STRING, s=b"many")
    refused(saved(model, tmp_path), "Conv 'y' cannot be read")


# Weights beside the file


def outside(tmp_path, location, **more):
    """A model whose weights are said to lie elsewhere."""
    model = classifier()
    weight = next(each for each in model.graph.initializer if each.name == "w")
    external_data_helper.set_external_data(weight, location, **more)
    weight.ClearField("raw_data")
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    return saved_as_it_is(model, folder / "model.onnx")


def saved_as_it_is(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file(tmp_path):
    folder = tmp_path / "model"
    path = outside(tmp_path, "weights.bin")
    refused(path, "which is not beside it")
    (folder / "weights.bin").write_bytes(values(4, 3, 3, 3).tobytes())
    x = tensor(2, 3, 8, 8)
    assert np.allclose(load_network(path)(x), network(classifier())(x))
    (folder / "weights.bin").write_bytes(values(4, 3, 3, 3).tobytes()[:-1])
    refused(path, "do not fit into weights.bin")


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "./../secret.bin", "", "link.bin", "through/secret.bin"])  # fmt: skip
def test_weights_outside_the_folder(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    path = outside(tmp_path, location)
    (path.parent / "link.bin").symlink_to("../secret.bin")
    (path.parent / "through").symlink_to("..")
    refused(path, "outside the model's folder")


def test_weights_at_an_absolute_place(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    refused(outside(tmp_path, str(tmp_path / "secret.bin")), "outside the model's folder")


def test_weights_that_are_another_file_under_two_names(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    path = outside(tmp_path, "weights.bin")
    os.link(tmp_path / "secret.bin", path.parent / "weights.bin")
    refused(path, "weights beside the file cannot be read")


@pytest.mark.parametrize("more", [{"offset": 1}, {"offset": 10**12}, {"length": 10**12}, {"length": 10}])
def test_weights_that_are_said_to_be_longer(tmp_path, more):
    path = outside(tmp_path, "weights.bin", **more)
    (path.parent / "weights.bin").write_bytes(bytes(432))
    refused(path, "do not fit into weights.bin")


# Bombs


def test_a_constant_without_its_values(tmp_path):
    model = graph("y = Add (x, w)", outputs="float[n] y")
    model.graph.initializer.add(name="w", data_type=1, dims=[10**6, 10**6])
    refused(saved_as_it_is(model, tmp_path / "m.onnx"), "'w'")
    model.graph.initializer[0].raw_data = bytes(16)
    refused(saved_as_it_is(model, tmp_path / "m.onnx"), r"'w' is \(1000000, 1000000\) but holds 16 bytes")
    model.graph.initializer[0].dims[:] = [-1, 4]
    refused(saved_as_it_is(model, tmp_path / "m.onnx"), "negative size")


ONE, HUGE = np.float32(1), np.array([10**5, 10**6])
BOMBS = {
    "ConstantOfShape": ("c = ConstantOfShape (s)", {"s": HUGE}),
    "Expand": ("c = Expand (o, s)", {"o": ONE, "s": HUGE}),
    "Tile": ("c = Tile (o, s)", {"o": np.ones((1, 1), "float32"), "s": HUGE}),
    "Range": ("r = Range (a, b, d) \n c = Cast <to = 1> (r)", {"a": np.float32(0), "b": ONE, "d": np.float32(1e-11)}),
    "Pad": ("c = Pad (o, s)", {"o": np.ones((1, 1), "float32"), "s": np.array([0, 0, 10**5, 10**6])}),
    "Resize": ("c = Resize (o, , s)", {"o": np.ones((1, 1, 2, 2), "float32"), "s": np.array([1, 1, 1e6, 1e6], "float32")}),
    "OneHot": ("c = OneHot (i, k, v)", {"i": np.zeros(1000, "int64"), "k": np.array(10**9), "v": np.array([0, 1], "float32")}),
    "Mul": ("c = Mul (o, p)", {"o": np.ones((1, 50000), "float32"), "p": np.ones((50000, 1), "float32")}),
    "MatMul": ("c = MatMul (p, o)", {"o": np.ones((1, 50000), "float32"), "p": np.ones((50000, 1), "float32")}),
    "ConvTranspose": ("c = ConvTranspose <strides = [100000, 100000]> (o, o)", {"o": np.ones((1, 1, 2, 2), "float32")}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_constants_that_would_grow_without_end(name):
    body, arrays = BOMBS[name]
    with pytest.raises(RequestError, match=f"{name} 'c|{name} 'r") as error:
        network(graph(f"{body} \n y = Add (x, c)", outputs="float[n] y", **arrays))
    assert "out of nothing" in str(error.value)


def test_many_constants_that_are_each_not_too_large():
    body = "\n".join(f"c{i} = ConstantOfShape (s) \n n{i} = Neg (c{i})" for i in range(20))
    sums = "a0 = Add (x, n0) \n" + "\n".join(f"a{i} = Add (a{i - 1}, n{i})" for i in range(1, 20))
    with pytest.raises(RequestError, match="constants made of constants come to"):
        network(graph(f"{body} \n {sums} \n y = Relu (a19)", outputs="float[n] y", s=np.array([4000, 4000])))


def test_constants_of_a_sensible_size_may_be_made():
    body = "c = ConstantOfShape (s) \n e = Expand (c, t) \n y = Add (x, e)"
    imported = network(graph(body, outputs="float[n,3,8,8] y", s=np.array([8]), t=np.array([3, 8, 8])))
    assert imported(tensor(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_reading_leaves_the_file_alone(tmp_path):
    path = saved(classifier(), tmp_path)
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    read(path)
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before
