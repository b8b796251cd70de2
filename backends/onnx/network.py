"""The module that an ONNX graph becomes: its operators as submodules, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import RequestError
from .entry import Entry, entered

Source = tuple[Literal["value", "host", "numbers", "constant"], str]
"""Where an argument comes from: a tensor; one of the small ones that only shapes decide; such a one, or a tensor, as
Python's numbers; a constant."""
REMEMBERED = 8
"""So many shapes of the inputs are remembered with what follows from them."""


@dataclass(eq=False)
class Step:
    """One operator at work."""

    run: nn.Module | Callable[..., Any]
    arguments: Sequence[Source]
    outputs: Sequence[str]
    host: bool
    """Whether it computes with shapes, not with data."""
    done: list[str] = field(default_factory=list)
    """Values that nobody reads any more."""
    apart: bool = False
    """Whether nobody can watch it, as its values are none of each sample, or are the inside of a layer."""

    @property
    def kind(self) -> str:
        """What operator it is."""
        return type(self.run).__name__

    @property
    def values(self) -> list[str]:
        """The names of what it reads that is neither constant nor of shapes."""
        return [name for source, name in self.arguments if source == "value"]


class Network(nn.Module):
    """Called with the first input, and with further ones by their names.

    One output is given alone, several in a dict. What only the shapes of the inputs decide is computed on the CPU,
    once for each shape.
    """

    def __init__(
        self, steps: Sequence[Step], entries: Sequence[Entry], outputs: Mapping[str, str], alone: bool, steady: bool
    ) -> None:
        super().__init__()
        self.steps, self.entries, self.outputs = steps, entries, outputs
        self.alone = alone
        self.steady = steady
        """Whether shapes never depend on values."""
        self.chunk: int | None = None
        """The only size of batch that the graph computes as it should, where there is one."""
        self.halved = False
        """Whether the file computes in half precision."""
        self.watched: Callable[[str, Tensor], None] | None = None
        """Is told each value."""
        self.register_buffer("like", torch.empty(0))  # in the precision of the network, whatever it becomes
        self._known: dict[tuple[tuple[int, ...], ...], dict[str, Tensor]] = {}

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """The outputs."""
        tensors = entered(self.entries, given, named, self.get_buffer("like").dtype)
        rows = rows_of(tensors)
        if self.chunk is None or rows == self.chunk:
            found = self._run(tensors)
        else:
            found = self._in_chunks(tensors, rows, self.chunk)
        return next(iter(found.values())) if self.alone else found

    @property
    def batch(self) -> int | None:
        """The size of a batch for which the file is made, None where that is open."""
        return next((entry.batch for entry in self.entries if entry.dims != ()), None)

    def _in_chunks(self, tensors: dict[str, Tensor], rows: int, chunk: int) -> dict[str, Tensor]:
        """Batch after batch of the one size, the last filled up with its own last row."""
        if rows > chunk and any(module._forward_hooks for module in self.modules() if module is not self):
            raise RequestError(
                f"the graph is made for batches of {chunk} and for no others, so its layers cannot be watched over "
                f"{rows} samples: say --batch-size {chunk}, or export it with a dynamic batch"
            )
        found: list[dict[str, Tensor]] = []
        for start in range(0, rows, chunk):
            at = torch.arange(start, start + chunk).clamp(max=rows - 1)
            found.append(self._run({n: t[at.to(t.device)] if t.ndim else t for n, t in tensors.items()}))
        return {name: torch.cat([each[name] for each in found])[:rows] for name in found[0]}

    def _run(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        key = tuple(tuple(each.shape) for each in values.values())
        hosts = self._known.get(key) if self.steady else None
        known = hosts is not None
        hosts = {} if hosts is None else hosts
        numbers: dict[str, Any] = {}
        watched = self.watched
        for step in self.steps:
            if step.host and known:
                continue
            run = step.run.forward if step.apart and isinstance(step.run, nn.Module) else step.run
            result = run(*self._arguments(step, values, hosts, numbers))
            results = result if isinstance(result, tuple | list) else (result,)
            for name, value in zip(step.outputs, results, strict=False):
                if name:
                    (hosts if step.host else values)[name] = value
                    if watched is not None:
                        watched(name, value)
            for name in step.done:
                del values[name]
        if self.steady and not known and not torch.is_inference_mode_enabled():
            self._known = {**dict(list(self._known.items())[1 - REMEMBERED :]), key: hosts}
        return {name: self._value(value, values, hosts) for name, value in self.outputs.items()}

    def _value(self, name: str, values: Mapping[str, Tensor], hosts: Mapping[str, Tensor]) -> Tensor:
        return values[name] if name in values else hosts[name] if name in hosts else self.get_buffer(name)

    def _arguments(
        self, step: Step, values: Mapping[str, Tensor], hosts: Mapping[str, Tensor], numbers: dict[str, Any]
    ) -> list[Any]:
        found: list[Any] = []
        late: list[int] = []
        for source, name in step.arguments:
            if source == "value":
                found.append(values[name])
            elif source == "numbers":
                if name not in numbers:
                    numbers[name] = (hosts[name] if name in hosts else values[name]).tolist()
                found.append(numbers[name])
            elif source == "constant":
                found.append(self._buffers[name])
            else:
                late += [] if step.host else [len(found)]
                found.append(hosts[name])
        for i in late:  # they meet data: there, and in its precision
            beside = [each for each in found if isinstance(each, Tensor) and not any(each is found[j] for j in late)]
            floats = next((each.dtype for each in beside if each.is_floating_point()), found[i].dtype)
            place = beside[0].device if beside else found[i].device
            found[i] = found[i].to(device=place, dtype=floats if found[i].is_floating_point() else None)
        return found


def rows_of(tensors: Mapping[str, Tensor]) -> int:
    """How many samples there are."""
    return next((len(each) for each in tensors.values() if each.ndim), 1)
