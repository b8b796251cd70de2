"""The layers of a Keras model: their names, and how what they give is seen and replaced for a while."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .framework import tensorflow

Hook = Callable[[str, Any, Callable[[], Any]], Any]
"""Given a layer's name, the layer, and what runs it, gives what it is to give."""


def layers_of(model: Any) -> dict[str, Any]:
    """All layers and operators of a model by name, those of a nested one behind its own name and a dot.

    What a recurrent layer repeats for each step is no layer of its own. A SavedModel has none.
    """
    found: dict[str, Any] = {}
    seen: set[int] = {id(model)}

    def visit(parent: Any, prefix: str) -> None:
        for each in _children(parent):
            if id(each) in seen:
                continue
            seen.add(id(each))
            name = prefix + each.name.replace(".", "_").replace("/", "_")
            while name in found:
                name += "_"
            found[name] = each
            visit(each, f"{name}.")

    visit(model, "")
    return found


def _children(layer: Any) -> Iterable[Any]:
    if hasattr(layer, "cell") or not hasattr(layer, "_flatten_layers"):
        return ()
    # Keras 3 has ``x + y`` and ``keras.ops`` as operators beside the layers; a Sequential has its graph within.
    graph = getattr(layer, "_functional", None) or layer
    operators = getattr(graph, "_operations", None) or ()
    inner = layer._flatten_layers(include_self=False, recursive=False)
    unique = {id(each): each for each in (*operators, *inner) if each is not graph}
    return [each for each in unique.values() if type(each).__name__ != "InputLayer"]


@contextmanager
def hooked(layers: Mapping[str, Any], hook: Hook) -> Iterator[None]:
    """Each call of a layer inside goes through ``hook``. The layers are left as they were."""

    def through(name: str, layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return hook(name, layer, lambda: original(*args, **kwargs))

        return call

    own = {name: vars(layer).get("call") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            vars(layer)["call"] = through(name, layer, layer.call)  # past Keras, which would keep book of it
        yield
    finally:
        for name, layer in layers.items():
            if own[name] is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own[name]


def first_tensor(given: Any) -> Any:
    """The floating point tensor that a layer's output is, or that comes first in it; None where there is none."""
    tf = tensorflow()
    return next((t for t in tf.nest.flatten(given) if isinstance(t, tf.Tensor) and t.dtype.is_floating), None)


def replaced(given: Any, old: Any, new: Any) -> Any:
    """``given`` with one tensor in the place of another."""
    return tensorflow().nest.map_structure(lambda each: new if each is old else each, given)


class Finished:
    """What had been computed when a layer was done, so that the rest can run again without it.

    Kept of the outermost layers that had finished; a container that is not done gives its own. A layer that runs more
    than once is never kept: which of its calls is which could not be told.
    """

    def __init__(self) -> None:
        self._now: dict[str, Any] = {}
        self._at: dict[str, dict[str, Any]] = {}
        self._calls: Counter[str] = Counter()

    def run(self, name: str, run: Callable[[], Any]) -> Any:
        """Run a layer and keep what it gives."""
        before = set(self._now)
        output = run()
        self._calls[name] += 1
        self._now = {key: each for key, each in self._now.items() if key in before}
        self._now[name] = output
        return output

    def mark(self, name: str) -> None:
        """What has finished up to here is what is known when ``name`` is replaced; it is about to finish itself."""
        self._at[name] = dict(self._now)

    def before(self, name: str) -> Mapping[str, Any]:
        """By layer: what they gave before ``name`` did."""
        return {key: each for key, each in self._at[name].items() if self._calls[key] == 1}
