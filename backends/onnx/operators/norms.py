"""Normalizations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..graph import Node, Unsupported
from ..modules import filled
from ..registry import operator

BATCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """For inputs of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002, ARG002
        return


@operator("BatchNormalization")
def batch_norm(node: Node) -> Any:
    """In evaluation."""
    if node.get("training_mode", 0) or any(map(node.wants, range(1, len(node.outputs)))):
        raise Unsupported("BatchNormalization in training mode")
    if not node.get("spatial", 1):
        raise Unsupported("BatchNormalization of each place")
    eps, taken = node.get("epsilon", 1e-5), node.take(1, 2, 3, 4)
    if taken is None:  # written out: torch's has no gradient for a mean that is computed

        def run(x: Tensor, *given: Tensor) -> Tensor:
            scale, shift, mean, var = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in given)
            factor: Tensor = (var + eps).rsqrt() * scale
            return (x - mean) * factor + shift

        return run
    scale, shift, mean, var = taken
    assert scale is not None  # noqa: S101
    layer = BATCH.get(node.rank(0) or 0, BatchNorm)(len(scale), eps=eps, device="meta")
    filled(layer, weight=scale, bias=shift)
    layer.running_mean, layer.running_var = mean, var
    layer.num_batches_tracked = None
    return layer


@operator("InstanceNormalization")
def instance_norm(node: Node) -> Any:
    """Of each channel of each sample."""
    eps, taken = node.get("epsilon", 1e-5), node.take(1, 2)
    rank = node.rank(0)
    if taken is None or taken[0] is None or rank not in INSTANCE:
        node.taken.clear()
        return lambda x, scale, shift: F.instance_norm(x, None, None, scale, shift, True, 0.0, eps)
    layer = INSTANCE[rank](len(taken[0]), eps=eps, affine=True, device="meta")
    return filled(layer, weight=taken[0], bias=taken[1])


@operator("GroupNormalization")
def group_norm(node: Node) -> Any:
    """Until opset 20 with a weight for each group, then for each channel."""
    eps, groups, taken = node.get("epsilon", 1e-5), node.get("num_groups"), node.take(1, 2)
    dims = node.dims(0)
    channels = None if dims is None else dims[1]
    if taken is not None and taken[0] is not None and taken[1] is not None and (node.version >= 21 or channels):
        scale, shift = taken[0], taken[1]
        if node.version < 21 and channels:
            scale, shift = (each.repeat_interleave(channels // groups) for each in (scale, shift))
        return filled(nn.GroupNorm(groups, len(scale), eps, device="meta"), weight=scale, bias=shift)
    node.taken.clear()

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if node.version < 21:
            scale, shift = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, shift))
        return F.group_norm(x, groups, scale, shift, eps)

    return run


@operator("LayerNormalization")
def layer_norm(node: Node) -> Any:
    """Over the axes from ``axis`` on."""
    axis, eps, rank = node.get("axis", -1), node.get("epsilon", 1e-5), node.rank(0)
    scale, shift = node.constant(1), node.constant(2)
    count = -axis if axis < 0 else None if rank is None else rank - axis
    plain = scale is not None and scale.ndim == count and (not node.has(2) or shift is not None)
    plain = plain and (shift is None or shift.shape == scale.shape)  # type: ignore[union-attr]
    dims = node.dims(0)
    plain = plain and (dims is None or count is None or tuple(scale.shape) == dims[len(dims) - count :])  # type: ignore[union-attr]
    if plain and scale is not None and not any(map(node.wants, range(1, len(node.outputs)))):
        node.take(1, 2)
        layer = nn.LayerNorm(tuple(scale.shape), eps, bias=shift is not None, device="meta")
        return filled(layer, weight=scale, bias=shift)

    def run(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        over = list(range(axis % x.ndim, x.ndim))
        mean = x.mean(over, keepdim=True)
        inverse = ((x - mean).square().mean(over, keepdim=True) + eps).rsqrt()
        y = (x - mean) * inverse * scale
        return (y if shift is None else y + shift), mean, inverse

    return run


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def rms_norm(node: Node) -> Any:
    """Over the axes from ``axis`` on, without their mean."""
    axis, eps, dims, scale = node.get("axis", -1), node.get("epsilon", 1e-5), node.dims(0), node.constant(1)
    if scale is not None and dims is not None and tuple(scale.shape) == dims[axis % len(dims) :]:
        node.take(1)
        return filled(nn.RMSNorm(tuple(scale.shape), eps, device="meta"), weight=scale)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        over = list(range(axis % x.ndim, x.ndim))
        size: Tensor = (x.square().mean(over, keepdim=True) + eps).rsqrt()
        return x * size * scale

    return run


@operator("LRN")
def local_response(node: Node) -> Any:
    """Over neighbouring channels; of an even number torch takes one more before, ONNX one more behind."""
    size, alpha = node.get("size"), node.get("alpha", 1e-4)
    beta, bias = node.get("beta", 0.75), node.get("bias", 1.0)
    if size % 2:
        return nn.LocalResponseNorm(size, alpha, beta, bias)

    def run(x: Tensor) -> Tensor:
        flat = x.square().flatten(2).transpose(1, 2)
        around = F.avg_pool1d(F.pad(flat, ((size - 1) // 2, size // 2)), size, 1).transpose(1, 2)
        power: Tensor = around.reshape(x.shape) * alpha + bias
        return x / power.pow(beta)

    return run


@operator("LpNormalization")
def lp_norm(node: Node) -> Any:
    """To norm 1 along an axis; zeros stay."""
    p, axis = node.get("p", 2), node.get("axis", -1)

    def run(x: Tensor) -> Tensor:
        zero = (x == 0).all(axis, keepdim=True)
        length = (
            x.abs().sum(axis, keepdim=True) if p == 1 else x.where(~zero, 1).square().sum(axis, keepdim=True).sqrt()
        )
        return x / length.where(~zero, 1)

    return run


@operator("MeanVarianceNormalization")
def mean_variance(node: Node) -> Any:
    """To mean 0 and deviation 1 over the axes."""
    axes = node.get("axes", [0, 2, 3])

    def run(x: Tensor) -> Tensor:
        mean = x.mean(axes, keepdim=True)
        return (x - mean) / ((x.square().mean(axes, keepdim=True) - mean.square()).sqrt() + 1e-9)

    return run


@operator("SkipLayerNormalization", "com.microsoft.SkipLayerNormalization")
def skip_layer_norm(node: Node) -> Any:
    """Of a sum, as onnxruntime's optimizer writes it."""
    eps = node.get("epsilon", 1e-12)

    def run(x: Tensor, skip: Tensor, scale: Tensor, shift: Any = None, bias: Any = None) -> tuple[Any, ...]:
        total = x + skip if bias is None else x + skip + bias
        return F.layer_norm(total, (total.shape[-1],), scale, shift, eps), None, None, total

    return run
