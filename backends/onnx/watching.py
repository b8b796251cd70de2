"""Which operators are layers to somebody who looks from outside, and which are the inside of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

MOVING = frozenset(
    {"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split", "Gather", "Expand", "Cast", "Flatten", "Concat"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
WEIGHING = MOVING | {"Mul", "Div", "Add", "Sub", "Where", "MatMul", "Softmax", "MaskedSoftmax", "Einsum", "Dropout"}


class Operator(Protocol):
    """One of a graph."""

    @property
    def kind(self) -> str:
        """Which one."""
        ...

    @property
    def values(self) -> Sequence[str]:
        """The names of what it reads that is neither constant nor of shapes."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """The names of what it gives."""
        ...


Op = TypeVar("Op", bound=Operator)


def inside_attention(steps: Sequence[Op]) -> set[Op]:
    """What lies between the layers that make queries, keys and values and the one behind their attention.

    Its values are (sample, head, token, feature), which no map can be made of.
    """
    makers = {name: step for step in steps for name in step.outputs if name}
    users: dict[str, list[Op]] = {}
    for step in steps:
        for name in step.values:
            users.setdefault(name, []).append(step)
    found: set[Op] = set()
    for step in steps:
        if step.kind == "Attention" or (step.kind in ("MatMul", "Einsum") and len(step.values) == 2):
            before = _reached([step], lambda each: [makers[n] for n in each.values if n in makers], WEIGHING)
            if any("Softmax" in each.kind or each.kind == "Attention" for each in before):
                behind = _reached([step], lambda each: [u for n in each.outputs for u in users.get(n, [])], MOVING)
                found |= before | behind
    return found


def _reached(start: Iterable[Op], following: Callable[[Op], Iterable[Op]], kinds: frozenset[str]) -> set[Op]:
    """Those that one comes to from ``start`` without leaving the ``kinds``."""
    ahead, found = list(start), set(start)
    while ahead:
        for each in following(ahead.pop()):
            if each not in found and each.kind in kinds:
                found.add(each)
                ahead.append(each)
    return found
