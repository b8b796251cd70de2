"""What one forward of a module gave, and what it can be asked: gradients, curvature, relevance, its tail run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.backend import INPUT, Rule
from ...core.errors import RequestError, nearest
from ...core.outputs import Outputs
from ...core.relevance.grammar import names
from ...core.relevance.manner import Manner
from .calling import Read
from .grids import Grid
from .relevance.interception import Relevances
from .relevance.propagation import Propagated
from .structured import named_tensors
from .watching import Rectifiers, Tape

if TYPE_CHECKING:
    from .session import TorchSession

BIAS = "bias:"
"""Begins the name of a bias among the taps; no layer's name holds a colon."""
REPLAY_ERRORS = (LookupError, RuntimeError, TypeError, ValueError)
"""What operators say where they are given what they were not recorded with."""


@dataclass
class TorchPass:
    """One forward of a batch; see `core.backend.Pass`. The graph is freed with it."""

    session: TorchSession = field(repr=False)
    inputs: Tensor
    extra: Mapping[str, Tensor] = field(repr=False)
    given: Any = field(repr=False)
    read: Read = field(repr=False)
    taps: Mapping[str, Tensor] = field(repr=False)
    offsets: Mapping[str, tuple[Tensor, Tensor, Grid]] = field(repr=False)
    rectifiers: Rectifiers | None = None
    tape: Tape | None = field(default=None, repr=False)
    recorded: tuple[Relevances, Read] | None = field(default=None, repr=False)
    """Its forward as one that carries relevance."""

    @cached_property
    def outputs(self) -> Outputs:
        """Detached."""
        given = self.read.outputs
        named = {key: tensor.detach() for key, tensor in given.named.items()}
        return replace(given, scores=named[given.selected], named=named)

    @property
    def raw(self) -> Tensor:
        """Detached."""
        return self.read.raw.detach()

    @property
    def final(self) -> str | None:
        """The activation that the scores are behind."""
        return self.read.final

    @property
    def activations(self) -> Mapping[str, Tensor]:
        """The tapped activations, detached."""
        return {name: self._full(self.taps[name].detach()) for name in self.session.tapping.layers}

    def _full(self, tensor: Tensor) -> Tensor:
        """In the type of the input, whatever the model computes in."""
        return tensor if self.session.calling.half is None else tensor.to(self.inputs.dtype)

    @property
    def biases(self) -> Mapping[str, Tensor]:
        """Of the operators that ran, broadcasting with the gradients of the same names."""
        return {name: bias.reshape(-1, *[1] * (output.ndim - 2)) if grid.sizes is None
                else bias.reshape(-1, *[1] * len(grid.sizes))
                for name, (output, bias, grid) in self.offsets.items()}  # fmt: skip

    def pullback(self, cotangents: Mapping[str, Tensor], *, rule: Rule = "plain") -> Mapping[str, Tensor]:
        """Gradient of sum(cotangent * output) at all taps, in one backward that goes no lower than the lowest."""
        pairs = [(self.read.outputs.named[key], value) for key, value in cotangents.items()]
        pairs = [(output, cotangent) for output, cotangent in pairs if output.requires_grad]
        if not pairs:
            raise self._unreached()
        if rule != "plain" and self.rectifiers is not None and not self.rectifiers.count:
            raise RequestError(
                f"{rule} backpropagation changes ReLUs, and the model runs none: it would be the plain gradient"
            )
        names = [INPUT] if rule != "plain" else list(self.taps)
        with self.rectifiers.switched(rule) if self.rectifiers is not None else nullcontext():
            # As one number: given the cotangents themselves, torch first loads SymPy, which takes it a second.
            with torch.enable_grad():
                total = torch.stack([(output * cotangent).sum() for output, cotangent in pairs]).sum()
            found = torch.autograd.grad(
                total, [self.taps[name] for name in names], retain_graph=True, allow_unused=True
            )
        found = self._filled(names, found)
        self.session.passes["backward"] += 1
        return self._on_grids(dict(zip(names, found, strict=True)))

    def curved(self, total: Callable[[Outputs], Tensor]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Gradients of a function of the outputs at all taps, and at each layer its Hessian times the activation.

        One backward, and a second-order one for each layer behind which the function is not piecewise linear.
        """
        with torch.enable_grad():
            value = total(self.read.outputs)
            if not value.requires_grad:
                raise self._unreached()
            found = torch.autograd.grad(value, list(self.taps.values()), create_graph=True, allow_unused=True)
            found = self._filled(list(self.taps), found)
        self.session.passes["backward"] += 1
        gradients = dict(zip(self.taps, found, strict=True))
        products = {}
        for layer in self.session.tapping.layers:
            activation, gradient = self.taps[layer], gradients[layer]
            if not gradient.requires_grad:
                products[layer] = torch.zeros_like(activation)
                continue
            [products[layer]] = torch.autograd.grad(
                gradient, [activation], activation.detach(), retain_graph=True, materialize_grads=True
            )
            products[layer] = self._full(products[layer])
            self.session.passes["backward"] += 1
        return self._on_grids({name: each.detach() for name, each in gradients.items()}), products

    def _filled(self, names: Sequence[str], found: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """With zeros where there is no way; `RequestError` where none leads to any layer or to the input."""
        if all(each is None for name, each in zip(names, found, strict=True) if not name.startswith(BIAS)):
            raise self._unreached()
        return tuple(torch.zeros_like(self.taps[n]) if f is None else f for n, f in zip(names, found, strict=True))

    def _unreached(self) -> RequestError:
        named = " and ".join(repr(name) if name else "the input" for name in self.taps if not name.startswith(BIAS))
        return RequestError(f"the outputs do not depend on {named} by a gradient (detached or not differentiable)")

    def _on_grids(self, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those at the biases as (batch, channel, *s); the layers' are already."""
        grids = {name: grid for name, (_, _, grid) in self.offsets.items()}
        return {n: self._full(grids[n].read(each) if n in grids else each) for n, each in gradients.items()}

    def relevance(self, start: Mapping[str, Tensor], manner: Manner) -> Propagated:
        """See `core.backend.Pass.relevance`."""
        if self.recorded is None:
            self.recorded = self.session.carried(self.inputs, self.extra, self.outputs.rows)
        carrying, read = self.recorded
        for place in manner.composite.layers:
            if not any(names(place, layer) for layer in carrying.layers):
                raise RequestError(f"lrp: no layer with weights is {place!r}. {nearest(place, carrying.layers)}")
        pairs = [(read.outputs.named[key], value) for key, value in start.items()]
        pairs = [(output, value) for output, value in pairs if output.requires_grad]
        if not pairs:
            raise RequestError("the outputs do not depend on the input by a gradient (detached or not differentiable)")
        self.session.passes["backward"] += 1
        outputs, starts = zip(*pairs, strict=True)
        return carrying.propagated(outputs, starts, manner)

    def tail(self, layer: str, activation: Tensor) -> Outputs:
        """What lies behind the layer, run again; the whole model where that cannot be taken apart."""
        if not self.session.can_replay(self, layer):
            return self.session.instead(layer, activation, self)
        try:
            return self.replayed(layer, activation)
        except REPLAY_ERRORS:  # this batch went another way than the one tried
            return self.session.instead(layer, activation, self)

    def replayed(self, layer: str, activation: Tensor) -> Outputs:
        """The outputs from the recorded tail."""
        assert self.tape is not None  # noqa: S101
        with self.session.calling.cast(activation.device):
            current = self.tape.replay(self.taps[layer], activation)
        rows = self.outputs.rows
        named = named_tensors(current(self.given), len(rows))
        self.session.passes["tail"] += 1
        made = current(self.read.made)
        return self.session.calling.reread(named, self.outputs.selected, made, rows, self.final).outputs
