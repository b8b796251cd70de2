"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM, MMAP, MAPPED = -1, -3, -4
"""glibc's numbers (malloc.h) of what is set: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX."""
LARGEST = 32 << 20
"""The threshold that glibc comes to by itself once so much has been freed in one piece."""


@contextmanager
def keeping() -> Iterator[None]:
    """What a batch frees stays with the process, and is there for the next one.

    Else glibc gives large arrays back as they are freed, and the end of its heap behind each batch, and the system
    clears page after page of it again: a quarter of the time of large networks. On leaving, what is free is given back,
    and the thresholds are those that glibc comes to by itself. Other C libraries are left alone.
    """
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("mallopt", "malloc_trim")):
        yield
        return
    library.mallopt(MAPPED, 0)
    library.mallopt(TRIM, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(MAPPED, 1 << 16)
        library.mallopt(MMAP, LARGEST)
        library.mallopt(TRIM, 2 * LARGEST)
        library.malloc_trim(0)
