"""Padding of any axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..graph import Node, Unsupported
from ..registry import operator

Places = NDArray[np.int64]
MODES: dict[str, Callable[[Places, int], Places]] = {
    "edge": lambda at, length: at.clip(0, length - 1),
    "wrap": lambda at, length: at % length,
    "reflect": lambda at, length: (length - 1) - abs((length - 1) - at % (2 * (length - 1))) if length > 1 else at * 0,
}
"""Where the values at places outside are taken from."""


@operator("Pad", numbers=[1, 2, 3])
def pad(node: Node) -> Any:
    """With a value, or with what lies inside; cut where the amount is negative."""
    mode, own = node.get("mode", "constant"), node.get("pads", node.get("paddings"))
    default = node.get("value", 0.0)
    if mode != "constant" and mode not in MODES:
        raise Unsupported(f"Pad with mode {mode}")

    def run(x: Tensor, amounts: Any = None, value: Any = None, axes: Any = None) -> Tensor:
        amounts = own if amounts is None else amounts
        value = default if value is None else value[0] if isinstance(value, list) else value
        axes = range(x.ndim) if axes is None else axes
        sides = {a % x.ndim: (amounts[i], amounts[len(axes) + i]) for i, a in enumerate(axes)}
        if mode == "constant":
            return F.pad(x, _flat(sides, x.ndim), value=value) if any(map(any, sides.values())) else x.clone()
        for axis, (before, behind) in sides.items():
            if before or behind:
                length = x.shape[axis]
                at = MODES[mode](np.arange(-before, length + behind), length)
                x = x.index_select(axis, torch.from_numpy(at).to(x.device))
        return x

    return run


def _flat(sides: dict[int, tuple[int, int]], rank: int) -> Sequence[int]:
    first = min(axis for axis, pair in sides.items() if any(pair))
    return [amount for axis in reversed(range(first, rank)) for amount in sides.get(axis, (0, 0))]
