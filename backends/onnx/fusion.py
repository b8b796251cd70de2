"""Layers put together again that a file holds in pieces, so that relevance and hooks find them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .graph import Graph, Node, node_of

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Linear", "Gemm"})
OF_MASKS = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Where",
        "Cast",
        "CastLike",
        "Expand",
        "Unsqueeze",
        "Reshape",
        "Concat",
        "Pad",
        "Max",
        "Slice",
    }
    | {"ConstantOfShape", "Trilu", "ScatterND", "Transpose", "Squeeze", "Identity", "Div", "Gather"}
)
"""What masks are made with, and added by."""
SEARCHED = 60
"""So many values before a softmax are looked at for a mask."""
AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})


def fuse(graph: Graph) -> None:
    """Biases into the layers before them, batch norms made of a product and a sum, softmaxes that masks may empty."""
    for node in list(graph.nodes):
        if node in graph.nodes and (node.op in CONVOLUTIONS or node.op in PRODUCTS):
            _join(graph, node)
    for node in list(graph.nodes):
        if node.op == "Softmax" and node.version >= 13:
            _guard(node, graph.makers)
        elif node.op in ("Max", "Clip"):
            _rectify(graph, node)
    graph.prune()


def _join(graph: Graph, layer: Node) -> None:
    """The constants that are added to a layer's channels and multiplied with them."""
    weight = layer.constant(1)
    if weight is None or layer.constant(0) is not None or not weight.is_floating_point():
        return
    if (layer.has(2) and layer.constant(2) is None) or (layer.op == "Gemm" and layer.get("transA", 0)):
        return
    if layer.op in PRODUCTS and weight.ndim != 2:
        return
    channels = _channels(layer, weight)
    chain = _chain(graph, layer, channels)
    first = next((i for i, (_, scale, _) in enumerate(chain) if scale is not None), len(chain))
    if first:
        layer = _biased(
            graph, layer, [node for node, _, _ in chain[:first]], sum(c[2] for c in chain[:first]), channels
        )
    rest = chain[first:]
    rank = graph.shapes.get(layer.outputs[0])
    placed = layer.op in CONVOLUTIONS or (rank is not None and len(rank) == 2)
    if not rest or not placed or all(_alone(node) for node, _, _ in rest):
        return
    scale, shift = torch.ones(channels, dtype=weight.dtype), torch.zeros(channels, dtype=weight.dtype)
    for _, by, more in rest:
        scale, shift = (scale, shift + more) if by is None else (scale * by, shift * by)
    like = rest[-1][0]
    values = {"scale": scale, "shift": shift, "mean": torch.zeros_like(scale), "variance": torch.ones_like(scale)}
    norm = node_of(graph, "BatchNormalization", like, [layer.outputs[0]], like.outputs[0], epsilon=0.0)
    for name, value in values.items():
        norm.inputs.append(_new(graph, f"{like.outputs[0]}/{name}", value))
    norm.version = max(norm.version, 9)
    graph.replace([node for node, _, _ in rest], norm)


def _channels(layer: Node, weight: Tensor) -> int:
    if layer.op == "Conv":
        return len(weight)
    if layer.op == "ConvTranspose":
        return int(weight.shape[1]) * int(layer.get("group", 1))
    return int(weight.shape[0 if layer.op == "Gemm" and layer.get("transB", 0) else 1])


def _chain(graph: Graph, layer: Node, channels: int) -> list[tuple[Node, Tensor | None, Tensor | float]]:
    """What follows a layer and nothing else does: nodes, with what they multiply the channels with, or add to them."""
    found: list[tuple[Node, Tensor | None, Tensor | float]] = []
    users, shown = graph.users, set(graph.outputs.values())
    value = layer.outputs[0]
    while value not in shown and len(users.get(value, [])) == 1:
        node = users[value][0]
        if node.op not in AFFINE or len(node.inputs) != 2 or node.inputs[0] == node.inputs[1]:
            break
        place = 1 if node.inputs[0] == value else 0
        constant = node.constant(place)
        by = None if constant is None else _of_channels(constant, layer, channels)
        if by is None or (place == 0 and node.op == "Div"):
            break
        if node.op == "Add":
            found.append((node, None, by))
        elif node.op == "Sub" and place == 1:
            found.append((node, None, -by))
        elif node.op in ("Mul", "Div"):
            found.append((node, by if node.op == "Mul" else 1 / by, 0.0))
        else:
            break
        value = node.outputs[0]
    return found


