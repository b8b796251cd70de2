"""Kernels that slide: their strides, and the padding that a graph asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import Node, Unsupported


@dataclass(frozen=True)
class Window:
    """Of a convolution or a pooling, over ``len(size)`` axes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    """Those before, then those behind."""
    auto: str
    """How the padding follows from the input's sizes, NOTSET where it does not."""
    ceil: bool = False
    """Whether a last window may reach over the end."""

    @classmethod
    def of(cls, node: Node, size: Sequence[int]) -> Window:
        """As a node's attributes say."""
        rank = len(size)
        if not 1 <= rank <= 3:
            raise Unsupported(f"{node.op} over {rank} axes")
        ones = [1] * rank
        auto = node.get("auto_pad", "NOTSET")
        pads = node.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return cls(
            tuple(size),
            tuple(node.get("strides", ones)),
            tuple(node.get("dilations", ones)),
            tuple(pads),
            auto if auto.startswith("SAME") else "NOTSET",
            bool(node.get("ceil_mode", 0)),
        )

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def even(self) -> bool:
        """Whether it is padded as torch pads: by the same amount, known before, on both sides."""
        return self.auto == "NOTSET" and self.pads[: self.rank] == self.pads[self.rank :]

    @property
    def reach(self) -> tuple[int, ...]:
        """From its first point to behind its last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def amounts(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """The padding for an input of these sizes, as it is declared."""
        if self.auto == "NOTSET":
            return list(zip(self.pads[: self.rank], self.pads[self.rank :], strict=True))
        found = []
        for size, stride, reach in zip(sizes, self.stride, self.reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if self.auto == "SAME_UPPER" else (more, less))
        return found

    def reaching(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """The same with what the last windows need, where they may reach over the end."""
        found = []
        for (before, behind), size, stride, reach in zip(
            self.amounts(sizes), sizes, self.stride, self.reach, strict=True
        ):
            if self.ceil:
                count = -(-(size + before + behind - reach) // stride) + 1
                if (count - 1) * stride >= size + before:  # it would begin behind the end
                    count -= 1
                behind += max((count - 1) * stride + reach - (size + before + behind), 0)
            found.append((before, behind))
        return found
