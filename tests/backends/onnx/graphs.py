"""Small graphs, written as text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import numpy_helper


def graph(body: str, *, opset: int = 20, inputs: str = "float[n,3,8,8] x", outputs: str = "float[n,k] y", **arrays):
    """A model with ``body`` as its nodes and ``arrays`` as its constants."""
    text = f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1, "elsewhere" : 1]>\ng ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def named(model, *names: str):
    """The nodes called so."""
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return model


def values(*shape: int, seed: int = 0, dtype="float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def tensor(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.from_numpy(values(*shape, seed=seed))


def leaves(network) -> dict[str, str]:
    """The layers by name, and their kinds."""
    return {name: type(each).__name__ for name, each in network.named_modules() if name and not any(each.children())}


def classifier(**more):
    """conv -> relu -> mean -> linear, for images of three channels."""
    settings = {"w": values(4, 3, 3, 3), "b": values(4), "m": values(4, 5), "c": values(5), **more}
    body = """
        conv = Conv <pads = [1,1,1,1]> (x, w, b)
        act = Relu (conv)
        mean = GlobalAveragePool (act)
        flat = Flatten (mean)
        y = Gemm (flat, m, c)
    """
    names = ("/stem/conv/Conv", "/stem/relu/Relu", "/pool/GlobalAveragePool", "/Flatten", "/head/Gemm")
    return named(graph(body, **settings), *names)


def saved(model, folder, name: str = "model.onnx"):
    path = folder / name
    onnx.save(model, path)
    return path
