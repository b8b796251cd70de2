"""Layers and models that are somebody's own code: that runs, and the layers it calls are modules of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ...core.errors import RequestError
from .framework import in_a_line, running
from .graph import Leaf, leaves_of, lies, mapped
from .table import made, named, refused

UNKNOWN = 32
"""The size of an axis that a model leaves open, to run it once."""


class Hosted(nn.Module):
    """A Keras layer whose ``call`` is run, in Keras' order, on whatever device and in whatever dtype it is given."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = [layer]  # a torch module itself, which is not to be found here
        self._leaves: dict[int, tuple[str, Leaf]] = {}
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            if variable.value.is_floating_point():
                self.register_parameter(named(variable.name, self), variable.value)  # shared: it follows the module
        for each in layer._layers:
            _replaced(each, self)

    def prepare(self, shapes: Sequence[Sequence[int | None]]) -> None:
        """Run once, which shows how each layer is called."""
        sizes = [[1, *(UNKNOWN if size is None else size for size in shape[1:])] for shape in shapes]
        layer = self._layer[0]
        try:
            with torch.no_grad():
                Hosted.forward(self, *(torch.zeros(size) for size in sizes))
        except RequestError:
            raise
        except Exception as error:
            raise refused(layer, f"cannot be run on {sizes}: {in_a_line(error)}") from error

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What its ``call`` gives."""
        layer = self._layer[0]
        if layer._call_has_training_arg:
            kwargs["training"] = False
        with running(leaves_of((args, kwargs))):
            return layer.call(*args, **kwargs)

    def run(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of one of its layers."""
        kwargs = {k: v for k, v in kwargs.items() if k != "training" and v is not None}
        tensors = [each for each in leaves_of((args, kwargs)) if isinstance(each, Tensor)]
        if id(layer) not in self._leaves:
            leaf = made(layer, tensors[0].ndim) or hosted(layer, [each.shape for each in tensors])
            lies(leaf.module.eval(), "first" if (leaf.gives or leaf.takes) == "first" else "keras")
            self._leaves[id(layer)] = named(layer.name, self), leaf
            self.add_module(self._leaves[id(layer)][0], leaf.module)
        name, leaf = self._leaves[id(layer)]
        if leaf.takes == "first":
            args, kwargs = mapped((args, kwargs), _turned)
        found = self._modules[name](*args, **kwargs)  # type: ignore[misc]
        return mapped(found, _returned) if (leaf.gives or leaf.takes) == "first" else found


_ORIGINS: Any = WeakIdKeyDictionary()
"""Of views with the channels last: so what one layer gives is, to the next, the same tensor, and no view of a view."""


def _turned(each: Any) -> Any:
    if not isinstance(each, Tensor) or each.ndim < 3:
        return each
    return _ORIGINS[each] if each in _ORIGINS else each.movedim(-1, 1)


def _returned(each: Any) -> Any:
    if not isinstance(each, Tensor) or each.ndim < 3:
        return each
    view = each.movedim(1, -1)
    _ORIGINS[view] = each
    return view


def _replaced(layer: Any, host: Hosted) -> None:
    """Whoever calls this layer calls its module. The layer is ours alone, and is not put back."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return host.run(self, args, kwargs)

    kind = type(layer)
    object.__setattr__(
        layer, "__class__", type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    )


def hosted(layer: Any, shapes: Sequence[Sequence[int | None]]) -> Leaf:
    """The module of a layer that is not Keras' own, called with tensors of these shapes."""
    module = Hosted(layer)
    module.prepare(shapes)
    return Leaf(module, "keras")


def shapes_of(model: Any) -> list[Sequence[int | None]]:
    """Of the inputs a model was built for."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes or len(shapes) != 1 or not isinstance(shape := next(iter(shapes.values())), list | tuple):
        raise refused(model, "does not say what it takes: call it once on a batch before it is saved")
    return [tuple(shape)]
