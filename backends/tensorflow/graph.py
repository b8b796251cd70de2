"""Layers called one after the other: a Keras graph as a torch module.

Keras has the channels last, torch's layers have them first. A value stays as the layer that made it gives it, and is
turned (a view) only before a layer that wants it otherwise; so what follows a convolution is mostly never turned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from ..torch.grids import order_of

Order = Literal["keras", "first", "any"]
"""As Keras has it; with its last axis moved behind the batch's; as it comes, all inputs alike."""


@dataclass(frozen=True)
class Leaf:
    """A torch module in a Keras layer's place."""

    module: nn.Module
    takes: Order = "any"
    """The order of all its inputs of more than two axes."""
    gives: Order | None = None
    """Where it is another than the one it takes."""


@dataclass(frozen=True)
class Value:
    """What a call gave, or an input, in the order in which it lies there."""

    number: int
    rank: int
    order: Order = "keras"
    turn: tuple[int, int] | None = None
    """The axis to move, and where to, before it is used."""

    def ordered(self, wanted: Order) -> Value:
        """It, turned where it has to be."""
        if wanted in ("any", self.order) or self.rank < 3:
            return self
        return Value(self.number, self.rank, wanted, (-1, 1) if wanted == "first" else (1, -1))


@dataclass
class Call:
    """One call of a submodule."""

    name: str
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """Nests of values and constants."""
    results: list[int]
    single: bool
    """Whether it gives a tensor rather than several."""
    drops: list[int] = field(default_factory=list)
    """Values nothing needs any more."""


class Graph(nn.Module):
    """See above. Takes its inputs one by one, gives what the Keras model gives."""

    def __init__(self, ranks: Sequence[int], order: Order) -> None:
        super().__init__()
        self.inputs = [Value(number, rank, order if rank > 2 else "keras") for number, rank in enumerate(ranks)]
        self.calls: list[Call] = []
        self.result: Any = None
        self._count = len(ranks)

    def call(
        self,
        name: str,
        leaf: Leaf,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        ranks: Sequence[int],
        *,
        single: bool = True,
        wanted: Order = "any",
    ) -> list[Value]:
        """Call ``leaf``, the submodule ``name``, and have its results, values of ``ranks``.

        ``wanted`` is the order they should be in, where the layer does not mind.
        """
        given = [value for value in leaves_of(arguments) if isinstance(value, Value)]
        takes = leaf.takes
        if takes == "any":
            takes = _common(given, wanted)
        gives = leaf.gives or takes
        results = [Value(self._count + i, rank, gives if rank > 2 else "keras") for i, rank in enumerate(ranks)]
        self._count += len(results)
        lies(leaf.module, gives)
        ordered = mapped(arguments, lambda each: each.ordered(takes) if isinstance(each, Value) else each)
        self.calls.append(Call(name, ordered, [each.number for each in results], single))
        return results

    def end(self, result: Any, order: Order) -> None:
        """``result``, a nest of values, is what it gives, those of more than two axes in ``order``."""
        self.result = mapped(result, lambda each: each.ordered(order))
        kept = {value.number for value in leaves_of(self.result)}
        for call in reversed(self.calls):
            used = {value.number for value in leaves_of(call.arguments) if isinstance(value, Value)}
            call.drops = sorted((used | set(call.results)) - kept)
            kept |= used

    def forward(self, *inputs: Tensor) -> Any:
        """What the model gives for inputs in the order it was made for."""
        values: dict[int, Tensor] = dict(enumerate(inputs))

        def fetched(nest: Any) -> Any:
            return mapped(nest, lambda each: _turned(values[each.number], each) if isinstance(each, Value) else each)

        for call in self.calls:
            args, kwargs = fetched(call.arguments)
            found = self._modules[call.name](*args, **kwargs)  # type: ignore[misc]
            values.update(zip(call.results, [found] if call.single else leaves_of(found), strict=True))
            for number in call.drops:
                del values[number]
        return fetched(self.result)


def lies(module: nn.Module, order: Order) -> None:
    """Note at a module, and at its parts that are nobody else's, in which ``order`` its outputs are."""
    for part in module.modules():
        if part is module or not hasattr(part, "lies"):
            own = None if part is module else order_of(part)
            vars(part)["lies"] = order if own is None else "first" if own == "first" else "keras"


def mapped(nest: Any, change: Callable[[Any], Any]) -> Any:
    """A nest of lists, tuples and dicts with other leaves."""
    if isinstance(nest, dict):
        return {key: mapped(each, change) for key, each in nest.items()}
    if isinstance(nest, list | tuple):
        return type(nest)(mapped(each, change) for each in nest)
    return change(nest)


def leaves_of(nest: Any) -> list[Any]:
    """The leaves of such a nest."""
    if isinstance(nest, dict):
        return leaves_of(list(nest.values()))
    if isinstance(nest, list | tuple):
        return [leaf for each in nest for leaf in leaves_of(each)]
    return [nest]


def _common(given: Iterable[Value], wanted: Order) -> Order:
    """Channels first where that is wanted or there already; values of unlike ranks are aligned as Keras aligns them."""
    given = list(given)
    if len({value.rank for value in given}) > 1:
        return "keras"
    return "first" if "first" in (wanted, *(value.order for value in given)) else "keras"


def _turned(tensor: Tensor, value: Value) -> Tensor:
    return tensor if value.turn is None else tensor.movedim(*value.turn)
