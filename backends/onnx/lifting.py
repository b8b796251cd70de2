"""Graphs that were made for batches of one size, made ready for any.

What stands in the way are reshapes to sizes that hold the batch's. The batch is followed through the graph, in which
its axis is moved, merged with others and taken out again; each reshape then knows where it must be longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .building import hosted
from .graph import Graph, Node

BROADCAST = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "And", "Or", "Equal", "Greater", "Less"}
    | {"MatMul", "Mod", "GreaterOrEqual", "LessOrEqual", "PRelu", "Expand"}
)


@dataclass(frozen=True)
class Place:
    """Where the batch is: in an axis, behind so many other elements that were merged into that."""

    axis: int
    inner: int = 1


@dataclass(frozen=True)
class Lift:
    """A reshape's result, one axis longer as an axis of its input is."""

    before: int
    """The declared size of that axis of the input."""
    at: int
    after: Sequence[int]
    to: int

    def __call__(self, shape: Sequence[int]) -> list[int]:
        """The shape of the result for an input of a shape."""
        size, rest = divmod(self.after[self.to] * shape[self.at], self.before)
        if rest:
            raise RuntimeError(f"a batch that {list(self.after)} cannot hold")
        return [*self.after[: self.to], size, *self.after[self.to + 1 :]]


def lift(graph: Graph, batch: int, shapes: Mapping[str, Sequence[int]]) -> None:
    """Note for each reshape how its result follows from its input; ``shapes`` are those at a batch of ``batch``."""
    hosts = hosted(graph)
    places = {each.name: Place(0) for each in graph.inputs if each.dims and each.dims[0] == batch}
    for node in graph.nodes:
        source = next((name for name in node.inputs if name in places), None)
        if source is None or source not in shapes:
            continue
        for output in filter(None, node.outputs):
            if output not in shapes:
                continue
            found = _followed(node, places, source, shapes, output, batch)
            if found is None or found.axis >= len(shapes[output]):
                continue
            places[output] = found
            if node.op == "Reshape" and (not node.has(1) or node.inputs[1] in hosts or node.constant(1) is not None):
                at = places[source].axis
                graph.lifts[node] = Lift(shapes[source][at], at, tuple(shapes[output]), found.axis)


def _followed(
    node: Node, places: Mapping[str, Place], source: str, shapes: Mapping[str, Sequence[int]], output: str, batch: int
) -> Place | None:
    """Where a node puts the batch, None where that is not known."""
    place, before, after = places[source], shapes[source], shapes[output]
    axis, rank = place.axis, len(before)
    if node.op in ("Reshape", "Flatten"):
        return _placed(math.prod(before[:axis]) * place.inner, after, batch)
    if node.op == "Transpose":
        return Place(list(node.get("perm", range(rank)[::-1])).index(axis), place.inner)
    if node.op in BROADCAST:
        return Place(axis + len(after) - rank, place.inner)
    if node.op in ("LSTM", "GRU", "RNN"):
        return Place(axis + len(after) - rank if output == node.outputs[0] else 1) if axis == 1 else None
    if len(after) == rank:
        return place
    if node.op in ("Squeeze", "Unsqueeze") or node.op.startswith(("Reduce", "Arg")):
        gone = _axes(node, max(rank, len(after)))
        if gone is None:
            return None
        if node.op == "Unsqueeze":
            return Place([i for i in range(len(after)) if i not in gone][axis], place.inner)
        return None if axis in gone else Place(axis - sum(each < axis for each in gone), place.inner)
    if node.op == "Gather":
        at = node.get("axis", 0) % rank
        return None if at == axis else Place(axis + (len(after) - rank) * (at < axis), place.inner)
    return None


def _axes(node: Node, rank: int) -> list[int] | None:
    given = node.constant(1)
    if node.has(1) and given is None:
        return None
    axes = node.get("axes", node.get("axis")) if given is None else given.reshape(-1).tolist()
    axes = [axes] if isinstance(axes, int) else axes
    return list(range(rank)) if axes is None else [axis % rank for axis in axes]


def _placed(ahead: int, after: Sequence[int], batch: int) -> Place | None:
    """The place behind ``ahead`` elements in a shape.

    There may be several, at the end of one axis and at the beginning of the next. An axis of its own is best; the last
    axis, of features, is worst.
    """
    found = []
    for axis, size in enumerate(after):
        passed = math.prod(after[:axis])
        inner, rest = divmod(ahead, passed) if passed else (0, 1)
        if rest or not inner or size % inner or (size // inner) % batch:
            continue
        own = inner == 1 and size == batch
        first = inner == 1 and (axis < len(after) - 1 or size == batch)
        found.append(((not own, not first, inner == 1), axis, inner))
    return Place(*min(found)[1:]) if found else None
