"""Relevance on nets of the shapes that people train: where it goes, to the last digit, and what zennit makes of them.

Without biases all of it reaches the input. With them what is missing is the constants' share, which a net that is
straightened, so that its gradients times its inputs and constants are its score, tells by itself.
"""

import copy
import importlib.util
import math
import sys
from functools import partial
from types import MethodType, ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from camsweep.backends.torch import TorchBackend
from camsweep.core.methods import parse_expression

from ..support import answers, traced
from .networks import CLASSES, CONV, NETS, SHAPES, SMOOTH, BasicBlock, Bottleneck, ResNet, built, net, plain, samples

BATCH_NORM = nn.modules.batchnorm._BatchNorm
INPUT_RULES = ("lrp:z@flat", "lrp:z@w2", "lrp:z@zbox=-6:6")
FAMILIES = list(NETS)


def shares(module, x, expressions):
    """{expression: (map, its sum over the score, how much larger the sum of its sizes is)}, the last two (batch,)."""
    found = {}
    for (text, _), (values, residual) in answers(module, x, expressions, ()).items():
        total, sizes = values.flatten(1).sum(1), values.abs().flatten(1).sum(1)
        found[text] = values, total / (total + residual), sizes / (total + residual).abs()
    return found


# The forward


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recorded_forward_gives_the_scores_and_leaves_the_net_as_it_was(name, bias):
    module, x = net(name, bias=bias)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    expected = module(torch.from_numpy(x).double())
    with traced(module, x, "r", ()) as (trace, _):
        assert torch.allclose(trace.run.outputs.scores, expected, rtol=1e-11, atol=1e-12)
        assert not trace.run.recorded[0].unruled
    assert TorchBackend(module, device=torch.device("cpu"), dtype="float64").unruled(x[:1]) == {}
    assert torch.equal(module(torch.from_numpy(x).double()), expected)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recorded_forward_gives_the_scores_in_single_precision(name):
    module, x = net(name)
    module = module.float()
    with traced(module, x, "r", (), dtype="float32") as (trace, _):
        assert torch.allclose(trace.run.outputs.scores, module(torch.from_numpy(x)), rtol=1e-4, atol=1e-5)


# Conservation without biases


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("vit")])
def test_without_biases_all_relevance_reaches_the_input(name):
    """AttnLRP or CP-LRP: a gate has its half, or none."""
    module, x = net(name, bias=False)
    rules = ["lrp:z", "lrp:eps=1e-9", "lrp:gamma=0.25", "lrp:z,bias=ignore", *INPUT_RULES]
    rules += ["lrp:z,attention=cp", "lrp:eps=1e-9,attention=cp", "lrp:z,init=one", "lrp:z,init=probability"]
    for text, (_, share, _) in shares(module, x, rules).items():
        assert share.numpy() == pytest.approx(np.ones(len(x)), abs=1e-6), text


@pytest.mark.parametrize("constants", [True, False], ids=["constants of 0", "no constants"])
def test_without_biases_and_constants_all_relevance_reaches_a_transformers_input(constants):
    """CP-LRP: the softmax' rule of AttnLRP has a bias term, and is not conservative."""
    module, x = net("vit" if constants else "vit-mean", bias=False)
    if constants:
        module.token.zero_(), module.places.zero_()
    rules = ["lrp:z", "lrp:eps=1e-9", "lrp:gamma=0.25", "lrp:z,bias=ignore", *INPUT_RULES]
    rules = [text.replace("@", ",attention=cp@") if "@" in text else f"{text},attention=cp" for text in rules]
    found = shares(module, x, [*rules, "lrp:z"])
    off = found.pop("lrp:z")[1] - 1
    assert off.abs().min() > 1e-3
    for text, (_, share, _) in found.items():
        assert share.numpy() == pytest.approx(np.ones(len(x)), abs=1e-6), text


