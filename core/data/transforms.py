"""Declarative transforms: from a stored sample to the model's input.

Each is a table with one key in the job file, ``{ resize = [224, 224] }``, and a function of a whole batch
(n, channel, *s). A *geometric* one moves points about and is applied to pictures of the input too; the others change
values only, and pictures show what was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import RequestError, nearest
from ..grid import resize
from ..user_code import function
from .axes import Axis

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """A sample's axes, and its sizes along them."""

    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]


class Transform(BaseModel):
    """One step. ``short`` names the setting that may stand alone: ``{ scale = 2 }``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    geometric: ClassVar[bool] = False
    short: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping) or not cls.short else {cls.short: value}

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """The batch (n, channel, *s), changed."""
        raise NotImplementedError

    def change(self, values: Floats, geometry: Geometry) -> Floats:
        """The same of a batch that nobody else has, which may be overwritten."""
        return self.apply(values, geometry)

    def moved(self, geometry: Geometry) -> Geometry:
        """Where the points of the result lie."""
        return geometry

    def renamed(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the result's channels."""
        return channels


TRANSFORMS: dict[str, type[Transform]] = {}


def transform(name: str) -> Callable[[type[Transform]], type[Transform]]:
    """Register a transform under its name in job files."""

    def register(model: type[Transform]) -> type[Transform]:
        TRANSFORMS[name] = model
        return model

    return register


def parse_transforms(tables: Sequence[Mapping[str, Any]]) -> tuple[Transform, ...]:
    """Read the tables of a job file; `RequestError` names what is wrong."""
    found = []
    for place, table in enumerate(tables, 1):
        if len(table) != 1:
            raise RequestError(f"transform {place}: {dict(table)} given, expected one key, as in {{ scale = 0.5 }}")
        [(name, settings)] = table.items()
        if name not in TRANSFORMS:
            raise RequestError(f"unknown transform {name!r}. {nearest(name, TRANSFORMS)}")
        try:
            found.append(TRANSFORMS[name].model_validate(settings))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise RequestError(f"transform {where}: {first['input']!r} given; {first['msg']}") from None
    return tuple(found)


@transform("scale")
class Scale(Transform):
    """x * factor."""

    short = "factor"
    factor: float

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Multiply."""
        return values * np.float32(self.factor)

    def change(self, values: Floats, geometry: Geometry) -> Floats:
        """Multiply in place."""
        values *= np.float32(self.factor)
        return values


@transform("normalize")
class Normalize(Transform):
    """(x - mean) / std, one number for all channels or one for each."""

    mean: list[float]
    std: list[float]

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @field_validator("std")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not all(v > 0 for v in value):
            raise ValueError("expected numbers above 0")
        return value

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Subtract and divide, channel by channel."""
        mean, std = self._columns(values)
        return (values - mean) / std

    def change(self, values: Floats, geometry: Geometry) -> Floats:
        """The same in place."""
        mean, std = self._columns(values)
        values -= mean
        values /= std
        return values

    def _columns(self, values: Floats) -> tuple[Floats, Floats]:
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, values.shape[1]):
                raise RequestError(
                    f"transform normalize: {len(numbers)} numbers in {what}, the data have {values.shape[1]} channels"
                )
        column = (-1, *(1,) * (values.ndim - 2))
        return np.array(self.mean, np.float32).reshape(column), np.array(self.std, np.float32).reshape(column)


