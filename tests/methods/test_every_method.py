"""What must hold for every registered method; a new one is tested by being registered."""

import zlib
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.methods import METHODS, parse_expression
from camsweep.core.relevance.grammar import NAMED

from ..support import SHAPES, Net, inputs, maps
from .references import REFERENCES, letters

NAMES = list(METHODS)
RANKS = [1, 2, 3]
CONCEPTS = torch.tensor([[0.1, 0.9, 0.4, 0.2], [0.8, 0.1, 0.0, 0.5]], dtype=torch.float64)
OFFSET = torch.tensor([-0.2, 0.0, -1.0, 0.1], dtype=torch.float64)
ABOUT_RELUS = ("guided-gradcam", "guided", "deconv")
RELEVANCE = [
    "eps=0.1", "eps=0.25std", "a1b0", "a2b1", "a1.5b0.5", "zplus", "gamma=0.25", "w2", "flat", *NAMED,
    "second.a2b1,eps=0.01", "conv.gamma=1,head.flat,w2", "sec*.w2,first.eps=0.1std", "init=one", "eps=0.1,init=probability",
    *(f"{rule},bias=ignore" for rule in ("z", "eps=0.1", "eps=0.25std", "a2b1", "gamma=0.25", "w2", "flat")),
    *(f"eps=0.1@{first}" for first in ("z", "eps=0.25std", "a2b1", "gamma=0.25", "w2", "flat", "sign=0",
                                       "sign=0.3,eps=0.1std", "sign=0.1/-0.2,eps=0.2", "zbox=-3:3", "zbox=-3/-4:5/3",
                                       "zbox=data", "zbox=caffe")),
    "A@sign=0", "B@flat", "epsilon-plus-flat@w2", *(f"z,bias=ignore@{each}" for each in ("w2", "zbox=-3:3", "sign=0")),
]  # fmt: skip
VARIANTS = {
    "eigencam": [("", {})],
    "fem": [("k=1", {"k": 1.0}), ("k=0.5,compat=pytorch-grad-cam", {"k": 0.5, "compat": True})],
    "kpcacam": [("kernel=rbf,gamma=0.3", {"kernel": "rbf", "gamma": 0.3}), ("kernel=poly", {"kernel": "poly"}),
                ("kernel=linear", {"kernel": "linear"})],
    "finercam": [("alpha=0.6,ranks=2", {"alpha": 0.6, "ranks": (2,)}), ("classes=2.3", {"classes": (2, 3)}),
                 *((f"base={base}", {"base": base}) for base in ("gradcam++", "hirescam", "xgradcam", "layercam"))],
    "refinecam": [("base=gradcam", {"base": "gradcam"})],
    "ablationcam": [("fill=mean", {"fill": "mean"}), ("compat=pytorch-grad-cam", {"compat": True})],
    "scorecam": [("top=2", {"top": 2})],
    "fullgrad": [("compat=pytorch-grad-cam", {"compat": True})],
    "randomcam": [("draw=3", {"draw": 3})],
    "ig": [("steps=5,baseline=0.3", {"steps": 5, "o": 0.3})],
    "smoothgrad": [("n=3,sd=0.05", {"n": 3, "sd": 0.05})],
    "occlusion": [("channels=each,fill=-0.5", {"channels": "each", "fill": -0.5})],
    "rise": [("cells=3,p=0.25", {"n": 20, "cells": 3, "p": 0.25}), ("centred=on", {"n": 20, "centred": True})],
    "lrp": [(text, {"text": text}) for text in RELEVANCE],
}  # fmt: skip
"""Settings other than the defaults, as the grammar and as the references have them."""
FEWER = {"rise": "n=20", "smoothgrad": "n=4", "smoothgrad2": "n=4", "vargrad": "n=4"}
"""Where the default number of draws would only take longer."""
EXPRESSIONS = [(name, "", {}) for name in NAMES] + [
    (name, settings, given) for name, variants in VARIANTS.items() for settings, given in variants if settings
]


