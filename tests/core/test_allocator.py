"""Memory that batches free stays while a run goes on, and goes back behind it."""

import resource
import sys

import numpy as np
import pytest

from camsweep.core import allocator


def faults(count):
    """Pages that came to be while so many large arrays were made and let go of, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        kept = [np.ones(size << 17) for size in (48, 16, 48, 16)]  # MiB
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_pages_are_made_once():
    with allocator.keeping():
        first, others = faults(1), faults(5)
    assert others < first / 10
    with pytest.raises(KeyError), allocator.keeping():
        raise KeyError
    assert faults(1) > first / 2  # given back
