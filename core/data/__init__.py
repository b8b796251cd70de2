"""Datasets: readers by kind of file, named layouts, declarative transforms, physical axes."""

from .axes import Axis
from .dataset import Batch, Dataset, open_dataset
from .section import DataSection

__all__ = ["Axis", "Batch", "DataSection", "Dataset", "open_dataset"]
