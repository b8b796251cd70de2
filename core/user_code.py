"""Functions of the user's own, named in a job: ``FILE.py:FUNCTION`` or ``package.module:function``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .errors import RequestError, nearest


def function(name: str, what: str) -> Callable[..., Any]:
    """The function called ``name``; `RequestError`, which says ``what`` it was to be, where there is none."""
    found: Callable[..., Any] = named(name, what, callable)
    return found


def named(name: str, what: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
    """As `function`, for whatever ``fits``."""
    where, _, wanted = name.rpartition(":")
    if not where:
        raise RequestError(f"{what} {name!r} given, expected FILE.py:FUNCTION or package.module:function")
    try:
        module = _module(where, _stamp(where))
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{what} {name}: importing {where} fails: {type(error).__name__}: {error}") from error
    if module is None:
        raise RequestError(f"{what}: {where} not found")
    found = getattr(module, wanted, None)
    if found is None or not fits(found):
        choices = [name for name, value in vars(module).items() if fits(value) and not name.startswith("__")]
        raise RequestError(f"{what}: {where} has no {wanted!r}. {nearest(wanted, choices)}")
    return found


def _stamp(where: str) -> tuple[int, int]:
    """Changes with a file."""
    try:
        state = Path(where).stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


@lru_cache
def _module(where: str, _: tuple[int, int]) -> Any:
    """Run once as long as the file stays the same."""
    if not where.endswith(".py"):
        return importlib.import_module(where) if importlib.util.find_spec(where.partition(".")[0]) else None
    if not Path(where).is_file():
        return None
    module, loader = unloaded(Path(where))
    loader.exec_module(module)
    return module


def unloaded(path: Path) -> tuple[ModuleType, SourceFileLoader]:
    """A file of code as an empty module, and what fills it: with the file as it is now, leaving nothing beside it."""
    loader = _AsWritten(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None  # noqa: S101  (where there is a loader there is a spec)
    return importlib.util.module_from_spec(spec), loader


class _AsWritten(SourceFileLoader):
    """Python's own cache takes a file that changed within a second, to the same length, for the one before."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)
