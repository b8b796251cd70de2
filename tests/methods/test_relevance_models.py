"""Relevance does not depend on how a model is written: layers, sums, norms and activations in every spelling."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from ..support import CONV, inputs
from . import path_references
from .test_relevance import (
    FIRSTS,
    RANKS,
    RULES,
    WHOLE,
    Twice,
    alike,
    explained,
    far,
    is_its_reference,
    near,
    normal,
    plain,
    recorded,
    sums,
)

# Whatever the model is written like


def test_a_layer_used_again_is_several():
    alike(Twice(), Twice(shared=False), inputs(1), *(text for text in WHOLE if "data" not in text))


class Residual(nn.Module):
    """Sums in every spelling, with and without ReLUs behind."""

    def __init__(self, rank, *, bias=False, keep=lambda h: h):
        super().__init__()
        torch.manual_seed(rank)
        self.keep = keep
        self.stem = CONV[rank](2, 4, 3, padding=1, bias=bias)
        self.blocks = nn.ModuleList(CONV[rank](4, 4, 3, padding=1, bias=bias) for _ in range(6))
        self.head = nn.Linear(4, 3, bias=bias)

    def forward(self, x):
        a, b, c, d, e, f = self.blocks
        h = self.stem(x)
        h = h + torch.relu(a(h))
        h = F.relu(torch.add(h, b(h)), inplace=True)
        h = self.keep(h)
        h += c(self.keep(h)).relu_()
        h.add_(d(self.keep(h)))
        h = h.sub(e(h)).relu()
        return self.head((h - 0.5 * f(h)).flatten(2).mean(2))


@pytest.mark.parametrize("rank", RANKS)
def test_residual_sums_keep_what_there_is(rank):
    net, x = Residual(rank), inputs(rank)
    for found in recorded(net, x, "z", "gamma=0.25", "eps=0.0000000001", "z@flat", "gamma=1@w2", "z@zbox=-4:4"):
        assert np.allclose(sums(found), plain(net, x)[:, 1], rtol=1e-6)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("bias", [True, False])
def test_with_relus_lrp_z_is_the_input_times_the_gradient_along_residuals_too(rank, bias):
    x, same = inputs(rank), Residual(rank, bias=bias, keep=torch.clone)  # autograd wants what is overwritten
    gradient = path_references.gradients(same, x, 1)
    near(recorded(Residual(rank, bias=bias), x, "z")[0], x * gradient, 1e-9)


ACTIVATIONS = {
    "relu": (nn.ReLU(), [F.relu, torch.relu, lambda h: h.relu(), lambda h: F.relu(h, True), lambda h: h.relu_(), F.relu_,
                         torch.relu_, nn.ReLU(inplace=True), lambda h: h.clamp(min=0), lambda h: h.clamp_(0)]),
    "gelu": (nn.GELU(), [F.gelu, lambda h: F.gelu(h, approximate="none")]),
    "gelu-tanh": (nn.GELU("tanh"), [lambda h: F.gelu(h, approximate="tanh")]),
    "silu": (nn.SiLU(), [F.silu, lambda h: F.silu(h, True), nn.SiLU(inplace=True), torch.nn.functional.silu]),
    "tanh": (nn.Tanh(), [torch.tanh, lambda h: h.tanh(), lambda h: h.tanh_(), F.tanh, torch.tanh_]),
    "elu": (nn.ELU(), [F.elu, lambda h: F.elu(h, 1.0, True), lambda h: F.elu(h, inplace=True), F.elu_, nn.ELU(inplace=True)]),
    "leaky": (nn.LeakyReLU(0.2), [lambda h: F.leaky_relu(h, 0.2), lambda h: F.leaky_relu(h, 0.2, True),
                                  lambda h: F.leaky_relu_(h, 0.2), nn.LeakyReLU(0.2, inplace=True)]),
    "sigmoid": (nn.Sigmoid(), [torch.sigmoid, lambda h: h.sigmoid(), lambda h: h.sigmoid_(), F.sigmoid, torch.special.expit]),
    "hardtanh": (nn.Hardtanh(), [F.hardtanh, lambda h: F.hardtanh(h, -1.0, 1.0, True), lambda h: h.clamp(-1, 1), F.hardtanh_]),
    "relu6": (nn.ReLU6(), [F.relu6, lambda h: F.relu6(h, True), lambda h: h.clamp(0, 6)]),
    "hardswish": (nn.Hardswish(), [F.hardswish, lambda h: F.hardswish(h, True)]),
    "selu": (nn.SELU(), [F.selu, lambda h: F.selu(h, True), F.selu_, torch.selu]),
    "celu": (nn.CELU(), [F.celu, lambda h: F.celu(h, 1.0, True), torch.celu]),
    "mish": (nn.Mish(), [F.mish, lambda h: F.mish(h, True)]),
    "softplus": (nn.Softplus(), [F.softplus]),
    "threshold": (nn.Threshold(0.1, 0.2), [lambda h: F.threshold(h, 0.1, 0.2), lambda h: F.threshold(h, 0.1, 0.2, True)]),
    "softsign": (nn.Softsign(), [F.softsign]),
    "logsigmoid": (nn.LogSigmoid(), [F.logsigmoid]),
}  # fmt: skip


class Acting(nn.Module):
    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 5, 3, stride=2), nn.Linear(5, 3)
        self.act = act

    def forward(self, x):
        return self.head(self.act(self.second(self.act(self.first(x)))).mean(2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_function_and_in_place_are_the_modules(name):
    """And elementwise: the reference, whose activation only lets relevance through, agrees."""
    module, others = ACTIVATIONS[name]
    x, texts = inputs(1), ["z", "eps=0.25std", "first.a2b1,gamma=0.1", "gamma=0.25@sign=0"]
    net = Acting(module).double()
    [found, *_] = recorded(net, x, *texts)
    steps = nn.Sequential(net.first, module, net.second, module, nn.AvgPool1d(10), nn.Flatten(), net.head)
    is_its_reference(steps, x[:1], ["z"], 1e-10)
    near(found, explained(steps, x, "z")[0], 1e-12)
    for other in others:
        alike(Acting(other), net, x, *texts, share=0)


def folded(layer, norm):
    """By torch's own fusion; of a transposed convolution by its definition, W' = W g / sqrt(v + e)."""
    if isinstance(layer, nn.Linear):
        return fusion.fuse_linear_bn_eval(layer, norm)
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return fusion.fuse_conv_bn_eval(layer, norm)
    found, scale = copy.deepcopy(layer), norm.weight / torch.sqrt(norm.running_var + norm.eps)
    size = layer.out_channels // layer.groups
    with torch.no_grad():
        for o in range(layer.out_channels):
            group = slice(*(i * layer.in_channels // layer.groups for i in (o // size, o // size + 1)))
            found.weight[group, o % size] *= scale[o]
        found.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
    return found


NORMED = {
    "conv1d": ((2, 11), nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4)),
    "conv2d": ((2, 6, 5), nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)),
    "conv3d": ((2, 4, 3, 5), nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)),
    "groups": ((4, 11), nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6, eps=0.1)),
    "transposed": ((2, 7), nn.ConvTranspose1d(2, 4, 3, stride=2), nn.BatchNorm1d(4)),
    "transposed, groups": ((4, 3, 4), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
    "linear": ((8, 1), nn.Linear(8, 4), nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("name", NORMED)
def test_a_batch_norm_is_one_with_what_it_stands_behind(name):
    """As the first layer, and further down."""
    shape, layer, norm = copy.deepcopy(NORMED[name])
    before = [nn.Flatten()] if name == "linear" else []
    start = nn.Sequential(*before, layer, norm)
    with torch.no_grad():
        size = start.eval()(torch.zeros(1, *shape)).numel()
    net = normal(
        nn.Sequential(
            *start, nn.ReLU(), nn.Flatten(), nn.Linear(size, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)
        )
    )
    n = len(start)
    merged = nn.Sequential(
        *before, folded(net[n - 2], net[n - 1]), *net[n : n + 2], folded(*net[n + 2 : n + 4]), *net[n + 4 :]
    )
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    firsts = ["w2", "flat", "sign=0", "sign=0.1,eps=0.25std", "gamma=0.25", *(["zbox=-4:4"] if not before else [])]
    alike(net, merged, x, *RULES, "A", "a2b1,bias=ignore", *(f"eps=0.1@{first}" for first in firsts), share=1e-9)


def test_a_batch_norm_that_others_pass_by_is_one_with_its_convolution_alone():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 3)
            self.other = copy.deepcopy(self.conv)

        def forward(self, x):
            h = self.conv(x)
            return self.head(torch.relu(self.norm(h) + self.skip(x, h)).mean(2))

        def skip(self, x, h):
            return h

    class Apart(Both):
        def skip(self, x, h):
            return self.other(x)

    one, two = normal(Both()), normal(Apart())
    two.load_state_dict(one.state_dict())
    two.other.load_state_dict(one.conv.state_dict())
    merged = copy.deepcopy(two)
    merged.conv, merged.norm = folded(two.conv, two.norm), nn.Identity()
    alike(one, two, inputs(1), *RULES, "z@flat", "eps=0.1@sign=0", "z@zbox=-4:4")
    alike(two, merged, inputs(1), *RULES, "z@flat", "eps=0.1@sign=0", "z@zbox=-4:4")


# Where the input is first weighted


class Early(nn.Module):
    """What lies before the first weighted operator: nothing of it is the model's to explain."""

    def __init__(self, before, width=2, rank=2):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(5, 3)  # registered first, run last
        self.conv, self.next = CONV[rank](width, 4, 3), CONV[rank](4, 5, 3)
        self.before = before

    def forward(self, x):
        h = torch.relu(self.next(torch.relu(self.conv(self.before(x)))))
        return self.head(h.flatten(2).mean(2))


