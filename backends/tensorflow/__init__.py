"""Keras models, and SavedModels of TensorFlow, become torch modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import RequestError

if TYPE_CHECKING:
    from ...core.job import ModelSection
    from .backend import ImportedBackend
    from .taped import NativeBackend

__all__ = ["load"]


def load(
    model: ModelSection, *, device: str, dtype: str, argument: str | None = None
) -> ImportedBackend | NativeBackend:
    """The backend of a `ModelSection`: a ``.keras`` or ``.h5`` file, a SavedModel folder, or code and weights.

    Where the model is to run ``native``, that is TensorFlow itself; else its layers become torch's.
    """
    if model.native:
        from .taped import load_native

        return load_native(model.weights, model, device, dtype, argument)
    from ..torch.loading import settle_device
    from .backend import ImportedBackend
    from .files import recognized

    where = settle_device(device)
    stored = None if model.weights is None else recognized(Path(model.weights))
    if stored is not None and stored.kind == "json":
        raise RequestError(f"{stored.path} holds an architecture without weights; name the weights, and it is found")
    if stored is not None and stored.kind == "saved_model":
        from .saved_model import imported_saved_model

        module, shape, versions = imported_saved_model(model, stored.path)
    else:
        from .conversion import imported
        from .framework import keras
        from .loading import load_keras

        module = imported(load_keras(model, stored), argument)
        shape, versions = module.sample, {"keras": str(keras().__version__)}
    return ImportedBackend(
        module,
        versions=versions,
        input_shape=shape,
        device=where,
        dtype=dtype,
        output=model.output,
        tokens=model.tokens,
        argument=argument,
    )
