"""Keras' own functions as modules: they run on torch, and are seen operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .framework import running
from .graph import leaves_of


class Function(nn.Module):
    """A function of Keras. Its class has the function's name, which is what a listing of layers shows."""

    def __new__(cls, name: str, *_: Any) -> Function:  # noqa: D102
        return super().__new__(type(name, (cls,), {}))

    def __init__(self, _: str, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = [function]  # a layer of Keras is a torch module too, which is not to be found here

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What it gives."""
        with running(leaves_of((args, kwargs))):
            return self._function[0](*args, **kwargs)
