"""A replayed tail gives what the whole model gives with another activation at the layer."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ..support import inputs, traced


class Model(nn.Module):
    """The same few layers, called by ``body(model, x)``."""

    def __init__(self, body, **more):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.wide, self.norm = nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.skip = nn.Conv2d(2, 4, 1)
        self.relu, self.identity = nn.ReLU(inplace=True), nn.Identity()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)
        for name, module in more.items():
            setattr(self, name, module)
        self.body = body
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
            self.norm.running_mean.copy_(torch.randn(4, generator=generator))

    def forward(self, x):
        return self.body(self, x)

    def end(self, h):
        return self.head(h.mean((2, 3)))


def root_forwards(model):
    """A list that grows by one with each forward of the whole model."""
    found = []
    model.register_forward_hook(lambda _m, _i, _o: found.append(1))
    return found


def expected(model, layer, x, activation, pick=lambda y: y):
    """A whole forward, the layer's output (or the first of its outputs) replaced by hand."""

    def instead(_module, _arguments, output):
        new = activation.clone()
        return (new, *output[1:]) if isinstance(output, tuple) else new

    hook = model.get_submodule(layer).register_forward_hook(instead)
    with torch.no_grad():
        found = pick(model(torch.from_numpy(x).double()))
    hook.remove()
    return found


def others(A):
    """Activations that a tail may be asked for."""
    generator = torch.Generator().manual_seed(5)
    without = A.clone()
    without[:, 0] = 0
    return [without, torch.randn(A.shape, generator=generator, dtype=A.dtype), -3 * A, A.clone()]


def check(model, layers=("first",), *, letters="AD", replays=True, batch=3, pick=lambda y: y, **more):
    """Every layer, every activation; twice, the second time in another order."""
    x = inputs(2, batch)
    count = root_forwards(model)
    with traced(model, x, letters, layers, target=1, **more) as (trace, _):
        run, clean = trace.run, trace.run.outputs.scores.clone()
        taps = {name: A.clone() for name, A in run.activations.items()}
        count.clear()
        first = {
            (name, i): run.tail(name, a).scores.clone() for name in layers for i, a in enumerate(others(taps[name]))
        }
        ran = len(count)
        again = {key: run.tail(key[0], others(taps[key[0]])[key[1]]).scores for key in reversed(first)}
        for name, i in first:
            want = expected(model, name, x, others(taps[name])[i], pick)
            torch.testing.assert_close(first[name, i], want.reshape(first[name, i].shape), rtol=1e-9, atol=1e-12)
            assert torch.equal(again[name, i], first[name, i])
        assert len({tuple(each.flatten().tolist()) for each in first.values()}) > 1
        assert torch.equal(run.outputs.scores, clean)
        assert all(torch.equal(A, taps[name]) for name, A in run.activations.items())
        # What was replayed cost one whole forward for each layer, the check; the rest cost one for each question.
        wanted = {True: len(layers), False: len(layers) + len(first), None: ran}[replays]
        assert ran == wanted
        return run


def residual(m, x):
    h = m.first(x)
    return m.end(F.relu(m.second(F.relu(h)) + h) + m.skip(x))


def into_skip(m, x):
    out = m.skip(x)
    h = m.first(x)
    out += h.relu()
    return m.end(m.second(out))


def into_input(m, x):
    h = m.first(x)
    x += h[:, :2]
    return m.end(h) + x.mean((2, 3)).sum(1, keepdim=True)


def unet(m, x):
    low = m.skip(x)
    h = F.interpolate(m.first(F.avg_pool2d(x, 2)), size=x.shape[2:], mode="bilinear")
    return m.end(m.wide(torch.cat([low, h], 1)))


def dense(m, x):
    h = [m.first(x)]
    h.append(m.norm(m.second(h[-1].relu())))
    return m.end(m.wide(torch.cat(h, dim=1)))


def in_place(m, x):
    h = m.relu(m.norm(m.first(x)).add_(0.2))
    h = m.relu(m.second(h))
    return m.end(h.mul_(2).sub_(0.1))


def in_place_at_once(m, x):
    return m.end(m.second(torch.relu_(m.first(x))))


def h_plus_skip(m, x):
    skip = m.skip(x)
    h = m.first(x)
    h += skip
    h *= h.sigmoid()
    return m.end(h)


def set_items(m, x):
    h = m.first(x)
    out = torch.zeros(len(x), 4, *x.shape[2:], dtype=x.dtype)
    out[:, :2] = h[:, 1:3]
    out[:, 2:] = m.skip(x)[:, 2:]
    out[:, 3] += h[:, 0]
    return m.end(m.second(out))


def through_a_view(m, x):
    out = m.skip(x)
    part = out[:, :2]
    part.add_(m.first(x)[:, :2])
    return m.end(out)


def views_of_it(m, x):
    h = m.second(m.first(x))
    h[:, :2].mul_(h[:, 2:])
    half = h[:, 1:]
    half.relu_()
    return m.end(h)


def changed_after_use(m, x):
    skip = m.skip(x)
    h = m.first(x) * skip
    skip.mul_(2)
    return m.end(h + skip)


