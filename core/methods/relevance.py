"""Layer-wise relevance: a score handed down from layer to layer, by the rules of `core.relevance`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..keys import Code
from ..relevance.grammar import InputRule, Rules
from .registry import relevance

if TYPE_CHECKING:
    from torch import Tensor

    from ..domains import Domain


@relevance(
    "lrp",
    formula="R_i = sum_j share_ij R_j, share_ij = x_i w_ij / z_j",
    source="Bach et al. 2015; LRP-SIGN: Gumpfer et al. 2023; in a domain: Vielhaben et al. 2024",
    units="score",
)
def lrp(
    r: Tensor,
    x: Tensor,
    T: Domain,
    *,
    rules: Rules = Rules("z"),
    first: InputRule = InputRule(""),
    init: Literal["logit", "one", "probability"] = "logit",
    bias: Literal["absorb", "ignore"] = "absorb",
    attention: Literal["attn", "cp"] = "attn",
    domain: Code = Code("time"),
) -> Tensor:
    """Layer-wise relevance propagation: ``lrp:RULES[@INPUT-RULE]``.

    The rules of the weighted operators (convolutions and linear ones, whoever calls them): ``z``; ``eps=0.1``;
    ``eps=0.25std``, so many deviations of the sample's own layer input; ``a2b1``, ``zplus`` (a1b0); ``gamma=0.25``;
    ``w2``; ``flat``; ``pass``. Several, the first that fits: ``conv.a1b0,dense.eps=0.1``, or by a layer's name, what it
    lies in or a pattern, ``layer4.eps=0.1,z``. Composites: ``A``, ``B``, ``epsilon-plus``, ``epsilon-gamma``,
    ``epsilon-alpha2-beta1``, their ``-flat`` and ``-box``, ``excitation-backprop``.

    The input rule, of the first weighted operators on the data path: any of these; ``sign=MU[,eps=0.25std]``, LRP-SIGN;
    ``zbox=LOW:HIGH``, ``caffe``, ``caffe-perchannel``, ``torchvision``, ``data`` (the dataset's own range) or FILE.npz.
    LRP-SIGN is another method than ``lrp:z+sign=0``, which multiplies the finished map.

    All other operators: elementwise ones let relevance through, sums and norms share it by LRP-z, products in equal
    parts (``attention=cp``: gates and softmaxes take none, Ali et al. 2022), max pools hand it to the largest; a batch
    norm behind a convolution is one with it; what has no rule hands down the gradient, and is listed.

    ``init``: what the start is, the score itself, 1, or its probability. ``bias=ignore`` leaves biases out of the
    denominators, so that they take no relevance. In a linear ``domain`` the relevance over the input is carried over
    like a gradient (DFT-LRP), with the same sum; where the input is 0 nothing can be.
    """
    return r if domain == "time" else T.shares(x, (r / x).where(x != 0, 0))
