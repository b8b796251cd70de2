"""Activations and layer norms that a file holds written out, known again by what they compute, not by how.

A part of the graph with one input is run on a few numbers; where it gives what a known function gives, it is that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .building import made
from .graph import Graph, Node, Unsupported, node_of

Function = Callable[[Tensor], Tensor]
ACTIVATIONS: Sequence[tuple[str, dict[str, Any], Function]] = (
    ("Gelu", {"approximate": "none"}, F.gelu),
    ("Gelu", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    ("Swish", {}, F.silu),
    ("HardSwish", {}, F.hardswish),
    ("Mish", {}, F.mish),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, F.hardsigmoid),
    ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}, lambda x: F.hardsigmoid(1.2 * x)),
    ("Sigmoid", {}, torch.sigmoid),
    ("Softplus", {}, F.softplus),
)
CURVED = frozenset(
    {"Erf", "Erfc", "Tanh", "Sigmoid", "Clip", "HardSigmoid", "Min", "Max", "Relu", "Softplus", "Exp", "Log"}
)
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Reciprocal", "Identity", "Abs"})
MEANS = frozenset({"ReduceMean"})
LONGEST = 16
"""So many nodes are looked at together."""
NEAR = 1e-5
"""How much a function may differ: constants are often rounded."""


def recognise(graph: Graph) -> None:
    """Replace what is known; what nobody needs any more is dropped."""
    makers, order = graph.makers, {node: i for i, node in enumerate(graph.nodes)}
    gone: set[Node] = set()
    for node in reversed(list(graph.nodes)):
        if node.op not in ARITHMETIC | CURVED or node in gone or len(node.outputs) != 1:
            continue
        for region, source in _regions(node, makers, order):
            found = _activation(node, region, source) or _layer_norm(graph, node, region, source)
            if found is not None:
                graph.replace([node], found)
                gone.update(region)
                break
    graph.prune()


def _regions(node: Node, makers: Mapping[str, Node], order: Mapping[Node, int]) -> Any:
    """Growing parts of the graph that end in ``node`` and have one input, and that input."""
    region: list[Node] = []
    allowed = ARITHMETIC | CURVED | MEANS
    following: Node | None = node
    while following is not None and len(region) < LONGEST:
        region.append(following)
        open_ends = _inputs(region)
        if len(open_ends) == 1 and len(region) > 1:
            yield list(region), open_ends[0]
        before = [makers[name] for name in open_ends if name in makers and makers[name].op in allowed]
        if len(open_ends) - len(before) > 1:
            return
        following = max(before, key=order.__getitem__, default=None)


def _inputs(region: Sequence[Node]) -> list[str]:
    inside = {name for node in region for name in node.outputs}
    names = dict.fromkeys(name for node in region for name in node.inputs if name and name not in inside)
    constants = region[0].graph.constants
    return [name for name in names if name not in constants]


def _constants(region: Sequence[Node]) -> list[Tensor]:
    own = region[0].graph.constants
    return [own[name] for node in region for name in node.inputs if name in own]


def _activation(node: Node, region: Sequence[Node], source: str) -> Node | None:
    """A function of each element."""
    if any(each.op in MEANS for each in region) or not any(each.op in CURVED for each in region):
        return None
    if any(each.numel() != 1 for each in _constants(region)):
        return None
    x = torch.linspace(-9, 9, 74, dtype=torch.float64)
    y = _run(region, source, x)
    if y is None or y.numel() != x.numel():
        return None
    for op, attributes, function in ACTIVATIONS:
        if _near(y.reshape(-1), function(x)):
            return node_of(node.graph, op, node, [source], node.outputs[0], **attributes)
    return None


def _layer_norm(graph: Graph, node: Node, region: Sequence[Node], source: str) -> Node | None:
    """To mean 0 and deviation 1 along the last axis, with weight and bias wherever they come in."""
    means = [each for each in region if each.op in MEANS]
    dims = graph.shapes.get(source)
    rank = None if dims is None else len(dims)
    if len(means) < 2 or any(not _over_last(each, rank) for each in means):
        return None
    constants = _constants([each for each in region if each.op not in MEANS])
    vectors = [each.reshape(-1) for each in constants if each.numel() > 1]
    known = dims[-1] if dims else None
    width = len(vectors[0]) if vectors else known or 0
    kind = next((each.dtype for each in constants if each.is_floating_point()), None)
    if (
        any(len(each) != width for each in vectors)
        or len(vectors) > 2
        or known not in (None, width)
        or kind is None
        or not width
    ):
        return None
    x = torch.randn(*[2] * ((rank or 3) - 1), width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = _run(region, source, x)
    if y is None or y.shape != x.shape:
        return None
    one, zero = torch.ones(width, dtype=kind), torch.zeros(width, dtype=kind)
    pairs = [(one, zero), *((v, zero) for v in vectors), *((one, v) for v in vectors)]
    pairs += [(vectors[0], vectors[1]), (vectors[1], vectors[0])] if len(vectors) == 2 else []
    for eps in {float(each) for each in constants if each.numel() == 1 and 0 < float(each) < 0.1}:
        for weight, bias in pairs:
            if _near(y, F.layer_norm(x, (width,), weight.double(), bias.double(), eps)):
                names = [f"{node.outputs[0]}/weight", f"{node.outputs[0]}/bias"]
                graph.constants.update(zip(names, (weight, bias), strict=True))
                found = node_of(graph, "LayerNormalization", node, [source, *names], node.outputs[0])
                found.attributes = {"axis": -1, "epsilon": eps}
                return found
    return None


def _over_last(node: Node, rank: int | None) -> bool:
    given = node.constant(1)
    axes = node.get("axes") if given is None else given.reshape(-1).tolist()
    return axes is not None and len(axes) == 1 and (axes[0] == -1 or (rank is not None and axes[0] == rank - 1))


def _run(region: Sequence[Node], source: str, x: Tensor) -> Tensor | None:
    """What the part gives for ``x``, in double precision; None where it cannot be run."""
    values = {source: x}
    graph = region[0].graph
    try:
        for node in reversed(region):
            module, places = made(node)
            names = [node.inputs[place] for place in places]
            given = [values[n] if n in values else graph.constants[n].double() for n in names]
            values[node.outputs[0]] = module.double()(*given)
    except (Unsupported, RuntimeError, IndexError, KeyError, TypeError):
        return None
    return values[region[0].outputs[0]]


def _near(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).abs() <= NEAR * wanted.abs().clamp(min=1)).all())