@pytest.mark.parametrize("name", ["densenet", "conv-3d"])
def test_without_biases_alphabeta_loses_nothing_where_a_rectifier_follows_each_convolution(name):
    """Relevance is only where z > 0 there, so something positive made it. Elsewhere it may have no way to go."""
    module, x = net(name, bias=False)
    for text, (values, share, _) in shares(module, x, ["lrp:a1b0", "lrp:a1b0,bias=ignore"]).items():
        assert share.numpy() == pytest.approx(np.ones(len(x)), abs=1e-9), text
        if name == "conv-3d":
            assert values.min() >= 0


# The constants' share


class Straightened(TorchFunctionMode):
    """A forward with the same values whose gradients times inputs and constants are relevance by LRP-z.

    An activation is its input times a constant, a deviation is a constant, and the factors of a product have half of
    its gradient each; or gates are constants (``cp``). See Achtibat et al. 2024, Ali et al. 2022.
    """

    def __init__(self, cp):
        super().__init__()
        self.cp = cp

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {key: value for key, value in (kwargs or {}).items() if key != "inplace"}
        x = args[0] if args else None
        if func in (F.gelu, F.hardswish):
            return x * (func(x, **kwargs) / x).detach()
        if func is F.hardsigmoid:
            return func(x).detach() if self.cp else x * (func(x) / x).detach()
        if func is F.layer_norm:
            weight, bias, eps = (kwargs[key] for key in ("weight", "bias", "eps"))  # F hands them on by name
            centred = x - x.mean(-1, keepdim=True)
            found = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt().detach() * weight
            return found if bias is None else found + bias
        if func in (Tensor.mul, Tensor.__mul__, torch.mul) and all(isinstance(each, Tensor) for each in args):
            return self.product(torch.mul, *args)
        return func(*args, **kwargs)

    def product(self, func, a, b):
        both = a.requires_grad and b.requires_grad and not self.cp
        return func(halved(a), halved(b)) if both else func(a, b)

    def attend(self, layer, query, *_, **__):
        """In place of ``nn.MultiheadAttention.forward``, of one sequence with itself."""
        q, k, v = (each.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
                   for each in F.linear(query, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1))  # fmt: skip
        weights = torch.softmax(self.product(torch.matmul, q, k.mT) / math.sqrt(q.shape[-1]), -1)
        found = self.product(torch.matmul, weights.detach() if self.cp else weights, v)
        return layer.out_proj(found.transpose(1, 2).flatten(2)), None


def halved(tensor):
    """With half of its gradient."""
    return tensor / 2 + tensor.detach() / 2


def straight(module, x, cp=True):
    """Scores of the predicted classes, the input times their gradients, and the constants' share by the same."""
    mode, module = Straightened(cp), copy.deepcopy(module)
    leaves, constants = [], []
    for each in module.modules():
        if isinstance(each, nn.MultiheadAttention):
            each.forward = partial(mode.attend, each)
        for name, parameter in each.named_parameters(recurse=False):
            if name in ("bias", "in_proj_bias", "token", "places"):
                constant = parameter.clone()
                if isinstance(each, BATCH_NORM):
                    constant -= each.running_mean * each.weight * (each.running_var + each.eps).rsqrt()
                constants.append(constant)
                leaves.append(parameter.requires_grad_())
    found = []
    for each in torch.from_numpy(x).double().split(1):  # as the gradient of a constant is that of all samples
        with mode:
            score = module(each.requires_grad_()).amax()
        gradient, *rest = torch.autograd.grad(score, [each, *leaves], allow_unused=True)
        terms = [(c * g).sum() for c, g in zip(constants, rest, strict=True) if g is not None]
        found.append((score.detach(), (each * gradient).detach()[0], sum(terms, score.new_zeros(()))))
    return [torch.stack(each) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("name", FAMILIES)
def test_relevance_is_what_a_straightened_net_says_and_the_rest_is_its_constants(name, bias):
    """Of ReLU nets nothing is straightened: LRP-z is the input times the gradient, in-place sums and norms and all."""
    module, x = net(name, bias=bias)
    for attention in ["cp", "attn"] if name in SMOOTH else ["attn"]:
        score, expected, constants = straight(module, x, attention == "cp")
        [(found, residual)] = answers(module, x, [f"lrp:z,attention={attention}"], ()).values()
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
        assert torch.allclose(residual + found.flatten(1).sum(1), score, rtol=1e-11)
        if attention == "cp" or not name.startswith("vit"):
            assert torch.allclose(residual, constants, rtol=1e-7, atol=1e-9 * float(score.abs().max()))
            assert bool((constants.abs() > 1e-3).all()) == (bias or name == "vit")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in SMOOTH])
