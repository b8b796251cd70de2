"""How a linear operator hands relevance on: one formula for each rule.

An operator gave z = W x + b for the input x, and R is the relevance at z; a rule gives that at x. ``op.pull(s)`` is
W^T s, ``op.run(x)`` is W x, both with other weights where these are given. s(z) is +1 for z >= 0, else -1; w+, w- are
the positive and the negative part of w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Operator(Protocol):
    """A linear operator that ran."""

    weight: Tensor
    bias: Tensor | None
    """As it is added to z, broadcasting; None too where biases are to be ignored."""

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """W x, without the bias."""
        ...

    def pull(self, s: Tensor, weight: Tensor) -> Tensor:
        """W^T s."""
        ...


Epsilon = Callable[["Tensor"], "Tensor | float"]
"""Of an operator's input: a number, or one for each sample."""


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(n,) so that it broadcasts with ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def stabilised(z: Tensor, epsilon: Tensor | float = 0.0) -> Tensor:
    """The denominator z + epsilon s(z), never nearer to 0 than the rounding of the sample's largest |z|."""
    import torch

    limits = torch.finfo(z.dtype)
    size = (z.abs().flatten(1).amax(1) * limits.eps).clamp(min=limits.tiny)
    if isinstance(epsilon, torch.Tensor):
        size = size.maximum(epsilon)
    elif epsilon:
        size = size.clamp(min=epsilon)
    size = per_sample(size, z)
    return z + size.where(z >= 0, -size)


def deviations(k: float) -> Epsilon:
    """``k`` standard deviations of each sample's input, over all but the batch."""
    return lambda x: k * x.flatten(1).std(1, correction=0)


def _positive(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.clamp(min=0)


def _negative(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.clamp(max=0)


def epsilon(op: Operator, x: Tensor, z: Tensor, R: Tensor, size: Tensor | float = 0.0) -> Tensor:
    """LRP-epsilon, R_i = sum_j x_i w_ij R_j / (z_j + epsilon s(z_j)) (Bach et al. 2015, eq. 58); LRP-z at 0."""
    return x * op.pull(R / stabilised(z, size), op.weight)


def sign(op: Operator, x: Tensor, z: Tensor, R: Tensor, mu: Tensor | float, size: Tensor | float = 0.0) -> Tensor:
    """LRP-SIGN: R_i = sign_mu(x_i) sum_j w_ij R_j / (z_j + epsilon s(z_j)) (Gumpfer et al. 2023).

    sign_mu(x) is -1 for x < mu, else +1.
    """
    g = op.pull(R / stabilised(z, size), op.weight)
    return g.where(x >= mu, -g)


def alphabeta(op: Operator, x: Tensor, z: Tensor, R: Tensor, a: float, b: float) -> Tensor:  # noqa: ARG001
    """R_i = sum_j (a (x_i w_ij)+ / Z+_j - b (x_i w_ij)- / Z-_j) R_j (Bach et al. 2015, eq. 60).

    Z+ = sum_i (x_i w_ij)+ + b_j+, Z- with the negative parts; each bias part counts once.
    """
    up, down = op.weight.clamp(min=0), op.weight.clamp(max=0)
    high, low = x.clamp(min=0), x.clamp(max=0)
    mixed = bool((x < 0).any())

    def share(one: Tensor, other: Tensor, bias: Tensor | float) -> Tensor:
        total = op.run(high, one) + (op.run(low, other) if mixed else 0.0) + bias
        s = (R / total).where(total != 0, 0)
        return high * op.pull(s, one) + (low * op.pull(s, other) if mixed else 0.0)

    found = a * share(up, down, _positive(op.bias))
    return found - b * share(down, up, _negative(op.bias)) if b else found


def gamma(op: Operator, x: Tensor, z: Tensor, R: Tensor, g: float) -> Tensor:
    """As LRP-z with the contributions of z_j's own sign (1 + g) times as large (Montavon et al. 2019, generalised).

    For z_j > 0 the positive (x_i w_ij)+ and b_j+ are enlarged, for z_j < 0 the negative ones; nothing goes on
    from z_j = 0.
    """
    up, down = op.weight + g * op.weight.clamp(min=0), op.weight + g * op.weight.clamp(max=0)
    high, low = x.clamp(min=0), x.clamp(max=0)
    mixed = bool((x < 0).any())
    bias: Tensor | float = 0.0 if op.bias is None else op.bias
    found = x.new_zeros(())
    for there, one, other, more in ((z > 0, up, down, _positive(op.bias)), (z < 0, down, up, _negative(op.bias))):
        total = op.run(high, one) + (op.run(low, other) if mixed else 0.0) + bias + g * more
        s = (R / total).where(there & (total != 0), 0)
        found = found + high * op.pull(s, one) + (low * op.pull(s, other) if mixed else 0.0)
    return found


def flat(op: Operator, x: Tensor, z: Tensor, R: Tensor) -> Tensor:  # noqa: ARG001
    """R_i = sum_j R_j / n_j, n_j the number of inputs that reach j (Lapuschkin et al. 2019)."""
    import torch

    ones = torch.ones_like(op.weight)
    return op.pull(R / op.run(torch.ones_like(x[:1]), ones), ones)


def wsquare(op: Operator, x: Tensor, z: Tensor, R: Tensor, *, bias: bool = True) -> Tensor:  # noqa: ARG001
    """R_i = sum_j w_ij^2 / (sum_i w_ij^2 + b_j^2) R_j (Montavon et al. 2017); without b_j^2 where asked for."""
    import torch

    squares = op.weight.square()
    total = op.run(torch.ones_like(x[:1]), squares)
    total = total + op.bias.square() if bias and op.bias is not None else total
    return op.pull((R / total).where(total != 0, 0), squares)


def zbox(op: Operator, x: Tensor, z: Tensor, R: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum_i ..) R_j for inputs in [l, h] (Montavon et al. 2017)."""
    up, down = op.weight.clamp(min=0), op.weight.clamp(max=0)
    low, high = low.expand_as(x[:1]), high.expand_as(x[:1])
    bias: Tensor | float = 0.0 if op.bias is None else op.bias
    s = R / stabilised(z - bias - op.run(low, up) - op.run(high, down))
    return x * op.pull(s, op.weight) - low * op.pull(s, up) - high * op.pull(s, down)
