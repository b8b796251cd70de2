"""A module that torch can export, as a backend: by way of its ONNX, and as it is where that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from ...core.backend import Structure, Tapping
from ...core.errors import RequestError, first_line
from ..torch import TorchBackend
from ..torch.calling import Calling
from ..torch.session import TorchSession
from ..torch.state import borrowed
from ..torch.structured import named_tensors
from .backend import OnnxBackend
from .batches import settle_batches
from .checking import TOLERANCE, _distance, check, first_rows
from .importing import network
from .network import Network

Export = Callable[[Mapping[str, Tensor], Any], ModelProto]
"""From inputs by their names, and what the module gives for them, to a model with outputs named as by
`named_tensors`."""
JIT: Any = torch.jit
CPU = torch.device("cpu")
INSIDE = frozenset("AGHDSRCudbr")
"""Questions whose answers need a look inside."""


class ExportingBackend(OnnxBackend):
    """A ``module`` whose layers cannot be watched, exported and imported when its first sample shows what it takes.

    The imported network is held against the module itself, and against onnxruntime. Where it cannot be had, or
    computes other values, ``notes`` tell why, and the module runs as it is: questions about its inside are not
    answered then.
    """

    input_shape = None
    """None of them says."""

    def __init__(
        self,
        module: nn.Module,
        export: Export,
        first: str,
        *,
        title: str,
        placed: Callable[[torch.device], nn.Module] | None = None,
        output: str | None = None,
        argument: str | None = None,
        **settings: Any,
    ) -> None:
        TorchBackend.__init__(self, module, output=output, argument=argument, **settings)
        self.versions |= {"onnx": str(onnx.__version__)}
        self._original, self._export, self._title, self._placed = module, export, title, placed
        self._first, self._output = argument or first, output
        self._imported: Network | None = None
        self._shapes: tuple[tuple[int, ...], ...] = ()

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None) -> Structure:
        """See `TorchBackend.structure`; the first sample of its shape is what the module is exported with."""
        given = {self._first: example, **(extra or {})}
        shapes = tuple(np.shape(each) for each in given.values())
        if shapes != self._shapes:
            self._take(given)
            self._shapes = shapes
        if self._imported is None:
            return TorchBackend.structure(self, example, extra)
        return super().structure(example, extra)

    @contextmanager
    def tapped(self, tapping: Tapping) -> Iterator[TorchSession]:
        """See `core.backend.Backend.tapped`."""
        if self._imported is None and tapping.layers:
            raise RequestError(f"layer {tapping.layers[0]!r} cannot be watched: {'; '.join(self.notes)}")
        with super().tapped(tapping) as session:
            yield session

    def unruled(
        self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None
    ) -> Mapping[str, int]:
        """See `core.backend.Backend.unruled`."""
        if self._imported is None:
            raise RequestError(f"lrp cannot follow the model: {'; '.join(self.notes)}")
        return super().unruled(example, extra)

    @contextmanager
    def _ready(self, layout: torch.memory_format) -> Iterator[None]:
        with JIT.optimized_execution(False), super()._ready(layout):  # its fusions are for other purposes
            yield

    def _take(self, given: Mapping[str, NDArray[Any]]) -> None:
        """Import the module, or settle for it as it is."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in given.items()}
        self._imported, self.notes, self.answers = None, (), TorchBackend.answers
        try:
            with borrowed(self._original, device=CPU, dtype=torch.float32, memory_format=torch.contiguous_format):
                self._imported = self._network(tensors)
        except Exception as error:  # whatever exporters say; a sample that the module cannot take is told as by any
            line = first_line(error, 300) or type(error).__name__
            self.notes = (f"{self._title} runs as it is, its layers out of sight, as it cannot be imported: {line}",)
            self.answers = TorchBackend.answers - INSIDE
        module: nn.Module = self._imported or self._original
        if self._imported is None and self._device.type != "cpu" and self._placed is not None:
            module = self._placed(self._device)
        self.module, self._calling = module, Calling(module, self._calling.argument, self._output)
        self._checked = True

    def _network(self, tensors: Mapping[str, Tensor]) -> Network:
        with torch.no_grad():
            model = self._export(tensors, self._original)
        found = network(model, self._output).eval()
        for entry in found.entries:
            entry.channels_last = False  # it was exported with samples in the order in which they come
        self.network = found
        settle_batches(found, tensors)
        check(model, found, tensors, self._title)
        self._compare(found, tensors)
        return found

    def _compare(self, found: Network, tensors: Mapping[str, Tensor]) -> None:
        """With the module itself, at the sample and beside it."""
        generator = torch.Generator().manual_seed(0)
        small = {name: first_rows(each, found.batch or 1) for name, each in tensors.items()}
        beside = {n: t + torch.randn(t.shape, generator=generator) * t.is_floating_point() for n, t in small.items()}
        for values in (small, {n: t.to(small[n].dtype) for n, t in beside.items()}):
            with torch.no_grad():
                theirs = named_tensors(self._original(**values), found.batch or 1)
                given = found(**values)
            ours = {next(iter(found.outputs)): given} if isinstance(given, Tensor) else given
            for name, value in ours.items():
                wanted = theirs[name] if name in theirs else theirs[""]
                if value.is_floating_point() and (off := _distance(value, wanted.float())) > TOLERANCE:
                    raise RequestError(f"exported, it computes other values: they differ by {off:.1e} of the largest")
