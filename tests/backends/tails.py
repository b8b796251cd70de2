"""Models whose tails are hard to run again, each a function of the same few layers."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn


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


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x), x.mean((2, 3))


def from_a_pair(m, x):
    hidden, extra = m.pair(x)
    return m.end(m.second(hidden)) * (2 + extra[:, :1])


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


class Switch(nn.Module):
    """Takes the other branch only where the activation is far from what it was."""

    def forward(self, h):
        return h if h.amin() > -1e3 else h.tanh()