def explained(net, x, expression, **more):
    """The one map of an expression: fused methods at both layers, concepts given."""
    name, _, given = expression.partition(":")
    if name in FEWER and "n=" not in given.split(",")[0]:
        expression = f"{name}:{','.join(filter(None, (FEWER[name], given)))}"
    layers = ("first", "second") if parse_expression(expression).fused else ("first",)
    concepts = {} if name != "dff" else {(str(parse_expression(expression)), "first"): (CONCEPTS, OFFSET)}
    dtype = more.get("dtype", "float64")
    concepts = {key: tuple(t.to(getattr(torch, dtype)) for t in each) for key, each in concepts.items()}
    [found] = maps(net, x, [expression], layers, concepts=concepts, **more).values()
    return found


def of_a_run(name, row, draw=0, **_):
    """What the references need and a run settles: the random weights of sample ``row``, concepts."""
    seed = (0, draw, zlib.crc32(b"first"), zlib.crc32(f"{row:06d}".encode()))
    weights = np.random.default_rng(seed).uniform(-1, 1, 4)
    noise, masks = (
        np.random.default_rng((0, zlib.crc32(b"%06d" % row))),
        np.random.default_rng((0, zlib.crc32(b"rise"))),
    )
    return {
        "stream": noise,
        "masks": masks,
        "n": int(FEWER.get(name, "n=0")[2:]),
        "weights": weights,
        "concepts": CONCEPTS.numpy(),
        "offset": OFFSET.numpy(),
    }


def a_net(name, rank):
    """Smooth, so that differences are exact; for what is about ReLUs, with ReLUs."""
    return Net(rank, classes=5, smooth=name not in ABOUT_RELUS)


@cache
def references(name, rank):
    net, x = a_net(name, rank).double(), inputs(rank, 2)
    over = (0, *range(2, x.ndim))
    return [{**letters(net, sample.astype(np.float64)), "data": (x.min(over), x.max(over))} for sample in x]


def test_each_has_a_reference():
    assert set(REFERENCES) == set(METHODS)
    assert set(VARIANTS) <= set(METHODS)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("name", "settings", "given"), EXPRESSIONS, ids=[f"{n}:{s}" for n, s, _ in EXPRESSIONS])
def test_equals_its_reference(name, settings, given, rank):
    found = explained(a_net(name, rank), inputs(rank, 2), f"{name}:{settings}" if settings else name)
    for row, (sample, known) in enumerate(zip(found, references(name, rank), strict=True)):
        expected = REFERENCES[name](**{**known, **of_a_run(name, row, **given), **given})
        assert np.abs(sample.numpy() - expected).max() <= 1e-7 * np.abs(expected).max()
        # Two methods may rightly find nothing in a small layer; else a test of zeros would test nothing.
        assert expected.any() or name in ("fem", "gradcam", "finercam", "shapleycam", "guided-gradcam", "refinecam")


@pytest.mark.parametrize("rank", RANKS)
def test_times_input(rank):
    [found] = maps(a_net("grad", rank), inputs(rank, 2), ["grad+input"]).values()
    for sample, known in zip(found, references("grad", rank), strict=True):
        expected = known["g"] * known["x"]
        assert np.abs(sample.numpy() - expected).max() <= 1e-7 * np.abs(expected).max()


