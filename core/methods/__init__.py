"""The methods: each a formula over tensors, registered by one decorator; and the grammar that names them."""

from . import activation, cam, gradient, path, perturbation, relevance  # noqa: F401  (importing a room registers its methods)
from .grammar import Expression, Term, parse_expression
from .registry import METHODS, Method

__all__ = ["METHODS", "Expression", "Method", "Term", "parse_expression"]
