"""What holds for all tests."""

import random
import sys

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # the first example of a busy worker may import a framework
settings.load_profile("untimed")


def _seed() -> None:
    """Else a net is drawn now and then whose map is 0, and the tests before a test decide about it."""
    random.seed(0)  # what Keras draws its seeds from
    np.random.seed(0)  # noqa: NPY002  (what libraries draw from)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _seeded_module() -> None:
    _seed()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    _seed()
