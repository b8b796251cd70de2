"""The operators, by what they are for. Importing this package registers them all."""

from . import (  # noqa: F401
    activations,
    attention,
    elementwise,
    indexing,
    moving,
    norms,
    padding,
    pooling,
    recurrent,
    reductions,
    resizing,
    sampling,
    weighted,
)