def test_the_input_rule_is_that_of_the_layer_that_runs_first():
    ours, other = Early(nn.Identity()), nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
                                                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))  # fmt: skip
    for i, layer in ((0, ours.conv), (2, ours.next), (6, ours.head)):
        other[i].load_state_dict(layer.state_dict())
    alike(ours, other, inputs(2), *(f"A@{first}" for first in FIRSTS))


MEAN, DEVIATION = torch.tensor([0.5, -0.25]).reshape(2, 1, 1), torch.tensor([0.25, 2.0]).reshape(2, 1, 1)


def written(x):
    x[:, 0] = (x[:, 0] - 0.5) / 0.25
    x[:, 1] += 0.25
    x[:, 1] /= 2.0
    return x


NORMALISED = {
    "arithmetic": lambda x: (x - MEAN.to(x)) / DEVIATION.to(x),
    "in place": lambda x: x.sub_(MEAN.to(x)).div_(DEVIATION.to(x)),
    "channels": lambda x: torch.stack([(x[:, 0] - 0.5) / 0.25, (x[:, 1] + 0.25) / 2.0], 1),
    "written": written,
    "batch norm": lambda x: F.batch_norm(x, MEAN.to(x).flatten(), DEVIATION.to(x).flatten() ** 2, eps=0.0),
}


