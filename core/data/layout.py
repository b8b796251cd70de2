"""Named layouts: which axis of a stored array is what. Never guessed from sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .axes import NAMES


@dataclass(frozen=True)
class Layout:
    """The letters of a stored array, in order, N first."""

    letters: str

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read ``NCT``, ``NHWC``, ``HW`` (N is understood); `RequestError` where it is none."""
        letters = text.upper()
        letters = letters if letters.startswith("N") else "N" + letters
        if odd := sorted(set(letters[1:]) - {"C", *NAMES}):
            raise RequestError(
                f"layout {text!r}: {odd[0]!r} is no axis; use N, C and {' '.join(NAMES)}, as in NCT or NHWC"
            )
        if len(set(letters)) < len(letters):
            raise RequestError(f"layout {text!r} has an axis twice; write each once, as in NCT or NHWC")
        if not set(letters) - {"N", "C"}:
            raise RequestError(f"layout {text!r} has no spatial axis; write one, as in NCT or NHWC")
        return cls(letters)

    @property
    def spatial(self) -> str:
        """The letters of the spatial axes, in stored order, which is the order of the canonical array too."""
        return self.letters.replace("N", "").replace("C", "")

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.spatial)

    def canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``array`` as (N, C, *spatial); without C there is one channel."""
        if array.ndim != len(self.letters):
            raise RequestError(
                f"layout {self.letters} has {len(self.letters)} axes, the data have {array.ndim}: {_sizes(array.shape)}"
            )
        if "C" not in self.letters:
            return array[:, np.newaxis]
        return np.moveaxis(array, self.letters.index("C"), 1)


def _sizes(shape: tuple[int, ...]) -> str:
    return "(N, " + ", ".join(map(str, shape[1:])) + ")"
