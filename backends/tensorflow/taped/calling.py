"""How a model is called with (batch, channel, *s), and what it gives is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ....core.errors import RequestError
from ....core.outputs import Outputs
from ...torch.structured import named_tensors, selected
from .compiling import FoundActivation
from .framework import on, plainly, tensorflow, to_tensorflow, to_torch
from .watching import LastActivation, NoActivation

Found = LastActivation | NoActivation | FoundActivation
"""What knows the activation behind an output."""


@dataclass(frozen=True)
class Signature:
    """A function of a SavedModel that gives outputs by name, called with inputs by name."""

    function: Callable[..., Mapping[str, Any]]
    inputs: Mapping[str, Any]
    """What it takes, by name."""
    variables: tuple[Any, ...]
    """Of the whole model."""
    holder: Any = None
    """The loaded model: its function does not hold its variables."""

    def __call__(self, given: Mapping[str, Any]) -> Any:
        """An output alone comes as it is."""
        found = dict(self.function(**given))
        return next(iter(found.values())) if len(found) == 1 else found


@dataclass(frozen=True)
class Read:
    """What a forward gave."""

    outputs: Outputs
    """Behind the final activation, all as (batch, output, *places)."""
    raw: Tensor
    """The output that is explained, as the model gives it."""
    final: str | None
    sources: Mapping[str, Any] = field(repr=False)
    """TensorFlow's own tensors, of the outputs that can have a gradient."""
    explained: Any = field(repr=False)
    """The output that is explained, TensorFlow's own."""


@dataclass(frozen=True)
class Calling:
    """A Keras model or a `Signature`, on a device."""

    model: Any
    device: torch.device
    dtype: torch.dtype
    argument: str | None = None
    """Name of the input that is explained, None for the first."""
    output: str | None = None
    """Key of the output that is explained."""

    @cached_property
    def last(self) -> bool:
        """Whether the model has its channels last: as its first layer that says so, else as Keras does."""
        layers = self.model._flatten_layers() if hasattr(self.model, "_flatten_layers") else ()
        return "channels_first" not in [f for each in layers if (f := getattr(each, "data_format", None))][:1]

    @cached_property
    def _inputs(self) -> Mapping[str, Any]:
        """Name and shape or spec of each input, {} where the model does not say."""
        if isinstance(self.model, Signature):
            return self.model.inputs
        given = getattr(self.model, "inputs", None) or ()
        names = getattr(self.model, "input_names", None) or [each.name for each in given]
        return dict(zip(names, given, strict=False))

    @cached_property
    def name(self) -> str:
        """Of the input that is explained, "" where it has none."""
        if self._inputs and self.argument is not None and self.argument not in self._inputs:
            raise RequestError(f"no input {self.argument!r} in the model; its inputs are {', '.join(self._inputs)}")
        return self.argument or next(iter(self._inputs), "")

    @property
    def sample(self) -> tuple[int, ...] | None:
        """(channel, *s) of one sample of the input that is explained, where the model says all of it."""
        spec = self._inputs.get(self.name)
        sizes = () if spec is None or spec.shape is None else tuple(spec.shape)[1:]
        if not sizes or None in sizes:
            return None
        return (sizes[-1], *sizes[:-1]) if self.last else sizes

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """Evaluation, said to those that ask."""
        if isinstance(self.model, Signature):
            return {}
        parameters = inspect.signature(type(self.model).call).parameters.values()
        takes = any(each.name == "training" or each.kind is each.VAR_KEYWORD for each in parameters)
        return {"training": False} if takes else {}

    def own(self, inputs: Tensor) -> Any:
        """(batch, channel, *s) as the model takes it."""
        spec = self._inputs.get(self.name)
        rank = None if spec is None or spec.shape is None else len(spec.shape)
        if rank == inputs.ndim - 1 and inputs.shape[1] == 1:  # bare signals or images have no axis for a channel
            return to_tensorflow(inputs[:, 0])
        return to_tensorflow(inputs.movedim(1, -1) if self.last else inputs)

    def back(self, values: Any, inputs: Tensor) -> Tensor:
        """What has the shape of `own` as (batch, channel, *s) again."""
        tensor = to_torch(values).to(self.dtype)
        if tensor.ndim < inputs.ndim:
            return tensor.unsqueeze(1)
        return tensor.movedim(-1, 1) if self.last else tensor

    def __call__(self, x: Any, extra: Mapping[str, Tensor]) -> Any:
        """One forward of what `own` gave."""
        further = {name: to_tensorflow(each) for name, each in extra.items()}
        if isinstance(self.model, Signature):
            return self.model({self.name: x, **further})
        if not further:
            return self.model(x, **self._settings)
        if self._inputs:
            return self.model({self.name: x, **further}, **self._settings)
        return self.model(**{self.argument: x}, **further) if self.argument else self.model(x, **further)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """What is computed inside is computed there, and what is raised comes out as it is."""
        with on(self.device), plainly():
            yield

    def read(self, given: Any, last: Found, rows: Tensor) -> Read:
        """What a forward gave, ready for targets."""
        tf = tensorflow()
        own: dict[int, Any] = {}

        def crossed(each: Any) -> Any:
            if not isinstance(each, tf.Tensor) or not (each.dtype.is_floating or each.dtype.is_integer):
                return None
            tensor = to_torch(each)
            tensor = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            own[id(tensor)] = each
            return tensor

        named = named_tensors(tf.nest.map_structure(crossed, given), len(rows))
        key = selected(named, self.output, len(rows))
        sources = {name: own[id(tensor)] for name, tensor in named.items() if tensor.is_floating_point()}
        explained = sources.get(key)
        final, made = last.behind(explained)
        turned = {name: self._turned(tensor, named) for name, tensor in named.items()}
        raw = turned[key]
        if raw.ndim < 2 or len(raw) != len(rows):
            raise RequestError(
                f"the model gives {tuple(raw.shape)} for a batch of {len(rows)}, expected (batch, outputs)"
            )
        scores = raw if made is explained else self._turned(to_torch(made).to(self.dtype), named)
        outputs = Outputs(scores, rows, {**turned, key: scores}, key)
        return Read(outputs, raw, final, {**sources, key: made}, explained)

    def _turned(self, tensor: Tensor, named: Mapping[str, Tensor]) -> Tensor:
        """An output as (batch, output, *places); boxes and their scores stay as they are."""
        if tensor.ndim == 1:
            return tensor[:, None]
        return tensor.movedim(-1, 1) if self.last and not _detects(named) else tensor

    def cotangent(self, value: Tensor, source: Any, named: Mapping[str, Tensor]) -> Any:
        """What belongs to an output of `Outputs.named`, as it belongs to TensorFlow's own."""
        if value.ndim > 2 and self.last and not _detects(named):
            value = value.movedim(1, -1)
        return tensorflow().cast(to_tensorflow(value.reshape(tuple(source.shape))), source.dtype)


def _detects(named: Mapping[str, Tensor]) -> bool:
    return {"boxes", "scores"} <= named.keys()
