"""Layers that only move values, and those that do nothing in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .convolution import Pads, order, padded
from .graph import Leaf
from .table import makes, refused, tupled

F = nn.functional


@makes("Dropout")
def _dropout(layer: Any) -> Leaf:
    return Leaf(nn.Dropout(layer.rate))


@makes(
    "Identity", "ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter",
    "RandomContrast", "RandomCrop", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur",
    "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation",
    "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom",
)  # fmt: skip
def _nothing(_: Any) -> Leaf:
    return Leaf(nn.Identity())


class Padding(nn.Module):
    """Zeros around, or points cut off where a number is negative."""

    def __init__(self, pads: Pads) -> None:
        super().__init__()
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, *s)."""
        return padded(x, self.pads)

    def extra_repr(self) -> str:
        """For whoever prints it."""
        return str(self.pads)


def _pairs(settings: Any) -> Pads:
    return [(settings[0], settings[1])] if isinstance(settings[0], int) else [(a, b) for a, b in settings]


@makes("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def _padding(layer: Any) -> Leaf:
    return Leaf(Padding(_pairs(layer.padding)), order(layer))


@makes("Cropping1D", "Cropping2D", "Cropping3D")
def _cropping(layer: Any) -> Leaf:
    return Leaf(Padding([(-a, -b) for a, b in _pairs(layer.cropping)]), order(layer) if _says(layer) else "first")


def _says(layer: Any) -> bool:
    return hasattr(layer, "data_format")


@makes("UpSampling1D", "UpSampling2D", "UpSampling3D")
def _upsampling(layer: Any, rank: int) -> Leaf:
    mode = getattr(layer, "interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise refused(layer, f"interpolates {mode}; only nearest and bilinear are supported")
    factors = tuple(map(float, tupled(layer.size, rank - 2)))
    module = nn.Upsample(scale_factor=factors, mode=mode, align_corners=None if mode == "nearest" else False)
    return Leaf(module, order(layer) if _says(layer) else "first")


class Resized(nn.Module):
    """Brought to a size in the plane."""

    def __init__(self, size: Sequence[int], mode: str, antialias: bool) -> None:
        super().__init__()
        self.size, self.mode, self.antialias = tuple(size), mode, antialias

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, height, width)."""
        if x.shape[2:] == self.size:
            return x
        if self.mode == "nearest-exact":
            return F.interpolate(x, self.size, mode=self.mode)
        return F.interpolate(x, self.size, mode=self.mode, align_corners=False, antialias=self.antialias)


@makes("Resizing")
def _resizing(layer: Any, rank: int) -> Leaf:
    modes = {"nearest": "nearest-exact", "bilinear": "bilinear"}
    if layer.interpolation not in modes:
        raise refused(layer, f"interpolates {layer.interpolation}; only nearest and bilinear are supported")
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio or rank != 4:
        raise refused(layer, "keeps the aspect ratio; give images of its size, and leave it out")
    return Leaf(Resized((layer.height, layer.width), modes[layer.interpolation], layer.antialias), order(layer))


class CenterCrop(nn.Module):
    """The middle of an image."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, height, width); smaller images are made larger first, their form kept."""
        height, width = x.shape[2:]
        if height >= self.size[0] and width >= self.size[1]:
            return _cut(x, self.size)
        forms = int(width * self.size[0] / self.size[1]), int(height * self.size[1] / self.size[0])
        within = max(min(height, forms[0]), 1), max(min(width, forms[1]), 1)
        return F.interpolate(_cut(x, within), self.size, mode="bilinear", align_corners=False)


def _cut(x: Tensor, size: Sequence[int]) -> Tensor:
    top, left = ((there - wanted) // 2 for there, wanted in zip(x.shape[2:], size, strict=True))
    return x[:, :, top : top + size[0], left : left + size[1]]


@makes("CenterCrop")
def _center_crop(layer: Any) -> Leaf:
    return Leaf(CenterCrop((layer.height, layer.width)), order(layer))


class Flatten(nn.Flatten):
    """All axes but the batch's as one; Keras brings the channels to the end first."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        """(batch, value)."""
        x = x[:, None] if x.ndim == 1 else x
        return super().forward(x.movedim(1, -1) if self.turned and x.ndim > 2 else x)


@makes("Flatten")
def _flatten(layer: Any) -> Leaf:
    return Leaf(Flatten(layer.data_format == "channels_first"), "keras")


class Reshape(nn.Module):
    """Values of Keras' order in another shape."""

    def __init__(self, shape: Sequence[int | None]) -> None:
        super().__init__()
        self.shape = tuple(-1 if size is None else size for size in shape)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape)."""
        return x.reshape(len(x), *self.shape)

    def extra_repr(self) -> str:
        """For whoever prints it."""
        return str(self.shape)


@makes("Reshape")
def _reshape(layer: Any) -> Leaf:
    return Leaf(Reshape(layer.target_shape), "keras")


class Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """A view."""
        return x.permute(0, *self.axes)

    def extra_repr(self) -> str:
        """For whoever prints it."""
        return str(self.axes)


@makes("Permute")
def _permute(layer: Any) -> Leaf:
    return Leaf(Permute(layer.dims), "keras")


class RepeatVector(nn.Module):
    """One vector at several points."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """(batch, feature) to (batch, point, feature)."""
        return x[:, None].expand(-1, self.count, -1)


@makes("RepeatVector")
def _repeat(layer: Any) -> Leaf:
    return Leaf(RepeatVector(layer.n), "keras")
