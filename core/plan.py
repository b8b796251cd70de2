"""From a job to a plan: what will be computed and stored, and whether it is there already."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .backend import Backend, Execution, Structure, Tapping
from .checks import check_levels, check_ranks, check_sizes, check_switches, settle_domains, settle_layer
from .costs import passes
from .data import Batch, Dataset
from .domains import Domain, Space, key_of
from .errors import RequestError, counted, nearest
from .job import Job
from .keys import show
from .methods import Expression
from .methods.registry import QUESTIONS
from .outputs import Readout, settled
from .results import MapInfo, Provenance, Schema
from .standing import identity, model_sha256
from .targets import Target
from .user_code import function


@dataclass(frozen=True)
class Cross:
    """One map to compute: an expression, at a layer if it asks for one, at several if it fuses them."""

    expression: Expression
    layers: tuple[str, ...]

    @property
    def layer(self) -> str | None:
        """As in the map's name."""
        return ",".join(self.layers) or None

    @property
    def name(self) -> str:
        """Of the map."""
        return "@".join([str(self.expression), *filter(None, [self.layer])])


@dataclass(frozen=True)
class Plan:
    """Everything settled before the first batch."""

    job: Job
    dataset: Dataset
    structure: Structure
    readout: Readout
    targets: list[Target]
    maps: list[Cross]
    schema: Schema
    domains: Mapping[str, Domain]
    """By `key_of` their choice."""

    @property
    def layers(self) -> list[str]:
        """The layers to tap."""
        return list(dict.fromkeys(layer for cross in self.maps for layer in cross.layers))

    @property
    def tapping(self) -> Tapping:
        """What of each forward is kept."""
        asked = frozenset[str]().union(*(cross.expression.asks for cross in self.maps))
        explain = self.job.explain
        execution = Execution(explain.channels_last, explain.precision, explain.compile)
        return Tapping(self.layers, len(self.schema.input_shape) - 1, asked, execution)

    @property
    def expressions(self) -> list[Expression]:
        """Of the maps, each once."""
        return list({str(cross.expression): cross.expression for cross in self.maps}.values())

    @property
    def fitted_domains(self) -> dict[str, Domain]:
        """Those that are fitted to the dataset, by the text of their choice."""
        choices = [term.domain for expression in self.expressions for term in expression.terms if term.domain]
        return {str(each): found for each in choices if (found := self.domains[each.key]).fitted_to_data}

    @property
    def doubt(self) -> str | None:
        """One line where there are more, or fewer, names of classes than outputs: one of them is of something else."""
        names, outputs = self.dataset.classes, self.readout.outputs
        if names is None or len(names) == outputs or outputs == 1 or self.readout.places or self.readout.detects:
            return None
        return f"warning: the data name {len(names)} classes, the model has {outputs} outputs: are they of one another?"

    @property
    def references(self) -> dict[str, int]:
        """Rows of the samples that targets name."""
        named = {part.argument for target in self.targets for part in target.parts if part.kind == "cosine"}
        return {name: list(self.dataset.ids).index(name) for name in sorted(named)}

    @property
    def passes(self) -> dict[str, int]:
        """How often each full batch goes forward, backward, and through the tail of the model, at most.

        Targets that come to the same for every sample of a batch share their passes.
        """
        return passes(self)

    @property
    def bytes(self) -> int:
        """Size of the results, uncompressed."""
        return len(self.schema) * sum(column.row_bytes for column in self.schema.columns)


