"""Layers that a file holds in pieces are found again, however they are written; what is not one of them is left."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from torch import nn
from torch.nn import functional as F

from camsweep.backends.onnx.importing import network
from camsweep.tests.backends.onnx.graphs import graph, leaves, tensor, values

S = np.float32
CONSTANTS = {
    "half": S(0.5), "one": S(1), "two": S(2), "three": S(3), "six": S(6), "zero": S(0), "cube": S(0.044715), "root2": S(math.sqrt(2)),
    "inv": S(1 / math.sqrt(2)), "tau": S(math.sqrt(2 / math.pi)), "sixth": S(1 / 6), "fifth": S(0.2), "minus": S(-1),
}  # fmt: skip
ACTIVATIONS = {
    "gelu, by torch": ("a = Div (x, root2) \n b = Erf (a) \n c = Add (b, one) \n d = Mul (x, c) \n y = Mul (d, half)", nn.GELU, F.gelu),
    "gelu, another way": ("h = Mul (half, x) \n a = Mul (x, inv) \n b = Erf (a) \n c = Add (one, b) \n y = Mul (h, c)", nn.GELU, F.gelu),
    "gelu, by tf2onnx": ("n = Neg (x) \n a = Mul (n, inv) \n b = Erfc (a) \n h = Mul (x, half) \n y = Mul (h, b)", nn.GELU, F.gelu),
    "gelu, tanh": (
        "p = Pow (x, three) \n c = Mul (p, cube) \n s = Add (x, c) \n m = Mul (s, tau) \n t = Tanh (m) \n o = Add (t, one) \n g = Mul (x, o) \n y = Mul (g, half)",
        nn.GELU, lambda x: F.gelu(x, approximate="tanh"),
    ),
    "gelu, tanh, by products": (
        "q = Mul (x, x) \n p = Mul (q, x) \n c = Mul (cube, p) \n s = Add (c, x) \n m = Mul (tau, s) \n t = Tanh (m) \n o = Add (one, t) \n h = Mul (half, x) \n y = Mul (h, o)",
        nn.GELU, lambda x: F.gelu(x, approximate="tanh"),
    ),
    "silu": ("s = Sigmoid (x) \n y = Mul (x, s)", nn.SiLU, F.silu),
    "silu, by a quotient": ("n = Neg (x) \n e = Exp (n) \n o = Add (e, one) \n y = Div (x, o)", nn.SiLU, F.silu),
    "sigmoid": ("n = Neg (x) \n e = Exp (n) \n o = Add (e, one) \n y = Reciprocal (o)", nn.Sigmoid, torch.sigmoid),
    "hardswish": ("a = Add (x, three) \n c = Clip (a, zero, six) \n m = Mul (x, c) \n y = Div (m, six)", nn.Hardswish, F.hardswish),
    "hardswish, by a gate": ("a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) \n y = Mul (x, a)", nn.Hardswish, F.hardswish),
    "hardsigmoid": ("a = Add (x, three) \n c = Clip (a, zero, six) \n y = Mul (c, sixth)", nn.Hardsigmoid, F.hardsigmoid),
    "mish": ("p = Softplus (x) \n t = Tanh (p) \n y = Mul (x, t)", nn.Mish, F.mish),
    "relu, by a maximum": ("y = Max (zero, x)", nn.ReLU, F.relu),
    "relu, by a clip": ("y = Clip (x, zero)", nn.ReLU, F.relu),
}  # fmt: skip


def imported(body, shape="n,5", outputs=None, **arrays):
    return network(
        graph(body, inputs=f"float[{shape}] x", outputs=f"float[{outputs or shape}] y", **CONSTANTS, **arrays)
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    body, kind, function = ACTIVATIONS[name]
    found = imported(body)
    assert [type(step.run) for step in found.steps] == [kind]
    x = 3 * tensor(4, 5)
    assert torch.allclose(found(x), function(x), atol=2e-6)


def test_an_activation_behind_others_is_found_and_they_stay():
    found = imported("r = Tanh (x) \n s = Sigmoid (r) \n m = Mul (r, s) \n y = Add (m, s)")
    assert sorted(leaves(found).values()) == ["Add", "SiLU", "Sigmoid", "Tanh"]
    x = tensor(4, 5)
    assert torch.allclose(found(x), F.silu(torch.tanh(x)) + torch.sigmoid(torch.tanh(x)), atol=1e-6)


@pytest.mark.parametrize(
    "body", ["s = Sigmoid (x) \n t = Mul (s, two) \n y = Mul (x, t)", "a = Erf (x) \n y = Mul (x, a)"]
)
def test_what_only_looks_like_one_is_left(body):
    assert len(imported(body).steps) > 1


LAYER_NORMS = {
    "by torch": "m = ReduceMean <axes = [-1]> (x) \n c = Sub (x, m) \n q = Pow (c, two) \n v = ReduceMean <axes = [-1]> (q) \n e = Add (v, eps) \n s = Sqrt (e) \n n = Div (c, s) \n g = Mul (n, w) \n y = Add (g, b)",
    "by products": "m = ReduceMean <axes = [2]> (x) \n c = Sub (x, m) \n q = Mul (c, c) \n v = ReduceMean <axes = [2]> (q) \n e = Add (eps, v) \n s = Sqrt (e) \n r = Reciprocal (s) \n n = Mul (c, r) \n g = Mul (w, n) \n y = Add (b, g)",
    "by keras": "m = ReduceMean <axes = [-1]> (x) \n c = Sub (x, m) \n q = Mul (c, c) \n v = ReduceMean <axes = [-1]> (q) \n e = Add (v, eps) \n s = Sqrt (e) \n r = Reciprocal (s) \n k = Mul (r, w) \n xk = Mul (x, k) \n mk = Mul (m, k) \n o = Sub (b, mk) \n y = Add (xk, o)",
}  # fmt: skip


@pytest.mark.parametrize("name", LAYER_NORMS)
@pytest.mark.parametrize("shape", ["n,4,6", "n,t,6"])
def test_layer_norms(name, shape):
    w, b = values(6, seed=1), values(6, seed=2)
    body = LAYER_NORMS[name]
    model = graph(
        body, opset=17, inputs=f"float[{shape}] x", outputs=f"float[{shape}] y", eps=S(1e-3), w=w, b=b, **CONSTANTS
    )
    found = network(model)
    assert [type(step.run) for step in found.steps] == [nn.LayerNorm]
    assert found.steps[0].run.eps == pytest.approx(1e-3)
    x = tensor(2, 4, 6)
    assert torch.allclose(found(x), F.layer_norm(x, (6,), torch.from_numpy(w), torch.from_numpy(b), 1e-3), atol=1e-5)


def test_a_layer_norm_without_weights():
    body = LAYER_NORMS["by torch"].replace("n = Div", "y = Div").partition("\n g =")[0]
    model = graph(body, opset=17, inputs="float[n,4,6] x", outputs="float[n,4,6] y", eps=S(1e-3), **CONSTANTS)
    assert [type(step.run) for step in network(model).steps] == [nn.LayerNorm]


def kinds(found):
    return [type(step.run).__name__ for step in found.steps]


def test_biases_behind_layers_become_theirs():
    w, m, c, d = values(4, 3, 3, 3), values(6, 5), values(4, 1, 1), values(5)
    body = "a = Conv (x, w) \n b = Add (c, a) \n t = ReduceMean <keepdims = 0> (b, axes) \n u = MatMul (t, n) \n v = Add (u, e) \n k = MatMul (v, m) \n y = Add (k, d)"
    found = network(graph(body, w=w, c=c, n=values(4, 6), e=values(6), m=m, d=d, axes=np.array([2, 3])))
    assert kinds(found) == ["Conv2d", "ReduceMean", "Linear", "Linear"]
    x = tensor(2, 3, 8, 8)
    t = {k: torch.from_numpy(v) for k, v in {"w": w, "c": c, "n": values(4, 6), "e": values(6), "m": m, "d": d}.items()}
    assert torch.allclose(
        found(x), ((F.conv2d(x, t["w"]) + t["c"]).mean((2, 3)) @ t["n"] + t["e"]) @ t["m"] + t["d"], atol=1e-4
    )


def test_a_batch_norm_in_pieces():
    w, g, b, m, s = values(4, 3, 3, 3), *(values(4, 1, 1, seed=i) for i in range(4))
    body = "a = Conv (x, w) \n c = Sub (a, m) \n d = Div (c, s) \n e = Mul (g, d) \n f = Add (e, b) \n y = Relu (f)"
    found = network(graph(body, outputs="float[n,4,6,6] y", w=w, g=g, b=b, m=m, s=s))
    assert kinds(found) == ["Conv2d", "BatchNorm2d", "ReLU"]
    x = tensor(2, 3, 8, 8)
    w, g, b, m, s = map(torch.from_numpy, (w, g, b, m, s))
    assert torch.allclose(found(x), ((F.conv2d(x, w) - m) / s * g + b).relu(), rtol=1e-4, atol=1e-4)


def test_what_is_used_twice_or_shown_stays_as_it_is():
    body = "a = Conv (x, w) \n b = Add (a, c) \n d = Relu (a) \n y = Add (b, d)"
    assert kinds(network(graph(body, outputs="float[n,4,8,8] y", w=values(4, 3, 1, 1), c=values(4, 1, 1)))) == [
        "Conv2d",
        "Add",
        "ReLU",
        "Add",
    ]
    body = "a = Conv (x, w) \n y = Mul (a, c)"
    model = graph(body, outputs="float[n,4,8,8] y, float[n,4,8,8] a", w=values(4, 3, 1, 1), c=values(4, 1, 1))
    assert kinds(network(model)) == ["Conv2d", "Mul"]


def test_sums_that_are_no_bias():
    body = "a = Conv (x, w) \n y = Add (a, c)"
    for c in (values(4, 8, 8), values(8), values(1, 1, 1, 8)):
        assert kinds(network(graph(body, outputs="float[n,4,8,8] y", w=values(4, 3, 1, 1), c=c))) == ["Conv2d", "Add"]


@pytest.mark.parametrize("guarded", [True, False])
def test_rows_that_are_masked_have_a_gradient(guarded):
    """A mask of -inf that hides a whole row makes nan of it, which a later choice takes out, but not from a gradient."""
    mask = np.zeros((4, 4), "float32")
    mask[0], mask[1, 2:] = -np.inf, -np.inf
    body = "a = Add (x, m) \n s = Softmax (a) \n"
    body += (
        "i = IsNaN (s) \n c = Where (i, zero, s) \n y = MatMul (c, w)"
        if guarded
        else "p = Slice (s, b, e) \n y = MatMul (p, w)"
    )
    arrays = {"m": mask, "w": values(4, 2), "b": np.array([1]), "e": np.array([9])}
    found = (
        imported(body, "n,4,4", "n,k,2", **arrays)
        if guarded
        else imported(body.replace("b, e)", "b, e, b)"), "n,4,4", "n,k,2", **arrays)
    )
    x = tensor(2, 4, 4).double().requires_grad_()
    y = found.double()(x)
    assert torch.isfinite(y).all()
    [gradient] = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 1:].abs().sum() > 0
    assert (gradient[:, 0] == 0).all()
