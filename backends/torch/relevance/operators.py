"""What each operator without weights does with relevance, by the function that torch calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def _known(*names: str) -> frozenset[Any]:
    """The functions of these names, wherever torch has them."""
    places: Iterable[Any] = (torch, Tensor, F, torch.special, torch._C._nn)
    return frozenset(getattr(place, name) for name in names for place in places if hasattr(place, name))


GATES = _known("sigmoid", "hardsigmoid", "expit")
"""What a factor of a product often comes from: it says how much of the other goes on."""
PASSING = GATES | _known(
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "softplus", "hardtanh",
    "hardswish", "logsigmoid", "softsign", "rrelu", "prelu", "clamp", "clip", "clamp_min", "clamp_max", "abs",
    "threshold", "hardshrink", "softshrink", "tanhshrink", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square",
    "reciprocal", "erf", "sin", "cos", "atan", "pow", "__pow__", "neg", "__neg__", "normalize", "local_response_norm",
)  # fmt: skip
"""Elementwise, or but for a scale that is taken as a constant: relevance goes through as it is."""
SHARED = _known(
    "add", "sub", "subtract", "rsub", "__add__", "__radd__", "__sub__", "__rsub__", "mean", "sum", "cumsum",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "interpolate", "upsample", "batch_norm", "lerp", "log_softmax",
)  # fmt: skip
"""Linear in what lies on the data path: each part its share, as by LRP-z."""
POOLS = _known(
    "mean", "sum", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "interpolate", "upsample",
)  # fmt: skip
"""Those of them that mix places."""
QUOTIENTS = _known("true_divide", "div", "divide", "__truediv__")
"""The same in the first; the second is taken as a constant."""
PRODUCTS = _known(
    "mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum"
)
"""Linear in each factor: each has as much of the relevance as the others on the data path."""
SOFTMAX = _known("softmax")
MATMUL = _known("matmul", "__matmul__", "mm")
"""With a constant matrix behind they are weighted operators."""
STRUCTURAL = _known(
    "reshape", "view", "flatten", "ravel", "unflatten", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "squeeze", "unsqueeze", "cat", "concat", "concatenate", "stack", "split", "split_with_sizes", "chunk",
    "tensor_split", "unbind", "narrow", "select", "index_select", "gather", "take_along_dim", "__getitem__", "__iter__",
    "expand", "expand_as", "repeat", "repeat_interleave", "tile", "roll", "flip", "rot90", "contiguous", "clone",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "pad", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d_with_indices",
    "max_unpool1d", "max_unpool2d", "max_unpool3d", "amax", "amin", "max", "min", "maximum", "minimum", "sort", "topk",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "to", "float", "double", "half", "bfloat16", "type",
    "type_as", "unfold", "as_strided", "t", "identity", "view_as", "reshape_as", "broadcast_to", "masked_fill",
    "masked_select", "where", "hstack", "vstack", "dstack", "atleast_1d", "atleast_2d", "atleast_3d", "tril", "triu",
    "index_put", "scatter", "slice_scatter", "select_scatter", "diagonal", "requires_grad_", "__get__", "sum_to_size",
)  # fmt: skip
"""They move values or choose among them: the relevance moves with them, as a gradient does."""
INPLACE_AT: dict[Any, int] = {
    func: list(parameters).index("inplace")
    for func in vars(F).values()
    if inspect.isfunction(func) and "inplace" in (parameters := inspect.signature(func).parameters)
}
"""Where functions with a switch for working in place have it."""


def written(tensor: Tensor, index: Any, values: Any) -> Tensor:
    """``tensor`` with ``values`` at an index."""
    found = tensor.clone()
    found[index] = values
    return found


def copied(tensor: Tensor, values: Tensor, non_blocking: bool = False) -> Tensor:  # noqa: ARG001
    """``values`` in the place of ``tensor``."""
    return values.to(tensor.dtype).expand_as(tensor)


Memory = tuple[Any, Any]
"""Size and strides."""


def written_view(whole: Tensor, values: Tensor, base: Memory, view: tuple[Any, ...]) -> Tensor:
    """``whole``, what a tensor of ``base`` has become, with ``values`` where the ``view`` of that lies."""
    found = torch.empty_strided(*base, dtype=whole.dtype, device=whole.device).copy_(whole)
    found.as_strided(*view).copy_(values)
    return found


def view_of(whole: Tensor, base: Memory, view: tuple[Any, ...]) -> Tensor:
    """What a ``view`` of ``base`` is where that has become ``whole``."""
    return torch.empty_strided(*base, dtype=whole.dtype, device=whole.device).copy_(whole).as_strided(*view)


STRUCTURAL |= {written, copied, written_view, view_of}


def out_of_place(func: Any) -> Any:
    """The function that gives what ``func`` would write over its first argument; None where it does no such thing.

    What would be overwritten is still needed.
    """
    if func in (Tensor.__setitem__, Tensor.copy_):
        return written if func is Tensor.__setitem__ else copied
    name: str = getattr(func, "__name__", "")
    if name.startswith("__i") and name.endswith("__"):
        plain = {"__itruediv__": "div", "__iadd__": "add", "__isub__": "sub", "__imul__": "mul"}.get(name)
    else:
        plain = name[:-1] if name.endswith("_") and not name.endswith("__") and name != "requires_grad_" else None
    if plain is None:
        return None
    return next((getattr(place, plain) for place in (Tensor, F, torch) if hasattr(place, plain)), None)


def channel_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Scale and shift of a `batch_norm` in evaluation, (channel,), and the tensor that tells it from others."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    mean, variance, weight, bias = (given.get(name) for name in names[1:5])
    if given.get("training") or mean is None or variance is None:
        return None
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.detach(), shift.detach(), variance


def linear_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """A norm over a sample's own values as a linear function: its deviation is taken as a constant (Ali et al. 2022).

    None for anything else.
    """
    if func not in NORMS:
        return None
    x = args[0].detach()
    names, axes, centred = NORMS[func]
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    if func is F.instance_norm and not given.get("use_input_stats", True):
        return None
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

    return run


def _trailing(_: Tensor, given: dict[str, Any]) -> tuple[int, ...]:
    return tuple(range(-len(given["normalized_shape"]), 0))


NORMS: dict[Any, tuple[tuple[str, ...], Callable[[Tensor, dict[str, Any]], tuple[int, ...]], bool]] = {
    F.layer_norm: (("normalized_shape", "weight", "bias", "eps"), _trailing, True),
    torch.layer_norm: (("normalized_shape", "weight", "bias", "eps"), _trailing, True),
    F.group_norm: (("num_groups", "weight", "bias", "eps"), lambda x, _: tuple(range(2, x.ndim)), True),
    F.instance_norm: (
        ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        lambda x, _: tuple(range(2, x.ndim)),
        True,
    ),
}
if hasattr(F, "rms_norm"):
    NORMS[F.rms_norm] = (("normalized_shape", "weight", "eps"), _trailing, False)
