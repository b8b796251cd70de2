"""Layer-wise relevance by interception: what each operator does with the relevance at its output, whoever calls it.

Inside `Relevances` a forward is recorded whose backward carries relevance, not gradients. By which rules is asked of
the `Manner` of the backward, so one forward serves them all. The first weighted operators on the data path end the
backward: there the input rules take over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ....core.relevance.manner import AtInput, Manner
from ....core.relevance.rules import stabilised
from .composed import COMPOSED, can_unroll
from .operators import (
    GATES,
    INPLACE_AT,
    MATMUL,
    PASSING,
    PRODUCTS,
    QUOTIENTS,
    SHARED,
    SOFTMAX,
    STRUCTURAL,
    channel_norm,
    linear_norm,
    out_of_place,
)
from .weighted import WEIGHTED, Memo, Weighted

Way = Manner | Literal["gradient", "carry"]
"""What a backward hands down: relevance by rules; the gradient; or relevance that elementwise operators leave as it is.
The last two are for what lies before the first weighted operators."""


@dataclass(eq=False)
class Call:
    """A weighted operator that ran."""

    op: Weighted
    x: Tensor
    """Its input, in the graph."""
    z: Tensor


class Relevances(TorchFunctionMode):
    """Records a forward for relevance, of a frozen model.

    ``parameters`` are names of layers by the identity of their weight, ``memo`` is what outlasts the forward.
    """

    def __init__(self, x: Tensor, parameters: Mapping[int, str], memo: Memo | None = None) -> None:
        super().__init__()
        self.x = x
        self.way: Way = "gradient"
        self.entries: list[Call] = []
        """The first weighted operators on the data path."""
        self.layers: set[str] = set()
        """Of the weighted operators that ran."""
        self.unruled: dict[str, int] = {}
        """Operators without a rule, whose gradient is taken, and how often they ran."""
        self._parameters, self._memo = parameters, {} if memo is None else memo
        self._behind: Any = WeakIdKeyDictionary()
        """Tensors that depend on the input, and whether a weighted operator lies between."""
        self._behind[x] = False
        self._now: Any = WeakIdKeyDictionary()
        """What a tensor that was written over has become."""
        self._gates: Any = WeakIdKeyDictionary()
        """Tensors that come straight from a gate."""
        self._calls: Any = WeakIdKeyDictionary()
        """By their output, the calls that a norm may join."""

    def ended(self, outputs: Any) -> Any:
        """What the model gave, tensors that were written over as what they have become."""
        outputs = _mapped(outputs, self._current)
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

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = _mapped(args, self._current), _mapped(kwargs or {}, self._current)
        given = self._seen((args, kwargs))
        if not given:
            return func(*args, **kwargs)
        if func is Tensor.__setitem__:
            changed = args[0].clone()
            changed[args[1]] = args[2]
            self._behind[changed] = any(self._behind[each] for each in given)
            self._now[args[0]] = changed
            return None
        plain = out_of_place(func)
        in_place, func = plain is not None or kwargs.pop("inplace", False), plain or func
        if (at := INPLACE_AT.get(func)) is not None and len(args) > at:
            in_place, args = args[at], (*args[:at], False, *args[at + 1 :])
        behind = any(self._behind[each] for each in given)
        result = self._run(func, args, kwargs, given, behind)
        for each in _tensors(result):
            if each.requires_grad:
                self._behind.setdefault(each, behind)
        if in_place:
            self._now[args[0]] = result
        return result

    def _seen(self, nest: Any) -> list[Tensor]:
        """The tensors that depend on the input; those that something made that cannot be watched are noted.

        Nothing else requires a gradient: the parameters are frozen.
        """
        found = [each for each in _tensors(nest) if each.requires_grad]
        for each in found:
            if each not in self._behind:
                self._behind[each] = bool(self.entries)
                self._note(type(each.grad_fn).__name__)
        return found

    def _note(self, name: str) -> None:
        self.unruled[name] = self.unruled.get(name, 0) + 1

    def _current(self, tensor: Tensor) -> Tensor:
        while tensor in self._now:
            tensor = self._now[tensor]
        return tensor

    def _run(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[Tensor], behind: bool
    ) -> Any:
        if func in COMPOSED and can_unroll(func, args):
            with self:
                return COMPOSED[func](*args, **kwargs)
        if not kwargs and (call := _as_linear(func, args, given)) is not None:
            func, args = F.linear, call
        if func in WEIGHTED:
            return self._weighted(func, args, kwargs, behind)
        if func in (F.batch_norm, torch.batch_norm) and args[0] in self._calls:
            return self._joined(func, args, kwargs)
        if func in PASSING:
            return self._marked(func, _Pass.apply(args[0], lambda x: func(x, *args[1:], **kwargs), self, behind))  # type: ignore[no-untyped-call]
        if func in SOFTMAX:
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return self._marked(func, _Softmax.apply(args[0], lambda x: func(x, *args[1:], **kwargs), self, dim))  # type: ignore[no-untyped-call]
        if (norm := linear_norm(func, args, kwargs)) is not None:
            return _Share.apply(norm, self, (1.0,), (1.0,), False, args[0])  # type: ignore[no-untyped-call]
        if func in SHARED or func in PRODUCTS or func in QUOTIENTS:
            return self._shared(func, args, kwargs, given)
        result = func(*args, **kwargs)
        leads = [each for each in _tensors(result) if each.requires_grad]
        name = getattr(func, "__name__", str(func))
        if leads and func not in STRUCTURAL and name != "__get__":  # of x.T, x.mT
            self._note(name)
        elif all(each in self._gates for each in given):
            self._gates.update((each, True) for each in leads)
        return result

    def _weighted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], behind: bool) -> Tensor:
        op, x = Weighted.of(func, args, kwargs)
        weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
        source = weight if id(weight) in self._parameters else weight._base  # a transposed or cut parameter
        if source is not None and id(source) in self._parameters:
            name = self._parameters[id(source)]
            op = op.of_layer(name, self._memo, source) if source is weight else op.of_layer(name, None, source)
            self.layers.add(name)
        return self._called(op, x, behind, lambda x: _added(op.run(x, op.weight), op.bias))

    def _called(self, op: Weighted, x: Tensor, behind: bool, run: Callable[[Tensor], Tensor]) -> Tensor:
        z: Tensor = _Rule.apply(x, run, op, self, behind)  # type: ignore[no-untyped-call]
        self._behind[z] = True
        self._calls[z] = op, x
        if not behind:
            self.entries.append(Call(op, x, z))
        return z

    def _joined(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A batch norm straight behind a weighted operator: both are one."""
        (op, x), norm = self._calls[args[0]], channel_norm(args, kwargs)
        if norm is None or args[0].ndim != op.weight.ndim:
            return self._shared(func, args, kwargs, args[:1])
        z = args[0].detach()
        return self._called(op.normed(*norm), x, self._behind[x], lambda _: func(z, *args[1:], **kwargs))

    def _shared(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[Tensor]) -> Tensor:
        paths = list({id(each): each for each in given}.values())
        if func in QUOTIENTS:
            paths = [each for each in paths if each is args[0]]
        now = {id(each): i for i, each in enumerate(paths)}

        def run(*inputs: Tensor) -> Any:
            def at(tensor: Tensor) -> Tensor:
                return inputs[now[id(tensor)]] if id(tensor) in now else tensor.detach()

            return func(*_mapped(args, at), **_mapped(kwargs, at))

        gated = [each in self._gates for each in paths]
        parts = [1 / len(given) if func in PRODUCTS else 1.0] * len(paths)
        ungated = parts
        if func in PRODUCTS and any(gated) and not all(gated):
            ungated = [0.0 if each else 1 / gated.count(False) for each in gated]
        masked = len(paths) < len(list(_tensors((args, kwargs))))  # by -inf, it may be
        found: Tensor = _Share.apply(run, self, parts, ungated, masked, *paths)  # type: ignore[no-untyped-call]
        if all(gated):
            self._gates[found] = True
        return found

    def _marked(self, func: Any, result: Tensor) -> Tensor:
        if func in GATES or func in SOFTMAX:
            self._gates[result] = True
        return result


