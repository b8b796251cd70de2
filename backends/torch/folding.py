"""Where nothing needs a gradient, convolutions run faster than they are written.

Batch norms in evaluation are folded into the convolutions before them: one forward is watched; in later ones a
convolution whose output went to a batch norm and nowhere else runs with scaled weights, and that batch norm gives back
what it is given. Signals are convolved as pictures one line high, channels last. Equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from .watching import norm_in_evaluation, tensors_in

F = nn.functional
CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d})
MODULES = frozenset({nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d})
"""Whose forward is known: no subclasses."""
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Folds:
    """What was found in one forward."""

    weights: Mapping[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    """The weight, held so that its id stays its own, and weight and bias to use instead, by the id of the weight."""
    modules: Sequence[nn.Module] | None = None
    """Those that ran all convolutions and batch norms; None where something else ran one."""


class FoldWatch(TorchFunctionMode):
    """Finds the pairs in a forward of ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._modules = [each for each in module.modules() if type(each) in MODULES and _plain(each)]
        self._running: list[nn.Module] = []
        self._only_modules = True
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        """Output of each convolution, held so that its id stays its own, and the weight."""
        self._calls: dict[int, list[Tensor | None]] = {}
        """Biases of the calls with a weight."""
        self._uses: dict[int, list[tuple[Tensor, Tensor] | None]] = {}
        """Scale and shift of the batch norms behind it, None for another use."""

    def __enter__(self) -> FoldWatch:
        self._hooks = ExitStack()
        for each in self._modules:
            begins = each.register_forward_pre_hook(lambda module, _: self._running.append(module))
            ends = each.register_forward_hook(lambda *_: self._running.clear(), always_call=True)
            self._hooks.callback(begins.remove)
            self._hooks.callback(ends.remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *why: Any) -> None:
        self._hooks.close()
        super().__exit__(*why)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._only_modules &= bool(self._running) or func not in (*CONVOLUTIONS, F.batch_norm)
        for each in tensors_in((args, kwargs)):
            if id(each) in self._made and (
                tensors_in(result) or func is Tensor.__setitem__
            ):  # asking for a size is no use
                norm = norm_in_evaluation(args, kwargs) if func is F.batch_norm else None
                self._uses.setdefault(id(self._made[id(each)][1]), []).append(norm)
        if func in CONVOLUTIONS and len(args) >= 3:
            self._made[id(result)] = result, args[1]
            self._calls.setdefault(id(args[1]), []).append(args[2])
        return result

    def folds(self, given: Any) -> Folds:
        """Those that were found, but for what the model also gives away."""
        shown = {id(each) for each in tensors_in(given)}
        found = {}
        for output, weight in self._made.values():
            uses, calls = self._uses.get(id(weight), []), self._calls[id(weight)]
            if id(output) in shown or len(calls) != 1 or len(uses) != 1 or uses[0] is None:
                continue
            scale, shift = uses[0]
            bias = shift if calls[0] is None else shift + calls[0] * scale
            found[id(weight)] = weight, weight.detach() * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias.detach()
        return Folds(found, self._modules if self._only_modules else None)


def _plain(module: nn.Module) -> bool:
    """Whether its forward is its class's, and its weight nobody's to make anew for each."""
    return "forward" not in vars(module) and "weight" in module._parameters


class OtherWayError(RuntimeError):
    """A forward did without a batch norm that the watched one had behind a convolution: it is to run unfolded."""


@contextmanager
def folded(folds: Folds, *, lines: bool = False) -> Iterator[None]:
    """Forwards that use them, and ``lines`` for signals, but for what a gradient goes back through.

    Where modules run all of it, they have another forward in the meantime: nobody looks at what else the model calls,
    which takes longer than its small operators themselves. `OtherWayError` where what they give cannot be right.
    """
    done: dict[int, Tensor] = {}
    """What batch norms will give back as it is, held so that its id stays its own."""
    with Intercepted(folds, done, lines=lines) if folds.modules is None else _instead(folds, done, lines=lines):
        yield
    if done:
        raise OtherWayError


@contextmanager
def _instead(folds: Folds, done: dict[int, Tensor], *, lines: bool) -> Iterator[None]:
    modules = folds.modules or ()
    try:
        for each in modules:
            forward = _conv(each, folds, done, lines) if isinstance(each, _ConvNd) else _norm(each, done)
            each.__dict__["forward"] = forward
        yield
    finally:
        for each in modules:
            each.__dict__.pop("forward", None)


def _norm(module: nn.Module, done: dict[int, Tensor]) -> Forward:
    """Its forward, which gives back what is already normed."""

    def forward(input: Tensor) -> Tensor:  # noqa: A002  (its name in torch)
        return plain(input) if done.pop(id(input), None) is None else input

    plain: Forward = module.forward
    return forward


def _conv(module: _ConvNd, folds: Folds, done: dict[int, Tensor], lines: bool) -> Forward:
    """Its forward, with the weights that norm too."""

    def forward(input: Tensor) -> Tensor:  # noqa: A002  (its name in torch)
        if input.requires_grad:
            return plain(input)
        if as_line and input.ndim == 3:
            result = line(input, weight, bias, module.stride, module.padding, module.dilation, module.groups)
        else:
            result = module._conv_forward(input, weight, bias)
        if fold:
            done[id(result)] = result
        return result

    plain: Forward = module.forward
    fold = folds.weights.get(id(module.weight))
    _, weight, bias = fold or (None, module.weight, module.bias)
    as_line = lines and isinstance(module, nn.Conv1d) and module.padding_mode == "zeros"
    return forward


class Intercepted(TorchFunctionMode):
    """The same for whoever calls them."""

    def __init__(self, folds: Folds, done: dict[int, Tensor], *, lines: bool) -> None:
        super().__init__()
        self._folds, self._done, self._lines = folds.weights, done, lines

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in CONVOLUTIONS and len(args) >= 3 and not args[0].requires_grad:
            convolved = line if self._lines and func is F.conv1d and args[0].ndim == 3 else func
            if id(args[1]) not in self._folds:
                return convolved(*args, **(kwargs or {}))
            result = convolved(args[0], *self._folds[id(args[1])][1:], *args[3:], **(kwargs or {}))
            self._done[id(result)] = result
            return result
        if func is F.batch_norm and args and id(args[0]) in self._done:
            return self._done.pop(id(args[0]))
        return func(*args, **(kwargs or {}))


def line(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv1d`` of (n, channel, t) as the convolution of a picture one line high; its channels lie last in memory.

    ``weight`` is (out, in / groups, k); the rest, and what is raised, is as there. What it gives lies so too, and the
    next one takes it as it is. On a CPU that takes 0.6 to 1.0 of the time, of depthwise convolutions a tenth to a half.
    """

    def wide(given: Any, other: int) -> Any:
        return given if isinstance(given, str) else (other, *(given if isinstance(given, Sequence) else (given,)))

    picture = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    sizes = wide(stride, 1), wide(padding, 0), wide(dilation, 1)
    return F.conv2d(picture, weight.unsqueeze(2), bias, *sizes, groups).squeeze(2)
