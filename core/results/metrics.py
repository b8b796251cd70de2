"""Metrics, read from the file that lies beside a results file, where there is one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from .reader import Results

Metrics = dict[str, dict[str, NDArray[np.float64]]]
"""Of each map by name, each metric by name: (N, T)."""


def beside(results: Path) -> Path:
    """Where the metrics of a results file lie: ``run.metrics.h5`` for ``run.h5``."""
    return results.with_suffix(".metrics.h5")


def read(results: Results) -> Metrics:
    """Every ``<map>/<metric>`` with a number for each sample and target of a map that is there; none without a file."""
    path = beside(results.path)
    if not path.is_file() or not h5py.is_hdf5(path):
        return {}
    shape = (len(results), len(results.target_names))
    found: Metrics = {}
    with h5py.File(path, "r", locking=False) as file:
        for name in results.maps:
            group = file.get(name.replace("%", "%25").replace("/", "%2F"))
            for metric, values in group.items() if isinstance(group, h5py.Group) else ():
                if isinstance(values, h5py.Dataset) and values.shape == shape and values.dtype.kind in "fiu":
                    found.setdefault(name, {})[metric] = values[:].astype(np.float64)
    return found
