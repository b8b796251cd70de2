"""Layer-wise relevance by interception: what each operator does with the relevance at its output, whoever calls it.

Inside `Relevances` a forward is recorded whose backward carries relevance, not gradients. Which rule a weighted
operator follows is asked of the composite of the backward, so one forward serves them all. The first weighted operators
on the data path end the backward: there the input rules take over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ....core.relevance.rules import stabilised
from .operators import IN_PLACE, PASSING, PRODUCTS, SHARED, STRUCTURAL, linear_norm
from .weighted import WEIGHTED, Weighted

Rule = Callable[[Weighted, Tensor, Tensor, Tensor], Tensor]
"""(operator, x, z, R at z) -> R at x."""
Composite = Callable[[Weighted], Rule]
"""Which rule an operator follows."""


@dataclass(eq=False)
class Entry:
    """A first weighted operator on the data path."""

    op: Weighted
    x: Tensor
    """Its input, in the graph."""
    z: Tensor


class Relevances(TorchFunctionMode):
    """Records a forward for relevance."""

    def __init__(self, x: Tensor, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        """Of layers, by the identity of their weight."""
        self.composite: Composite | None = None
        self.entries: list[Entry] = []
        self.unruled: dict[str, int] = {}
        """Operators without a rule, whose gradient is taken, and how often they ran."""
        self._behind: Any = WeakIdKeyDictionary()
        """Tensors that depend on the input, and whether a weighted operator lies between."""
        self._behind[x] = False
        self._now: Any = WeakIdKeyDictionary()
        """What a tensor that was changed in place has become."""

    @contextmanager
    def following(self, composite: Composite) -> Iterator[None]:
        """Backwards inside are by its rules."""
        self.composite = composite
        try:
            yield
        finally:
            self.composite = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        args, kwargs = _mapped(args, self._current), _mapped(kwargs, self._current)
        given = [each for each in _tensors((args, kwargs)) if each in self._behind]
        if not given:
            return func(*args, **kwargs)
        in_place = func in IN_PLACE or kwargs.get("inplace", False)
        func, kwargs = IN_PLACE.get(func, func), {k: v for k, v in kwargs.items() if k != "inplace"}
        behind = any(self._behind[each] for each in given)
        result = self._run(func, args, kwargs, behind)
        for each in _tensors(result):
            self._behind[each] = behind or func in WEIGHTED
        if in_place:
            self._now[args[0]] = result
        return result

    def _current(self, tensor: Tensor) -> Tensor:
        while tensor in self._now:
            tensor = self._now[tensor]
        return tensor

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], behind: bool) -> Any:
        if func in WEIGHTED:
            op, x = Weighted.of(func, args, kwargs)
            op.name = self.names.get(id(args[1] if len(args) > 1 else kwargs["weight"]), "")
            z = _Rule.apply(x, op, self, behind)  # type: ignore[no-untyped-call]
            if not behind:
                self.entries.append(Entry(op, x, z))
            return z
        if func in PASSING:
            return _Pass.apply(args[0], lambda x: func(x, *args[1:], **kwargs))  # type: ignore[no-untyped-call]
        if (norm := linear_norm(func, args, kwargs)) is not None:
            return _Share.apply(norm, 1, args[0])  # type: ignore[no-untyped-call]
        if func in SHARED or func in PRODUCTS:
            paths = [i for i, each in enumerate(args) if isinstance(each, Tensor) and each in self._behind]

            def run(*inputs: Tensor) -> Any:
                given = list(args)
                for i, each in zip(paths, inputs, strict=True):
                    given[i] = each
                return func(*given, **kwargs)

            return _Share.apply(run, len(paths) if func in PRODUCTS else 1, *(args[i] for i in paths))  # type: ignore[no-untyped-call]
        name = getattr(func, "__name__", str(func))
        if func not in STRUCTURAL and name != "__get__":  # an attribute: shape, dtype, T
            self.unruled[name] = self.unruled.get(name, 0) + 1
        return func(*args, **kwargs)


class _Rule(torch.autograd.Function):
    """A weighted operator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: Weighted, mode: Relevances, behind: bool) -> Tensor:
        z = op.run(x, op.weight)
        z = z if op.bias is None else z + op.bias
        ctx.op, ctx.mode, ctx.behind = op, mode, behind
        ctx.save_for_backward(x, z)
        return z

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [x, z] = given, ctx.saved_tensors
        if not ctx.behind:
            return torch.zeros_like(x), None, None, None
        return ctx.mode.composite(ctx.op)(ctx.op, x, z, R), None, None, None


class _Pass(torch.autograd.Function):
    """Elementwise: the relevance goes through as it is."""

    @staticmethod
    def forward(_: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return run(x)

    @staticmethod
    def backward(_: Any, *given: Any) -> Any:
        return given[0], None


class _Share(torch.autograd.Function):
    """Linear in each input: R_k = x_k (J_k^T R / y) / parts, by LRP-z; the factors of a product share alike."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], parts: int, *inputs: Tensor) -> Tensor:
        y = run(*inputs)
        ctx.run, ctx.parts = run, parts
        ctx.save_for_backward(*inputs, y)
        return y

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [*inputs, y] = given, ctx.saved_tensors
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in inputs]
            again = ctx.run(*leaves)
        found = torch.autograd.grad(again, leaves, R / stabilised(y) / ctx.parts)
        return None, None, *(x * g for x, g in zip(inputs, found, strict=True))


def _tensors(nest: Any) -> Iterator[Tensor]:
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, list | tuple):
        for each in nest:
            yield from _tensors(each)
    elif isinstance(nest, dict):
        yield from _tensors(list(nest.values()))


def _mapped(nest: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(nest, Tensor):
        return change(nest)
    if type(nest) in (list, tuple):
        return type(nest)(_mapped(each, change) for each in nest)
    if type(nest) is dict:
        return {key: _mapped(each, change) for key, each in nest.items()}
    return nest
