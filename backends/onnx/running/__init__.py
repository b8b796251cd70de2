"""Graphs that are not imported: onnxruntime runs them, forward only."""

from .backend import RunningBackend

__all__ = ["RunningBackend"]
