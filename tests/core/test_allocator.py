"""Memory that batches free stays while a run goes on, and goes back behind it."""

import json
import subprocess
import sys

import pytest

COUNT = """
import json, resource
import numpy as np
from camsweep.core import allocator

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        kept = [np.ones(size << 17) for size in (48, 16, 48, 16)]  # MiB
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults(5)]
try:
    with allocator.keeping():
        found += [faults(1), faults(5)]
        raise KeyError
except KeyError:
    found.append(faults(5))
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_pages_are_made_once():
    """Pages that come to be where large arrays are made and let go of again and again; in a process of its own."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, first, others, behind = json.loads(done.stdout)
    assert others < first / 10
    assert min(before, behind) > first
