"""Nets of the shapes that people train, small, in plain torch, with random weights: for what must hold on any of them.

Without biases the convolutions and linear layers have none, the norms no beta and a running mean of 0, so that a net is
a product of matrices at each input, but for what its gates and softmaxes do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
CLASSES = 5


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, rank: int, cin: int, cout: int, stride: int, size: int, bias: bool) -> None:
        super().__init__()
        conv = partial(CONV[rank], kernel_size=size, padding=size // 2, bias=bias)
        self.conv1, self.norm1 = conv(cin, cout, stride=stride), NORM[rank](cout)
        self.conv2, self.norm2 = conv(cout, cout), NORM[rank](cout)
        self.relu = nn.ReLU(inplace=True)
        self.down = shortcut(rank, cin, cout, stride, bias)

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + (x if self.down is None else self.down(x)))


class Bottleneck(nn.Module):
    """Narrow in the middle; the shortcut is added in place."""

    def __init__(self, rank: int, cin: int, cout: int, stride: int, size: int, bias: bool) -> None:
        super().__init__()
        conv, norm, inner = partial(CONV[rank], bias=bias), NORM[rank], cout // 2
        self.conv1, self.norm1 = conv(cin, inner, 1), norm(inner)
        self.conv2, self.norm2 = conv(inner, inner, size, stride, size // 2), norm(inner)
        self.conv3, self.norm3 = conv(inner, cout, 1), norm(cout)
        self.relu = nn.ReLU(inplace=True)
        self.down = shortcut(rank, cin, cout, stride, bias)

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm3(self.conv3(self.relu(self.norm2(self.conv2(y)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


def shortcut(rank: int, cin: int, cout: int, stride: int, bias: bool) -> nn.Module | None:
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(CONV[rank](cin, cout, 1, stride, bias=bias), NORM[rank](cout))


class ResNet(nn.Module):
    """A stem with a max pool, three stages of two blocks, and the mean over all places."""

    def __init__(self, block: type[nn.Module] = BasicBlock, rank: int = 2, size: int = 3, *, bias: bool = True) -> None:
        super().__init__()
        self.conv, self.norm = CONV[rank](3, 8, size + 2, 1, size // 2 + 1, bias=bias), NORM[rank](8)
        self.relu, self.pool = nn.ReLU(inplace=True), POOL[rank](3, 2, 1)
        stages = [
            nn.Sequential(block(rank, cin, cout, stride, size, bias), block(rank, cout, cout, 1, size, bias))
            for cin, cout, stride in ((8, 8, 1), (8, 16, 2), (16, 24, 2))
        ]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(24, CLASSES, bias=bias)

    def forward(self, x):
        x = self.stages(self.pool(self.relu(self.norm(self.conv(x)))))
        return self.head(x.flatten(2).mean(2))


class DenseLayer(nn.Module):
    """Norm, ReLU and convolution, twice; its output is joined to all that came before (Huang et al. 2017)."""

    def __init__(self, cin: int, growth: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.relu1, self.conv1 = nn.BatchNorm2d(cin), nn.ReLU(inplace=True), nn.Conv2d(cin, 4 * growth, 1, bias=bias)  # fmt: skip
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=bias)

    def forward(self, features):
        y = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(y)))


class DenseNet(nn.Module):
    """Two dense blocks, a transition of half the channels and places between them."""

    def __init__(self, growth: int = 4, *, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2, bias=bias), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.first = nn.ModuleList(DenseLayer(8 + i * growth, growth, bias) for i in range(3))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(inplace=True), nn.Conv2d(20, 10, 1, bias=bias), nn.AvgPool2d(2, 2)
        )
        self.second = nn.ModuleList(DenseLayer(10 + i * growth, growth, bias) for i in range(3))
        self.norm = nn.BatchNorm2d(22)
        self.head = nn.Linear(22, CLASSES, bias=bias)

    def forward(self, x):
        x = self._joined(self.first, self.stem(x))
        x = self.norm(self._joined(self.second, self.transition(x)))
        x = F.adaptive_avg_pool2d(F.relu(x, inplace=True), (1, 1))
        return self.head(torch.flatten(x, 1))

    def _joined(self, layers, x):
        features = [x]
        for layer in layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class UNet(nn.Module):
    """Down and up again, what was seen on the way down joined on the way up; a class's score is the mean of its map.

    Sizes that are no multiples of 4 are padded on the way up (Ronneberger et al. 2015).
    """

    def __init__(self, bilinear: bool = False, *, bias: bool = True) -> None:
        super().__init__()
        self.top, self.middle, self.bottom = (twice(cin, cout, bias) for cin, cout in ((3, 6), (6, 12), (12, 16)))
        self.pool = nn.MaxPool2d(2)
        self.up1, self.up2 = (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align)
            if bilinear
            else nn.ConvTranspose2d(width, width, 2, stride=2, bias=bias)
            for width, align in ((16, True), (12, False))
        )
        self.right1, self.right2 = twice(12 + 16, 12, bias), twice(6 + 12, 6, bias)
        self.head = nn.Conv2d(6, CLASSES, 1, bias=bias)

    def forward(self, x):
        top = self.top(x)
        middle = self.middle(self.pool(top))
        x = self.bottom(self.pool(middle))
        x = self.right1(self._beside(middle, self.up1(x)))
        x = self.right2(self._beside(top, self.up2(x)))
        return self.head(x).mean((2, 3))

    def _beside(self, skip, x):
        rows, columns = (skip.shape[i] - x.shape[i] for i in (2, 3))
        x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return torch.cat([skip, x], dim=1)


def twice(cin: int, cout: int, bias: bool) -> nn.Module:
    first = [nn.Conv2d(cin, cout, 3, padding=1, bias=bias), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
    return nn.Sequential(
        *first, nn.Conv2d(cout, cout, 3, padding=1, bias=bias), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


class Gate(nn.Module):
    """How much of each channel goes on (Hu et al. 2018)."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Hardsigmoid()
        self.narrow, self.wide = nn.Conv2d(width, 8, 1, bias=bias), nn.Conv2d(8, width, 1, bias=bias)

    def forward(self, x):
        return self.gate(self.wide(self.act(self.narrow(self.pool(x))))) * x


