"""Results without a file: what the reader answers, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camsweep.core.data.axes import Axis


@dataclass
class FakeMap:
    name: str
    array: NDArray[Any]
    per_channel: bool = False
    signed: bool = False
    units: str = "logit"
    concepts: int = 0
    axes: tuple[Axis, ...] | None = None
    layout: str = ""
    parts: NDArray[Any] | None = None

    @property
    def signals_shape(self) -> tuple[int, ...] | None:
        return None if self.parts is None else self.parts.shape[1:]

    def read(self, rows: Sequence[int]) -> NDArray[Any]:
        return self.array[list(rows)]

    def signals(self, rows: Sequence[int]) -> NDArray[Any] | None:
        return None if self.parts is None else self.parts[list(rows)]


@dataclass
class FakeResults:
    data: NDArray[Any]
    axes: tuple[Axis, ...]
    maps: dict[str, FakeMap]
    ids: list[str] = field(default_factory=list)
    status: Any = None
    labels: Any = None
    classes: tuple[str, ...] | None = ("nsr", "pvc", "afib")
    channels: tuple[str, ...] | None = None
    target_names: tuple[str, ...] = ("predicted",)
    path: Path = Path("run.h5")
    confidence: Any = None

    def __post_init__(self) -> None:
        n, targets = len(self.data), len(self.target_names)
        self.ids = self.ids or [f"sample-{k}" for k in range(n)]
        self.status = np.ones(n, np.uint8) if self.status is None else np.asarray(self.status, np.uint8)
        self.labels = np.full(n, 1) if self.labels is None else np.asarray(self.labels)
        self.outputs = np.tile([0.5, 4.21, -3.0], (n, 1))
        self.predicted = np.full(n, 1)
        self.target_index = np.full((n, targets), 1)
        self.target_foil = np.full((n, targets), -1)
        self.target_score = np.full((n, targets), 4.21)

    def inputs(self, rows: Sequence[int]) -> NDArray[Any]:
        return self.data[list(rows)]


PX = (Axis("height", "px", 1.0), Axis("width", "px", 1.0))


def image_results(values: Any, *, signed: bool = False, per_channel: bool = False, **more: Any) -> FakeResults:
    """Images as large as the maps ``values`` (n, T, [C,] h, w)."""
    values = np.asarray(values, float)
    data = np.random.default_rng(0).random((len(values), 1, *values.shape[-2:]))
    return FakeResults(data, PX, {"gradcam@a": FakeMap("gradcam@a", values, per_channel, signed)}, **more)


@pytest.fixture
def fake() -> Any:
    return FakeResults


@pytest.fixture
def fake_map() -> Any:
    return FakeMap


@pytest.fixture
def images() -> Any:
    return image_results


@pytest.fixture
def six(images):
    values = np.random.default_rng(0).random((6, 1, 4, 5))
    values[1] = 0
    values[3] = np.nan
    return images(values, ids=["../../x", "zero", "a/b", "nan", "failed", "🫀"], status=[1, 2, 1, 3, 4, 1])
