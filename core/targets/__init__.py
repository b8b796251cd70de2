"""Targets: what of a model's output is explained."""

from .grammar import Target, located, parse_target
from .resolved import Reading, Resolved
from .settle import settle

__all__ = ["Reading", "Resolved", "Target", "located", "parse_target", "settle"]