class Inverted(nn.Module):
    """Wide in the middle, where each channel has its own convolution and a gate (Howard et al. 2019)."""

    def __init__(self, cin: int, wide: int, cout: int, stride: int, gated: bool, act: type[nn.Module], bias: bool) -> None:  # fmt: skip
        super().__init__()
        layers = [nn.Conv2d(cin, wide, 1, bias=bias), nn.BatchNorm2d(wide), act(inplace=True)]
        layers += [nn.Conv2d(wide, wide, 5, stride, 2, groups=wide, bias=bias), nn.BatchNorm2d(wide), act(inplace=True)]
        layers += [Gate(wide, bias)] if gated else []
        self.block = nn.Sequential(*layers, nn.Conv2d(wide, cout, 1, bias=bias), nn.BatchNorm2d(cout))
        self.adds = stride == 1 and cin == cout

    def forward(self, x):
        y = self.block(x)
        if self.adds:
            y += x
        return y


class MobileNet(nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=bias), nn.BatchNorm2d(8), nn.Hardswish(inplace=True),
            Inverted(8, 16, 8, 1, True, nn.ReLU, bias),
            Inverted(8, 24, 12, 2, False, nn.ReLU, bias),
            Inverted(12, 32, 12, 1, True, nn.Hardswish, bias),
            nn.Conv2d(12, 32, 1, bias=bias), nn.BatchNorm2d(32), nn.Hardswish(inplace=True),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Linear(32, 24, bias=bias), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(24, CLASSES, bias=bias)
        )

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class Attending(nn.Module):
    """Attention and two linear layers, each behind a norm and beside a shortcut (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, bias=bias) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width, bias=bias), nn.GELU(), nn.Linear(2 * width, width, bias=bias))  # fmt: skip

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, a class token and positions, three blocks (one is torch's own), and the class token's linear layer.

    Without ``constants`` there are neither a token of its own nor positions, and the head reads the patches' mean.
    """

    def __init__(self, size: int = 24, constants: bool = True, width: int = 16, *, bias: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 6, 6, bias=bias)
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if constants else None
        self.places = nn.Parameter(torch.zeros(1, (size // 6) ** 2 + 1, width)) if constants else None
        own = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True, bias=bias)
        self.blocks = nn.Sequential(Attending(width, 4, bias), own, Attending(width, 2, bias))
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = nn.Linear(width, CLASSES, bias=bias)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.token is None else x[:, 0])


def plain(rank: int = 3, *, bias: bool = True, norm: bool = True, width: int = 6) -> nn.Module:
    """Convolutions, ReLUs and pools, one behind the other, all of them modules."""
    conv = partial(CONV[rank], bias=bias)
    average = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[rank]
    between = [NORM[rank]] if norm else []
    return nn.Sequential(
        conv(3, width, 3, padding=1), *(each(width) for each in between), nn.ReLU(inplace=True), POOL[rank](2),
        conv(width, 2 * width, 3, padding=1), *(each(2 * width) for each in between), nn.ReLU(inplace=True),
        conv(2 * width, 2 * width, 3, stride=2), *(each(2 * width) for each in between), nn.ReLU(inplace=True),
        average(2), nn.Flatten(), nn.LazyLinear(8, bias=bias), nn.ReLU(inplace=True), nn.Linear(8, CLASSES, bias=bias),
    )  # fmt: skip


SHAPES = {1: (3, 64), 2: (3, 24, 24), 3: (3, 12, 10, 12)}
NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, SHAPES[2]),
    "bottleneck": (partial(ResNet, Bottleneck), SHAPES[2]),
    "densenet": (DenseNet, (3, 32, 32)),
    "unet": (UNet, (3, 22, 19)),
    "unet-bilinear": (partial(UNet, True), (3, 22, 19)),
    "mobilenet": (MobileNet, SHAPES[2]),
    "vit": (ViT, SHAPES[2]),
    "vit-mean": (partial(ViT, constants=False), SHAPES[2]),
    "resnet-1d": (partial(ResNet, rank=1, size=7), SHAPES[1]),
    "conv-3d": (plain, SHAPES[3]),
}
"""What makes each, with or without biases, and the shape of a sample."""
SMOOTH = ("mobilenet", "vit", "vit-mean")
"""Not piecewise linear."""