def normalised(x):
    return ((torch.from_numpy(x).double() - MEAN) / DEVIATION).numpy()


@pytest.mark.parametrize("how", NORMALISED)
def test_what_normalises_the_input_hands_relevance_on_as_it_is(how):
    """And SIGN's multiplier as a gradient, its sign being the input's own."""
    x, texts = inputs(2), ["A@flat", "A@w2", "A@a2b1", "A@z", "A@eps=0.25std"]
    outside, inside = Early(nn.Identity()), Early(NORMALISED[how])
    for found, expected in zip(recorded(inside, x, *texts), explained(outside, normalised(x), *texts), strict=True):
        near(found, expected, 1e-9)
    [found], [expected] = recorded(inside, x, "A@sign=0.1"), explained(outside, normalised(x), "A@sign=-20")
    near(found, np.where(x < 0.1, -1, 1) * expected / DEVIATION.numpy(), 1e-9)


@pytest.mark.parametrize("how", NORMALISED)
def test_bounds_are_those_of_the_input(how):
    """Of what the model makes of it, those that it makes of them: (-4 - 0.5) / 0.25, (-5 + 0.25) / 2."""
    [found] = recorded(Early(NORMALISED[how]), inputs(2), "A@zbox=-4/-5:6/4")
    [expected] = explained(Early(nn.Identity()), normalised(inputs(2)), "A@zbox=-18/-2.375:22/2.125")
    near(found, expected, 1e-9)