@dataclass
class Propagated:
    """Relevance at the first weighted operators; see `core.backend.Propagated`."""

    mode: Relevances
    manner: Manner
    found: Sequence[tuple[Call, Tensor]]
    rest: Tensor | None
    """What reached the input past all weighted operators."""

    def at_input(self, rule: AtInput | None = None) -> Tensor:
        """The relevance at the input, the first operators following ``rule``, or the composite."""
        way: Way = self.manner if rule is None else "carry"
        total = torch.zeros_like(self.mode.x) if self.rest is None else self.rest
        for call, R in self.found:
            x, z = call.x.detach(), call.z.detach()
            own = self.manner(call.op, x, z, R) if rule is None else self.manner.apply(rule, call.op, x, z, R)
            total = total + self._pulled(call.x, own, way)
        return total

    def gradient(self, multiplier: AtInput) -> Tensor:
        """A `multiplier` of the first operators, brought to the input as a gradient is."""
        total = torch.zeros_like(self.mode.x)
        for call, R in self.found:
            own = self.manner.apply(multiplier, call.op, call.x.detach(), call.z.detach(), R)
            total = total + self._pulled(call.x, own, "gradient")
        return total

    def _pulled(self, at: Tensor, values: Tensor, way: Way) -> Tensor:
        if at is self.mode.x:
            return values
        with self.mode.going(way):
            [found] = torch.autograd.grad(at, self.mode.x, values, retain_graph=True)
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


