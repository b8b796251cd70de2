"""Packages that are there, and for a while are not: what would only be looked at need not be imported."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ...core.errors import RequestError

TENSORFLOW = frozenset({"tensorflow", "tf_keras"})
NEEDLESS = frozenset({"matplotlib", "sklearn", "pandas", "scipy", "jax", "wandb", "cv2"}) | TENSORFLOW
"""What Keras imports where it is there, and does without where it is not."""


@contextmanager
def without(names: frozenset[str]) -> Iterator[None]:
    """Importing any of these packages fails inside, as where it is not installed, if it did not happen before."""
    finder = _Missing(names - sys.modules.keys())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def imported(name: str, absent: frozenset[str], settings: Mapping[str, str], advice: str) -> Any:
    """The package ``name``, imported ``without`` others and with the environment's ``settings``, which end with it.

    `RequestError` gives the ``advice`` where it is not installed.
    """
    environment = dict(os.environ)
    os.environ.update(settings)
    try:
        with without(absent), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise RequestError(f"{name} cannot be imported: {error}") from error
        raise RequestError(advice) from None
    finally:
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)


class _Missing(MetaPathFinder, Loader):
    """It fails when the module is made, not when it is looked for, which some do only to ask."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in self._names else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)
