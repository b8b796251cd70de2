"""What each operator without weights does with relevance, by the function that torch calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def _known(*names: str) -> frozenset[Any]:
    """The functions of these names, wherever torch has them."""
    places: Iterable[Any] = (torch, Tensor, F, torch.special, torch._C._nn)
    return frozenset(getattr(place, name) for name in names for place in places if hasattr(place, name))


PASSING = _known(
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid", "softplus",
    "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign", "rrelu", "prelu", "clamp", "clamp_min", "abs",
    "threshold", "hardshrink", "softshrink", "tanhshrink",
)  # fmt: skip
"""Elementwise: relevance goes through as it is."""
SHARED = _known(
    "add", "sub", "subtract", "rsub", "__add__", "__radd__", "__sub__", "__rsub__", "mean", "sum", "neg", "cumsum",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "interpolate", "upsample", "batch_norm", "lerp", "addmm", "true_divide", "div", "divide", "__truediv__",
)  # fmt: skip
"""Linear in what lies on the data path: each part its share, as by LRP-z."""
PRODUCTS = _known(
    "mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum"
)
"""Linear in each factor: each has as much of the relevance as the others on the data path."""
STRUCTURAL = _known(
    "reshape", "view", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "squeeze", "unsqueeze",
    "cat", "concat", "stack", "split", "chunk", "unbind", "narrow", "select", "index_select", "gather", "__getitem__",
    "expand", "expand_as", "repeat", "repeat_interleave", "roll", "flip", "contiguous", "clone", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "pad", "max_pool1d", "max_pool2d", "max_pool3d",
    "max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "amax", "max", "maximum", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "to", "float", "double", "type", "unfold", "t", "mT", "T", "identity", "view_as", "reshape_as",
    "detach", "size", "dim", "ndim", "shape", "numel", "__get__", "__len__", "is_floating_point", "requires_grad_",
    "masked_fill", "where", "tile", "hstack", "vstack", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_to",
)  # fmt: skip
"""They move values or choose among them: the relevance moves with them, as a gradient does."""
IN_PLACE: dict[Any, Any] = {
    getattr(Tensor, f"{name}_"): getattr(Tensor, name)
    for name in ("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "clamp", "neg", "abs", "masked_fill")
} | {
    Tensor.__iadd__: Tensor.add, Tensor.__isub__: Tensor.sub, Tensor.__imul__: Tensor.mul, torch.relu_: torch.relu,
    Tensor.__itruediv__: Tensor.div, torch.sigmoid_: torch.sigmoid, torch.tanh_: torch.tanh,
    F.relu_: F.relu, F.elu_: F.elu, F.leaky_relu_: F.leaky_relu, F.hardtanh_: F.hardtanh,
}  # fmt: skip
"""Out of place, since what they overwrite is still needed."""


def linear_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """A norm over a sample's own values as a linear function: its deviation is taken as a constant (Ali et al. 2022).

    None for anything else.
    """
    if func not in NORMS:
        return None
    x = args[0].detach()
    names, axes, centred = NORMS[func]
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    if func in (F.instance_norm,) and not given.get("use_input_stats", True):
        return None
    whole = func(x, *args[1:], **kwargs)
    groups = x.reshape(len(x), given["num_groups"], -1, *x.shape[2:]) if func is F.group_norm else x
    over = axes(groups, given)
    eps = given.get("eps") or (torch.finfo(x.dtype).eps if func is getattr(F, "rms_norm", None) else 1e-5)
    mean = groups.mean(over, keepdim=True) if centred else groups.new_zeros(())
    scale = ((groups - mean).square().mean(over, keepdim=True) + eps).rsqrt()
    weight, bias = given.get("weight"), given.get("bias")
    shape = (1, -1, *[1] * (x.ndim - 2)) if func in (F.group_norm, F.instance_norm) else None

    def run(values: Tensor) -> Tensor:
        spread = values.reshape(groups.shape) if func is F.group_norm else values
        centre = spread.mean(over, keepdim=True) if centred else 0
        found = ((spread - centre) * scale).reshape(values.shape)
        found = found if weight is None else found * (weight.reshape(shape) if shape else weight)
        return found if bias is None else found + (bias.reshape(shape) if shape else bias)  # type: ignore[no-any-return]

    assert torch.allclose(run(x), whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max())), func  # noqa: S101
    return run


def _trailing(_: Tensor, given: dict[str, Any]) -> tuple[int, ...]:
    return tuple(range(-len(given["normalized_shape"]), 0))


NORMS: dict[Any, tuple[tuple[str, ...], Callable[[Tensor, dict[str, Any]], tuple[int, ...]], bool]] = {
    F.layer_norm: (("normalized_shape", "weight", "bias", "eps"), _trailing, True),
    F.group_norm: (("num_groups", "weight", "bias", "eps"), lambda x, _: tuple(range(2, x.ndim)), True),
    F.instance_norm: (
        ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        lambda x, _: tuple(range(2, x.ndim)),
        True,
    ),
}
if hasattr(F, "rms_norm"):
    NORMS[F.rms_norm] = (("normalized_shape", "weight", "eps"), _trailing, False)
