"""What a file is, by its content, whatever it is called; and which backend gets it."""

from __future__ import annotations

import json
import struct
import zipfile

import h5py
import pytest
import torch
from torch import nn

from camsweep.backends import guess, load
from camsweep.backends.checkpoints import kind_of
from camsweep.core.errors import RequestError
from camsweep.core.job import ModelSection


def archive(path, *members):
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, "{}")


def make(kind, path):
    """A file or folder of a kind."""
    module = nn.Sequential(nn.Conv1d(1, 2, 3))
    if kind == "state dict":
        torch.save(module.state_dict(), path)
    elif kind == "old state dict":
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    elif kind == "torchscript":
        archive(path, "net/data.pkl", "net/constants.pkl", "net/code/__torch__.py")
    elif kind == "exported":
        archive(path, "net/models/model.json", "net/archive_format", "net/data/sample_inputs/model.pt")
    elif kind == "older exported":
        archive(path, "serialized_exported_program.json", "serialized_state_dict.json", "version")
    elif kind == "keras":
        archive(path, "metadata.json", "config.json", "model.weights.h5")
    elif kind == "keras folder":
        path.mkdir()
        for name in ("config.json", "model.weights.h5"):
            (path / name).write_text("{}")
    elif kind == "hdf5":
        h5py.File(path, "w").close()
    elif kind == "json":
        path.write_text('{"class_name": "Sequential"}')
    elif kind == "saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    elif kind == "onnx":
        path.write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x00")
    return path


KINDS = {
    "state dict": ("torch", "torch"),
    "old state dict": ("torch", "torch"),
    "safetensors": ("torch", "torch"),
    "torchscript": ("torchscript", "onnx"),
    "exported": ("exported", "onnx"),
    "older exported": ("exported", "onnx"),
    "keras": ("keras", "tensorflow"),
    "keras folder": ("keras", "tensorflow"),
    "hdf5": ("hdf5", "tensorflow"),
    "json": ("json", "tensorflow"),
    "saved_model": ("saved_model", "tensorflow"),
    "onnx": ("onnx", "onnx"),
}


@pytest.mark.parametrize("name", ["model", "net.pt", "net.onnx", "net.h5", "net.keras"])
@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_told_by_content(tmp_path, kind, name):
    path = make(kind, tmp_path / name)
    assert (kind_of(path), guess(ModelSection(weights=str(path)))) == KINDS[kind]


def test_the_file_inside_a_saved_model_may_be_named(tmp_path):
    assert kind_of(make("saved_model", tmp_path / "net") / "saved_model.pb") == "saved_model"


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"\x1c\0\0\0TFL3", "net.tflite", "TensorFlow Lite model: python -m tf2onnx"),
        (b"GGUF\3\0\0\0", "net.gguf", "quantised weights"),
        (b"\x0a\x05input", "net.pb", "graph of TensorFlow 1, expected a SavedModel"),
        (b"hello, world", "net.xyz", "no checkpoint that is known"),
        (b"", "net.pt", "is empty"),
        (b"<!DOCTYPE html>", "net.onnx", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "net.keras", "Git LFS pointer"),
        (b"PK\x03\x04 and no more", "net.pt", "no zip directory"),
    ],
)
def test_other_files_are_told(tmp_path, content, name, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=says):
        kind_of(tmp_path / name)


def test_what_cannot_be_told_goes_by_its_name(tmp_path):
    """Its backend says what is wrong with it."""
    (tmp_path / "net.pt").write_bytes(b"noise, noise, noise")
    assert guess(ModelSection(weights=str(tmp_path / "net.pt"))) == "torch"


def test_a_file_that_is_not_there(tmp_path):
    make("onnx", tmp_path / "net.onnx")
    with pytest.raises(RequestError, match=r"weights not found: .*net.onxx. Did you mean 'net.onnx'"):
        kind_of(tmp_path / "net.onxx")


def test_code_says_more_than_its_weights(tmp_path):
    weights = str(make("state dict", tmp_path / "a"))
    assert guess(ModelSection(source="a.py:Net")) == "torch"
    assert guess(ModelSection(source="a.py:Net", weights=weights)) == "torch"
    assert guess(ModelSection(source="a.py:Net", weights=str(make("hdf5", tmp_path / "b")))) == "tensorflow"
    assert guess(ModelSection(source="a.json", weights=str(make("hdf5", tmp_path / "c")))) == "tensorflow"
    assert guess(ModelSection(source="a.py:Net", native=True)) == "tensorflow"
    assert guess(ModelSection(weights=weights, backend="onnx")) == "onnx"


def test_native_is_not_for_torch(tmp_path):
    said = "native is for Keras models, SavedModels and ONNX graphs, not for the torch backend"
    with pytest.raises(RequestError, match=said):
        load(ModelSection(source="a.py:Net", backend="torch", native=True), device="cpu", dtype="float32")
    assert guess(ModelSection(weights=str(make("onnx", tmp_path / "net.onnx")), native=True)) == "onnx"


def test_a_backend_that_is_not_one():
    with pytest.raises(RequestError, match=r"unknown backend 'torhc'\. Did you mean 'torch'"):
        guess(ModelSection(weights="a.pt", backend="torhc"))
