"""ONNX graphs, and by their way TorchScript and ``.pt2``, are imported into torch, and explained there.

onnxruntime runs those that cannot be.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...core.job import ModelSection
    from .backend import OnnxBackend
    from .running import RunningBackend

__all__ = ["load"]


def load(model: ModelSection, *, device: str, dtype: str, argument: str | None = None) -> OnnxBackend | RunningBackend:
    """The backend of a `ModelSection`; ``argument`` names the input of the graph that gets the data.

    A graph with operators that are not imported can still be run, which is enough for what needs no gradient; any graph
    is, where ``model.native`` says so.
    """
    from ...core.errors import NotImportedError, RequestError
    from ..checkpoints import kind_of
    from ..torch.loading import settle_device
    from . import exported, torchscript
    from .backend import OnnxBackend
    from .running import RunningBackend

    if model.weights is None:
        raise RequestError(f"the onnx backend takes a file, not the code {model.source!r}: --model FILE.onnx")
    by_way = {"torchscript": torchscript, "exported": exported}
    if (kind := kind_of(Path(model.weights))) in by_way:
        found: OnnxBackend = by_way[kind].load(model, device=device, dtype=dtype, argument=argument)
        return found
    path, said = Path(model.weights), {"output": model.output, "tokens": model.tokens, "argument": argument}
    if model.native:
        return RunningBackend(path, f"{path}: --native asks for it", device=device, dtype=dtype, **said)
    try:
        return OnnxBackend(path, device=settle_device(device), dtype=dtype, **said)
    except NotImportedError as reason:
        return RunningBackend(path, str(reason), device=device, dtype=dtype, **said)
