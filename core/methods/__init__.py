"""The methods: each a formula over tensors, registered by one decorator; and the grammar that names them."""

from . import activation, cam, gradient, perturbation  # noqa: F401  (importing a room registers its methods)
from .grammar import Expression, parse_expression
from .registry import METHODS, Method

__all__ = ["METHODS", "Expression", "Method", "parse_expression"]