def test_with_relus_lrp_z_is_the_input_times_the_gradient(name):
    module, x = net(name)
    leaf = torch.from_numpy(x).double().requires_grad_()
    [gradient] = torch.autograd.grad(module(leaf).amax(1).sum(), leaf)
    expected = gradient * leaf.detach()
    [(found, _)] = answers(module, x, ["lrp:z"], ()).values()
    assert torch.allclose(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["conv-3d", "vit-mean"])
def test_ignored_biases_take_nothing(name):
    """Where each unit has a live input: there are none here whose inputs are all 0, and that stand on their bias."""
    module, x = net(name)
    for text, (_, share, size) in shares(module, x, ["lrp:z,attention=cp", "lrp:z,attention=cp,bias=ignore"]).items():
        if "ignore" in text:
            assert ((share - 1).abs() <= 1e-4).all()
            assert ((share - 1).abs() <= 1e-14 * size).all()  # the smaller denominators are, the larger what cancels
        else:
            assert ((share - 1).abs() > 0.1).any()


@pytest.mark.parametrize("name", ["resnet", "resnet-1d", "conv-3d"])
def test_ignored_biases_take_nothing_by_gamma(name):
    module, x = net(name)
    [(_, share, _)] = shares(module, x, ["lrp:gamma=0.25,bias=ignore"]).values()
    assert share.numpy() == pytest.approx(np.ones(len(x)), abs=1e-9)


# Beside zennit


TINY = 1e-12
"""Of zennit's stabilisers, which are absolute."""


@pytest.fixture(scope="module")
def zennit():
    """The package, without the torchvision that it imports, and out of the way afterwards."""
    if importlib.util.find_spec("zennit") is None:
        pytest.skip("zennit is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torchvision") is None:
            names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
            for name in names:
                patch.setitem(sys.modules, name, ModuleType(name))
            sys.modules[names[-1]].Bottleneck = type("Bottleneck", (), {})
            sys.modules[names[-1]].BasicBlock = type("BasicBlock", (), {})
        before = set(sys.modules)
        from zennit import canonizers, composites, layer, rules, types

        yield SimpleNamespace(canonizers=canonizers, composites=composites, layer=layer, rules=rules, types=types)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "zennit":
                del sys.modules[name]


def theirs(module, x, composite):
    """Its relevance of the predicted classes, from their scores down, and the scores."""
    module = copy.deepcopy(module)
    for each in module.modules():
        if isinstance(each, BATCH_NORM) and each.bias is None:
            each.bias = nn.Parameter(torch.zeros_like(each.weight), requires_grad=False)
    leaf = torch.from_numpy(x).double().requires_grad_()
    with composite.context(module):
        y = module(leaf)
        chosen = y.argmax(1, keepdim=True)
        start = torch.zeros_like(y).scatter(1, chosen, y.detach().gather(1, chosen))
        [found] = torch.autograd.grad(y, leaf, start)
    return found, start.sum(1)


def everywhere(zennit, rule, canonizers=()):
    """A composite with one rule for all that has weights."""
    rest = zennit.composites.layer_map_base(TINY)
    return zennit.composites.LayerMapComposite([*rest, (zennit.types.Linear, rule)], canonizers=list(canonizers))


def after_input(zennit, first, rest):
    """A composite with a rule of its own for the first operator."""
    base = zennit.composites.layer_map_base(TINY)
    return zennit.composites.SpecialFirstLayerMapComposite(
        [*base, (zennit.types.Linear, rest)], [(zennit.types.Linear, first)]
    )


def per_kind(zennit, conv, dense):
    base = zennit.composites.layer_map_base(TINY)
    kinds = [(zennit.types.Convolution, conv), (nn.Linear, dense)]
    return zennit.composites.LayerMapComposite(base + kinds)


