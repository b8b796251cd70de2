"""Deflate and crc32 of zlib, by ISA-L: ten and five times as fast."""

try:
    from isal.isal_zlib import compress, crc32
except ImportError:  # it is made for the processors that nearly everybody has
    from zlib import compress, crc32

__all__ = ["compress", "crc32"]
