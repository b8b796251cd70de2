"""What operators do on the way back: relevance by rules, or a gradient, as the recording says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ....core.relevance.manner import Manner
from ....core.relevance.rules import stabilised
from .weighted import Weighted

Way = Manner | Literal["gradient", "carry"]
"""What a backward hands down: relevance by rules; the gradient; or relevance that elementwise operators leave as it is.
The last two are for what lies before the first weighted operators."""


class Going(Protocol):
    """Which way the backward now goes."""

    way: Way


class Ruled(torch.autograd.Function):
    """A weighted operator."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], op: Weighted, going: Going, behind: bool
    ) -> Tensor:
        z = run(x)
        ctx.op, ctx.going, ctx.behind = op, going, behind
        ctx.save_for_backward(x, z)
        return z

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [x, z], way = given, ctx.saved_tensors, ctx.going.way
        if not ctx.behind:
            return (None,) * 5
        return (
            way(ctx.op, x, z, R) if isinstance(way, Manner) else ctx.op.pull(R, ctx.op.weight),
            None,
            None,
            None,
            None,
        )


class Passed(torch.autograd.Function):
    """Elementwise: the relevance goes through as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], going: Going, behind: bool) -> Tensor:
        ctx.going = going
        if not behind:  # where gradients may be asked for
            with torch.enable_grad():
                ctx.leaf = x.detach().requires_grad_()
                ctx.result = run(ctx.leaf)
        return run(x) if behind else ctx.result.detach()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R] = given
        if ctx.going.way == "gradient":
            [R] = torch.autograd.grad(ctx.result, ctx.leaf, R, retain_graph=True)
        return R, None, None, None


class Softened(torch.autograd.Function):
    """Softmax: R_i = x_i (R_i - s_i sum_j R_j), the gradient times the input (Achtibat et al. 2024); 0 by CP-LRP."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor], going: Going, dim: int) -> Tensor:
        s = run(x)
        ctx.going, ctx.dim = going, dim
        ctx.save_for_backward(x, s)
        return s

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], [x, s], way = given, ctx.saved_tensors, ctx.going.way
        if not isinstance(way, Manner):
            found = s * (R - (s * R).sum(ctx.dim, keepdim=True))
        elif way.gates:
            found = (x * (R - s * R.sum(ctx.dim, keepdim=True))).where(s > 0, 0)  # masked scores are -inf
        else:
            found = torch.zeros_like(R)
        return found, None, None, None


class Shared(torch.autograd.Function):
    """Linear in each input: R_k = x_k (J_k^T R / y) times its part, by LRP-z; the factors of a product share alike."""

    @staticmethod
    def forward(
        ctx: Any,
        run: Callable[..., Tensor],
        going: Going,
        parts: Sequence[float],
        ungated: Sequence[float],
        about: tuple[bool, bool],
        axis: Callable[[Tensor], int | None],
        *inputs: Tensor,
    ) -> Tensor:
        with torch.enable_grad():
            ctx.leaves = [each.detach().requires_grad_() for each in inputs]
            ctx.result = run(*ctx.leaves)
        ctx.run, ctx.going, ctx.parts, ctx.ungated = run, going, parts, ungated
        ctx.masked, ctx.local = about  # whether -inf may have been added; whether it is done place by place
        ctx.axis = axis(ctx.result)
        y: Tensor = ctx.result.detach()
        return y

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        [R], way, leaves, y = given, ctx.going.way, ctx.leaves, ctx.result
        none = (None,) * 6
        if way == "carry" and ctx.local and len(leaves) == 1 and leaves[0].shape == y.shape:
            return *none, R
        if way == "gradient":
            return *none, *torch.autograd.grad(y, leaves, R, retain_graph=True)
        total, parts, inputs = y.detach(), ctx.parts, [each.detach() for each in leaves]
        if isinstance(way, Manner):
            total = total if way.absorbs else total - ctx.run(*map(torch.zeros_like, inputs))
            parts = parts if way.gates else ctx.ungated
        if ctx.masked:
            total, *inputs = (each.nan_to_num(posinf=0, neginf=0) for each in (total, *inputs))
        found = torch.autograd.grad(y, leaves, R / stabilised(total, axis=ctx.axis), retain_graph=True)
        return *none, *(part * x * g for part, x, g in zip(parts, inputs, found, strict=True))
