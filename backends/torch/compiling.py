"""A module through ``torch.compile``, for forwards that nothing watches and nothing goes back through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import RequestError, first_line


class Compiled(nn.Module):
    """What a module was compiled to; the batch is an axis of any size, and a last, smaller one no other graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._run = torch.compile(module)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """As the module's own; `RequestError` where the compiler cannot."""
        for each in (*inputs, *named.values()):
            torch._dynamo.maybe_mark_dynamic(each, 0)
        try:
            return self._run(*inputs, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RequestError(f"the model cannot be compiled: {first_line(error)}; leave --compile out") from error
