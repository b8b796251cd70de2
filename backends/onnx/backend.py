"""An imported network as a backend."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.backend import Layer, Structure
from ...core.errors import CamsweepError, RequestError, first_line
from ..torch import TorchBackend
from ..torch.calling import trying
from ..torch.grids import alike
from .batches import settle_batches
from .checking import check, likely
from .importing import network
from .network import Network
from .reading import read

PLUMBING = frozenset(
    {"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split", "Gather", "Expand", "Cast", "Pad", "Flatten"}
    | {"MatMul", "Softmax", "MaskedSoftmax", "Einsum", "Where", "Native", "Unrolled", "Padded", "Cut"}
)
"""Kinds of layers that ``auto`` never means: they move values, weigh them, or hold the layer that is meant."""


class OnnxBackend(TorchBackend):
    """A `Network` in torch's backend. It is held against onnxruntime before its first batch."""

    name = "onnx"

    def __init__(self, path: Path, *, output: str | None = None, argument: str | None = None, **settings: Any) -> None:
        self.network = load_network(path, output)
        super().__init__(self.network, output=output, argument=argument, **settings)
        self.versions |= {"onnx": str(onnx.__version__)}
        self._path = path
        self._first = argument or self.network.entries[0].name
        self._checked = False
        if (tensors := likely(self.network)) is not None:
            try:
                self._check(tensors)
            except CamsweepError:
                raise
            except Exception:  # noqa: S110  (random numbers may be what it cannot take; a sample is tried later)
                pass

    @property
    def input_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """(channel, *s) of one sample, where the graph declares all of it."""
        return next(each.sample for each in self.network.entries if each.name == self._first)

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None) -> Structure:
        """See `TorchBackend.structure`."""
        if not self._checked:
            given = {self._first: example, **(extra or {})}
            with trying(example):
                self._check({name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in given.items()})
        found = super().structure(example, extra)
        return replace(found, auto=self._auto(found.layers, example, extra or {}))

    def _auto(
        self, layers: tuple[Layer, ...], example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]]
    ) -> str | None:
        """The last layer with the input's spatial axes, of those that do more than move values."""
        field = example.shape[2:]
        fits = [each for each in layers if each.tappable and each.rank == len(field)]
        meant = [each for each in fits if each.kind not in PLUMBING and alike(each.shape[1:], field)] or fits
        if not meant or self._grids[meant[-1].name].sizes is None:
            return meant[-1].name if meant else None
        return self._reached(meant[-1].name, meant, example, extra)

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        floating = self.network.get_buffer("like").dtype
        tensors = {name: each.to(floating) if each.is_floating_point() else each for name, each in tensors.items()}
        settle_batches(self.network, tensors)
        if importlib.util.find_spec("onnxruntime") is not None:
            check(read(self._path), self.network, tensors, self._path.name)
        self._checked = True


def load_network(path: Path, output: str | None = None) -> Network:
    """The module of a file, or of the part of it that gives one output."""
    try:
        found = network(read(path), output)
        return found.float() if found.halved else found  # which a CPU is slow in, where it can compute at all
    except RequestError as error:
        told = str(error)
        raise type(error)(told if str(path) in told else f"{path}: {told}") from error
    except Exception as error:
        line = first_line(error)
        raise RequestError(
            f"{path} cannot be imported, damaged or unheard of: {type(error).__name__}: {line}"
        ) from error
