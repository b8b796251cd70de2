"""The torch answer to `core.trace.Backend`: one forward, tapped; one backward from the outputs to the taps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.errors import CamsweepError, RequestError, nearest
from ...core.trace import INPUT, Layer, Structure
from .state import borrowed

FINAL_ACTIVATIONS: dict[Any, str] = {
    torch.softmax: "softmax",
    Tensor.softmax: "softmax",
    nn.functional.softmax: "softmax",
    torch.log_softmax: "log-softmax",
    Tensor.log_softmax: "log-softmax",
    nn.functional.log_softmax: "log-softmax",
    torch.sigmoid: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    nn.functional.sigmoid: "sigmoid",
}
"""However a softmax or a sigmoid is called."""


class LastActivation(TorchFunctionMode):
    """Remembers the last softmax or sigmoid that ran, whoever called it: module, function or tensor method."""

    def __init__(self) -> None:
        super().__init__()
        self.name: str | None = None
        self.argument: Tensor | None = None
        self.result: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FINAL_ACTIVATIONS:
            self.name = FINAL_ACTIVATIONS[func]
            self.argument = args[0] if args else (kwargs or {}).get("input")
            self.result = result
        return result

    def behind(self, outputs: Tensor) -> tuple[str | None, Tensor]:
        """The activation that made ``outputs`` and its argument; ``(None, outputs)`` where it was none of them.

        An activation over anything but the classes (an attention map, say) cannot be the final one.
        """
        if self.argument is None or self.result is not outputs:
            return None, outputs
        return self.name, self.argument


@dataclass
class TorchPass:
    """One forward of a batch; see `core.trace.Pass`. The graph is freed with it."""

    inputs: Tensor
    outputs: Tensor
    scores: Tensor
    graph: Tensor = field(repr=False)
    taps: Mapping[str, Tensor] = field(repr=False)
    final: str | None = None

    @property
    def activations(self) -> Mapping[str, Tensor]:
        """The tapped activations, detached."""
        return {name: tensor.detach() for name, tensor in self.taps.items() if name != INPUT}

    def pullback(self, cotangent: Tensor) -> Mapping[str, Tensor]:
        """Gradient of sum(cotangent * scores) at all taps, in one backward that goes no lower than the lowest."""
        if not self.graph.requires_grad:
            raise RequestError(
                f"the outputs do not depend on {_listed(self.taps)} by a gradient (detached or not differentiable)"
            )
        gradients = torch.autograd.grad(
            self.graph, list(self.taps.values()), cotangent, retain_graph=True, materialize_grads=True
        )
        return dict(zip(self.taps, gradients, strict=True))


class TorchBackend:
    """A ``torch.nn.Module`` as a backend.

    The parameters are frozen, so nothing records a graph until the lowest tapped layer, whose output becomes a leaf:
    below it the forward is bare. A tapped output goes on as a copy, so an in-place operator behind it (``relu_``)
    cannot overwrite the activation under its gradient.
    """

    name = "torch"
    answers = frozenset("AGxg")

    def __init__(self, module: nn.Module, *, device: torch.device, dtype: str = "float32") -> None:
        self.module = module
        self.device = str(device)
        self._device = device
        self._dtype: torch.dtype = getattr(torch, dtype)
        self.versions = {"torch": str(torch.__version__)}

    def structure(self, example: NDArray[np.float32]) -> Structure:
        """One forward of ``example`` (1, channel, *s), watched at every submodule."""
        seen: dict[str, list[Tensor]] = {}
        order: list[str] = []

        def watch(name: str, _module: nn.Module, _arguments: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else torch.empty(0)
            seen.setdefault(name, []).append(tensor)
            order.append(name)

        with self._ready(example.ndim - 2) as send, ExitStack() as hooks, torch.no_grad():
            for name, module in self.module.named_modules():
                if name:
                    handle = module.register_forward_hook(partial(watch, name))
                    hooks.callback(handle.remove)
            try:
                outputs, _, final = send(self._tensor(example))
            except CamsweepError:
                raise
            except Exception as error:
                line = (str(error).strip().splitlines() or [""])[0][:200]
                raise RequestError(
                    f"the model cannot take a sample of shape {example.shape[1:]}: {type(error).__name__}: {line}"
                ) from error
        named = dict(self.module.named_modules())
        layers = []
        for name in dict.fromkeys(reversed(order)):  # a layer stands where it finished last
            shape = tuple(seen[name][-1].shape)[1:]
            spatial = shape[1:] if np.prod(shape[1:], dtype=int) > 1 else ()
            layers.append(Layer(name, type(named[name]).__name__, shape, len(seen[name]), len(spatial)))
        layers.reverse()
        fits = [layer for layer in layers if layer.tappable and layer.rank == example.ndim - 2]
        # A container ends in its last layer's own tensor: of the names for one tensor, the innermost says most.
        same = [layer for layer in fits if seen[layer.name][-1] is seen[fits[-1].name][-1]]
        auto = max(same, key=lambda layer: layer.name.count("."), default=None)
        return Structure(
            tuple(layers),
            outputs.shape[1],
            final,
            auto.name if auto else None,
            sum(parameter.numel() for parameter in self.module.parameters()),
        )

    @contextmanager
    def tapped(
        self, layers: Sequence[str], *, rank: int, inputs: bool, gradients: bool
    ) -> Iterator[Callable[[NDArray[np.float32]], TorchPass]]:
        """See `core.trace.Backend.tapped`."""
        named = dict(self.module.named_modules())
        for layer in layers:
            if layer not in named or not layer:
                raise RequestError(f"no layer {layer!r} in the model. {nearest(layer, [n for n in named if n])}")
        taps: dict[str, Tensor] = {}

        def tap(name: str, _module: nn.Module, _arguments: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise RequestError(
                    f"layer {name!r} gives a {type(output).__name__}, not a tensor; choose one inside it"
                )
            if name in taps:
                raise RequestError(f"layer {name!r} runs more than once in a forward; choose one that runs once")
            if gradients and not output.requires_grad:
                output = output.detach().requires_grad_()
            taps[name] = output
            copy: Tensor = output.clone()
            return copy

        with self._ready(rank) as send, ExitStack() as hooks:
            for layer in layers:
                hooks.callback(named[layer].register_forward_hook(partial(tap, layer)).remove)

            def run(batch: NDArray[np.float32]) -> TorchPass:
                taps.clear()
                x = entry = self._tensor(batch)
                if inputs and gradients:
                    taps[INPUT] = x.requires_grad_()
                    entry = x.clone()  # a leaf may not be changed in place, and a model may begin by doing so
                with torch.set_grad_enabled(gradients):
                    outputs, scores, final = send(entry)
                if missing := [layer for layer in layers if layer not in taps]:
                    raise RequestError(
                        f"layer {missing[0]!r} does not run in the model's forward; choose one that does"
                    )
                return TorchPass(x.detach(), outputs.detach(), scores.detach(), scores, dict(taps), final)

            yield run

    def is_out_of_memory(self, error: BaseException) -> bool:
        """CUDA's own error, Python's, or the CPU allocator's RuntimeError."""
        return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
            isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "out of memory" in str(error))
        )

    @contextmanager
    def _ready(self, rank: int) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor, str | None]]]:
        """The module borrowed for inputs of ``rank`` spatial axes: x -> outputs, scores, final activation."""
        with borrowed(self.module, device=self._device, dtype=self._dtype, memory_format=_layout(rank)) as module:

            def send(x: Tensor) -> tuple[Tensor, Tensor, str | None]:
                with LastActivation() as last:
                    outputs = module(x)
                if not isinstance(outputs, Tensor):
                    raise RequestError(
                        f"the model gives a {type(outputs).__name__}, expected a tensor (batch, outputs)"
                    )
                final, scores = last.behind(outputs)
                if outputs.shape == (len(x),):
                    outputs, scores = outputs[:, None], scores[:, None]
                if outputs.ndim != 2 or len(outputs) != len(x):
                    raise RequestError(
                        f"the model gives {tuple(outputs.shape)} for a batch of {len(x)}, expected (batch, outputs)"
                    )
                return outputs, scores, final

            yield send

    def _tensor(self, batch: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(batch).to(self._device, self._dtype)
        return tensor.contiguous(memory_format=_layout(batch.ndim - 2))


def _layout(rank: int) -> torch.memory_format:
    # Channels-last makes convolutions in the plane a quarter faster on a CPU; other ranks gain nothing.
    return torch.channels_last if rank == 2 else torch.contiguous_format


def _listed(taps: Mapping[str, Tensor]) -> str:
    return " and ".join(repr(name) if name else "the input" for name in taps)
