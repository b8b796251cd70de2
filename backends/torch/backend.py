"""The torch answer to `core.backend.Backend`: a module looked at, and made ready for batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.backend import Layer, Structure, Tapping
from ...core.errors import RequestError, nearest, says_out_of_memory
from .calling import Calling, Read, minds_strides, trying
from .grids import Grid, Order, Tokens, order_of, settle
from .session import TorchSession
from .state import borrowed, redrawn
from .structured import first_tensor
from .watching import LastActivation


class TorchBackend:
    """A ``torch.nn.Module`` as a backend; see `session.TorchSession` for what is done to it meanwhile."""

    name = "torch"
    answers = frozenset("AGHDSRCxgudbyopTNtfYr")
    switches = frozenset({"channels_last", "precision", "compile"})
    notes: Sequence[str] = ()
    input_shape: tuple[int, ...] | None = None
    """A module does not say."""

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device,
        dtype: str = "float32",
        output: str | None = None,
        tokens: str | None = None,
        argument: str | None = None,
    ) -> None:
        self.module = module = getattr(module, "_orig_mod", module)  # of torch.compile, which hooks would break
        self.device = str(device)
        self.versions = {"torch": str(torch.__version__)}
        self._device = device
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._calling = Calling(module, argument, output)
        self._tokens = Tokens.parse(tokens)
        self._grids: dict[str, Grid] = {}
        self._order: list[str] = []
        self._plain = False
        """Whether the model cannot do with channels last in memory."""

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None) -> Structure:
        """One forward of ``example`` (1, channel, *s), watched at every submodule."""
        with trying(example):
            seen, read = self._watched(example, extra or {})
        self._grids = seen.grids
        self._order = [layer.name for layer in seen.layers()]
        self.switches = type(self).switches - ({"compile"} if read.final else set())
        auto = seen.auto(read.raw if read.final else None)
        if auto is not None and self._grids[auto].sizes is not None:
            auto = self._reached(auto, seen.layers(), example, extra or {})
        keys = tuple(read.outputs.named)
        detects = read.outputs.selected == "scores" and "boxes" in keys
        return Structure(
            seen.layers(),
            1 if detects else read.raw.shape[1],
            () if detects else tuple(read.raw.shape[2:]),
            detects,
            read.final,
            auto,
            sum(parameter.numel() for parameter in self.module.parameters()),
            keys,
        )

    def _watched(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]]) -> tuple[Seen, Read]:
        """What a forward shows; laid plainly in memory, and so from here on, where the model minds the faster way."""
        seen = self._seen(tuple(example.shape[2:]))
        layout = self._layout(example.ndim - 2)
        with self._ready(layout), ExitStack() as hooks, torch.no_grad(), LastActivation() as last:
            for name, module in self.module.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                    hooks.callback(module.register_forward_hook(partial(seen.watch, name)).remove)
            try:
                given = self._calling(self._tensor(example), {k: self._tensor(v) for k, v in extra.items()})
                return seen, self._calling.read(given, last, torch.arange(len(example), device=self._device))
            except RuntimeError as error:
                if layout == torch.contiguous_format or not minds_strides(error):
                    raise
        self._plain = True
        return self._watched(example, extra)

    def _reached(
        self, last: str, layers: Sequence[Layer], example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]]
    ) -> str:
        """The last layer of tokens whose grid the outputs depend on; a normalization rather than what follows it.

        Behind the last attention a head that reads the class token leaves the patches no gradient: a map there is 0.
        """
        names = [each.name for each in layers if each.tappable and self._grids[each.name].sizes is not None]
        tapping = Tapping(names, example.ndim - 2, frozenset("Ag"))
        with self.tapped(tapping) as session:
            run = session(session.tensor(example), {name: session.tensor(each) for name, each in extra.items()})
            scores = run.outputs.scores
            slope = torch.linspace(1, 2, scores.numel(), device=scores.device, dtype=scores.dtype).reshape(scores.shape)
            gradients = run.pullback({run.outputs.selected: slope})
        reached = [name for name in names if gradients[name].any()]
        if last in reached or not reached:
            return last
        kinds = {each.name: each.kind for each in layers}
        return next((name for name in reversed(reached) if "Norm" in kinds[name]), reached[-1])

    @contextmanager
    def tapped(self, tapping: Tapping) -> Iterator[TorchSession]:
        """See `core.backend.Backend.tapped`."""
        named = dict(self.module.named_modules())
        for layer in tapping.layers:
            if layer not in named or not layer:
                raise RequestError(f"no layer {layer!r} in the model. {nearest(layer, [n for n in named if n])}")
            if isinstance(named[layer], torch.jit.ScriptModule):
                raise RequestError(f"layer {layer!r} is compiled TorchScript, which cannot be watched; choose another")
        layout = self._layout(tapping.rank, tapping.execution.channels_last)
        with self._ready(layout), ExitStack() as hooks:
            calling = replace(self._calling, half=HALVES.get(tapping.execution.precision))
            session = TorchSession(calling, tapping, self._grids, partial(self._tensor, layout=layout), layout)
            for layer in tapping.layers:
                hooks.callback(named[layer].register_forward_hook(partial(session.tap, layer)).remove)
            yield session

    @contextmanager
    def redrawn(self, share: float, seed: int) -> Iterator[None]:
        """The last ``share`` of the layers with weights of their own drawn anew meanwhile; see `state.redrawn`.

        In the order in which layers finish, found by `structure`; weights that are no layer's come before all.
        """
        named = dict(self.module.named_modules())
        order = list(dict.fromkeys([*(name for name in named if name not in self._order), *self._order]))
        own = {name: dict(named[name].named_parameters(recurse=False)) for name in order}
        layers = [name for name in order if own[name]]
        chosen = layers[len(layers) - max(1, round(share * len(layers))) :]
        weights = {f"{name}.{key}": each for name in chosen for key, each in own[name].items()}
        with redrawn({key: each for key, each in weights.items() if each.is_floating_point()}, seed):
            yield

    def unruled(
        self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None
    ) -> Mapping[str, int]:
        """See `core.backend.Backend.unruled`."""
        with self.tapped(Tapping((), example.ndim - 2, frozenset("r"))) as session:
            x, more = self._tensor(example), {name: self._tensor(each) for name, each in (extra or {}).items()}
            run = session(x, more)
            plain = session.forward(x, torch.arange(len(x), device=x.device), more).scores
        assert run.recorded is not None  # noqa: S101
        off = float((run.outputs.scores - plain).abs().max() / plain.abs().max().clamp(min=1e-30))
        if not off <= 1e-3 and plain.isfinite().all():
            raise RequestError(
                f"lrp cannot follow the model: the score it would share out is {off:.2g} off the model's own; "
                "something in it works in place where that cannot be seen"
            )
        return run.recorded[0].unruled

    def is_out_of_memory(self, error: BaseException) -> bool:
        """CUDA's own error, Python's, or the CPU allocator's RuntimeError."""
        return isinstance(error, torch.OutOfMemoryError | MemoryError) or says_out_of_memory(error)

    def _seen(self, field: tuple[int, ...]) -> Seen:
        """What looks at the layers of a model for inputs with the spatial sizes ``field``."""
        return Seen(field, self._tokens)

    def _layout(self, rank: int, channels_last: bool | None = None) -> torch.memory_format:
        # Channels-last makes convolutions in the plane a quarter faster on a CPU, those of volumes an eighth.
        plain = self._plain or channels_last is False
        return torch.contiguous_format if plain else LAYOUTS.get(rank, torch.contiguous_format)

    @contextmanager
    def _ready(self, layout: torch.memory_format) -> Iterator[None]:
        """The module borrowed, laid out in memory so."""
        with borrowed(self.module, device=self._device, dtype=self._dtype, memory_format=layout):
            yield

    def _tensor(self, values: NDArray[Any], layout: torch.memory_format | None = None) -> Tensor:
        """In the type and the layout of the model; what is not of an input's rank stays as it is."""
        movable = values.flags.writeable and min(values.strides, default=0) >= 0
        tensor = torch.from_numpy(values if movable else values.copy())
        wanted = self._dtype if tensor.is_floating_point() else tensor.dtype
        layout = self._layout(tensor.ndim - 2) if layout is None else layout
        if not tensor.is_floating_point() or layout != LAYOUTS.get(tensor.ndim - 2):
            layout = torch.contiguous_format
        if self._device.type == "cuda":  # from pinned memory it crosses while the host goes on
            tensor = tensor.contiguous(memory_format=layout).pin_memory()
        return tensor.to(self._device, wanted, non_blocking=True).contiguous(memory_format=layout)


