"""Input attributions by the gradient.

``x`` is the input, ``g`` the gradient of the target's score at it, both (batch, channel, *s), as is the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .registry import factor, gradient

if TYPE_CHECKING:
    from torch import Tensor


@gradient("grad", formula="d score / d x", source="Simonyan et al. 2014", units="score / input")
def grad(g: Tensor) -> Tensor:
    """Gradient of the score at the input, signed (the paper shows its largest absolute value over the channels)."""
    return g


@factor("input", formula="m * x", units="score")
def times_input(m: Tensor, x: Tensor) -> Tensor:
    """Times the input: ``grad+input`` is gradient x input (Shrikumar et al. 2016), which sums to the score behind a
    bias-free piecewise linear network.
    """
    return m * x