class _Sized(Transform):
    """A transform to given sizes, one for each spatial axis."""

    geometric = True
    short = "size"
    size: list[int] = Field(min_length=1)

    @field_validator("size", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("size")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError("expected whole numbers from 1")
        return value

    def _check(self, rank: int) -> None:
        if len(self.size) != rank:
            name = next(name for name, model in TRANSFORMS.items() if isinstance(self, model))
            raise RequestError(f"transform {name}: {len(self.size)} sizes given, the data have {rank} spatial axes")


@transform("resize")
class Resize(_Sized):
    """To ``size``, linear with half-pixel centres, antialiased where it shrinks."""

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Interpolate."""
        self._check(values.ndim - 2)
        return resize(values, self.size, antialias=True)

    def moved(self, geometry: Geometry) -> Geometry:
        """The same extent in other steps."""
        moved = zip(geometry.axes, geometry.sizes, self.size, strict=True)
        return Geometry(tuple(axis.resized(old, new) for axis, old, new in moved), tuple(self.size))


@transform("crop")
class Crop(_Sized):
    """``size`` points from ``start``, the middle ones by default."""

    start: list[int] | None = None

    def _starts(self, sizes: Sequence[int]) -> list[int]:
        self._check(len(sizes))
        starts = (
            self.start
            if self.start is not None
            else [(old - new) // 2 for old, new in zip(sizes, self.size, strict=True)]
        )
        if any(s < 0 or s + new > old for s, new, old in zip(starts, self.size, sizes, strict=True)):
            raise RequestError(f"transform crop: {self.size} from {starts} does not fit into {list(sizes)}")
        return starts

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Cut."""
        cuts = zip(self._starts(values.shape[2:]), self.size, strict=True)
        cut: Floats = values[_box(cuts)]
        return cut

    def moved(self, geometry: Geometry) -> Geometry:
        """Beginning later."""
        starts = self._starts(geometry.sizes)
        return Geometry(tuple(a.shifted(s) for a, s in zip(geometry.axes, starts, strict=True)), tuple(self.size))


@transform("pad")
class Pad(_Sized):
    """To ``size`` with ``value``, the sample at ``align``."""

    value: float = 0.0
    align: Literal["start", "center", "end"] = "center"

    def _before(self, sizes: Sequence[int]) -> list[int]:
        self._check(len(sizes))
        more = [new - old for old, new in zip(sizes, self.size, strict=True)]
        if min(more) < 0:
            raise RequestError(f"transform pad: {list(sizes)} is larger than {self.size}; crop or resize instead")
        return [{"start": 0, "center": m // 2, "end": m}[self.align] for m in more]

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Put into a field of ``value``."""
        before = self._before(values.shape[2:])
        result = np.full((*values.shape[:2], *self.size), self.value, values.dtype)
        cuts = zip(before, values.shape[2:], strict=True)
        result[_box(cuts)] = values
        return result

    def moved(self, geometry: Geometry) -> Geometry:
        """Beginning earlier."""
        before = self._before(geometry.sizes)
        return Geometry(tuple(a.shifted(-b) for a, b in zip(geometry.axes, before, strict=True)), tuple(self.size))


@transform("resample")
class Resample(Transform):
    """Along T to ``rate`` Hz, linear, antialiased where that is less; needs data.rate."""

    geometric = True
    short = "rate"
    rate: float = Field(gt=0)

    def _plan(self, geometry: Geometry) -> tuple[int, tuple[int, ...]]:
        place = _time(geometry, "resample")
        sizes = list(geometry.sizes)
        sizes[place] = max(1, round(sizes[place] * geometry.axes[place].step * self.rate))
        return place, tuple(sizes)

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Interpolate along T."""
        _, sizes = self._plan(geometry)
        return resize(values, sizes, antialias=True)

    def moved(self, geometry: Geometry) -> Geometry:
        """The same seconds in other steps."""
        place, sizes = self._plan(geometry)
        axes = list(geometry.axes)
        axes[place] = axes[place].resized(geometry.sizes[place], sizes[place])
        return Geometry(tuple(axes), sizes)


@transform("bandpass")
class Bandpass(Transform):
    """Butterworth along T, ``low`` to ``high`` Hz (one may be left out), forwards and backwards; needs data.rate."""

    low: float | None = Field(None, gt=0)
    high: float | None = Field(None, gt=0)
    order: int = Field(4, ge=1)

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Filter, with no shift in phase."""
        try:
            from scipy.signal import butter, sosfiltfilt
        except ImportError:
            raise RequestError("transform bandpass needs SciPy: pip install 'camsweep[signal]'") from None
        place = _time(geometry, "bandpass")
        rate = 1 / geometry.axes[place].step
        edges = [edge for edge in (self.low, self.high) if edge is not None]
        if not edges or edges != sorted(set(edges)) or edges[-1] >= rate / 2:
            raise RequestError(
                f"transform bandpass: {self.low} to {self.high} Hz given, expected low < high < {rate / 2:g}"
            )
        kind = "bandpass" if len(edges) == 2 else "lowpass" if self.low is None else "highpass"
        sections = butter(self.order, edges if len(edges) == 2 else edges[0], kind, fs=rate, output="sos")
        filtered: Floats = sosfiltfilt(sections, values, axis=2 + place).astype(np.float32)
        return filtered


@transform("channel-order")
class ChannelOrder(Transform):
    """Channels in another order, or some of them: ``[2, 1, 0]``, or ``"bgr"``."""

    geometric = True
    short = "order"
    order: list[int] = Field(min_length=1)

    @field_validator("order", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return [2, 1, 0] if value == "bgr" else value

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Take the channels."""
        if not all(0 <= place < values.shape[1] for place in self.order):
            raise RequestError(
                f"transform channel-order: {self.order} given, the data have channels 0..{values.shape[1] - 1}"
            )
        return values[:, self.order]

    def renamed(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """The names go where their channels go."""
        return tuple(channels[place] for place in self.order)


@transform("python")
class Python(Transform):
    """The user's own, ``FILE.py:FUNCTION`` or ``package.module:function``: from (n, channel, *s) to n of them."""

    short = "function"
    function: str

    def apply(self, values: Floats, geometry: Geometry) -> Floats:
        """Call it."""
        try:
            result = np.asarray(function(self.function, "transform python")(values))
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(f"transform python {self.function} fails: {type(error).__name__}: {error}") from error
        if result.ndim != values.ndim or len(result) != len(values):
            raise RequestError(f"transform python {self.function} made {result.shape} of {values.shape}")
        return result.astype(np.float32, copy=False)


def _box(cuts: Iterable[tuple[int, int]]) -> tuple[Any, ...]:
    """An index of the trailing axes, from (start, size) of each."""
    return (..., *(slice(start, start + size) for start, size in cuts))


def _time(geometry: Geometry, what: str) -> int:
    for place, axis in enumerate(geometry.axes):
        if axis.name == "time" and axis.unit == "s":
            return place
    raise RequestError(f"transform {what} needs the sampling rate along T: give data.rate")
