"""From tensors on a device to columns of the results: as little as can be crosses, and is waited for once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .stages import Clock, Stage

if TYPE_CHECKING:
    from torch import Tensor


class Handover:
    """What is put in is on its way while the model goes on; `wait` ends with all of it in the columns.

    Maps are brought to the type they are stored in, and their ranges taken, where they are.
    """

    def __init__(self, columns: dict[str, NDArray[Any]], clock: Clock) -> None:
        self._columns, self._clock = columns, clock
        self._coming: list[tuple[NDArray[Any], Tensor]] = []
        self._device: Any = None

    def put(self, path: str, tensor: Tensor, t: int | None = None) -> None:
        """``tensor`` (batch, ..) is to be the column ``path``, or its entries of target ``t``."""
        column = self._columns[path]
        given = tensor.detach()
        if given.is_cuda:
            self._device = given.device
            given = given.to("cpu", non_blocking=True)  # into pinned memory
        self._coming.append((column if t is None else column[:, t], given.cpu()))

    def put_maps(self, group: str, values: Tensor, defined: Tensor, t: int) -> None:
        """The maps (batch, ..) of target ``t``, NaN where a sample has no such target, with range and scale.

        float16 holds values from -1 to 1, with a scale for each map: alone it would turn most small gradients into 0.
        """
        import torch

        with self._clock(Stage.HAND):
            column = (-1, *[1] * (values.ndim - 1))
            values = values.detach().where(defined.reshape(column), float("nan"))
            low, high = values.flatten(1).aminmax(dim=1)
            self.put(f"{group}/range", torch.stack([low, high], 1), t)
            if f"{group}/scale" in self._columns:
                scale = low.abs().maximum(high.abs())
                self.put(f"{group}/scale", scale, t)
                values = values / scale.where(scale > 0, 1).reshape(column)
            self.put(f"{group}/values", values.to(getattr(torch, self._columns[f"{group}/values"].dtype.name)), t)

    def wait(self) -> None:
        """Until all is there."""
        if self._device is not None:
            import torch

            torch.cuda.current_stream(self._device).synchronize()  # until the model is done, which is its time
        with self._clock(Stage.HAND):
            for column, tensor in self._coming:
                column[...] = tensor.numpy()
            self._coming.clear()