def make(job: Job, dataset: Dataset, backend: Backend, argv: list[str]) -> Plan:
    """Send one sample through the model and settle layers, targets and sizes. `RequestError` where something is off."""
    first = example(dataset)
    structure = _structure(backend, first, dataset)
    names = None if dataset.classes is None else list(dataset.classes)
    explain = job.explain
    readout = Readout(
        structure.outputs,
        structure.places,
        explain.score,
        settled(explain.activation, structure.final, structure.outputs),
        structure.final,
        names,
        structure.detects,
    )
    targets = explain.parsed_targets
    columns = [name for target in targets for name in target.columns(readout)]
    for target in targets:
        for part in target.parts:
            if part.kind == "cosine" and part.argument not in dataset.ids:
                raise RequestError(f"target {part}: no such sample. {nearest(part.argument, dataset.ids)}")
            if part.kind == "function":
                function(f"{part.file}:{part.argument}", "target")
    if repeated := {name for name in columns if columns.count(name) > 1}:
        raise RequestError(f"target {min(repeated)} is asked for twice; leave one out")
    expressions = job.explain.expressions
    for expression in expressions:
        if missing := expression.asks - backend.answers:
            raise RequestError(
                f"{expression} asks for the {' and the '.join(QUESTIONS[letter] for letter in sorted(missing))}, "
                f"which the {backend.name} backend cannot give{''.join(f'; {note}' for note in backend.notes)}"
            )
        if expression.method.concepts and not expression.settings["k"]:
            raise RequestError(f"{expression.method.name}: k=0 given, expected 1 or more")
        if expression.settings.get("init") == "probability" and (
            structure.detects or structure.places or not all(target.simple for target in targets)
        ):
            raise RequestError(f"{expression}: only a class of the whole input has a probability to start from")
        if expression.method.aim is not None and not all(target.simple for target in targets):
            odd = next(target for target in targets if not target.simple)
            raise RequestError(f"{expression} compares classes; {odd} is none: write predicted, label or class:NAME")
    gaps = backend.unruled(first.values, first.extra) if any("r" in each.asks for each in expressions) else {}
    if gaps and explain.strict:
        raise RequestError(
            f"no rule of relevance for {counted(gaps)}, and strict is set; leave it out to take the gradient"
        )
    domains = settle_domains(expressions, Space(dataset.shape[0], tuple(dataset.shape[1:]), tuple(dataset.axes)))
    for expression in expressions:
        check_levels(expression, dataset)
        check_sizes(expression, dataset)
    check_switches(job, backend, structure.final)
    needs_layer = any(expression.layered for expression in expressions)
    layers = tuple(dict.fromkeys(settle_layer(name, structure) for name in explain.layers)) if needs_layer else ()
    maps = [Cross(expression, each) for expression in expressions for each in _layers_of(expression, layers)]
    for cross in maps:
        check_ranks(cross.expression, cross.layers, structure, len(dataset.shape) - 1)
    resolution = job.output.resolution
    schema = Schema(
        ids=list(dataset.ids),
        labels=[-1] * len(dataset) if dataset.labels is None else [int(label) for label in dataset.labels],
        classes=None if dataset.classes is None else list(dataset.classes),
        channels=None if dataset.channels is None else list(dataset.channels),
        axes=list(dataset.axes),
        input_shape=tuple(dataset.shape),
        outputs=structure.outputs,
        final=structure.final,
        score=_explained(targets, readout),
        targets=columns,
        maps=[_describe(cross, structure, tuple(dataset.shape), resolution, domains) for cross in maps],
        dtype=job.output.dtype,
        precision=job.explain.precision,
        compression=job.output.compression,
        inputs_dtype="float32" if job.output.inputs == "copy" else None,
        data=job.data.model_dump(mode="json", exclude_none=True),
        unruled=dict(gaps),
        provenance=Provenance(
            identity=identity(job, dataset),
            job=job.toml(),
            argv=argv,
            versions={**versions(), **backend.versions},
            git=git_state(Path(__file__).parent),
            model_sha256=model_sha256(Path(job.model.weights)) if job.model.weights else "",
            data_fingerprint=dataset.fingerprint,
            device=backend.device,
            seed=job.explain.seed,
            batch_size=job.explain.block,
            started=now(),
        ),
    )
    return Plan(job, dataset, structure, readout, targets, maps, schema, domains)


def _structure(backend: Backend, first: Batch, dataset: Dataset) -> Structure:
    """What the model is, and where it cannot take a sample, how that came to be what it is."""
    try:
        return backend.structure(first.values, first.extra)
    except RequestError as error:
        if type(error) is not RequestError or "cannot take a sample" not in str(error):
            raise
        raise RequestError(f"{error}; {dataset.told}") from error


def _explained(targets: list[Target], readout: Readout) -> str:
    """Which score is explained, in words; by target where they differ."""
    said = {str(target): target.explains(readout) for target in targets}
    kinds = list(dict.fromkeys(said.values()))
    return kinds[0] if len(kinds) == 1 else "; ".join(f"{name}: {text}" for name, text in said.items())


def _layers_of(expression: Expression, layers: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The layers of each map of an expression."""
    if not expression.layered:
        return [()]
    if not expression.fused:
        return [(layer,) for layer in layers]
    if len(layers) < 2:
        raise RequestError(f"{expression} fuses layers, and there is one: repeat --layer")
    return [layers]


def example(dataset: Dataset) -> Batch:
    """The first good sample, as a batch of one."""
    for row in range(len(dataset)):
        batch = dataset.read([row])
        if len(batch.rows):
            return batch
    raise RequestError("none of the samples can be read and is finite")


def versions() -> Mapping[str, str]:
    """Of everything that can change a number."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("camsweep", "numpy", "h5py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def git_state(folder: Path) -> str:
    """Commit of the checkout that runs, "" where it is installed.

    Without a lock on the index, which a run that is killed meanwhile would leave behind; `describe --dirty` takes one.
    """

    def said(*words: str) -> str:
        command = ["git", "-C", str(folder), "--no-optional-locks", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()  # noqa: S603

    try:
        commit = said("describe", "--always", "--abbrev=12")
        return commit + ("-dirty" if said("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def now() -> str:
    """Wall time for the record; no decision depends on it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(
    cross: Cross, structure: Structure, shape: tuple[int, ...], resolution: str, domains: Mapping[str, Domain]
) -> MapInfo:
    expression, method = cross.expression, cross.expression.method
    concepts = int(expression.settings["k"]) if method.concepts else 0
    place = domains[key_of(expression.place)] if expression.place else None
    if place is not None:
        shape = place.shape
    elif not expression.per_channel:
        shape = shape[1:]
        if len(cross.layers) == 1:
            own = next(layer.shape[1:] for layer in structure.layers if layer.name == cross.layers[0])
            # A layer of another rank (a picture made of a signal) has no place on the input's axes: it keeps its own.
            shape = shape if resolution == "input" and len(own) == len(shape) else own
        shape = (concepts, *shape) if concepts else shape
    return MapInfo(
        expression=str(expression),
        layer=cross.layer,
        method=method.name,
        shape=shape,
        per_channel=expression.per_channel if place is None else place.per_channel,
        signed=expression.signed,
        relu=expression.settings.get("relu"),
        units=expression.units,
        formula=expression.formula,
        source=method.source,
        concepts=concepts,
        residual=expression.complete,
        axes=place.axes if place else None,
        signals=place.signals_shape if place else None,
        domain=show(expression.place.name) if expression.place else "",
        layout=place.layout if place else "",
    )
