"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM, MMAP = -1, -3
"""glibc's names (malloc.h) of what is set: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD."""
LARGEST = 32 << 20
"""The highest threshold that glibc takes, and would come to by itself once so much has been freed in one piece."""


@contextmanager
def keeping() -> Iterator[None]:
    """What a batch frees stays with the process, and is there for the next one.

    Else glibc gives the end of its heap back behind each batch, and the system clears page after page of it again: a
    tenth of a ResNet-50's forward. On leaving it is given back, and the thresholds are those that glibc comes to by
    itself. Other C libraries are left alone.
    """
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("mallopt", "malloc_trim")):
        yield
        return
    library.mallopt(MMAP, LARGEST)
    library.mallopt(TRIM, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(TRIM, 2 * LARGEST)
        library.malloc_trim(0)