def twice(m, x):
    h = m.first(x)
    return m.end(m.second(h) * h.tanh())


def literals(m, x):
    h = m.first(x)
    b, c, height, width = h.shape
    h = h.view(b, c, height * width).permute(0, 2, 1).reshape(len(h), -1, c)
    return m.head(h.contiguous().view(x.shape[0], height, -1, c).mean(dim=(1, 2)))


def tokens(m, x):
    return m.first(x).flatten(2).transpose(1, 2)[:, :12]


def attention(m, x):
    t = tokens(m, x)
    mixed, _ = m.attention(t, t, value=t, need_weights=False)
    return m.head((t + mixed).mean(1))


def attention_by_hand(m, x):
    t = tokens(m, x)
    q, k, v = m.qkv(t).chunk(3, dim=-1)
    scores = torch.einsum("bqc,bkc->bqk", q, k) / math.sqrt(q.size(-1))
    return m.head(torch.bmm(scores.softmax(dim=-1), v)[:, 0])


def scaled_attention(m, x):
    q, k, v = m.qkv(tokens(m, x)).reshape(len(x), 12, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
    return m.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


def unpacked(m, x):
    q, k, v = m.qkv(tokens(m, x)).reshape(len(x), 12, 3, 4).permute(2, 0, 1, 3)
    return m.head((q.sigmoid() * k * v).mean(1))


def lstm(m, x):
    _, (hidden, cell) = m.lstm(tokens(m, x))
    return m.head(hidden[-1] + cell.squeeze(0))


def pieces(m, x):
    h = m.first(x)
    a, b = torch.split(h, [1, 3], dim=1)
    c, d = b.chunk(2, dim=1)
    values, _ = torch.max(h, dim=1, keepdim=True)
    parts = [a * values, *torch.unbind(c, 1), *h.unbind(dim=1)[:1]]
    stacked = torch.stack([each.flatten(1).mean(1) for each in parts], dim=1)
    return m.head(stacked) + torch.sum(input=d, dim=(2, 3)) * 0.1


def masked(m, x):
    h = m.first(x)
    h = torch.where(h > 0.1, h, -0.5 * h)
    h = h.masked_fill(h > 1, 1.0)
    return m.end(torch.clamp(input=h, min=-1, max=0.9))


def keywords(m, x):
    return m.end(F.relu(input=m.second(F.relu(input=m.first(x), inplace=True)), inplace=True))


def sown(m, x):
    return m.end(torch.add(input=m.first(x), other=m.skip(x), alpha=2).clip(min=0))


def detached(m, x):
    h = m.first(x)
    return m.end(m.second(h.data) + h.detach() * h)


def under_no_grad(m, x):
    with torch.no_grad():
        h = m.first(x)
    return m.end(m.second(h))


def identity(m, x):
    h = m.second(m.first(x))
    return m.end(m.identity(h) * h.cos())


BODIES = [
    residual, into_skip, into_input, unet, dense, in_place, in_place_at_once, h_plus_skip, set_items, views_of_it, twice, literals,
    attention, attention_by_hand, scaled_attention, lstm, pieces, masked, sown, detached, keywords,
]  # fmt: skip


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize("body", BODIES)
def test_a_tail_equals_the_whole_with_another_activation(body, letters):
    check(Model(body), letters=letters)


@pytest.mark.parametrize("body", [residual, attention, set_items])
def test_a_batch_of_one(body):
    check(Model(body), batch=1)


@pytest.mark.parametrize("letters", ["AD", "AGHDgub"])
@pytest.mark.parametrize("body", [residual, in_place, h_plus_skip, dense])
def test_every_question_at_once(body, letters):
    check(Model(body), letters=letters)


def two_above(m, x):
    return m.end(m.second(F.relu_(m.first(x))) + m.skip(x))


def two_beside(m, x):
    a, b = m.first(x).relu(), m.skip(x)
    return m.end(torch.cat([a, b], 1)[:, 2:6] * b)


def two_into_one(m, x):
    out = torch.zeros(len(x), 8, *x.shape[2:], dtype=x.dtype)
    out[:, :4] = m.first(x)
    out[:, 4:] = m.skip(x)
    return m.end(m.wide(out))


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize(
    ("body", "layers"),
    [
        (two_above, ("first", "second")),
        (two_above, ("second", "skip", "first")),
        (two_beside, ("first", "skip")),
        (two_into_one, ("first", "skip")),
        (dense, ("first", "second", "norm", "wide")),
    ],
)
def test_several_layers(body, layers, letters):
    check(Model(body), layers, letters=letters)


@pytest.mark.parametrize("letters", ["AD", "AGD", "ADg"])
@pytest.mark.parametrize("layers", [("identity",), ("first", "identity"), ("second", "identity")])
def test_a_layer_that_gives_back_what_it_got_is_not_what_skips_past_it(layers, letters):
    check(Model(identity), layers, letters=letters, replays=None)


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x), x.mean((2, 3))


def from_a_pair(m, x):
    hidden, extra = m.pair(x)
    return m.end(m.second(hidden)) * (2 + extra[:, :1])