@pytest.mark.parametrize("how", NORMALISED)
def test_without_an_input_rule_what_normalises_the_input_takes_its_share(how):
    x = inputs(2)
    [found], [expected] = recorded(Early(NORMALISED[how]), x, "A"), explained(Early(nn.Identity()), normalised(x), "A")
    near(found, expected * x / (x - MEAN.numpy().astype(float)), 1e-9)


def test_reshaped_inputs_are_the_inputs():
    class Last(nn.Module):
        """A convolution by one point as a linear layer on channels that come last."""

        def __init__(self, conv):
            super().__init__()
            self.weight, self.bias = nn.Parameter(conv.weight[:, :, 0, 0].detach().clone()), conv.bias

        def forward(self, x):
            return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    rows, columns = Early(nn.Identity()), Early(nn.Identity())
    rows.conv = nn.Conv2d(2, 4, 1)
    columns.conv = Last(rows.conv)
    alike(rows, columns, inputs(2), "z", "eps=0.25std", "a2b1", *(f"eps=0.1@{first}" for first in FIRSTS))


def test_a_flattened_input_is_the_input():
    torch.manual_seed(0)
    flat, x = nn.Sequential(nn.Flatten(), nn.Linear(252, 5), nn.ReLU(), nn.Linear(5, 3)), inputs(2)
    whole = nn.Sequential(nn.Conv2d(2, 5, (9, 14)), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3))
    whole[0].weight.data, whole[0].bias.data = flat[1].weight.data.reshape(5, 2, 9, 14).clone(), flat[1].bias.data
    whole[3].load_state_dict(flat[3].state_dict())
    alike(flat, whole, x, "z", "eps=0.25std", "a2b1", *(f"eps=0.1@{first}" for first in FIRSTS))


class Inner(Early):
    """What lies before the second weighted operator instead."""

    def forward(self, x):
        h = torch.relu(self.next(self.before(torch.relu(self.conv(x)))))
        return self.head(h.flatten(2).mean(2))


@pytest.mark.parametrize("pad", [nn.ZeroPad2d(1), lambda h: F.pad(h, (1, 1, 1, 1)), nn.ConstantPad2d(1, 0.0)])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("texts", [FIRSTS, RULES])
def test_zeros_around_are_those_of_a_convolution(pad, inside, texts):
    """But for a deviation of the layer's own input, which is one over the zeros too."""
    texts = [f"A@{text}" if texts is FIRSTS else text for text in texts if "std" not in text]
    padded, own = (Inner(pad), Inner(nn.Identity())) if inside else (Early(pad), Early(nn.Identity()))
    layer = "next" if inside else "conv"
    setattr(own, layer, nn.Conv2d(*(4, 5, 3) if inside else (2, 4, 3), padding=1))
    getattr(own, layer).load_state_dict(getattr(padded, layer).state_dict())
    alike(padded, own, inputs(2), *texts)


class Fork(nn.Module):
    """Two stems, and the input itself beside what they made of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv1d(2, 4, 3, padding=1, bias=False), nn.Conv1d(2, 4, 5, padding=2, bias=False)
        self.mix, self.head = nn.Conv1d(10, 5, 3, bias=False), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        h = torch.cat([torch.relu(self.one(x)), torch.relu(self.two(x)), x], 1)
        return self.head(torch.relu(self.mix(h)).mean(2))


def test_an_input_used_twice_gets_what_both_uses_give():
    net, x = Fork(), inputs(1)
    R, *others = recorded(net, x, "z", "z@flat", "z@w2", "z@zbox=-4:4")
    near(R, x * path_references.gradients(net, x, 1), 1e-9)
    for found in others:
        assert np.allclose(sums(found), plain(net, x)[:, 1], rtol=1e-9)


def test_lrp_sign_of_an_input_that_passes_by_the_first_layers_too():
    R, sign = recorded(Fork(), inputs(1), "z", "z@sign=0")
    near(sign, np.sign(inputs(1)) * R / inputs(1).astype(float), 1e-12)


def test_layers_by_the_beginning_or_a_pattern_of_their_names():
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.ReLU()))
    net.add_module("end", nn.Sequential(nn.Flatten(), nn.Linear(76, 4), nn.ReLU(), nn.Linear(4, 3)))
    same = ["conv.a2b1,eps=0.1", "features.a2b1,eps=0.1", "features.*.a2b1,dense.eps=0.1", "features.0.a2b1,*.2.a2b1,eps=0.1",
            "end.eps=0.1,a2b1", "end.1.eps=0.1,*.3.eps=0.1,features.2.a2b1,features.0.a2b1"]  # fmt: skip
    first, *others = recorded(net, inputs(1), *same)
    for other in others:
        near(first, other, 0)
    far(first, recorded(net, inputs(1), "features.0.a2b1,eps=0.1")[0])


class Written(nn.Module):
    """A model that writes over parts of its activations, or says the same without."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 4, 3), nn.Linear(4, 3)
        self.change = change

    def forward(self, x):
        h = self.change(torch.relu(self.first(x)))
        return self.head(torch.relu(self.second(h)).mean(2))


