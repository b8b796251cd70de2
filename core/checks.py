"""Whether what is asked for fits the data and the model; what is found here is told before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from .backend import Backend, Structure
from .baselines import array
from .data import Dataset
from .domains import Domain, Space, key_of
from .errors import RequestError, nearest
from .job import Job
from .keys import Threshold
from .methods import Expression
from .methods.perturbation import windows
from .relevance.bounds import bounds
from .walks import nodes


def settle_domains(expressions: list[Expression], space: Space) -> dict[str, Domain]:
    """The domains that expressions ask for, on samples of a kind; `RequestError` where one does not fit them."""
    found: dict[str, Domain] = {}
    for expression in expressions:
        for term in expression.terms:
            if "T" in term.method.asks and key_of(term.domain) not in found:
                found[key_of(term.domain)] = term.domain.on(space) if term.domain else Domain(space)
        carried = expression.factors or expression.method.family == "relevance"
        if carried and not found.get(key_of(expression.place), Domain(space)).linear:
            raise RequestError(f"{expression}: {expression.place} is not linear, only ig can be taken in it")
    return found


def check_sizes(expression: Expression, dataset: Dataset) -> None:
    """`RequestError` where numbers that are right by themselves do not go together."""
    settings = expression.settings
    if "rule" in settings:
        nodes(settings["rule"], settings["steps"])
    if "stride" in settings:
        windows(dataset.shape[1:], settings["window"], settings["stride"])
    if any(level == "blur" for level in expression.levels) and find_spec("scipy") is None:
        raise RequestError(f"{expression} needs SciPy: pip install 'camsweep[domains]'")


def check_levels(expression: Expression, dataset: Dataset) -> None:
    """`RequestError` where a baseline, a threshold or bounds do not fit the data."""
    if expression.box is not None:
        bounds(expression.box, dataset.shape)
    for level in expression.levels:
        check_level(str(expression), level, dataset)


def check_level(owner: str, level: Threshold, dataset: Dataset) -> None:
    """`RequestError` where a baseline or a threshold of ``owner`` does not fit the data."""
    if level.file is not None:
        array(level, dataset.shape)
    elif level.numbers and len(level.numbers) not in (1, dataset.shape[0]):
        raise RequestError(
            f"{owner}: {len(level.numbers)} numbers given, expected one, or one for each of the "
            f"{dataset.shape[0]} channels"
        )
    elif level.sample is not None and level.sample not in dataset.ids:
        raise RequestError(
            f"{owner}: {level.sample} is neither {', '.join(level.words)} nor a sample. "
            f"{nearest(level.sample, [*level.words, *dataset.ids])}"
        )
    elif level.sample is not None:
        batch = dataset.read([list(dataset.ids).index(level.sample)])
        for reason in (*batch.failed.values(), *batch.nonfinite.values()):
            raise RequestError(f"{owner}: sample {level.sample} cannot be a baseline: {reason}")


def check_ranks(expression: Expression, layers: Sequence[str], structure: Structure, rank: int) -> None:
    """`RequestError` for a layer of another rank where its maps must lie on the input (a picture made of a signal)."""
    if not (expression.asks & set("Su") or expression.fused):
        return
    for layer in structure.layers:
        if layer.name in layers and layer.rank != rank:
            raise RequestError(
                f"{expression} brings a layer's maps to the input's {rank} spatial axes; {layer.name!r} has "
                f"{layer.rank}: choose another layer"
            )


def settle_layer(name: str, structure: Structure) -> str:
    """The layer that ``name`` means, or the last inside of it; `RequestError` where no CAM can be taken there."""
    known = {layer.name: layer for layer in structure.layers}
    if name == "auto":
        if structure.auto is None:
            raise RequestError(
                "layer auto: no layer keeps the input's spatial axes; `camsweep inspect` lists the layers"
            )
        return structure.auto
    if name not in known:  # a graph has the names of what its layers were a part of, but not those parts
        inside = [each.name for each in structure.layers if each.name.startswith(f"{name}.") and each.tappable]
        if inside:
            return inside[-1]
        raise RequestError(
            f"no layer {name!r} runs in the model. {nearest(name, known)} `camsweep inspect` lists them."
        )
    layer = known[name]
    if layer.doubt:
        raise RequestError(f"layer {name!r}: {layer.doubt}")
    if layer.calls > 1:
        raise RequestError(f"layer {name!r} runs {layer.calls} times in a forward; choose one that runs once")
    if not layer.tappable:
        last = f"; the last layer with them is {structure.auto!r}" if structure.auto else ""
        raise RequestError(f"layer {name!r} has no spatial axes, its output is {layer.shape}{last}")
    return name


def check_switches(job: Job, backend: Backend, final: str | None) -> None:
    """`RequestError` where the job asks for a way to run that the backend does not have, or not for this model."""
    precision = job.explain.precision
    asked = {
        "channels_last": job.explain.channels_last is not None,
        "precision": precision != "float32",
        "compile": job.explain.compile,
    }
    if missing := [key for key, given in asked.items() if given and key not in backend.switches]:
        how = f"; {backend.notes[0]}" if backend.notes else ""
        if missing[0] == "compile" and final is not None:
            how = f" (the model ends in {final}, which each forward looks for)"
        raise RequestError(f"explain.{missing[0]} has no meaning for the {backend.name} backend here{how}; take it out")
    if precision == "float32":
        return
    if job.output.dtype == "float64":
        raise RequestError(f"precision {precision} and dtype float64 are asked for; leave one out")
    if whole := next((each for each in job.explain.expressions if "r" in each.asks), None):
        raise RequestError(
            f"{whole} cannot be had in {precision}: what it shares out would not add up; leave out one of them"
        )
