"""Nets of the sizes that people have, with random but repeatable weights, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, cin: int, cout: int, stride: int, rank: int = 2, size: int = 3) -> None:
        super().__init__()
        conv, norm = CONV[rank], NORM[rank]
        self.conv1, self.bn1 = conv(cin, cout, size, stride, size // 2, bias=False), norm(cout)
        self.conv2, self.bn2 = conv(cout, cout, size, 1, size // 2, bias=False), norm(cout)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential(conv(cin, cout, 1, stride, bias=False), norm(cout)) if stride > 1 else None

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.down is None else self.down(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, four times as many channels behind as within, and a shortcut."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = ((cin, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, s, k // 2, bias=False) for a, b, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in sizes)
        self.relu = nn.ReLU(inplace=True)
        shortcut = [nn.Conv2d(cin, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)]
        self.down = nn.Sequential(*shortcut) if cin != 4 * width else None

    def forward(self, x):
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = self.relu(y) if i < 2 else y
        return self.relu(y + (x if self.down is None else self.down(x)))


class ResNet18(nn.Module):
    """(N, channels, *spatial) -> (N, classes); (N, 3, 224, 224) and 11.7 million parameters unless said."""

    def __init__(self, width: int = 64, classes: int = 1000, channels: int = 3, rank: int = 2, size: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = CONV[rank](channels, width, 7, 2, 3, bias=False), NORM[rank](width)
            self.stem = nn.Sequential(*first, nn.ReLU(inplace=True), POOL[rank](3, 2, 1))
            widths = [width, width, 2 * width, 4 * width, 8 * width]
            for i in range(1, 5):
                blocks = (
                    Block(widths[i - 1], widths[i], 1 if i == 1 else 2, rank, size),
                    Block(widths[i], widths[i], 1, rank, size),
                )
                setattr(self, f"layer{i}", nn.Sequential(*blocks))
            self.head = nn.Linear(widths[4], classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.head(x.flatten(2).mean(2))


class ResNet50(nn.Module):
    """(N, 3, 224, 224) -> (N, 1000), 25.6 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
            self.stem, cin = nn.Sequential(*first, nn.MaxPool2d(3, 2, 1)), 64
            for i, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
                cins = [cin, *[4 * width] * (depth - 1)]
                blocks = [Bottleneck(n, width, 2 if j == 0 and i > 1 else 1) for j, n in enumerate(cins)]
                setattr(self, f"layer{i}", nn.Sequential(*blocks))
                cin = 4 * width
            self.head = nn.Linear(cin, 1000)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.head(x.mean((2, 3)))


def ecg_net() -> nn.Module:
    """(N, 12, 5000) -> (N, 5): a ResNet-18 for ten seconds of an ECG, kernels of 7."""
    return ResNet18(width=32, classes=5, channels=12, rank=1, size=7)


class VolumeNet(nn.Module):
    """(N, 1, 32, 64, 64) -> (N, 4): four stages of 3 x 3 x 3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            stages, cin = [], 1
            for width in (16, 32, 64, 128):
                stages += [
                    nn.Conv3d(cin, width, 3, padding=1, bias=False),
                    nn.BatchNorm3d(width),
                    nn.ReLU(inplace=True),
                ]
                stages += [nn.MaxPool3d(2)] if width < 128 else []
                cin = width
            self.layers, self.head = nn.Sequential(*stages), nn.Linear(128, 4)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3, 4)))


class ResNet20(nn.Module):
    """(N, 3, 32, 32) -> (N, 10), the net that He et al. (2016) take for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
            widths = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2)]
            self.layers = nn.Sequential(*(Block(*each) for each in (*widths, (64, 64, 1), (64, 64, 1))))
            self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Signals(nn.Module):
    """(N, 6, 100) -> (N, 4): three convolutions and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv1d(6, 32, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(32, 64, 5, padding=2), nn.ReLU(),
                nn.MaxPool1d(2), nn.Conv1d(64, 64, 3, padding=1), nn.ReLU(),
            )  # fmt: skip
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(64 * 25, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x):
        return self.head(self.layers(x))


class Plain(nn.Module):
    """(N, 3, 112, 112) -> (N, 10), VGG-like: modules only, one after the other, for peers that need it so."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256, 256)) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers: list[nn.Module] = []
            for a, b in zip((3, *widths), widths, strict=False):
                layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            self.layers = nn.Sequential(*layers)
            self.hidden, self.act, self.head = nn.Linear(9 * widths[-1], 256), nn.ReLU(), nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.act(self.hidden(self.layers(x).flatten(1))))


class Tiny(nn.Module):
    """(N, 2, 64) -> (N, 3): next to nothing, so that all the rest shows."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv1d(2, 8, 5, 2, 2), nn.ReLU(), nn.Conv1d(8, 16, 5, 2, 2), nn.ReLU())
            self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean(2))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def settled(module: nn.Module, x: np.ndarray) -> Any:
    """Frozen, its batch norms having seen ``x``: untrained ones let next to nothing through to the scores."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.momentum = 1.0
    with torch.no_grad():
        module.train()(torch.from_numpy(x))
    return module.eval().requires_grad_(False)
