"""TensorFlow runs the model itself: gradients come from its tape, tensors cross to torch and back without a copy."""

from .backend import NativeBackend
from .loading import load_native

__all__ = ["NativeBackend", "load_native"]
