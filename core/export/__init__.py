"""Results for other tools, from the results file alone: NPZ, NIfTI, CSV, ViRelAy, Zarr; and as xarray."""

from __future__ import annotations

from . import nifti, npz, table, virelay, zarr  # noqa: F401  (importing a room registers its format)
from .formats import FORMATS, Format, Task, export

__all__ = ["FORMATS", "Format", "Task", "export"]
