"""The answer of onnxruntime to `core.backend.Backend`: all that needs no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, inliner
from torch import Tensor

from ....core.backend import Structure, Tapping
from ....core.errors import CamsweepError, NotImportedError, RequestError, nearest, says_out_of_memory
from ...torch.calling import Read
from ...torch.grids import Grid, Tokens
from ..batches import alike, varied
from ..entry import Entry
from ..importing import asked
from ..reading import opset, read
from ..runtime import told
from .ending import ending
from .layers import Place, Places, Seen
from .mates import mingled
from .parts import Whole
from .runner import Runner
from .session import Reading, RunningSession
from .sessions import Sessions, lightened, settled

COUNTED = frozenset({TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING})
"""Types of constants that are no parameters."""

TIED = 0.1
"""A range that is taken over all tokens ties them together; by so much of what the first ones change, at most."""


class RunningBackend:
    """A graph run as it is, for ``reason``: it cannot be imported, or that is asked for.

    Gradients, and what is made of them, it cannot give.
    """

    name = "onnx"
    answers = frozenset("ADSRCxyoTtfY")
    switches = frozenset[str]()

    def __init__(
        self,
        path: Path,
        reason: str,
        *,
        device: str = "auto",
        dtype: str = "float32",
        output: str | None = None,
        tokens: str | None = None,
        argument: str | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise NotImportedError(
                f"{reason}; what needs no gradient can be had with pip install onnxruntime"
            ) from None
        self._device = settled(device)
        self.device = str(self._device)
        self.notes = [f"the graph runs in onnxruntime, forward only: {reason.removeprefix(f'{path}: ')}"]
        self.versions = {
            "torch": str(torch.__version__),
            "onnx": str(onnx.__version__),
            "onnxruntime": str(onnxruntime.__version__),
        }
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._tokens = Tokens.parse(tokens)
        model, weights = lightened(read(path))
        model = inliner.inline_local_functions(model) if model.functions else model  # what is in them can be seen too
        outputs = asked(model, output)
        self._whole = whole = Whole(model, outputs)
        self._places = Places.of(whole)
        entries = [Entry.of(each, self._places.graph) for each in self._places.graph.inputs]
        if not entries:
            raise RequestError(f"{path}: the model takes no input")
        first = argument or entries[0].name
        if dtype == "float64" and any(e.name == first and e.dtype == torch.float32 for e in entries):
            raise RequestError(f"float64 asked for, but {self.notes[0]}; and the file computes in float32: take that")
        self._sessions = Sessions(whole, weights, self._device)
        values = [name for place in self._places.found.values() for name in place.outputs if name]
        meant = [whole.behind_codes[name] for name in values if name in whole.behind_codes]
        self._all = list(dict.fromkeys([*outputs, *values, *meant]))
        try:
            self._sessions.prepared(self._all)
        except Exception as error:
            raise RequestError(f"{reason}; onnxruntime cannot run it either: {told(error)}") from error
        self._places.settle(whole, self._sessions.element)
        numbers = [n for n in outputs if self._sessions.element(n) not in (0, TensorProto.STRING)]
        endings = {name: end for name in numbers if (end := ending(whole, name, opset(model)))}
        self._reading = Reading(numbers, endings, output is None and len(outputs) == 1, output)
        self._batch = next((entry.batch for entry in entries if entry.dims != ()), None)
        apart = mingled(whole)
        self._runner = Runner(self._sessions, entries, first, self._batch or (1 if apart else None), apart)
        self._grids: dict[str, Grid] = {}

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """(channel, *s) of one sample, where the file says it."""
        return next(each for each in self._runner.entries if each.name == self._runner.first).sample

    def structure(self, example: NDArray[np.float32], extra: Mapping[str, NDArray[Any]] | None = None) -> Structure:
        """One forward of ``example`` (1, channel, *s), looked at everywhere, and one of several samples."""
        tensors = {name: self._tensor(each) for name, each in (extra or {}).items()}
        try:
            with self.tapped(Tapping((), example.ndim - 2, frozenset())) as session:
                run = session(self._tensor(example), tensors)
            values, places = self._looked(run.inputs, tensors)
            seen = Seen.of(self._places.found, places, values, example.shape[2:], self._tokens)
            self._grids = seen.grids
            auto = self._auto(seen, run.read, example, tensors)
        except CamsweepError:
            raise
        except Exception as error:
            raise RequestError(f"the model cannot take a sample of shape {example.shape[1:]}: {told(error)}") from error
        keys = tuple(run.outputs.named)
        detects = run.outputs.selected == "scores" and "boxes" in keys
        return Structure(
            tuple(seen.layers),
            1 if detects else run.raw.shape[1],
            () if detects else tuple(run.raw.shape[2:]),
            detects,
            run.read.final,
            auto,
            sum(int(np.prod(each.dims)) for each in self._whole.constants.values()
                if each.dims and each.data_type not in COUNTED),
            keys,
        )  # fmt: skip

    def _looked(self, x: Tensor, extra: Mapping[str, Tensor]) -> tuple[dict[str, NDArray[Any]], dict[str, Place]]:
        """All values of one batch, of the declared size, and the layers that give one for each sample.

        A larger batch is tried. Where it does not give the same, batches of the one size are taken from now on.
        """
        runner, places, size = self._runner, self._places, self._batch or 1
        outputs = self._reading.values
        one = {n: v[np.arange(size).clip(max=len(v) - 1)] if v.ndim else v for n, v in runner.entered(x, extra).items()}
        values = self._sessions(one, self._all)
        found = places.watchable(values, size)
        tensors = {name: torch.from_numpy(each) for name, each in one.items()}
        several = [one, *({n: t.numpy() for n, t in varied(tensors, seed).items()} for seed in range(2))]
        many = {n: np.concatenate([each[n] for each in several]) if v.ndim else v for n, v in one.items()}
        same = False
        with suppress(Exception):  # it cannot take them, whatever the file says
            together = self._sessions(many, self._all)
            apart = [self._sessions(each, outputs) for each in several]
            same = all(_alike(together[name], [each[name] for each in apart]) for name in outputs)
            if same or runner.alone:
                found = {name: place for name, place in places.watchable(together, 3 * size).items() if name in found}
        self._sessions.forget(one, self._all)
        if not runner.alone:
            runner.chunk = None if same else size
        return values, found

    def _auto(self, seen: Seen, read: Read, example: NDArray[np.float32], extra: Mapping[str, Tensor]) -> str | None:
        explained = read.outputs.selected or self._reading.outputs[0]
        score = self._reading.endings[explained].value if read.final else explained

        def change(layer: str) -> float:
            """In the scores, by other tokens; 0 where a head that reads the class token has no more use for them."""
            with self.tapped(Tapping([layer], example.ndim - 2, frozenset("AD"))) as session:
                run = session(self._tensor(example), extra)
                A = run.activations[layer]
                before, after = run.tail(layer, A).scores, run.tail(layer, A.flip(1) * 0.5).scores
                session.forget()
            return float((after - before).abs().max())

        def least(layer: str) -> float:
            return TIED * change(layer) if self._runner.alone else 0.0

        return seen.auto(self._places.graph, self._whole.weighing(score), example.shape[2:], change, least)

    @contextmanager
    def tapped(self, tapping: Tapping) -> Iterator[RunningSession]:
        """See `core.backend.Backend.tapped`."""
        found = self._places.found
        named = [name for name, place in found.items() if place.value]
        for layer in tapping.layers:
            if layer not in named:
                raise RequestError(f"no layer {layer!r} in the model. {nearest(layer, named)}")
        layers = {layer: (found[layer].value, self._grids.get(layer, Grid())) for layer in tapping.layers}
        yield RunningSession(self._runner, self._reading, tapping, layers, self._tensor, self.notes[0])

    def unruled(
        self,
        example: NDArray[np.float32],  # noqa: ARG002
        extra: Mapping[str, NDArray[Any]] | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """There is no relevance without gradients."""
        raise RequestError("lrp hands scores backward, and onnxruntime runs forward only")

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Its own errors, torch's, and Python's."""
        said = str(error).lower()
        words = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "not enough memory")
        return (
            isinstance(error, torch.OutOfMemoryError | MemoryError)
            or says_out_of_memory(error)
            or (
                (isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime"))
                and any(each in said for each in words)
            )
        )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def _alike(together: NDArray[Any], apart: Sequence[NDArray[Any]]) -> bool:
    """Whether an output for several batches is that for each of them."""
    return together.ndim > 0 and alike(torch.from_numpy(together), torch.from_numpy(np.concatenate(apart)))
