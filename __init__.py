"""camsweep: batch explanations of trained models."""

__version__ = "0.1.0"
