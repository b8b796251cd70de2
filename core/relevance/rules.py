"""How a linear operator hands relevance on: one formula for each rule.

An operator gave z = W x + b for the input x, and R is the relevance at z; a rule gives that at x. ``op.pull(s)`` is
W^T s, ``op.run(x)`` is W x, both with other weights where these are given. s(z) is +1 for z >= 0, else -1; w+, w- are
the positive and the negative part of w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


class Operator(Protocol):
    """A linear operator that ran."""

    kind: Literal["conv", "dense"]
    name: str
    """Of the layer whose weight it is, "" where it is none's."""
    weight: Tensor
    bias: Tensor | None
    """As it is added to z, broadcasting; None too where biases are to be ignored."""
    axis: int | None
    """Of x and z that counts the samples; None where each place along all but the last is by itself."""

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x, without the bias."""
        ...

    def pull(self, s: Tensor, weight: Tensor) -> Tensor:
        """W^T s."""
        ...

    def ones(self, x: Tensor) -> Tensor:
        """1 where the model's input gets, 0 in a border that was put around it."""
        ...

    def box(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds of x, given those of the model's input."""
        ...

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """What does not depend on the batch, computed for the first one."""
        ...


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(n,) so that it broadcasts with ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _others(x: Tensor, axis: int | None) -> tuple[int, ...]:
    """The axes of one sample."""
    return (-1,) if axis is None else tuple(each for each in range(x.ndim) if each != axis)


def stabilised(z: Tensor, epsilon: Tensor | float = 0.0, axis: int | None = 0) -> Tensor:
    """The denominator z + epsilon s(z), never nearer to 0 than the rounding of the sample's largest |z|."""
    import torch

    limits, axes = torch.finfo(z.dtype), _others(z, axis)
    # Without a copy of |z|, and by the bit of the sign: several times as fast; + 0.0 makes 0 of -0.
    size = z.amax(axes, keepdim=True).maximum(-z.amin(axes, keepdim=True)).mul_(limits.eps).clamp_(min=limits.tiny)
    size = size.maximum(epsilon) if isinstance(epsilon, torch.Tensor) else size.clamp_(min=epsilon)
    return torch.copysign(size, z + 0.0).add_(z)


def deviations(x: Tensor, k: float, axis: int | None = 0) -> Tensor:
    """``k`` population standard deviations of each sample of an operator's input, broadcasting with it."""
    import torch

    axes = _others(x, axis)
    centred = x - x.mean(axes, keepdim=True)
    size = math.prod(x.shape[each] for each in axes)
    found: Tensor = torch.linalg.vector_norm(centred, dim=axes, keepdim=True)
    return found * (k / math.sqrt(size))


def multiplier(op: Operator, z: Tensor, R: Tensor, size: Tensor | float = 0.0) -> Tensor:
    """sum_j w_ij R_j / (z_j + epsilon s(z_j)): what LRP-epsilon multiplies x_i with."""
    return op.pull(R / stabilised(z, size, op.axis), op.weight)


def _positive(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.clamp(min=0)


def _negative(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.clamp(max=0)


def epsilon(op: Operator, x: Tensor, z: Tensor, R: Tensor, size: Tensor | float = 0.0) -> Tensor:
    """LRP-epsilon, R_i = sum_j x_i w_ij R_j / (z_j + epsilon s(z_j)) (Bach et al. 2015, eq. 58); LRP-z at 0."""
    return x * multiplier(op, z, R, size)


def sign(x: Tensor, g: Tensor, mu: Tensor | float) -> Tensor:
    """LRP-SIGN: R_i = sign_mu(x_i) g_i with the `multiplier` g (Gumpfer et al. 2023).

    sign_mu(x) is -1 for x < mu, else +1.
    """
    return g.where(x >= mu, -g)


def _parts(op: Operator) -> tuple[Tensor, Tensor]:
    """w+ and w-."""
    return op.once("w+", lambda: op.weight.clamp(min=0)), op.once("w-", lambda: op.weight.clamp(max=0))


def alphabeta(op: Operator, x: Tensor, z: Tensor, R: Tensor, a: float, b: float) -> Tensor:  # noqa: ARG001
    """R_i = sum_j (a (x_i w_ij)+ / Z+_j - b (x_i w_ij)- / Z-_j) R_j (Bach et al. 2015, eq. 60).

    Z+ = sum_i (x_i w_ij)+ + b_j+, Z- with the negative parts; each bias part counts once.
    """
    up, down = _parts(op)

    def share(one: Tensor, other: Tensor, bias: Tensor | float) -> Tensor:
        s = _quotient(R, _contributions(op, x, one, other) + bias)
        return _distributed(op, x, s, one, other)

    found = a * share(up, down, _positive(op.bias))
    return found - b * share(down, up, _negative(op.bias)) if b else found


def gamma(op: Operator, x: Tensor, z: Tensor, R: Tensor, g: float) -> Tensor:
    """As LRP-z with the contributions of z_j's own sign (1 + g) times as large (Montavon et al. 2019, generalised).

    For z_j > 0 the positive (x_i w_ij)+ and b_j+ are enlarged, for z_j < 0 the negative ones; nothing goes on
    from z_j = 0.
    """
    up, down = _parts(op)
    more, less = op.once(("+", g), lambda: op.weight + g * up), op.once(("-", g), lambda: op.weight + g * down)
    positive = _contributions(op, x, up, down) + _positive(op.bias)
    s = _quotient(R, z + g * positive.where(z > 0, z - positive))  # the negative ones are the rest of z
    found = _distributed(op, x, s * (z > 0), more, less)
    s = s * (z < 0)
    return found + _distributed(op, x, s, less, more) if s.any() else found  # behind a ReLU there is nothing below 0


def _contributions(op: Operator, x: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``one`` for what is positive in ``x`` and ``other`` for what is negative."""
    if x.amin() >= 0:
        return op.run(x, one)
    return op.run(x.clamp(min=0), one) + op.run(x.clamp(max=0), other)


def _distributed(op: Operator, x: Tensor, s: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The same way back."""
    if x.amin() >= 0:
        return x * op.pull(s, one)
    return x.clamp(min=0) * op.pull(s, one) + x.clamp(max=0) * op.pull(s, other)


def _quotient(R: Tensor, total: Tensor) -> Tensor:
    """R / total where all that is shared out is not 0; elsewhere nothing is."""
    return R / total.masked_fill(total == 0, float("inf"))


def flat(op: Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:  # noqa: ARG001
    """R_i = sum_j R_j / n_j, n_j the number of inputs that reach j (Lapuschkin et al. 2019)."""
    import torch

    ones = op.once("1", lambda: torch.ones_like(op.weight))
    return op.pull(_quotient(R, op.once(("n", x.shape[1:]), lambda: op.run(op.ones(x), ones))), ones)


def wsquare(op: Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:  # noqa: ARG001
    """R_i = sum_j w_ij^2 / (sum_i w_ij^2 + b_j^2) R_j (Montavon et al. 2017); no b_j^2 where biases are ignored."""
    squares = op.once("w2", lambda: op.weight.square())
    total = op.once(("w2", x.shape[1:]), lambda: op.run(op.ones(x), squares))
    total = total if op.bias is None else total + op.bias.square()
    return op.pull(_quotient(R, total), squares)


def zbox(op: Operator, x: Tensor, z: Tensor, R: Tensor, low: Tensor, high: Tensor, key: Hashable) -> Tensor:
    """R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum_i ..) R_j for inputs in [l, h] (Montavon et al. 2017).

    ``key`` tells boxes apart.
    """
    up, down = _parts(op)
    low, high = op.box(x, low, high)
    bias: Tensor | float = 0.0 if op.bias is None else op.bias
    least = op.once(("box", key, x.shape[1:]), lambda: op.run(low, up) + op.run(high, down))
    s = R / stabilised(z - bias - least, axis=op.axis)
    return x * op.pull(s, op.weight) - low * op.pull(s, up) - high * op.pull(s, down)


def unchanged(op: Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:
    """R_i = R_j, of an operator that keeps the shape; `RequestError` for another."""
    if x.shape != z.shape:
        raise RequestError(f"rule pass: layer {op.name!r} makes {tuple(z.shape[1:])} of {tuple(x.shape[1:])}")
    return R
