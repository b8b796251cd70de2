"""Three small classifiers: of 1-D signals, 2-D images and 3-D video. Each gives logits, (batch, classes)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}


class Residual(nn.Module):
    """``relu(h + skip(x))``, h = two convolutions of x, over ``rank`` spatial axes.

    (batch, inside, *s) -> (batch, outside, *s / stride); ``skip`` is a convolution of width 1 where the shape changes.
    """

    def __init__(self, rank: int, inside: int, outside: int, *, stride: int = 1) -> None:
        super().__init__()
        conv, norm = CONV[rank], NORM[rank]
        self.conv1 = conv(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = conv(outside, outside, 3, padding=1, bias=False)
        self.norm2 = norm(outside)
        self.skip = conv(inside, outside, 1, stride=stride) if (inside, stride) != (outside, 1) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inside, *s) -> (batch, outside, *s / stride)."""
        h = F.relu(self.norm1(self.conv1(x)))
        h = self.norm2(self.conv2(h))
        return F.relu(h + self.skip(x))


class EcgNet(nn.Module):
    """Residual network for ECG.

    ``stage3`` is (batch, 2 width, samples / 4): at 100 Hz one place for each 40 ms, and each place sees 0.43 s.
    """

    def __init__(self, *, leads: int = 3, classes: int = 4, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(leads, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.stage1 = Residual(1, width, width)
        self.stage2 = Residual(1, width, 2 * width, stride=2)
        self.stage3 = Residual(1, 2 * width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, leads, samples) -> (batch, classes)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(x.mean(2))  # type: ignore[no-any-return]


class DigitNet(nn.Module):
    """Plain convolutional network for pictures of any size.

    ``features`` is (batch, 2 width, H / 2, W / 2), and each place sees 17 x 17 pixels.
    """

    def __init__(self, *, channels: int = 1, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) -> (batch, classes)."""
        return self.head(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


class MotionNet(nn.Module):
    """Residual network for video.

    ``stage2`` is (batch, 2 width, T, H / 2, W / 2), and each place sees 9 frames of 15 x 15 pixels.
    """

    def __init__(self, *, channels: int = 1, classes: int = 5, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(channels, width, 3, stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        self.stage1 = nn.Sequential(
            nn.Conv3d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm3d(2 * width),
            nn.ReLU(),
        )
        self.stage2 = Residual(3, 2 * width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, T, H, W) -> (batch, classes)."""
        x = self.stage2(self.stage1(self.stem(x)))
        return self.head(x.mean((2, 3, 4)))  # type: ignore[no-any-return]
