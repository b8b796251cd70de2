"""A module ready for batches: one forward, tapped; one backward from the outputs to the taps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...core.backend import INPUT, Tapping
from ...core.errors import RequestError
from ...core.outputs import Outputs
from .calling import Calling, Read, minds_strides
from .compiling import Compiled
from .folding import Folds, FoldWatch, OtherWayError, folded
from .grids import Grid
from .passes import BIAS, REPLAY_ERRORS, TorchPass
from .relevance.interception import Relevances
from .relevance.weighted import Memo
from .structured import first_tensor, replaced
from .watching import Biases, LastActivation, NoActivation, Rectifiers, Tape


class TorchSession:
    """See `core.backend.Session`.

    The parameters are frozen, so nothing records a graph until the lowest tapped layer, whose output becomes a leaf:
    below it the forward is bare. A tapped output goes on as a copy, so an in-place operator behind it (``relu_``)
    cannot overwrite the activation under its gradient.
    """

    def __init__(
        self,
        calling: Calling,
        tapping: Tapping,
        grids: Mapping[str, Grid],
        convert: Callable[[Any], Tensor],
        layout: torch.memory_format,
    ) -> None:
        self.calling, self.tapping, self.tensor = calling, tapping, convert
        self.passes: Counter[str] = Counter()
        """Forwards, backwards and tails that really ran."""
        self._grids, self._layout = grids, layout
        self._of_count = {grid.prefix + math.prod(grid.sizes): grid for grid in grids.values() if grid.sizes}
        self._taps: dict[str, Tensor] = {}
        self._instead: dict[str, Tensor] = {}
        self._tape: Tape | None = None
        self._folds: Folds | None = None
        self._lines = tapping.rank == 1 and tapping.execution.channels_last is not False
        self._replayable: dict[str, bool] = {}
        self._parameters = {
            id(each): name
            for name, module in calling.module.named_modules()
            for each in module.parameters(recurse=False)
        }
        self._memo: Memo = {}
        self._tapping_now = False
        self._bare_end = False
        self._batch = 0

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor] | None = None) -> TorchPass:
        """One forward of a batch, tapped."""
        tapping, questions = self.tapping, self.tapping.questions
        x = inputs.detach().contiguous(memory_format=self._layout)
        # What the tape plays again must be what ran, to the bit: a channel without effect has an effect of 0.
        played = tapping.inputs or tapping.relevance or "D" in questions
        folding = nullcontext() if played else self._folding(x, extra or {})
        self._batch = len(x)
        self._taps.clear()
        if tapping.inputs:
            self._taps[INPUT] = x.requires_grad_()
        last = self._watch()
        rectifiers = Rectifiers() if questions & {"u", "d"} else None
        biases = Biases() if "b" in questions else None
        carrying = self._relevances(x.requires_grad_()) if tapping.relevance else None
        tape = self._tape = Tape() if "D" in questions else None
        self._tapping_now = True
        try:
            with torch.set_grad_enabled(tapping.gradients or tapping.relevance), ExitStack() as watches:
                watching: list[Any] = [folding, carrying, rectifiers, biases, tape, last]
                for watch in filter(None, watching):
                    watches.enter_context(watch)  # the last one is asked first, so the tape sees what it does itself
                # A leaf may not be changed in place, nor the batch; and a model may begin by doing so.
                start = x if carrying else x.clone()
                given = self.calling(start, {name: each.clone() for name, each in (extra or {}).items()})
        except RuntimeError as error:
            if not self._runs_plainly(error):
                raise
            return self(inputs, extra)
        finally:
            self._tapping_now = False
        self.passes["forward"] += 1
        given = carrying.ended(given) if carrying else given
        if missing := [layer for layer in tapping.layers if layer not in self._taps]:
            raise RequestError(f"layer {missing[0]!r} does not run in the model's forward; choose one that does")
        read = self.calling.read(given, last, torch.arange(len(x), device=x.device))
        self._bare_end = read.final is None
        taps, offsets = dict(self._taps), self._offsets(biases)
        taps.update((name, output) for name, (output, _, _) in offsets.items())
        recorded = (carrying, read) if carrying else None
        return TorchPass(self, x.detach(), extra or {}, given, read, taps, offsets, rectifiers, tape, recorded)

    def forward(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> Outputs:
        """One forward for the outputs alone."""
        last, compiled = self._watch(), None if self._instead else self._compiled
        folding = nullcontext() if compiled or self._instead else self._folding(inputs, extra or {})
        try:
            with torch.no_grad(), last, folding:
                # A model may begin in place.
                given = (compiled or self.calling)(inputs.clone(memory_format=self._layout), extra or {})
        except RuntimeError as error:
            if not self._runs_plainly(error):
                raise
            return self.forward(inputs, rows, extra)
        self.passes["forward"] += 1
        return self.calling.read(given, last, rows).outputs

    def bare(self, inputs: Tensor, rows: Tensor, extra: Mapping[str, Tensor] | None = None) -> TorchPass:
        """One forward with nothing tapped but the input."""
        x = inputs.detach().contiguous(memory_format=self._layout).requires_grad_()
        last = self._watch()
        with torch.enable_grad(), last:
            given = self.calling(x.clone(), extra or {})
        self.passes["forward"] += 1
        return TorchPass(self, x.detach(), extra or {}, given, self.calling.read(given, last, rows), {INPUT: x}, {})

    def carried(self, inputs: Tensor, extra: Mapping[str, Tensor], rows: Tensor) -> tuple[Relevances, Read]:
        """One forward that carries relevance."""
        x = inputs.detach().contiguous(memory_format=self._layout).requires_grad_()
        carrying, last = self._relevances(x), self._watch()
        with torch.enable_grad(), carrying, last:
            given = self.calling(x, {name: each.clone() for name, each in extra.items()})
        self.passes["forward"] += 1
        return carrying, self.calling.read(carrying.ended(given), last, rows)

    def _relevances(self, x: Tensor) -> Relevances:
        return Relevances(x, self._parameters, self._memo)

    def _folding(self, x: Tensor, extra: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """What convolutions run faster with."""
        folds, lines = self._found_folds(x, extra), self._lines and x.device.type == "cpu" and x.dtype == torch.float32
        return folded(folds, lines=lines) if folds.weights or lines else nullcontext()

    def _runs_plainly(self, error: RuntimeError) -> bool:
        """Whether ``error`` minds what was done for speed, which from here on is not.

        Batch norms were folded, and this batch goes another way through the model; or channels lay last in memory: most
        such models are known before, from one sample, but some join the axis of the batch with another.
        """
        if isinstance(error, OtherWayError):
            self._folds = Folds()
            return True
        if not minds_strides(error) or not (self._lines or self._layout != torch.contiguous_format):
            return False
        self._lines, self._layout, self._folds = False, torch.contiguous_format, None
        for each in (*self.calling.module.parameters(), *self.calling.module.buffers()):
            each.data = each.data.contiguous()
        return True

    def _found_folds(self, x: Tensor, extra: Mapping[str, Tensor]) -> Folds:
        """Those of the model, found on one sample before the first batch, so that all batches are computed alike."""
        if self._folds is None:
            self._folds = Folds()
            if any(isinstance(each, _BatchNorm) for each in self.calling.module.modules()):
                self._batch, self._tapping_now, self._tape = 1, True, None
                self._taps.clear()
                try:
                    with torch.no_grad(), FoldWatch(self.calling.module) as watch:
                        given = self.calling(x[:1].clone(), {name: each[:1].clone() for name, each in extra.items()})
                    self._folds = watch.folds((given, *self._taps.values()))
                finally:
                    self._tapping_now = False
        return self._folds

    @property
    def _compiled(self) -> Calling | None:
        """What calls the module compiled, where that is asked for and nothing has to be found in a forward."""
        return self._compilable if self.tapping.execution.compiled and self._bare_end else None

    @cached_property
    def _compilable(self) -> Calling:
        return replace(self.calling, module=Compiled(self.calling.module))

    def _watch(self) -> LastActivation | NoActivation:
        """What finds the final activation; nothing once a forward has shown that there is none."""
        return NoActivation() if self._bare_end else LastActivation()

    def instead(self, layer: str, activation: Tensor, run: TorchPass) -> Outputs:
        """A whole forward with another activation at a layer."""
        self._instead = {layer: activation}
        try:
            return self.forward(run.inputs.clone(), run.outputs.rows, {k: v.clone() for k, v in run.extra.items()})
        finally:
            self._instead = {}

    def tap(self, name: str, _module: nn.Module, arguments: Any, output: Any) -> Any:
        """The forward hook of a tapped layer."""
        if not self._tapping_now and name not in self._instead:
            return output
        raw = first_tensor(output)
        if raw is None:
            raise RequestError(f"layer {name!r} gives a {type(output).__name__}, not a tensor; choose one inside it")
        grid = self._grids.get(name, Grid())
        if name in self._instead:
            return replaced(output, raw, grid.write(self._instead[name], raw))
        if len(raw) != self._batch:
            raise RequestError(f"layer {name!r} gives {len(raw)} rows for {self._batch} samples; choose another one")
        if name in self._taps:
            raise RequestError(f"layer {name!r} runs more than once in a forward; choose one that runs once")
        activation = grid.read(raw)
        if any(each is activation for each in arguments):  # what skips past the layer is no part of its output
            activation = activation.clone()
        if self.tapping.gradients and not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        self._taps[name] = activation
        if self._tape is not None:
            self._tape.start(activation)
        return replaced(output, raw, grid.write(activation, raw))

    def can_replay(self, run: TorchPass, layer: str) -> bool:
        """Whether the tail, run again alone, gives what the whole model gives; tried once, on another activation."""
        if run.tape is None or run.tape.read:  # Python saw a value, and may have done as it said
            return False
        if layer not in self._replayable:
            other = run.taps[layer].detach().flip(1) * 0.5
            expected = self.instead(layer, other, run)
            try:
                found = run.replayed(layer, other)
                # By what the other activation changes: a large constant must not hide that nothing was replayed.
                change = float((expected.scores - run.outputs.scores).abs().max())
                noise = 32 * torch.finfo(expected.scores.dtype).eps * float(expected.scores.abs().max())
                difference = float((found.scores.detach() - expected.scores).abs().max())
                self._replayable[layer] = change > 10 * noise and difference <= 1e-3 * change + noise
            except REPLAY_ERRORS:
                self._replayable[layer] = False
        return self._replayable[layer]

    def _offsets(self, biases: Biases | None) -> dict[str, tuple[Tensor, Tensor, Grid]]:
        """Output, bias (channel,) and grid of each operator that added one, in the order in which they ran."""
        offsets = {}
        for i, (output, bias, channels_last) in enumerate(biases.terms if biases else ()):
            if len(output) != self._batch:  # windows, or frames: not one for each sample
                continue
            grid = Grid("last") if channels_last else Grid()
            if channels_last and output.ndim == 3:
                grid = self._of_count.get(output.shape[1], grid)
            offsets[f"{BIAS}{i}"] = output, bias.detach(), grid
        return offsets
