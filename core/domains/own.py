"""The user's own domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..data.axes import Axis
from ..errors import RequestError
from .domain import Domain, Space

if TYPE_CHECKING:
    from torch import Tensor

AGREES = 1e-3
"""How near inverse(forward(x)) must come to x, as a share of its largest value."""


class Own(Domain):
    """A class with ``forward`` and ``inverse`` of tensors (n, channel, *s), and ``linear`` (True unless it says so).

    ``axes``, a list of (name, unit[, step[, start]]), may name the axes of its coefficients. The first axis is that of
    the channels where ``per_channel`` says so, or else where their number is the same.
    """

    def __init__(self, space: Space, build: Any) -> None:
        super().__init__(space)
        self.name = getattr(build, "__name__", "the domain")
        try:
            self._settle(build, space)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(f"domain {self.name} fails: {type(error).__name__}: {error}") from error

    def _settle(self, build: Any, space: Space) -> None:
        """Make it and try it on an example."""
        import torch

        self.made = build()
        if missing := [each for each in ("forward", "inverse") if not callable(getattr(self.made, each, None))]:
            raise RequestError(f"domain {self.name} has no method {missing[0]}; it needs forward and inverse")
        self.linear = bool(getattr(self.made, "linear", True))
        example = (
            torch.linspace(0, 9, space.channels * math.prod(space.sizes)).sin().reshape(1, space.channels, *space.sizes)
        )
        shape = tuple(self._checked(example).shape[1:])
        try:
            self.adjoint(example)
        except RuntimeError as error:
            raise RequestError(f"domain {self.name}: inverse has no gradient, write it in torch: {error}") from None
        self.per_channel = bool(getattr(self.made, "per_channel", len(shape) > 1 and shape[0] == space.channels))
        if self.per_channel and (len(shape) < 2 or shape[0] != space.channels):
            raise RequestError(
                f"domain {self.name} says per_channel, its coefficients {shape} are not ({space.channels} channels, ..)"
            )
        self.shape = shape
        sizes = shape[1:] if self.per_channel else shape
        named = getattr(self.made, "axes", None) or [(f"coefficient {k + 1}", "") for k in range(len(sizes))]
        if len(named) != len(sizes):
            raise RequestError(f"domain {self.name} names {len(named)} axes, its coefficients have {len(sizes)}")
        if any(isinstance(each, str) or len(each) not in (2, 3, 4) for each in named):
            raise RequestError(f"domain {self.name}: axes={named!r}, expected a list of (name, unit[, step[, start]])")
        self.axes = tuple(_axis(*each) for each in named)
        self.layout = "lines" if len(sizes) == 1 else "image"

    def forward(self, x: Tensor) -> Tensor:
        """By the user."""
        found: Tensor = self.made.forward(x)
        return found

    def inverse(self, z: Tensor) -> Tensor:
        """By the user."""
        found: Tensor = self.made.inverse(z)
        return found

    def fitted(self, x: Tensor, seeds: Sequence[tuple[int, ...]]) -> Own:
        """Itself, once the sample has come back from it."""
        try:
            self._checked(x)
        except RequestError as error:
            raise ValueError(str(error)) from None  # the sample's fault, not the job's
        return self

    def _checked(self, x: Tensor) -> Tensor:
        """The coefficients; `RequestError` where the inverse does not lead back, or a linear domain is none."""
        import torch

        with torch.no_grad():
            z = self.forward(x)
            back = self.inverse(z)
            if back.shape != x.shape:
                raise RequestError(f"domain {self.name}: inverse gives {tuple(back.shape)} for {tuple(x.shape)}")
            size, off = _largest(x), _largest(back - x)
            if not (off <= AGREES * size).all():
                worst = int((off - AGREES * size).nan_to_num(torch.inf).argmax())
                raise RequestError(
                    f"domain {self.name}: inverse(forward(x)) is off x by {off[worst]:.3g} of {size[worst]:.3g}, so "
                    "its shares would not add up"
                )
            if self.linear and not (_largest(self.forward(-2 * x) + 2 * z) <= AGREES * _largest(z)).all():
                raise RequestError(f"domain {self.name} is not linear; set linear = False in it")
        return z


def _largest(values: Tensor) -> Tensor:
    """(n,): of each sample, in size."""
    return values.abs().flatten(1).amax(1)


def _axis(name: object, unit: object, step: float = 1.0, start: float = 0.0) -> Axis:
    return Axis(str(name), str(unit), float(step), float(start))
