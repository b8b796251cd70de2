"""Small models of every kind, with weights of their own: plain torch, loaded by path as a user's file is."""

import math

import torch
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

ENDS = {
    "none": lambda z: z,
    "flat": lambda z: z.squeeze(1),
    "softmax": lambda z: z.softmax(1),
    "sigmoid": torch.sigmoid,
    "squeezed": lambda z: torch.sigmoid(z).squeeze(1),
    "squares": lambda z: z**2 / (z**2).sum(1, keepdim=True),
}
"""What may stand at the end of a model."""


def filled(module, seed=0):
    """The module with weights that are always the same."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    return module


class Vector(nn.Module):
    """features -> tanh -> mean -> head: a classifier, a regression, an embedding, as it is read."""

    def __init__(self, outputs=3, rank=2, end="none", gain=1.0, channels=4):
        super().__init__()
        self.features = CONV[rank](2, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels, outputs)
        self.end, self.gain = end, gain
        filled(self)

    def forward(self, x):
        return ENDS[self.end](self.gain * self.head(torch.tanh(self.features(x)).flatten(2).mean(2)))


class Segmenter(nn.Module):
    """features -> tanh -> classes at every place; what is the same everywhere is one class everywhere."""

    def __init__(self, rank=2, end="none", classes=3):
        super().__init__()
        self.features = CONV[rank](2, 4, 3, padding=1, padding_mode="replicate")
        self.classify = CONV[rank](4, classes, 3, padding=1, padding_mode="replicate")
        self.end = end
        filled(self)

    def forward(self, x):
        return ENDS[self.end](self.classify(torch.tanh(self.features(x))))


ANCHORS = {
    1: [(0, 4), (5, 10), (11, 16)],
    2: [(0, 0, 4, 4), (5, 0, 10, 3), (0, 5, 4, 8), (6, 4, 10, 8)],
    3: [(0, 0, 0, 2, 3, 2), (3, 0, 1, 6, 3, 4), (1, 3, 0, 5, 5, 3)],
}
"""Boxes x0, y0, .., x1, y1, .. of inputs with the places (16,), (8, 10), (4, 5, 6)."""
LABELS = (1, 2, 1, 0)


class Detector(nn.Module):
    """Each anchor's score is the mean of one channel over the anchor. ``listed``: only those above 0, as a list."""

    def __init__(self, rank=2, listed=False):
        super().__init__()
        self.features = CONV[rank](2, 4, 3, padding=1)
        self.anchors, self.listed = ANCHORS[rank], listed
        filled(self)

    def forward(self, x):
        hidden = self.features(x)
        d = hidden.ndim - 2
        scores = torch.stack([
            hidden[(slice(None), i, *[slice(a[k], a[d + k]) for k in reversed(range(d))])].flatten(1).mean(1)
            for i, a in enumerate(self.anchors)
        ], 1)  # fmt: skip
        boxes = x.new_tensor(self.anchors).expand(len(x), -1, -1)
        labels = torch.tensor(LABELS[: len(self.anchors)], device=x.device).expand(len(x), -1)
        if not self.listed:
            return {"boxes": boxes, "labels": labels, "scores": scores}
        return [
            {"boxes": b[s > 0], "labels": k[s > 0], "scores": s[s > 0]}
            for b, k, s in zip(boxes, labels, scores, strict=True)
        ]


class Several(Vector):
    """More than one output; ``z``, the vector's own, is one of them."""

    def __init__(self, kind="tuple"):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        z = super().forward(x)
        other = 2 - z.sin()
        return {
            "tuple": (other, z),
            "dict": {"main": other, "aux": z},
            "logits": {"hidden": other, "logits": z},
            "only": {"answer": z},
        }[self.kind]


class Pair(nn.Module):
    """A block that gives (hidden, extra)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.conv(x)), x.mean((1, 2, 3))


class Paired(nn.Module):
    """Goes on with both."""

    def __init__(self):
        super().__init__()
        self.block = Pair()
        self.head = nn.Linear(4, 3)
        filled(self)

    def forward(self, x):
        hidden, extra = self.block(x)
        return self.head(torch.tanh(hidden).flatten(2).mean(2)) * (2 + extra[:, None])


class Patient(nn.Module):
    """A picture between an age, a number, and a sex, an index."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(2, 4, 3, padding=1)
        self.sexes = nn.Embedding(2, 4)
        self.head = nn.Linear(4, 3)
        filled(self)

    def forward(self, age, image, sex):
        hidden = torch.tanh(self.features(image)).flatten(2).mean(2)
        return self.head(hidden * (age[:, None] + self.sexes(sex)))


def margin(z):
    """A user's own target: how far output 0 is above the mean of the others."""
    return z[:, 0] - z[:, 1:].mean(1)


def both(outputs):
    """A user's own target over two outputs."""
    return outputs["main"][:, 0] * outputs["aux"][:, 1]


class Block(nn.Module):
    """One head of attention and an MLP, on (N, T, C)."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.mix((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """A vision transformer of any rank, patches of 2, read out from its first token, their mean, or one patch."""

    def __init__(self, count=15, rank=2, prefix=1, read="first", embed="conv", blocks="own", width=6):
        super().__init__()
        self.embed = CONV[rank](2, width, 2, stride=2) if embed == "conv" else nn.Linear(8, width)
        self.prefix = nn.Parameter(torch.empty(1, prefix, width))
        self.position = nn.Parameter(torch.empty(1, prefix + count, width))
        if blocks == "own":
            made = [Block(width), Block(width)]
        else:
            made = [nn.TransformerEncoderLayer(width, 2, 8, dropout=0.0, batch_first=True) for _ in range(2)]
        self.blocks = nn.Sequential(*made)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)
        self.count, self.read = count, read
        filled(self)

    def forward(self, x):
        if isinstance(self.embed, nn.Linear):  # no layer that a grid could be learnt from
            patches = self.embed(nn.functional.unfold(x, 2, stride=2).mT)
        else:
            patches = self.embed(x).flatten(2).mT
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), patches[:, : self.count]], 1) + self.position
        hidden = self.blocks(tokens)
        if self.read == "first":
            return self.head(self.norm(hidden)[:, 0])
        return self.head(hidden.mean(1) if self.read == "mean" else hidden[:, self.prefix.shape[1] + self.read])


class Shifted(nn.Module):
    """A block on (N, H, W, C) that mixes neighbours."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x + x.roll((1, 1), (1, 2)))))


class Swin(nn.Module):
    """Channels last from the patches on."""

    def __init__(self, width=5):
        super().__init__()
        self.embed = nn.Conv2d(2, width, 2, stride=2)
        self.blocks = nn.Sequential(Shifted(width), Shifted(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)
        filled(self)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embed(x).permute(0, 2, 3, 1))).mean((1, 2)))
