"""The operators that are known, each with what makes a module of a node."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from .graph import Node

Make = Callable[[Node], Any]
"""Gives a module of torch, called with the inputs that were not taken, or a function of all inputs in their places."""


@dataclass(frozen=True)
class Handler:
    """How one type of operator is imported."""

    make: Make
    numbers: frozenset[int]
    """Places of inputs that are numbers to Python: shapes, axes, sizes."""
    unsteady: bool
    """Whether the shape of what it gives depends on the values that it is given."""


HANDLERS: dict[str, Handler] = {}


def operator(*names: str, numbers: Collection[int] = (), unsteady: bool = False) -> Callable[[Make], Make]:
    """Register what imports the operators of these types."""

    def register(make: Make) -> Make:
        for name in names:
            assert name not in HANDLERS, name  # noqa: S101
            HANDLERS[name] = Handler(make, frozenset(numbers), unsteady)
        return make

    return register
