"""The user's code: classes that a file names, and what builds a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ...core.errors import RequestError, nearest
from ..torch.loading import imported_code


def classes(source: str, layer: type) -> dict[str, Any]:
    """The layers and models in ``FILE.py:NAME``, by the names that files have for them, and what is named itself."""
    space, name = _space(source)
    found = {n: each for n, each in space.items() if inspect.isclass(each) and issubclass(each, layer)}
    own = {n: each for n, each in found.items() if not each.__module__.startswith(("keras.", "tf_keras."))}
    return own | ({name: space[name]} if callable(space.get(name)) else {})


def built(source: str, args: Mapping[str, Any]) -> Any:
    """What ``FILE.py:FUNCTION`` gives for ``args``; what is no function is given itself."""
    space, name = _space(source)
    if name not in space:
        raise RequestError(f"{source.rpartition(':')[0]} has no {name!r}. {nearest(name, _public(space))}")
    factory = space[name]
    return factory(**args) if inspect.isroutine(factory) or inspect.isclass(factory) else factory


def _space(source: str) -> tuple[dict[str, Any], str]:
    where, _, name = source.rpartition(":")
    if not where or not name:
        raise RequestError(f"model source {source!r} given, expected FILE.py:CLASS or package.module:factory")
    return vars(imported_code(where)), name


def _public(space: Mapping[str, Any]) -> list[str]:
    return [name for name, each in space.items() if callable(each) and not name.startswith("_")]
