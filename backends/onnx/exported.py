"""Exported programs, what ``torch.export.save`` writes: code, so of trusted files only."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from ...core.errors import RequestError, first_line
from ..torch.loading import settle_device
from ..torch.structured import named_tensors
from .checking import first_rows
from .exporting import ExportingBackend

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from ...core.job import ModelSection

OPSET = 20


class Program(nn.Module):
    """An exported program, called with its inputs in their order, or by their names.

    It has no other mode than the one in which it was exported.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module()
        self.names = [str(name) for name in program.graph_signature.user_inputs]
        positional, named = program.example_inputs or ((), {})
        self._count = len(positional) if len(positional) + len(named) == len(self.names) else len(self.names)

    def forward(self, *given: Tensor, **named: Tensor) -> Any:
        """What the program gives."""
        values = {**dict(zip(self.names, given, strict=False)), **named}
        if set(values) != set(self.names):
            raise RequestError(f"the model takes {', '.join(self.names)}, given were {', '.join(values)}")
        ordered = [values[name] for name in self.names]
        rest = dict(zip(self.names[self._count :], ordered[self._count :], strict=True))
        return self.inner(*ordered[: self._count], **rest)

    def train(self, mode: bool = True) -> Program:  # noqa: ARG002
        """As it is."""
        return self


def load(model: ModelSection, *, device: str, dtype: str, argument: str | None = None) -> ExportingBackend:
    """The backend of a ``.pt2`` file; ``argument`` names the input of the program that gets the data."""
    path = Path(model.weights or "")
    if not model.trust_checkpoint:
        raise RequestError(
            f"{path} is an exported program (.pt2), and torch runs code from such a file when it loads it; "
            "export the model to ONNX instead, or give --trust-checkpoint if you trust where it came from"
        )
    program = load_program(path)
    module = Program(program)
    return ExportingBackend(
        module,
        partial(exported, program),
        module.names[0],
        title=f"{path.name} (exported program)",
        device=settle_device(device),
        dtype=dtype,
        output=model.output,
        tokens=model.tokens,
        argument=argument,
    )


def load_program(path: Path) -> ExportedProgram:
    """The program in a trusted file, which may run code."""
    try:
        with _quiet():
            return torch.export.load(path)
    except Exception as error:
        line = first_line(error) or type(error).__name__
        raise RequestError(f"{path} cannot be loaded as an exported program: {line}") from None


def _batch(program: ExportedProgram) -> int:
    """The only size of a batch that it takes, 1 where it takes any."""
    inputs = (node.meta.get("val") for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    sizes = (each.shape[0] for each in inputs if isinstance(each, Tensor) and each.ndim)
    return next((size for size in sizes if isinstance(size, int)), 1)


def exported(program: ExportedProgram, tensors: Mapping[str, Tensor], module: nn.Module) -> ModelProto:
    """The ONNX of a program, its outputs named as they are in what it gives for ``tensors``."""
    if importlib.util.find_spec("onnxscript") is None:
        raise RequestError("torch exports it only with onnxscript: pip install onnxscript")
    batch = _batch(program)
    keys = list(named_tensors(module(**{name: first_rows(each, batch) for name, each in tensors.items()}), batch))
    with _quiet():
        found: Any = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, output_names=[key or "output" for key in keys], verbose=False
        )
    model: ModelProto = found.model_proto
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading and exporting warn of much that is as it should be, and tell their progress."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