class Lifted(nn.Module):
    """A 1-D net whose convolutions are of a higher rank, one point wide along the added axes."""

    def __init__(self, net, rank):
        super().__init__()
        added = rank - 1
        for name in ("first", "second"):
            thin = getattr(net, name)
            conv = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
            fat = conv(
                thin.in_channels,
                thin.out_channels,
                (*thin.kernel_size, *[1] * added),
                (*thin.stride, *[1] * added),
                (*thin.padding, *[0] * added),
            )
            fat.weight.data = thin.weight.data.reshape(*thin.weight.shape, *[1] * added)
            fat.bias.data = thin.bias.data
            setattr(self, name, fat)
        self.head, self.act, self.tail = net.head, net.act, lambda activation: Net.tail(self, activation)

    def forward(self, x):
        return self.tail(self.first(x))


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_a_picture_of_width_one_and_a_volume_of_one_by_one(name, rank):
    net, x = Net(1), inputs(1)
    flat = explained(net, x, name)
    lifted = explained(Lifted(net, rank), x.reshape(*x.shape, *[1] * (rank - 1)), name)
    assert torch.allclose(lifted.reshape(flat.shape), flat, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_map_does_not_depend_on_its_batch_mates(name, rank):
    net, x = Net(rank), inputs(rank, 64)
    x[::3] *= 100  # loud mates must not matter
    whole = explained(net, x, name)
    for size in (1, 7):
        starts = range(0, 64, size)
        ids = [[f"{row:06d}" for row in range(i, min(64, i + size))] for i in starts]
        got = torch.cat([explained(net, x[i : i + size], name, ids=each) for i, each in zip(starts, ids, strict=True)])
        largest = whole.abs().flatten(1).amax(1).reshape(-1, *[1] * (whole.ndim - 1))
        # A convolution may sum in another order for another batch size; nothing else may differ. (In float64, since
        # Grad-CAM++ has poles where 2 + G sum(A) is near 0, and there magnifies the last bits a hundredfold.)
        assert ((got - whole).abs() <= 1e-12 * largest).all()


@pytest.mark.parametrize("name", [name for name in NAMES if not parse_expression(name).fused and name != "dff"])
def test_several_layers_in_one_pass_equal_each_alone(name):
    net, x = Net(2), inputs(2)
    together = maps(net, x, [name], ["first", "second"])
    for (expression, layer), found in together.items():
        alone = maps(net, x, [expression], [layer] if layer else ["first"])
        assert torch.equal(alone[expression, layer], found)


@pytest.mark.parametrize("name", [n for n in NAMES if "relu" in METHODS[n].keys and not parse_expression(n).fused])
def test_relu_cuts_what_the_signed_map_has_below_zero(name):
    net, x = Net(2, smooth=True), inputs(2)
    cut = explained(net, x, f"{name}:relu=on")
    signed = explained(net, x, f"{name}:relu=off")
    assert torch.equal(cut, signed.relu())
    assert signed.min() < 0 or name == "gradcam-elementwise"


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_tiny_gradients_give_finite_maps(name):
    x = inputs(2)
    net = Net(2)
    for scale in (0.0, 1e-12):
        with torch.no_grad():
            net.head.weight.mul_(scale)
        found = explained(net, x, name, dtype="float32")
        assert torch.isfinite(found).all()
        if scale == 0.0 and set("GgD") & set(METHODS[name].asks):
            assert (found == 0).all()
        net = Net(2)


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "xgradcam", "layercam", "gradcam-elementwise", "shapleycam"])
def test_small_gradients_are_not_swamped(name):
    """Methods linear in the gradient keep the shape of their map at any scale of the score."""
    x, net, small = inputs(2), Net(2), Net(2)
    with torch.no_grad():
        small.head.weight.mul_(1e-10)
        small.head.bias.mul_(1e-10)
    [found] = maps(net, x, [name], target=1).values()
    [tiny] = maps(small, x, [name], target=1).values()
    assert torch.allclose(tiny * 1e10, found, rtol=1e-6, atol=0)


def test_shapes_follow_the_layer_and_the_input():
    for rank in RANKS:
        for name in NAMES:
            values, method = explained(Net(rank), inputs(rank), name), METHODS[name]
            own = tuple(-(-size // 2) for size in SHAPES[rank][1:])
            at_input = parse_expression(name).fused or not method.layered
            expected = (3, *SHAPES[rank][1:]) if at_input else (3, *own)
            expected = (3, 2, *own) if method.concepts else (3, *SHAPES[rank]) if method.per_channel else expected
            assert values.shape == expected, name