class Seen:
    """What one forward shows of the layers, in the order in which they finish."""

    def __init__(self, field: tuple[int, ...], tokens: Tokens) -> None:
        self.field, self.tokens = field, tokens
        self.grids: dict[str, Grid] = {}
        self._outputs: dict[str, list[Tensor]] = {}
        self._found: dict[str, Layer] = {}
        self._order: Order | None = None
        self._sizes: list[tuple[int, ...]] = []

    def watch(self, name: str, module: nn.Module, _arguments: Any, output: Any) -> None:
        """A forward hook."""
        tensor = first_tensor(output)
        tensor = torch.empty(0) if tensor is None else tensor
        self._outputs.setdefault(name, []).append(tensor)
        grid, doubt = Grid(), ""
        try:
            grid = self.grid(module, tensor.shape[1:])
        except RequestError as error:
            doubt = str(error)
        if tensor.ndim and len(tensor) > 1:
            doubt = f"gives {len(tensor)} rows for a sample (windows, frames or steps); choose another layer"
        shape = grid.shape(tensor.shape[1:])
        rank = len(shape) - 1 if np.prod(shape[1:], dtype=int) > 1 else 0
        self.grids[name] = grid
        if rank == len(self.field) and not doubt:
            self._sizes.append(shape[1:])
        self._found.pop(name, None)  # a layer stands where it finished last
        calls = len(self._outputs[name])
        self._found[name] = Layer(name, type(module).__name__, shape, calls, max(rank, 0), str(grid), doubt)

    def grid(self, module: nn.Module, dims: Sequence[int]) -> Grid:
        """How a module's output (*dims) of a sample is read; `RequestError` where that is in doubt."""
        self._order = order_of(module) or self._order
        own = None if isinstance(module, nn.LayerNorm) else order_of(module)  # some normalize the first axis after all
        return settle(dims, self.field, self._order, self._sizes, self.tokens, own)

    def layers(self) -> tuple[Layer, ...]:
        """All that ran."""
        return tuple(self._found.values())

    def auto(self, final: Tensor | None = None) -> str | None:
        """The last one with the input's spatial axes, before the ``final`` activation that targets step behind."""
        fits = [
            layer
            for layer in self._found.values()
            if layer.tappable and layer.rank == len(self.field) and self._outputs[layer.name][-1] is not final
        ]
        if not fits:
            return None
        # A container ends in its last layer's own tensor: of the names for one tensor, the innermost says most.
        same = [layer for layer in fits if self._outputs[layer.name][-1] is self._outputs[fits[-1].name][-1]]
        return max(same, key=lambda layer: layer.name.count(".")).name


HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
