"""Layer-wise relevance by interception: what each operator does with the relevance at its output, whoever calls it.

Inside `Relevances` a forward is recorded whose backward carries relevance, not gradients. By which rules is asked of
the `Manner` of the backward, so one forward serves them all. The first weighted operators on the data path end the
backward: there the input rules take over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ....core.relevance.manner import Manner
from .batches import batch_axis
from .composed import COMPOSED, can_unroll
from .functions import Passed, Ruled, Shared, Softened, Way
from .operators import (
    GATES,
    INPLACE_AT,
    MATMUL,
    PASSING,
    POOLS,
    PRODUCTS,
    QUOTIENTS,
    SHARED,
    SOFTMAX,
    STRUCTURAL,
    channel_norm,
    linear_norm,
    out_of_place,
    view_of,
    written,
    written_view,
)
from .origins import Step, mapped, tensors
from .propagation import Entry, Propagated
from .weighted import WEIGHTED, Memo, Weighted


@dataclass
class Known:
    """About a tensor that depends on the input."""

    behind: bool
    """Whether a weighted operator lies between."""
    axis: int | None = 0
    """That counts the samples."""
    gate: bool = False
    """Whether it comes straight from a gate."""
    step: Step | None = None
    """How it was made, before any weighted operator."""


class Relevances(TorchFunctionMode):
    """Records a forward for relevance, of a frozen model.

    ``parameters`` are names of layers by the identity of their weight, ``memo`` is what outlasts the forward.
    """

    def __init__(self, x: Tensor, parameters: Mapping[int, str], memo: Memo | None = None) -> None:
        super().__init__()
        self.x = x
        self.way: Way = "gradient"
        self.entries: list[Entry] = []
        """The first weighted operators on the data path."""
        self.layers: set[str] = set()
        """Of the weighted operators that ran."""
        self.unruled: dict[str, int] = {}
        """Operators without a rule, whose gradient is taken, and how often they ran."""
        self._parameters, self._memo = parameters, {} if memo is None else memo
        self._known: Any = WeakIdKeyDictionary()
        self._known[x] = Known(behind=False)
        self._now: Any = WeakIdKeyDictionary()
        """What a tensor that was written over has become."""
        self._views: Any = WeakIdKeyDictionary()
        """Of a tensor that something may yet be written over."""
        self._places: Any = WeakIdKeyDictionary()
        """Where in the model's memory that lies which something has become."""
        self._borders: Any = WeakIdKeyDictionary()
        """Of a tensor with a border put around it: the same of ones."""
        self._calls: Any = WeakIdKeyDictionary()
        """By their output, the calls that a norm may join."""

    def ended(self, outputs: Any) -> Any:
        """What the model gave, tensors that were written over as what they have become."""
        outputs = mapped(outputs, self._current)
        self._seen(outputs)
        return outputs

    @contextmanager
    def going(self, way: Way) -> Iterator[None]:
        """Backwards inside go this way."""
        before, self.way = self.way, way
        try:
            yield
        finally:
            self.way = before

    def propagated(self, outputs: Sequence[Tensor], starts: Sequence[Tensor], manner: Manner) -> Propagated:
        """The relevance ``starts`` at the outputs brought down to the first weighted operators."""
        with self.going(manner):
            *at, rest = torch.autograd.grad(
                outputs, [*(each.z for each in self.entries), self.x], starts, retain_graph=True, allow_unused=True
            )
        found = [(call, R) for call, R in zip(self.entries, at, strict=True) if R is not None]
        return Propagated(self, manner, found, rest)

    def step(self, tensor: Tensor) -> Step | None:
        """How a tensor before the first weighted operators was made."""
        return self._known[tensor].step if tensor in self._known else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = mapped(args, self._current), mapped(kwargs or {}, self._current)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        for at, names in enumerate((("input",), ("other", "mat2"))):
            args = (*args, *(kwargs.pop(name) for name in names if name in kwargs and len(args) == at))
        if not self._seen((args, kwargs)):
            return func(*args, **kwargs)
        plain = out_of_place(func)
        in_place, func = plain is not None or kwargs.pop("inplace", False), plain or func
        if (switch := INPLACE_AT.get(func)) is not None and len(args) > switch:
            in_place, args = args[switch], (*args[:switch], False, *args[switch + 1 :])
        result = self._watched(func, args, kwargs)
        if in_place:
            self._write(args[0], result)
        return None if func is written else result

    def _watched(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator run, and what is known of its results noted."""
        given = self._seen((args, kwargs))
        behind = any(self._known[each].behind for each in given)
        axis = self._axis(func, args, kwargs, given[0])
        result = self._run(func, args, kwargs, given, behind, axis)
        for place, each in enumerate(tensors(result)):
            if each.requires_grad and each not in self._known:
                step = None if behind else Step(func, args, kwargs, place, func in STRUCTURAL or func in POOLS)
                if each._base is not None:
                    self._views.setdefault(self._place(each)[0], []).append(ref(each))
                gate = func in STRUCTURAL and all(self._known[one].gate for one in given)
                self._known[each] = Known(behind, axis(each), gate, step)
        return result

    def _axis(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Tensor
    ) -> Callable[[Tensor], int | None]:
        name, axis, batch = getattr(func, "__name__", ""), self._known[given].axis, len(self.x)
        return lambda result: batch_axis(name, args, kwargs, given, axis, result, batch)

    def _seen(self, nest: Any) -> list[Tensor]:
        """The tensors that depend on the input; those that something made that cannot be watched are noted.

        Nothing else requires a gradient: the parameters are frozen.
        """
        found = [each for each in tensors(nest) if each.requires_grad]
        for each in found:
            if each not in self._known:
                self._known[each] = Known(behind=bool(self.entries))
                self._note(type(each.grad_fn).__name__)
        return found

    def _note(self, name: str) -> None:
        self.unruled[name] = self.unruled.get(name, 0) + 1

    def _current(self, tensor: Tensor) -> Tensor:
        while tensor in self._now:
            tensor = self._now[tensor]
        return tensor

    def _write(self, tensor: Tensor, result: Tensor) -> None:
        """``tensor`` has become ``result``; what it is a view of changes with it, and so do all other views."""
        base, view = self._place(tensor)
        memory = base.size(), base.stride()

        def place(view: Tensor) -> tuple[Any, ...]:
            return view.size(), view.stride(), view.storage_offset()

        whole = result
        if view is not base:
            whole = self._watched(written_view, (self._current(base), result, memory, place(view)), {})
        others = [each for one in self._views.get(base, ()) if (each := one()) is not None and each is not view]
        self._become(tensor, result, (base, view))
        self._become(base, whole, (base, base))
        for other in others:
            axis = self._known[other].axis if other in self._known else 0
            found = self._watched(view_of, (whole, memory, place(other)), {})
            self._known[found].axis = axis
            self._become(other, found, (base, other))

    def _place(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The tensor whose memory it lies in, as the model has it, and the view of that which it is."""
        if tensor in self._places:
            return self._places[tensor]  # type: ignore[no-any-return]
        if tensor._base is None:
            return tensor, tensor
        base = self._places.get(tensor._base, (tensor._base, None))[0]
        return (base, tensor) if base.stride() == tensor._base.stride() else (tensor._base, tensor)

    def _become(self, tensor: Tensor, result: Tensor, place: tuple[Tensor, Tensor]) -> None:
        self._places[result] = place
        if (last := self._current(tensor)) is not result:
            self._now[last] = result

    def _run(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Sequence[Tensor],
        behind: bool,
        axis: Callable[[Tensor], int | None],
    ) -> Any:
        if not kwargs and (call := _as_linear(func, args, given)) is not None:
            func, args = F.linear, call
        if func in COMPOSED and can_unroll(func, args):
            with self:
                return COMPOSED[func](*args, **kwargs)
        if func in WEIGHTED:
            return self._weighted(func, args, kwargs)
        if func in (F.batch_norm, torch.batch_norm):
            if (norm := channel_norm(args, kwargs)) is None:
                self._note("batch_norm by the batch")
                return func(*args, **kwargs)
            if args[0] in self._calls and args[0].ndim == self._calls[args[0]][0].weight.ndim:
                return self._joined(func, args, kwargs, norm)
        if (func in PASSING or func in SOFTMAX) and isinstance(args[0], Tensor):
            return self._passed(func, args, kwargs, behind)
        if (linear := linear_norm(func, args, kwargs)) is not None:
            return Shared.apply(linear, self, (1.0,), (1.0,), (False, True), axis, args[0])  # type: ignore[no-untyped-call]
        if func in SHARED or func in PRODUCTS or func in QUOTIENTS:
            return self._shared(func, args, kwargs, given, axis)
        result = func(*args, **kwargs)
        if func is F.pad and (*args, "constant")[2] == kwargs.get("mode", "constant") == "constant":
            shape, value = args[0][:1].shape, {**kwargs, "value": 0.0}
            self._borders[result] = lambda like: F.pad(like.new_ones(shape), *args[1:2], **value)
        name = getattr(func, "__name__", str(func))
        known = func in STRUCTURAL or name == "__get__"  # x.T, x.mT
        if not known and any(each.requires_grad for each in tensors(result)):
            self._note(name)
        return result

    def _weighted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        op, x = Weighted.of(func, args, kwargs)
        op = replace(op, axis=self._known[x].axis, border=self._borders.get(x))
        weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
        source = weight if id(weight) in self._parameters else weight._base  # a transposed or cut parameter
        if source is not None and id(source) in self._parameters:
            name = self._parameters[id(source)]
            op = op.of_layer(name, self._memo, source) if source is weight else op.of_layer(name, None, source)
            self.layers.add(name)
        return self._called(
            op, x, lambda x: op.run(x, op.weight) if op.bias is None else op.run(x, op.weight) + op.bias
        )

    def _called(self, op: Weighted, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        behind = self._known[x].behind
        z: Tensor = Ruled.apply(x, run, op, self, behind)  # type: ignore[no-untyped-call]
        self._known[z] = Known(behind=True, axis=op.axis)
        self._calls[z] = op, x
        if not behind:
            self.entries.append(Entry(op, x, z))
        return z

    def _joined(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], norm: tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """A batch norm straight behind a weighted operator: both are one."""
        op, x = self._calls[args[0]]
        z = args[0].detach()
        return self._called(op.normed(*norm), x, lambda _: func(z, *args[1:], **kwargs))

    def _passed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], behind: bool) -> Tensor:
        def run(x: Tensor) -> Any:
            return func(x, *args[1:], **kwargs)

        found: Tensor
        if func in SOFTMAX:
            found = Softened.apply(args[0], run, self, args[1] if len(args) > 1 else kwargs["dim"])  # type: ignore[no-untyped-call]
        else:
            found = Passed.apply(args[0], run, self, behind)  # type: ignore[no-untyped-call]
        if func in GATES or func in SOFTMAX:
            known = self._known[args[0]]
            step = None if behind else Step(func, args, kwargs, 0, moves=False)
            self._known[found] = Known(behind, known.axis, gate=True, step=step)
        return found

    def _shared(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Sequence[Tensor],
        axis: Callable[[Tensor], int | None],
    ) -> Tensor:
        paths = list({id(each): each for each in given}.values())
        if func in QUOTIENTS:
            paths = [each for each in paths if each is args[0]]
        now = {id(each): i for i, each in enumerate(paths)}

        def run(*inputs: Tensor) -> Any:
            def at(tensor: Tensor) -> Tensor:
                return inputs[now[id(tensor)]] if id(tensor) in now else tensor.detach()

            return func(*mapped(args, at), **mapped(kwargs, at))

        gated = [self._known[each].gate for each in paths]
        parts = [1 / len(given) if func in PRODUCTS else 1.0] * len(paths)
        ungated = parts
        if func in PRODUCTS and any(gated) and not all(gated):
            ungated = [0.0 if each else 1 / gated.count(False) for each in gated]
        masked = len(paths) < len(tensors((args, kwargs)))  # by -inf, it may be
        about = masked, func not in POOLS
        found: Tensor = Shared.apply(run, self, parts, ungated, about, axis, *paths)  # type: ignore[no-untyped-call]
        if all(gated) and paths:
            known = self._known[paths[0]]
            step = None if known.behind else Step(func, args, kwargs, 0, moves=False)
            self._known[found] = Known(known.behind, axis(found), gate=True, step=step)
        return found


def _as_linear(func: Any, args: tuple[Any, ...], given: Sequence[Tensor]) -> tuple[Any, ...] | None:
    """A product with a constant matrix as the arguments of `F.linear`."""
    if func in (torch.addmm, Tensor.addmm) and len(args) == 3:
        bias, x, matrix = args
    elif func in MATMUL and len(args) == 2:
        bias, (x, matrix) = None, args
    else:
        return None
    if len(given) != 1 or x is not given[0] or matrix.ndim != 2 or (bias is not None and bias.ndim != 1):
        return None
    return x, matrix.t(), bias