def _of_channels(constant: Tensor, layer: Node, channels: int) -> Tensor | None:
    """A constant as (channel,), None where it is no value for each channel."""
    if not constant.is_floating_point():
        return None
    rank = constant_rank = constant.ndim
    if layer.op in CONVOLUTIONS:
        weight = layer.constant(1)
        assert weight is not None  # noqa: S101
        rank = weight.ndim
        sizes = [*[1] * (rank - constant_rank), *constant.shape]
        fits = constant_rank <= rank and sizes[1] in (1, channels) and math.prod(sizes) == sizes[1]
    else:
        known = layer.graph.shapes.get(layer.outputs[0])
        longest = 2 if known is None else len(known)
        last = constant.shape[-1] if constant_rank else 1
        fits = constant_rank <= longest and last in (1, channels) and constant.numel() == last
    return constant.reshape(-1).expand(channels) if fits else None


def _alone(node: Node) -> bool:
    """Whether a node's constant is one number."""
    return any(each is not None and each.numel() == 1 for each in (node.constant(0), node.constant(1)))


def _biased(graph: Graph, layer: Node, sums: list[Node], more: Tensor | float, channels: int) -> Node:
    """The layer and its bias as one."""
    weight, bias = layer.constant(1), layer.constant(2) if layer.has(2) else None
    assert weight is not None  # noqa: S101
    output = sums[-1].outputs[0]
    if layer.op == "Gemm":
        matrix = weight.t() if layer.get("transB", 0) else weight
        own = None if bias is None else _of_channels(bias * layer.get("beta", 1.0), layer, channels)
        if bias is not None and own is None:
            return layer
        weight, bias = matrix * layer.get("alpha", 1.0), own
    total = torch.as_tensor(more, dtype=weight.dtype).expand(channels)
    total = total if bias is None else total + bias
    inputs = [layer.inputs[0], _new(graph, f"{output}/weight", weight), _new(graph, f"{output}/bias", total.clone())]
    op = layer.op if layer.op in CONVOLUTIONS else "Linear"
    joined = node_of(graph, op, layer, inputs, output, **(layer.attributes if op in CONVOLUTIONS else {}))
    graph.replace([layer, *sums], joined)
    return joined


def _guard(softmax: Node, makers: Mapping[str, Node]) -> None:
    """A softmax behind a mask of -inf may meet rows of nothing else; its gradient there is nan, whatever follows."""
    ahead, seen = list(softmax.inputs), set[str]()
    constants = softmax.graph.constants
    while ahead and len(seen) < SEARCHED:
        name = ahead.pop()
        maker = makers.get(name)
        values = [constants[name]] if name in constants else []
        if maker is not None and name not in seen:
            values += [each for each in maker.attributes.values() if isinstance(each, Tensor)]
            ahead += maker.inputs if maker.op in OF_MASKS else []
        seen.add(name)
        if any(each.is_floating_point() and bool((each == -math.inf).any()) for each in values):
            softmax.op = "MaskedSoftmax"
            return


def _rectify(graph: Graph, node: Node) -> None:
    """A rectifier that is called a maximum, or a clip."""
    if node.op == "Max" and len(node.inputs) == 2:
        place = next((i for i in range(2) if _is_zero(node.constant(i))), None)
        kept = None if place is None else node.inputs[1 - place]
    elif node.op == "Clip" and node.version >= 11:
        kept = node.inputs[0] if not node.has(2) and _is_zero(node.constant(1)) else None
    else:
        kept = None
    if kept is not None and kept not in graph.constants:
        graph.replace([node], node_of(graph, "Relu", node, [kept], node.outputs[0]))


def _is_zero(constant: Tensor | None) -> bool:
    return constant is not None and constant.is_floating_point() and constant.numel() == 1 and float(constant) == 0


def _new(graph: Graph, name: str, value: Tensor) -> str:
    graph.constants[name] = value
    graph.shapes[name] = tuple(value.shape)
    return name
