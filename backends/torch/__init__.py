"""PyTorch models run as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend import TorchBackend
from .loading import load_module, settle_device

if TYPE_CHECKING:
    from ...core.job import ModelSection

__all__ = ["TorchBackend", "load"]


def load(model: ModelSection, *, device: str, dtype: str, argument: str | None = None) -> TorchBackend:
    """The backend of a `ModelSection`; see `loading.load_module`."""
    where = settle_device(device)
    return TorchBackend(
        load_module(model),
        device=where,
        dtype=dtype,
        output=model.output,
        tokens=model.tokens,
        argument=argument,
    )
