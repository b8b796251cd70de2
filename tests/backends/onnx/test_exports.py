"""Nets of many kinds, exported by torch's two exporters, imported again: they give the same, and so do gradients."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("onnx")

from camsweep.backends.onnx.batches import settle_batches
from camsweep.backends.onnx.checking import check, likely
from camsweep.backends.onnx.importing import network
from camsweep.tests.backends.onnx.nets import NETS, exported, net

TOLERANCE = 1e-5
NEEDS_14 = ("vit", "vit-mean", "signals")
PIECES = ("mobilenet", "windows", "mixed", "unet-bilinear")
FEW = ("windows",)
"""The newer exporter takes seconds for each; it tells scopes in its own way."""


def compare(name, imported):
    module, x = net(name)
    ours, theirs = (torch.from_numpy(x).requires_grad_() for _ in range(2))
    y, wanted = imported(ours), module(theirs)
    slope = torch.linspace(1, 2, wanted.numel()).reshape(wanted.shape)
    [g] = torch.autograd.grad((y * slope).sum(), ours)
    [expected] = torch.autograd.grad((wanted * slope).sum(), theirs)
    assert (y - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert (g - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", NETS)
def test_the_older_exporter(name):
    compare(name, network(exported(name, False, 20)))


@pytest.mark.parametrize(
    "name", [n if n in PIECES else pytest.param(n, marks=pytest.mark.full) for n in NETS if n not in NEEDS_14]
)
def test_the_older_exporter_of_an_older_opset(name):
    """Which knows neither layer norms nor half of the activations."""
    compare(name, network(exported(name, False, 13)))


@pytest.mark.parametrize("name", NETS)
def test_fixed_batches_are_lifted(name):
    """A file made for one sample computes any number of them at once, and onnxruntime agrees."""
    pytest.importorskip("onnxruntime")
    model = exported(name, False, 20, batch=1)
    imported = network(model)
    tensors = likely(imported)
    settle_batches(imported, tensors)
    assert imported.chunk is None
    check(model, imported, tensors, name)
    compare(name, imported)


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.full) for n in NETS])
def test_the_newer_exporter(name):
    pytest.importorskip("onnxscript")
    fixed = name == "vit"  # which asks for the length of its input, and so for a fixed one
    compare(name, network(exported(name, True, 20, batch=1 if fixed else None)))
