"""How a module is called, and what a forward gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.errors import CamsweepError, RequestError, first_line
from ...core.outputs import Outputs
from .structured import named_tensors, selected
from .watching import LastActivation, NoActivation


def minds_strides(error: BaseException) -> bool:
    """Whether an operator wants its values otherwise in memory, as ``view`` does, which asks for neighbours."""
    return "stride" in str(error)


@contextmanager
def trying(example: NDArray[Any]) -> Iterator[None]:
    """A forward of the sample ``example`` (1, channel, *s): what it raises becomes `RequestError`, in one line."""
    try:
        yield
    except CamsweepError:
        raise
    except Exception as error:
        raise RequestError(
            f"the model cannot take a sample of shape {example.shape[1:]}: {type(error).__name__}: {first_line(error)}"
        ) from error


@dataclass(frozen=True)
class Calling:
    """How a module is called and read."""

    module: nn.Module
    argument: str | None = None
    """Name of the argument that the input is given as, None for the first."""
    output: str | None = None
    """Key of the output that is explained."""
    half: torch.dtype | None = None
    """What operators that can do with fewer digits compute in."""

    def cast(self, device: torch.device) -> AbstractContextManager[Any]:
        """To be entered where operators run."""
        return nullcontext() if self.half is None else torch.autocast(device.type, self.half)

    def __call__(self, x: Tensor, extra: Mapping[str, Tensor]) -> Any:
        """One forward."""
        with self.cast(x.device):
            return self._called(x, extra)

    def _called(self, x: Tensor, extra: Mapping[str, Tensor]) -> Any:
        return self.module(x, **extra) if self.argument is None else self.module(**{self.argument: x}, **extra)

    def read(self, given: Any, last: LastActivation | NoActivation, rows: Tensor) -> Read:
        """What a forward gave, ready for targets."""
        named = named_tensors(given, len(rows))
        key = selected(named, self.output, len(rows))
        final, made = last.behind(named[key])
        return self.reread(named, key, made, rows, final)

    def reread(self, named: Mapping[str, Tensor], key: str, made: Tensor, rows: Tensor, final: str | None) -> Read:
        """The same where it is known which output is explained, and which tensor its scores are."""
        if self.half is not None:
            named = {name: each.float() if each.dtype == self.half else each for name, each in named.items()}
            made = made.float()
        raw = named[key]
        if raw.ndim == 1 and len(raw) == len(rows):
            raw = raw[:, None]
        if raw.ndim < 2 or len(raw) != len(rows):
            raise RequestError(
                f"the model gives {tuple(raw.shape)} for a batch of {len(rows)}, expected (batch, outputs)"
            )
        scores = made.reshape(raw.shape)
        return Read(Outputs(scores, rows, {**named, key: scores}, key), raw, made, final)


@dataclass(frozen=True)
class Read:
    """What a forward gave."""

    outputs: Outputs
    """Behind the final activation, all as (batch, output, *places)."""
    raw: Tensor
    """The output that is explained, as the model gives it."""
    made: Tensor
    """Its scores as the forward made them."""
    final: str | None