class _Rule(torch.autograd.Function):
    """A weighted operator."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], op: Weighted, mode: Relevances, behind: bool
    ) -> Tensor:
        z = run(x)
        ctx.op, ctx.mode, ctx.behind = op, mode, behind
        ctx.save_for_backward(x, z)
        return z

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [x, z] = given, ctx.saved_tensors
        if not ctx.behind:
            return None, None, None, None, None
        way = ctx.mode.way
        return (ctx.op.pull(R, ctx.op.weight) if isinstance(way, str) else way(ctx.op, x, z, R)), None, None, None, None


class _Pass(torch.autograd.Function):
    """Elementwise: the relevance goes through as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], mode: Relevances, behind: bool) -> Tensor:
        ctx.mode = mode
        if not behind:  # where gradients may be asked for
            with torch.enable_grad():
                ctx.leaf = x.detach().requires_grad_()
                ctx.result = run(ctx.leaf)
        return run(x) if behind else ctx.result.detach()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R] = given
        if ctx.mode.way == "gradient":
            [R] = torch.autograd.grad(ctx.result, ctx.leaf, R, retain_graph=True)
        return R, None, None, None


class _Softmax(torch.autograd.Function):
    """R_i = x_i (R_i - s_i sum_j R_j), the gradient times the input (Achtibat et al. 2024); nothing by CP-LRP."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], mode: Relevances, dim: int) -> Tensor:
        s = run(x)
        ctx.mode, ctx.dim = mode, dim
        ctx.save_for_backward(x, s)
        return s

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [x, s], way = given, ctx.saved_tensors, ctx.mode.way
        if isinstance(way, str):
            found = s * (R - (s * R).sum(ctx.dim, keepdim=True))
        elif way.gates:
            found = (x * (R - s * R.sum(ctx.dim, keepdim=True))).where(s > 0, 0)  # masked scores are -inf
        else:
            found = torch.zeros_like(R)
        return found, None, None, None


class _Share(torch.autograd.Function):
    """Linear in each input: R_k = x_k (J_k^T R / y) times its part, by LRP-z; the factors of a product share alike."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Tensor],
        mode: Relevances,
        parts: Sequence[float],
        ungated: Sequence[float],
        masked: bool,
        *inputs: Tensor,
    ) -> Tensor:
        with torch.enable_grad():
            ctx.leaves = [each.detach().requires_grad_() for each in inputs]
            ctx.result = run(*ctx.leaves)
        ctx.run, ctx.mode, ctx.parts, ctx.ungated, ctx.masked = run, mode, parts, ungated, masked
        y: Tensor = ctx.result.detach()
        return y

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], way, leaves, y = given, ctx.mode.way, ctx.leaves, ctx.result
        none = (None,) * 5
        if way == "carry" and len(leaves) == 1 and leaves[0].shape == y.shape:
            return *none, R
        if way == "gradient":
            return *none, *torch.autograd.grad(y, leaves, R, retain_graph=True)
        total, parts = y.detach(), ctx.parts
        if isinstance(way, Manner):
            total = total if way.absorbs else total - ctx.run(*(torch.zeros_like(each) for each in leaves))
            parts = parts if way.gates else ctx.ungated
        s = R / stabilised(total.nan_to_num(posinf=0, neginf=0) if ctx.masked else total)
        found = torch.autograd.grad(y, leaves, s, retain_graph=True)
        return *none, *(part * x.detach() * g for part, x, g in zip(parts, leaves, found, strict=True))


def _added(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z + bias


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
