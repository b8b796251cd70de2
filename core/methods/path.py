"""Attributions along a path from a baseline to the input, and gradients in its neighbourhood.

``x`` is the input, ``o`` the baseline, ``T`` a domain, ``p`` the mean gradient on the path, ``N`` are mean and variance
of the gradient under noise, ``m`` is a finished map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..keys import Baseline, Code, Count, Threshold
from .registry import factor, gradient

if TYPE_CHECKING:
    from torch import Tensor

    from ..domains import Domain

Rule = Literal["gauss", "riemann", "trapezoid"]


@gradient(
    "ig",
    formula="Re((T x - T o) conj(mean over the path of d score / d T x))",
    source="Sundararajan et al. 2017; in a domain: Esin et al. 2025",
    units="score",
    complete=True,
)
def ig(
    x: Tensor,
    o: Tensor,
    p: Tensor,
    T: Domain,
    *,
    steps: Count = Count(32),
    rule: Rule = "gauss",
    baseline: Baseline = Baseline("zero"),
    blur: float = 0.1,
    domain: Code = Code("time"),
) -> Tensor:
    """Integrated gradients: shares of the input's parts in f(x) - f(o), which they sum to.

    The path is straight in the domain's coefficients, so it is the input's own wherever the domain is linear, and is
    walked once for all of them. Its integral is taken by Gauss-Legendre at ``steps`` points; packages take
    ``rule=riemann``, i/n for i = 1..n, which is off by 5 % on a square at 20 steps, or ``rule=trapezoid``, from end to
    end. ``baseline``: ``zero``; ``mean``, each channel's over the dataset; ``blur``, the input smoothed by a Gaussian
    of ``blur`` times each axis; ``uniform``, noise within the sample's range; numbers; FILE.npy; or a sample's id. What
    the sum misses is stored as ``residual``.
    """
    return T.shares(x - o, p) if T.linear else T.summed(((T.forward(x) - T.forward(o)) * p.conj()).real)


@gradient(
    "smoothgrad",
    formula="mean_i g(x + e_i), g = d score / d x, e_i ~ N(0, (sd (max x - min x))^2)",
    source="Smilkov et al. 2017",
    units="score / input",
)
def smoothgrad(N: tuple[Tensor, Tensor], *, n: Count = Count(50), sd: float = 0.2) -> Tensor:
    """SmoothGrad: the mean gradient under noise.

    The noise is ``sd`` of the sample's own range wide, and comes from the run's seed and the sample's id, whatever the
    batch. ``smoothgrad``, ``smoothgrad2`` and ``vargrad`` of the same ``n`` and ``sd`` share their passes.
    """
    return N[0]


@gradient(
    "smoothgrad2",
    formula="mean_i g(x + e_i)^2",
    source="Hooker et al. 2019",
    units="score^2 / input^2",
    signed=False,
)
def smoothgrad2(N: tuple[Tensor, Tensor], *, n: Count = Count(50), sd: float = 0.2) -> Tensor:
    """SmoothGrad-Squared: the mean of the squared gradient under noise, as ``smoothgrad``."""
    mean, variance = N
    return mean.square() + variance


@gradient(
    "vargrad",
    formula="mean_i (g(x + e_i) - mean_j g(x + e_j))^2",
    source="Adebayo et al. 2018",
    units="score^2 / input^2",
    signed=False,
)
def vargrad(N: tuple[Tensor, Tensor], *, n: Count = Count(50), sd: float = 0.2) -> Tensor:
    """VarGrad: the variance of the gradient under noise, as ``smoothgrad``; over the draws, not over one less."""
    return N[1]


@factor("input", formula="Re((T x) conj(J^H m)), m * x in time", units="score")
def times_input(m: Tensor, x: Tensor, T: Domain, *, domain: Code = Code("time")) -> Tensor:
    """Times the input: ``grad+input`` is gradient x input (Shrikumar et al. 2016), which sums to the score behind a
    bias-free piecewise linear network. In a linear domain it is the coefficient times the gradient at it, with the same
    sum.
    """
    return T.shares(x, m)


@factor("sign", formula="m * (1 where x >= mu else -1)", units="", short="mu")
def times_sign(m: Tensor, x: Tensor, t: Tensor, *, mu: Threshold = Threshold("0")) -> Tensor:
    """Times the sign of the input against ``mu`` (Gumpfer et al. 2023, SIGN): what speaks for the target by being small
    counts as much as what does by being large. ``mu``: a number, one for each channel, ``mean``, or FILE.npy.
    """
    return m.where(x >= t, -m)
