"""What to do where a model cannot be imported."""

from __future__ import annotations

from ...core.errors import NotImportedError


def not_imported(what: str) -> NotImportedError:
    """The error for what is neither hostile nor damaged, but has no place in torch."""
    return NotImportedError(f"{what}; --native runs it in TensorFlow itself", native=True)
