"""Which axis of a tensor counts the samples: what is taken of a sample must never meet another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

REMOVES = frozenset({"select", "unbind", "squeeze", "sum", "mean", "amax", "amin", "max", "min", "norm"})
SWAPS = frozenset({"transpose", "swapaxes", "swapdims"})
WRITES = frozenset({"written", "copied", "written_view"})
RESHAPES = frozenset({"reshape", "view", "flatten", "ravel", "unflatten", "view_as", "reshape_as"})


def batch_axis(name: str, args: Sequence[Any], kwargs: dict[str, Any], given: Tensor, axis: int | None, result: Tensor,
               batch: int) -> int | None:  # fmt: skip
    """Of what an operator called ``name`` made of ``given``, which has the samples along ``axis``.

    None where that is not known. The first axis stays the first whatever is merged with it, as long as each of its
    places still is one sample's.
    """
    if axis is None:
        return None
    rank = given.ndim
    if name in WRITES:
        return axis if given is args[0] else 0
    if name == "view_of":
        return None  # as before, which the recording knows
    if name in SWAPS:
        one, other = (_number(args, kwargs, at, key) % rank for at, key in ((1, "dim0"), (2, "dim1")))
        return other if axis == one else one if axis == other else axis
    if name == "permute":
        order = kwargs["dims"] if "dims" in kwargs else args[1] if isinstance(args[1], list | tuple) else args[1:]
        return [each % rank for each in order].index(axis)
    if name in ("movedim", "moveaxis"):
        source, target = _number(args, kwargs, 1, "source"), _number(args, kwargs, 2, "destination")
        order = [each for each in range(rank) if each != source % rank]
        order.insert(target % rank, source % rank)
        return order.index(axis)
    if name in ("t", "__get__", "adjoint") and result.shape == given.mT.shape and rank > 1:
        return {rank - 1: rank - 2, rank - 2: rank - 1}.get(axis, axis)
    if name in ("unsqueeze", "stack"):
        return axis + (_number(args, kwargs, 1, "dim") % (rank + 1) <= axis)
    if name == "__getitem__":
        return _indexed(args[1], axis)
    if name == "einsum":
        return _contracted(args, given, axis)
    if name in RESHAPES:
        if axis:
            return axis if result.shape[: axis + 1] == given.shape[: axis + 1] else None
        return 0 if result.ndim and result.shape[0] % batch == 0 else None
    if name in REMOVES and result.ndim < rank:
        dims = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        gone = [each % rank for each in (dims if isinstance(dims, list | tuple) else [dims])]
        return None if axis in gone else axis - sum(each < axis for each in gone)
    axis += max(0, result.ndim - rank)  # by broadcasting, axes come in front
    return axis if axis < result.ndim else None


def _number(args: Sequence[Any], kwargs: dict[str, Any], at: int, key: str) -> int:
    return int(args[at] if len(args) > at else kwargs.get(key, 0))


def _indexed(index: Any, axis: int) -> int | None:
    """The axis behind an index of numbers, slices and new axes; None where the samples themselves are chosen from."""
    now = at = 0
    parts = index if isinstance(index, tuple) else (index,)
    for each in parts:
        if each is None:
            now += 1
        elif each is Ellipsis:
            return now + axis - at  # what is behind it takes nothing from what is before
        elif at == axis:
            return now if isinstance(each, slice) else None
        else:
            at, now = at + 1, now + (not isinstance(each, int))
    return now + axis - at


def _contracted(args: Sequence[Any], given: Tensor, axis: int) -> int | None:
    operands = args[1] if isinstance(args[1], list | tuple) else args[1:]
    place = next((i for i, each in enumerate(operands) if each is given), None)
    left, _, right = str(args[0]).replace(" ", "").partition("->")
    if place is None or not right or "." in left:
        return axis
    letter = left.split(",")[place][axis]
    return right.index(letter) if letter in right else None
