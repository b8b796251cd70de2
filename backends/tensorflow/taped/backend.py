"""The answer to `core.backend.Backend` of TensorFlow itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....core.backend import Layer, Structure, Tapping
from ....core.errors import CamsweepError, RequestError, nearest, says_out_of_memory
from ...torch.grids import Grid, Tokens, settle
from ..framework import in_a_line
from .calling import Calling, Read, Signature
from .framework import tensorflow
from .layers import first_tensor, hooked, layers_of
from .session import NativeSession
from .watching import LastActivation


class NativeBackend:
    """A Keras model, or a `Signature` of a SavedModel, as a backend."""

    name = "tensorflow"
    answers = frozenset("AGDSRCxgudyopTNtfY")
    switches = frozenset({"compile"})
    notes: Sequence[str] = ("TensorFlow itself runs the model (--native), and has no relevance and no curvature",)

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        dtype: str = "float32",
        output: str | None = None,
        tokens: str | None = None,
        argument: str | None = None,
    ) -> None:
        self.model = model
        self.device = str(device)
        self.versions = {"tensorflow": tensorflow().__version__, "torch": str(torch.__version__)}
        self._device, self._dtype = device, getattr(torch, dtype)
        self._calling = Calling(model, device, self._dtype, argument, output)
        self._tokens = Tokens.parse(tokens)
        self._grids: dict[str, Grid] = {}

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """See `core.backend.Backend`."""
        return self._calling.sample

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None) -> Structure:
        """One forward of ``example`` (1, channel, *s), watched at every layer."""
        calling = self._calling
        seen = _Seen(tuple(example.shape[2:]), self._tokens, last=calling.last)
        named = {name: self._tensor(each) for name, each in (extra or {}).items()}
        x = self._tensor(example)
        try:
            with calling.on_device(), LastActivation() as last, hooked(layers_of(self.model), seen.watch):
                given = calling(calling.own(x), named)
            read = calling.read(given, last, torch.arange(len(x), device=x.device))
        except CamsweepError:
            raise
        except Exception as error:
            narrow = "; some of TensorFlow's operators compute in float32 only" if self._dtype == torch.float64 else ""
            raise RequestError(
                f"the model cannot take a sample of shape {example.shape[1:]}: {in_a_line(error)}{narrow}"
            ) from error
        self._grids = seen.grids
        keys = tuple(read.outputs.named)
        detects = read.outputs.selected == "scores" and "boxes" in keys
        variables = self.model.variables if isinstance(self.model, Signature) else self.model.weights
        return Structure(
            seen.layers(),
            1 if detects else read.raw.shape[1],
            () if detects else tuple(read.raw.shape[2:]),
            detects,
            read.final,
            self._auto(seen, read, example, extra or {}),
            sum(math.prod(each.shape) for each in variables),
            keys,
        )

    def _auto(
        self, seen: _Seen, read: Read, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]]
    ) -> str | None:
        """The last layer with the input's spatial axes which the scores depend on.

        That may be one before the last: the scores are taken before a final softmax that is a part of a layer; and
        behind the last attention a head that reads the class token leaves the patches no gradient.
        """
        auto = seen.auto()
        if auto is None or (read.final is None and self._grids[auto].sizes is None):
            return auto
        names = [each.name for each in seen.fits()]
        with self.tapped(Tapping(names, example.ndim - 2, frozenset("AG"))) as session:
            run = session(session.tensor(example), {name: session.tensor(each) for name, each in extra.items()})
            scores = run.outputs.scores
            slope = torch.linspace(1, 2, scores.numel(), device=scores.device, dtype=scores.dtype).reshape(scores.shape)
            try:
                gradients = run.pullback({run.outputs.selected: slope})
            except RequestError:
                return auto
        reached = [name for name in names if gradients[name].any()]
        if auto in reached or not reached:
            return auto
        kinds = {each.name: each.kind for each in seen.fits()}
        norms = [name for name in reached if "Norm" in kinds[name] and self._grids[name].sizes is not None]
        return norms[-1] if norms else seen.innermost(reached[-1])

    @contextmanager
    def tapped(self, tapping: Tapping) -> Iterator[NativeSession]:
        """See `core.backend.Backend.tapped`."""
        layers = layers_of(self.model)
        for layer in tapping.layers:
            if layer not in layers:
                raise RequestError(f"no layer {layer!r} in the model. {nearest(layer, layers)}")
        yield NativeSession(self._calling, tapping, layers, self._grids, self._tensor)

    def unruled(
        self,
        example: NDArray[np.float32],  # noqa: ARG002
        extra: Mapping[str, NDArray[Any]] | None = None,  # noqa: ARG002
    ) -> Mapping[str, int]:
        """All of it: TensorFlow has no rules of relevance."""
        return {"tensorflow": 1}

    def is_out_of_memory(self, error: BaseException) -> bool:
        """TensorFlow's own error, torch's, Python's, or the CPU allocator's RuntimeError."""
        kinds = (tensorflow().errors.ResourceExhaustedError, torch.OutOfMemoryError, MemoryError)
        return isinstance(error, kinds) or says_out_of_memory(error)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
        if not tensor.is_floating_point():
            return tensor
        tensor = tensor.to(self._dtype)
        # As the model wants it: what is made of it on the way (noise, paths) keeps that order, and crosses uncopied.
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if tensor.ndim > 2 and self._calling.last else tensor


class _Seen:
    """What one forward shows of the layers, in the order in which they finish."""

    def __init__(self, field: tuple[int, ...], tokens: Tokens, *, last: bool) -> None:
        self.field, self.tokens, self.last = field, tokens, last
        self.grids: dict[str, Grid] = {}
        self._outputs: dict[str, list[Any]] = {}
        self._found: dict[str, Layer] = {}
        self._sizes: list[tuple[int, ...]] = []

    def watch(self, name: str, layer: Any, run: Callable[[], Any]) -> Any:
        """A hook; see `layers.hooked`."""
        output = run()
        tensor = first_tensor(output)
        dims = () if tensor is None or tensor.shape.rank is None else tuple(tensor.shape)[1:]
        self._outputs.setdefault(name, []).append(tensor)
        grid, doubt = Grid(), ""
        try:
            grid = self._grid(dims, getattr(layer, "data_format", None))
        except RequestError as error:
            doubt = str(error)
        shape = grid.shape(dims)
        rank = len(shape) - 1 if np.prod(shape[1:], dtype=int) > 1 else 0
        self.grids[name] = grid
        if rank == len(self.field):
            self._sizes.append(shape[1:])
        self._found.pop(name, None)  # a layer stands where it finished last
        calls = len(self._outputs[name])
        shown = str(grid) if grid.sizes is not None else ""  # channels last is nothing to tell: all have them there
        self._found[name] = Layer(name, type(layer).__name__, shape, calls, max(rank, 0), shown, doubt)
        return output

    def _grid(self, dims: Sequence[int], order: str | None) -> Grid:
        """Channels are last, but where the layer or the model has them first; two axes under an image are tokens."""
        if order == "channels_first" or not (self.last or order):
            return Grid()
        tokens = self.tokens
        said = tokens.sizes is not None and dims[:1] == ((tokens.prefix or 0) + math.prod(tokens.sizes),)
        if len(dims) == 2 and (len(self.field) > 1 or said):
            return settle(dims, self.field, "last", self._sizes, tokens)
        return Grid("last" if len(dims) > 1 else "first")

    def layers(self) -> tuple[Layer, ...]:
        """All that ran."""
        return tuple(self._found.values())

    def fits(self) -> list[Layer]:
        """Those with the input's spatial axes."""
        return [layer for layer in self._found.values() if layer.tappable and layer.rank == len(self.field)]

    def auto(self) -> str | None:
        """The last of them."""
        fits = self.fits()
        return self.innermost(fits[-1].name) if fits else None

    def innermost(self, name: str) -> str:
        """A container ends in its last layer's own tensor: of the names for one tensor, the innermost says most."""
        same = [each.name for each in self.fits() if self._outputs[each.name][-1] is self._outputs[name][-1]]
        return max(same, key=lambda each: each.count("."))