def of_parts(*functions):
    """The four channels, each by a function."""
    return lambda h: torch.stack([function(h[:, i]) for i, function in enumerate(functions)], 1)


def same(h):
    return h


def tanh_there(h):
    h[:, 0] = h[:, 0].tanh()
    return h


def scaled_there(h):
    h[:, 1:3] *= 2.0
    return h


def added_there(h):
    h[:, 1] += h[:, 0]
    return h


def through_a_view(h):
    h[:, 0].tanh_()
    return h


def through_a_slice(h):
    h.narrow(1, 1, 2).mul_(2.0)
    return h


def through_a_reshape(h):
    h.view(len(h), -1).tanh_()
    return h


def through_a_chunk(h):
    a, b = h.chunk(2, 1)
    a.add_(b)
    return h


def into_a_buffer(h):
    found = h.new_zeros(h.shape)
    found[:, :2] = h[:, :2]
    found[:, 2:] = h[:, 2:].tanh()
    return found


def into_a_buffers_view(h):
    found = h.new_zeros(h.shape)
    found[:, :2].copy_(h[:, :2])
    found[:, 2:].copy_(h[:, 2:].tanh())
    return found


WRITTEN = {
    "item": (tanh_there, of_parts(torch.tanh, same, same, same)),
    "scaled item": (scaled_there, of_parts(same, lambda h: 2 * h, lambda h: 2 * h, same)),
    "added item": (added_there, lambda h: torch.stack([h[:, 0], h[:, 1] + h[:, 0], h[:, 2], h[:, 3]], 1)),
    "view": (through_a_view, of_parts(torch.tanh, same, same, same)),
    "slice": (through_a_slice, of_parts(same, lambda h: 2 * h, lambda h: 2 * h, same)),
    "reshape": (through_a_reshape, torch.tanh),
    "chunk": (through_a_chunk, lambda h: torch.cat([h[:, :2] + h[:, 2:], h[:, 2:]], 1)),
    "buffer": (into_a_buffer, of_parts(same, same, torch.tanh, torch.tanh)),
    "view of a buffer": (into_a_buffers_view, of_parts(same, same, torch.tanh, torch.tanh)),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_what_is_written_over_is_what_it_has_become(how):
    there, anew = WRITTEN[how]
    alike(Written(there), Written(anew), inputs(1), "z", "eps=0.1", "a2b1@flat", "gamma=0.25@sign=0")


MATRIX = torch.linspace(-1, 1, 21 * 21).sin().reshape(21, 21).double()
SPELT = {
    "matrix": (lambda h: h @ MATRIX, lambda h: F.linear(h, MATRIX.T)),
    "matrix by keywords": (lambda h: torch.matmul(input=h, other=MATRIX), lambda h: F.linear(h, MATRIX.T)),
    "layer by keywords": (lambda h: F.linear(bias=None, weight=MATRIX.T, input=h), lambda h: F.linear(h, MATRIX.T)),
    "addmm": (
        lambda h: torch.addmm(MATRIX[0], h.flatten(0, 1), MATRIX).reshape(h.shape),
        lambda h: F.linear(h.flatten(0, 1), MATRIX.T, MATRIX[0]).reshape(h.shape),
    ),
    "einsum": (lambda h: torch.einsum("bct,bdt->bcd", h, h), lambda h: h @ h.mT),
    "bmm": (lambda h: torch.bmm(h, h.mT), lambda h: h @ h.mT),
    "baddbmm of a constant": (lambda h: torch.baddbmm(MATRIX[:4, :4], h, h.mT), lambda h: MATRIX[:4, :4] + h @ h.mT),
    "baddbmm": (lambda h: torch.baddbmm(h[..., :4], h, h.mT), lambda h: h[..., :4] + h @ h.mT),
    "half": (lambda h: h / 2, lambda h: h * 0.5),
    "half by keywords": (lambda h: torch.div(input=h, other=2.0), lambda h: h * 0.5),
    "clamp by keywords": (lambda h: torch.clamp(input=h, min=0.1, max=0.3), lambda h: F.hardtanh(h, 0.1, 0.3)),
    "softmax by keywords": (lambda h: F.softmax(input=h, dim=2), lambda h: h.softmax(-1)),
    "mean": (lambda h: h - h.sum(2, keepdim=True) / 21, lambda h: h - torch.mean(input=h, dim=2, keepdim=True)),
    "sum": (lambda h: sum([h, h.tanh(), 1.0]), lambda h: torch.stack([h, h.tanh()]).sum(0) + 1),
    "less": (lambda h: 1 - h, lambda h: -h + 1),
    "parts": (lambda h: torch.cat(h.split([1, 3], 1)[::-1], 1), lambda h: h[:, [1, 2, 3, 0]]),
    "dropout": (lambda h: F.dropout(h, 0.5, False), lambda h: nn.Identity()(h)),
}


@pytest.mark.parametrize("how", SPELT)
def test_operators_in_other_words(how):
    one, other = SPELT[how]
    texts = ["z", "eps=0.1", "eps=0.25std", "a2b1@flat", "gamma=0.25", "flat", "w2,bias=ignore", "z,attention=cp"]
    alike(Written(one), Written(other), inputs(1), *texts)


# Norms, whose deviation is a constant, in their parts


def centred(h, over):
    return h - h.mean(over, keepdim=True)


def spread(h, over, eps):
    return (h.detach().square().mean(over, keepdim=True) + eps).sqrt()


def standard(h, over, eps, centre=True):
    h = centred(h, over) if centre else h
    return h / spread(h, over, eps)


def grouped(h, m):
    found = standard(h.reshape(len(h), m.num_groups, -1), (2,), m.eps).reshape(h.shape)
    return found * m.weight[:, None] + m.bias[:, None]


NORMS = {
    "layer": (nn.LayerNorm(21), lambda h, m: standard(h, (2,), m.eps) * m.weight + m.bias),
    "layer, two axes": (nn.LayerNorm((4, 21), eps=0.1, bias=False), lambda h, m: standard(h, (1, 2), m.eps) * m.weight),
    "layer, plain": (nn.LayerNorm(21, elementwise_affine=False), lambda h, m: standard(h, (2,), m.eps)),
    "rms": (nn.RMSNorm(21, eps=1e-3), lambda h, m: standard(h, (2,), m.eps, centre=False) * m.weight),
    "rms, its eps": (nn.RMSNorm(21), lambda h, m: standard(h, (2,), torch.finfo(h.dtype).eps, centre=False) * m.weight),
    "group": (nn.GroupNorm(2, 4), grouped),
    "instance": (nn.InstanceNorm1d(4), lambda h, m: standard(h, (2,), m.eps)),
    "instance, affine": (
        nn.InstanceNorm1d(4, affine=True),
        lambda h, m: standard(h, (2,), m.eps) * m.weight[:, None] + m.bias[:, None],
    ),
}


class Apart(nn.Module):
    """What a module does, by a function of the input and of the module."""

    def __init__(self, module, run):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *given):
        return self.run(*given, self.module)


@pytest.mark.parametrize("name", NORMS)
def test_norms_in_their_parts(name):
    norm, run = NORMS[name]
    module = normal(copy.deepcopy(norm))
    texts = ["z", "eps=0.1", "a2b1@flat", "z@sign=0", "z,bias=ignore", "gamma=0.25,attention=cp"]
    alike(Written(module), Written(Apart(module, run)), inputs(1), *texts, share=1e-8)