def box(x):
    """The range of each channel."""
    over = (0, *range(2, x.ndim))
    return [torch.from_numpy(each).double().reshape(1, -1, *[1] * (x.ndim - 2)) for each in (x.min(over), x.max(over))]


COMPOSITES = {
    "lrp:z": lambda z, x: everywhere(z, z.rules.Epsilon(TINY)),
    "lrp:eps=1e-6": lambda z, x: everywhere(z, z.rules.Epsilon(1e-6)),
    "lrp:eps=0.3": lambda z, x: everywhere(z, z.rules.Epsilon(0.3)),
    "lrp:a1b0": lambda z, x: everywhere(z, z.rules.ZPlus(TINY)),
    "lrp:a2b1": lambda z, x: everywhere(z, z.rules.AlphaBeta(2, 1, TINY)),
    "lrp:gamma=0.25": lambda z, x: everywhere(z, z.rules.Gamma(0.25, TINY)),
    "lrp:flat": lambda z, x: everywhere(z, z.rules.Flat(TINY)),
    "lrp:w2": lambda z, x: everywhere(z, z.rules.WSquare(TINY)),
    "lrp:z@w2": lambda z, x: after_input(z, z.rules.WSquare(TINY), z.rules.Epsilon(TINY)),
    "lrp:z@zbox=-4:3": lambda z, x: after_input(
        z, z.rules.ZBox(torch.tensor(-4.0).double(), torch.tensor(3.0).double(), TINY), z.rules.Epsilon(TINY)
    ),
    "lrp:A": lambda z, x: per_kind(z, z.rules.ZPlus(TINY), z.rules.Epsilon(0.1)),
    "lrp:B": lambda z, x: per_kind(z, z.rules.AlphaBeta(2, 1, TINY), z.rules.Epsilon(0.1)),
    "lrp:epsilon-plus": lambda z, x: z.composites.EpsilonPlus(stabilizer=TINY),
    "lrp:epsilon-alpha2-beta1": lambda z, x: z.composites.EpsilonAlpha2Beta1(stabilizer=TINY),
    "lrp:epsilon-plus-flat": lambda z, x: z.composites.EpsilonPlusFlat(stabilizer=TINY),
    "lrp:epsilon-alpha2-beta1-flat": lambda z, x: z.composites.EpsilonAlpha2Beta1Flat(stabilizer=TINY),
    "lrp:epsilon-gamma-box": lambda z, x: z.composites.EpsilonGammaBox(*box(x), stabilizer=TINY),
    "lrp:excitation-backprop": lambda z, x: z.composites.ExcitationBackprop(stabilizer=TINY),
}
"""What we call it, and what zennit does."""


def sequence(rank, bias, transposed=False):
    """Convolutions one behind the other, and samples."""
    make = partial(decoder, rank) if transposed else partial(plain, rank, norm=False)
    return built(make, SHAPES[rank], bias=bias, seed=rank), samples(SHAPES[rank], seed=7)


def decoder(rank, *, bias):
    up = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[rank]
    return nn.Sequential(
        CONV[rank](3, 8, 3, stride=3, groups=1, bias=bias), nn.ReLU(), CONV[rank](8, 8, 3, padding=2, dilation=2, groups=2, bias=bias),
        nn.ReLU(), up(8, 4, 3, stride=2, padding=1, output_padding=1, bias=bias), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(CLASSES, bias=bias),
    )  # fmt: skip


def assert_near(found, expected, what):
    """Each sample to 1e-6 of its own largest."""
    off = (found - expected).abs().flatten(1).amax(1)
    assert (off <= 1e-6 * expected.abs().flatten(1).amax(1)).all(), what


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_zennit_says_the_same_of_convolutions_in_sequence(zennit, rank, bias, transposed):
    module, x = sequence(rank, bias, transposed)
    ours = answers(module, x, list(COMPOSITES), ())
    for text, composite in COMPOSITES.items():
        found, residual = ours[str(parse_expression(text)), None]
        expected, scores = theirs(module, x, composite(zennit, x))
        assert torch.allclose(residual + found.flatten(1).sum(1), scores, rtol=1e-9), text
        assert_near(found, expected, text)


