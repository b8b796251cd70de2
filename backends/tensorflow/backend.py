"""The torch backend around a module that was imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..torch import TorchBackend
from ..torch.backend import Seen
from ..torch.grids import Grid, settle


class ImportedBackend(TorchBackend):
    """It says where the model came from, and knows which axis of each layer of Keras' holds the channels."""

    name = "tensorflow"

    def __init__(
        self,
        module: nn.Module,
        *,
        versions: Mapping[str, str],
        input_shape: tuple[int, ...] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(module, **settings)
        self.versions |= versions
        self.input_shape = input_shape

    def _seen(self, field: tuple[int, ...]) -> Seen:
        # Where Keras has the channels first, most layers have them so, but a Dense has not: that is told as in torch.
        return (
            SeenKeras(field, self._tokens) if getattr(self.module, "order", None) == "first" else super()._seen(field)
        )


class SeenKeras(Seen):
    """The layers of a Keras model that has its channels last, most of which torch has first."""

    def grid(self, module: nn.Module, dims: Sequence[int]) -> Grid:
        """See `Seen.grid`. Two axes where the input has more are tokens, and guessed; of a signal they are points."""
        order, tokens = getattr(module, "lies", None), self.tokens
        if order is None or tokens.order is not None or not self.field:
            return super().grid(module, dims)
        said = tokens.sizes is not None and dims[:1] == ((tokens.prefix or 0) + math.prod(tokens.sizes),)
        if order == "keras" and len(dims) == 2 and (len(self.field) > 1 or said):
            return settle(dims, self.field, "last", self._sizes, tokens)
        return Grid("last" if order == "keras" and len(dims) > 1 else "first")