@pytest.mark.parametrize("letters", ["AD", "AGD"])
def test_a_layer_that_gives_a_tuple(letters):
    check(Model(from_a_pair, pair=Pairs()), ["pair"], letters=letters)


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 0.5)

    @staticmethod
    def backward(ctx, g):
        return g * 0.5


def compiled():
    """What it does is seen by nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh()))


def by_function(m, x):
    return m.end(Half.apply(m.first(x)))


def by_script(m, x):
    return m.end(m.script(m.first(x)))


def by_script_and_more(m, x):
    h = m.first(x)
    return m.end(m.script(h) + 0.1 * h)


def little(m, x):
    """A large constant, and a little that a replay does not see."""
    h = m.first(x)
    return 1e4 + m.end(1e-3 * m.script(h))


def by_value(m, x):
    h = m.first(x)
    return m.end(h if h.mean() > h.amin() + 2 else -2 * h)


def by_item(m, x):
    h = m.first(x)
    return m.end(h * max(h.std().item(), 1))


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize(
    ("body", "replays"),
    [
        (by_function, None),
        (by_script, False),
        (by_script_and_more, False),
        (little, False),
        (by_value, None),
        (by_item, None),
        (through_a_view, None),
        (changed_after_use, None),
        (unpacked, None),
    ],
)
def test_what_cannot_be_replayed_runs_whole(body, replays, letters):
    if body is by_function:  # numpy sees no gradient
        letters = "AD"
    check(Model(body, script=compiled()), letters=letters, replays=replays)


class Switch(nn.Module):
    """Takes the other branch only where the activation is far from what it was."""

    def forward(self, h):
        return h if h.amin() > -1e3 else h.tanh()


@pytest.mark.parametrize("letters", ["AD", "AGD"])
def test_a_branch_that_only_a_later_activation_takes(letters):
    model, x = Model(lambda m, x: m.end(m.switch(m.first(x))), switch=Switch()), inputs(2)
    with traced(model, x, letters, ["first"], target=1) as (trace, _):
        activation = trace.run.activations["first"].clone()
        activation[:, 0] = -1e5  # as compat=pytorch-grad-cam does
        torch.testing.assert_close(trace.run.tail("first", activation).scores, expected(model, "first", x, activation))


def ended(end):
    return lambda m, x: end(m.end(m.second(m.first(x)).relu()))


@pytest.mark.parametrize(
    ("end", "final"),
    [
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: F.log_softmax(z, dim=-1), "log-softmax"),
        (torch.sigmoid, "sigmoid"),
        (lambda z: F.softmax(z[:, :, None, None], 1).squeeze(-1).flatten(1), "softmax"),
        (lambda z: {"logits": z, "hidden": z.sin()}, None),
        (lambda z: ((z.sin(), {"logits": z}),), None),
    ],
)
def test_what_the_model_ends_in(end, final):
    model = Model(ended(end))
    if isinstance(end(torch.zeros(1, 3)), tuple):
        model = Model(lambda m, x: {"logits": ended(lambda z: z)(m, x), "more": (x, [x])})
    pick = {"softmax": lambda y: y, None: lambda y: y["logits"]}.get(final, lambda y: y)
    x = inputs(2)
    with traced(model, x, "AGD", ["first"], target=1) as (trace, _):
        assert trace.run.final == final
        for activation in others(trace.run.activations["first"]):
            found = trace.run.tail("first", activation).scores
            back = {
                "softmax": lambda z: z.softmax(1),
                "log-softmax": lambda z: z.log_softmax(1),
                "sigmoid": torch.sigmoid,
            }
            torch.testing.assert_close(
                back.get(final, lambda z: z)(found), expected(model, "first", x, activation, pick)
            )
        assert trace.run.session.passes["tail"] == 5  # with the check


def test_ablationcam_costs_one_forward_and_one_check_for_each_layer():
    x, names = inputs(2), ["ablationcam", "ablationcam:fill=mean", "ablationcam:smooth=aug", "gradcam"]
    model = Model(two_above)
    count = root_forwards(model)
    found = maps(model, x, names, ["first", "second"], target=1)
    assert len(count) == 1 + 6 + 2  # the structure's; the batch as it is and five times changed; the checks
    for layer in ("first", "second"):
        want = {}
        for flip in (False, True):
            for gain in (1.0, 0.9, 1.1):
                given = (x[..., ::-1] if flip else x).astype(float) * gain
                values = ablated(model, layer, torch.from_numpy(given))
                want[flip, gain] = values.flip(-1) if flip else values
        torch.testing.assert_close(found["ablationcam", layer], want[False, 1.0])
        torch.testing.assert_close(found["ablationcam:smooth=aug", layer], sum(want.values()) / 6)


def ablated(model, layer, x, target=1):
    """relu(sum_k (y - y_k) / |y| A_k)."""
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    model = model.double().eval()
    with torch.no_grad():
        y = model(x.clone())[:, target]
        hook.remove()
        A, total = seen[0], 0
        for k in range(A.shape[1]):
            less = A.clone()
            less[:, k] = 0
            w = (y - expected(model, layer, x.numpy(), less)[:, target]) / y.abs()
            total = total + w[:, None, None] * A[:, k]
    return total.relu()
