"""What an input is held against: where a path begins, what an occluding window shows, what its sign is taken of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RequestError
from .keys import Threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def level(
    wanted: Threshold, blur: float, x: Tensor, references: Mapping[str, Tensor], seeds: Sequence[tuple[int, ...]]
) -> Tensor:
    """``wanted`` for the batch ``x`` (n, channel, *s), of its shape.

    ``references`` are the levels that do not come from the sample itself, by their text; ``blur`` is the width of a
    Gaussian in parts of each axis.
    """
    import numpy as np

    if wanted.numbers:
        return across(x.new_tensor(wanted.numbers), x[0]).expand_as(x)
    match wanted:
        case "zero":
            return x.new_zeros(x.shape)
        case "blur":
            from scipy.ndimage import gaussian_filter

            widths = [0, 0, *(blur * size for size in x.shape[2:])]
            return x.new_tensor(gaussian_filter(x.detach().cpu().numpy(), widths, mode="nearest"))
        case "uniform":
            noise = np.stack([np.random.default_rng((*seed, 1)).random(x.shape[1:], np.float32) for seed in seeds])
            low, high = (each.reshape(-1, *[1] * (x.ndim - 1)) for each in x.flatten(1).aminmax(dim=1))
            return low + x.new_tensor(noise) * (high - low)
    return references[wanted].expand_as(x)


def across(values: Tensor, sample: Tensor) -> Tensor:
    """Numbers for each channel as (channel, 1, ..); anything else as it is."""
    return values.reshape(-1, *[1] * (sample.ndim - 1)) if values.ndim == 1 else values


def array(wanted: Threshold, shape: Sequence[int]) -> NDArray[np.float32]:
    """The array of a file, in the ``shape`` (channel, *s) of a sample; `RequestError` where it does not fit."""
    import numpy as np

    try:
        with Path(wanted).open("rb") as file:
            found = np.lib.format.read_array(file, allow_pickle=False)
        if found.dtype.kind not in "fiub":
            raise ValueError(f"its type is {found.dtype}")
        if not np.isfinite(found).all():
            raise ValueError("not all its values are finite (NaN or infinity)")
        if found.ndim == 1 and len(found) == shape[0]:
            found = found.reshape(-1, *[1] * (len(shape) - 1))
        return np.broadcast_to(found, tuple(shape)).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"{wanted.show()} is no array for inputs of {tuple(shape)}: {error}") from None
