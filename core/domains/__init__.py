"""Domains: time, frequency, time-frequency, wavelets, components, and the user's own."""

from . import components, parts, spectral, wavelet  # noqa: F401  (importing a room registers its domains)
from .domain import DOMAINS, Choice, Domain, Space, key_of, keys_of

__all__ = ["DOMAINS", "Choice", "Domain", "Space", "key_of", "keys_of"]