def samples(shape: tuple[int, ...], count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def built(make: Callable[..., nn.Module], shape: tuple[int, ...], *, bias: bool = True, seed: int = 0) -> nn.Module:
    """A net in evaluation, in float64, whose norms have seen samples of ``shape``."""
    with torch.random.fork_rng([]):
        module = make(bias=bias).double()
        x = torch.from_numpy(samples(shape, 16, seed + 1)).double()
        with torch.no_grad():
            module.eval()(x[:1])  # where layers find their size
    generator = torch.Generator().manual_seed(seed)

    def random(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64)

    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    with torch.no_grad():
        for each in module.modules():
            for name, parameter in each.named_parameters(recurse=False):
                if isinstance(each, norms):
                    parameter.copy_(1 + 0.3 * random(parameter) if name == "weight" else 0.3 * random(parameter))
                elif parameter.ndim < 2:
                    parameter.copy_(0.3 * random(parameter))
                elif isinstance(each, ViT):
                    parameter.copy_(random(parameter))
                else:
                    transposed = isinstance(each, nn.ConvTranspose2d)
                    reach = parameter.shape[0] if transposed else parameter[0].numel()
                    parameter.copy_(random(parameter) * (2 / reach) ** 0.5)
            if not bias and isinstance(each, norms):
                each.bias = None
        settled = [each.register_forward_pre_hook(partial(settle, bias)) for each in module.modules()]
        module(x)
    for each in settled:
        each.remove()
    return module.requires_grad_(False)


def settle(mean: bool, norm: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
    """The statistics of a batch norm as it would have learnt them, without a ``mean`` where it must be 0."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        values = arguments[0].transpose(0, 1).flatten(1)
        if mean:
            norm.running_mean.copy_(values.mean(1))
        norm.running_var.copy_((values - norm.running_mean[:, None]).square().mean(1))


def net(name: str, *, bias: bool = True) -> tuple[nn.Module, np.ndarray]:
    """One of `NETS`, and samples for it."""
    return copy.deepcopy(_net(name, bias)), samples(NETS[name][1])


@cache
def _net(name: str, bias: bool) -> nn.Module:
    return built(*NETS[name], bias=bias)
