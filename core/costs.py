"""What a batch costs: the passes through the model that its maps ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend import APART, RULES
from .domains import key_of
from .methods.perturbation import windows
from .trace import GAINS, TOGETHER, mirrors

if TYPE_CHECKING:
    from .plan import Cross, Plan


def passes(plan: Plan) -> dict[str, int]:
    """Forwards, backwards and tails of a full batch, at most.

    Targets that come to the same for every sample of a batch share their passes; what is said here is for targets that
    all differ. A tail is checked once in a run against a forward of its own, which is not counted.
    """
    plain, augmented = _trace(plan, plan.maps), [c for c in plan.maps if c.expression.augmented]
    total = dict(plain)
    if augmented:
        at_places = bool(plan.readout.places) or plan.readout.detects
        more = len(GAINS) * (2 if mirrors(len(plan.schema.input_shape) - 1, at_places=at_places) else 1) - 1
        for kind, count in _trace(plan, augmented).items():
            total[kind] += more * count
    return total


def _trace(plan: Plan, maps: list[Cross]) -> dict[str, int]:
    """Of one trace that is asked for ``maps``."""
    targets = len(plan.schema.targets)
    channels = {layer.name: layer.shape[0] for layer in plan.structure.layers}
    gradients, rules, curved = set[str](), set[str](), set[str]()
    relevances = set[tuple[str, ...]]()
    ablated, masked = set[tuple[str, ...]](), dict[tuple[str, int], int]()
    for cross in maps:
        expression, settings = cross.expression, cross.expression.settings
        if expression.asks & set("Ggb"):
            gradients.add(str(sorted(settings.items())) if expression.method.aim else "")
        rules |= expression.asks & RULES.keys()
        for layer in cross.layers:
            if "H" in expression.asks:
                curved.add(layer)
            if "D" in expression.asks:
                ablated.add((layer, settings["fill"], settings["compat"]))
            if "S" in expression.asks:
                top = settings["top"]
                masked[layer, top] = min(top or channels[layer], channels[layer])
        if "r" in expression.asks:
            relevances.add(tuple(str(settings[key]) for key in ("rules", "init", "bias", "attention")))
    asked = frozenset[str]().union(*(cross.expression.asks for cross in maps))
    most = plan.job.explain.block
    size = min(most, len(plan.schema))
    walks, versions = ([-(-count // (most // size)) for count in counts] for counts in _walks(plan, maps))
    return {
        "forward": 1
        + (bool(relevances) and not asked.isdisjoint(APART))
        + sum(-(-size * count // most) for count in masked.values())
        + sum(versions)
        + sum(walks) * -(-targets // TOGETHER),
        "backward": targets * (len(gradients) + len(rules) + len(curved) + sum(walks) + len(relevances)),
        "tail": sum(channels[layer] for layer, _, _ in ablated),
    }


def _walks(plan: Plan, maps: list[Cross]) -> tuple[list[int], list[int]]:
    """How many versions of each sample go forward and backward, and how many forward only."""
    walks, versions = dict[object, int](), dict[object, int]()
    channels, *sizes = plan.schema.input_shape
    for cross in maps:
        expression, settings = cross.expression, cross.expression.settings
        if "p" in expression.asks:
            start = (str(settings["baseline"]), settings["blur"])
            key = key_of(expression.domain)
            curved = "" if plan.domains[key].linear else key
            walks[(*start, settings["rule"], settings["steps"], curved)] = settings["steps"]
            versions[start] = 1  # for the residual
        if "N" in expression.asks:
            walks["N", settings["n"], settings["sd"]] = settings["n"]
        if expression.method.name == "occlusion":
            count = len(windows(sizes, settings["window"], settings["stride"]))
            versions[str(expression)] = count * (channels if settings["channels"] == "each" else 1)
        if expression.method.name == "rise":
            versions[str(expression)] = settings["n"]
    return list(walks.values()), list(versions.values())
