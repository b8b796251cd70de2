"""The range of the inputs that zbox takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..keys import Threshold
from .grammar import BOXES


def bounds(
    text: str, shape: Sequence[int], data: Sequence[Sequence[float]] | None = None
) -> dict[str, NDArray[np.float32]]:
    """``low`` and ``high`` for samples of ``shape`` (channel, *s), broadcasting with them; `RequestError` if none.

    ``data`` are the smallest and the largest value of each channel of the dataset.
    """
    if text == "data":
        pair = [np.asarray(each, np.float64) for each in data or ([0.0], [0.0])]
    elif text.endswith(".npz"):
        pair = _stored(Path(text))
    else:
        pair = [np.array(Threshold(end).numbers) for end in BOXES.get(text, text).split(":")]
    found = {}
    for name, values in zip(("low", "high"), pair, strict=True):
        if values.ndim <= 1 and values.size in (1, shape[0]):
            values = values.reshape(-1, *[1] * (len(shape) - 1))
        try:
            np.broadcast_to(values, tuple(shape))
        except ValueError:
            raise RequestError(
                f"zbox={Path(text).name}: {name} is {values.shape}, expected a number, one for each of the {shape[0]} "
                f"channels, or an array of {tuple(shape)}"
            ) from None
        found[name] = values.astype(np.float32)
    if (found["low"] > found["high"]).any():
        raise RequestError(f"zbox={Path(text).name}: low is above high, expected LOW:HIGH")
    return found


def _stored(path: Path) -> list[NDArray[np.float64]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = [np.asarray(arrays[name], np.float64) for name in ("low", "high")]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RequestError(f"zbox={path.name} holds no arrays low and high: {error}") from None
    if not all(np.isfinite(each).all() for each in found):
        raise RequestError(f"zbox={path.name}: not all its values are finite (NaN or infinity)")
    return found