def test_each_of_these_rules_is_another_one():
    """What agrees with zennit is not one map under many names."""
    module, x = sequence(2, True)
    found = [values.numpy() for values, _ in answers(module, x, list(COMPOSITES), ()).values()]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one - other).max() > 1e-7 * np.abs(one).max()


def summed(zennit, name, module):
    """A residual sum as a module, and the mean over all places as one: what zennit has rules for."""
    if isinstance(module, BasicBlock | Bottleneck):
        deep = isinstance(module, Bottleneck)

        def forward(self, x):
            y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
            y = self.norm3(self.conv3(self.relu(y))) if deep else y
            return self.relu(self.total(torch.stack([y, x if self.down is None else self.down(x)], -1)))

        return {"total": zennit.layer.Sum(), "forward": MethodType(forward, module)}
    if isinstance(module, ResNet):

        def forward(self, x):
            x = self.stages(self.pool(self.relu(self.norm(self.conv(x)))))
            return self.head(self.mean(x.flatten(2)).flatten(1))

        return {"mean": nn.AdaptiveAvgPool1d(1), "forward": MethodType(forward, module)}
    return None


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("name", ["resnet", "bottleneck", "resnet-1d", "conv-3d"])
def test_zennit_says_the_same_of_nets_that_are_rewritten_for_it(zennit, name, bias):
    """Norms merged, sums and means made modules; without an epsilon in the norms, of which its merged ones keep one."""
    module, x = net(name, bias=bias)
    for each in module.modules():
        if isinstance(each, BATCH_NORM):
            each.eps = 0.0
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm(),
                  zennit.canonizers.AttributeCanonizer(partial(summed, zennit))]  # fmt: skip
    for text, rule in (
        ("lrp:z", zennit.rules.Epsilon(TINY)),
        ("lrp:eps=0.01", zennit.rules.Epsilon(0.01)),
        ("lrp:a1b0", zennit.rules.ZPlus(TINY)),
        ("lrp:gamma=0.25", zennit.rules.Gamma(0.25, TINY)),
    ):
        [(found, _)] = answers(module, x, [text], ()).values()
        expected, _ = theirs(module, x, everywhere(zennit, rule, canonizers))
        assert_near(found, expected, text)


KEPT = {"resnet": 64.0, "resnet-1d": 64.0, "conv-3d": 1.0, "bottleneck": None, "mobilenet": None, "unet": None}
"""What zennit makes of a score of 1, by LRP-epsilon: a sum that is no module hands all of it to each of its parts, 2^6
with six blocks; None where it depends on the sample."""


@pytest.mark.parametrize("name", KEPT)
def test_nets_as_they_are_keep_the_relevance_here_and_not_there(zennit, name):
    module, x = net(name, bias=False)
    [(_, share, _)] = shares(module, x, ["lrp:z"]).values()
    assert share.numpy() == pytest.approx(np.ones(len(x)), abs=1e-4)
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm()]
    found, scores = theirs(module, x, everywhere(zennit, zennit.rules.Epsilon(TINY), canonizers))
    kept = (found.flatten(1).sum(1) / scores).numpy()
    if KEPT[name] is None:
        assert np.abs(kept - 1).max() > 1e-3
    else:
        assert kept == pytest.approx(np.full(len(x), KEPT[name]), rel=1e-3)


@pytest.mark.parametrize("name", ["vit", "densenet"])
def test_nets_that_are_beyond_zennit_are_not_beyond_us(zennit, name):
    """No rule for attention; norms before convolutions are merged with those behind which they stand in the list."""
    module, x = net(name, bias=False)
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm()]
    with pytest.raises(RuntimeError):
        theirs(module, x, everywhere(zennit, zennit.rules.Epsilon(TINY), canonizers))
    assert TorchBackend(module, device=torch.device("cpu"), dtype="float64").unruled(x[:1]) == {}
