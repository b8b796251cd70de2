"""From a job to a plan: what will be computed and stored, and whether it is there already."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .data import Dataset
from .errors import OutputError, RequestError, nearest
from .job import Job, differences
from .methods import Expression
from .results import MapInfo, Parts, Provenance, Schema, stored_identity
from .targets import Target
from .trace import Backend, Structure


@dataclass(frozen=True)
class Cross:
    """One map to compute: an expression, at a layer if it is a CAM."""

    expression: Expression
    layer: str | None

    @property
    def name(self) -> str:
        """As in the results file."""
        return str(self.expression) if self.layer is None else f"{self.expression}@{self.layer}"


@dataclass(frozen=True)
class Plan:
    """Everything settled before the first batch."""

    job: Job
    dataset: Dataset
    structure: Structure
    targets: list[Target]
    maps: list[Cross]
    schema: Schema

    @property
    def layers(self) -> list[str]:
        """The layers to tap."""
        return list(dict.fromkeys(cross.layer for cross in self.maps if cross.layer is not None))

    @property
    def needs_gradients(self) -> bool:
        """Whether any map depends on a gradient."""
        return any(cross.expression.needs_backward for cross in self.maps)

    @property
    def needs_input_gradient(self) -> bool:
        """Whether the backward must go to the input."""
        return any("g" in cross.expression.asks for cross in self.maps)

    @property
    def passes(self) -> dict[str, int]:
        """How often each batch goes forward and, at most, backward."""
        return {"forward": 1, "backward": len(self.schema.targets) if self.needs_gradients else 0}

    @property
    def bytes(self) -> int:
        """Size of the results, uncompressed."""
        return len(self.schema) * sum(column.row_bytes for column in self.schema.columns)


def identity(job: Job, dataset: Dataset) -> dict[str, Any]:
    """What decides whether an output is this job's: its settings, its weights, its data."""
    weights, code = job.model.weights, (job.model.source or "").rpartition(":")[0]
    return {
        **job.identity,
        "model.code": file_sha256(Path(code)) if code.endswith(".py") else "",
        "model.weights": file_sha256(Path(weights)) if weights is not None else "",
        "data.contents": dataset.fingerprint,
    }


def standing(job: Job, dataset: Dataset, *, force: bool) -> tuple[bool, Parts | None]:
    """Whether the output is finished, and the parts of an unfinished one; `OutputError` where it is another job's.

    With ``force`` whatever is there is no obstacle (it is replaced only when the new results are complete).
    """
    output, mine = job.output.path, identity(job, dataset)
    if output.is_dir() or not output.name:
        raise OutputError(f"output {output} is a folder; give a file name with --out")
    if not output.parent.is_dir():
        raise OutputError(f"output folder {output.parent} does not exist; make it, or choose another with --out")
    folder = Parts.folder_of(output)
    if force:
        return False, None
    if output.exists():
        if theirs := differences(mine, _stored(output)):
            raise OutputError(
                f"output {output} exists from another job ({_listed(theirs)}); give another --out, or --force"
            )
        return True, None
    parts = Parts.open(folder)
    if parts is not None and (theirs := differences(mine, parts.schema.provenance.identity)):
        raise OutputError(f"{folder} is from another job ({_listed(theirs)}); give another --out, or --force")
    return False, parts


def make(job: Job, dataset: Dataset, backend: Backend, argv: list[str]) -> Plan:
    """Send one sample through the model and settle layers, targets and sizes. `RequestError` where something is off."""
    structure = backend.structure(example(dataset))
    targets = job.explain.parsed_targets
    if any(target.kind == "label" for target in targets) and (dataset.labels is None or (dataset.labels < 0).all()):
        raise RequestError("target label: the data have no labels; name them with data.label, or choose another target")
    columns = [name for target in targets for name in target.columns(dataset.classes, structure.outputs)]
    if repeated := {name for name in columns if columns.count(name) > 1}:
        raise RequestError(f"target {min(repeated)} is asked for twice; leave one out")
    expressions = job.explain.expressions
    for expression in expressions:
        if missing := expression.asks - backend.answers:
            raise RequestError(
                f"{expression} asks for {', '.join(sorted(missing))}, which {backend.name} cannot answer"
            )
    needs_layer = any(not expression.method.per_channel for expression in expressions)
    layers = dict.fromkeys(settle_layer(name, structure) for name in job.explain.layers) if needs_layer else {}
    maps = [
        Cross(expression, layer)
        for expression in expressions
        for layer in (layers if not expression.method.per_channel else [None])
    ]
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
        targets=columns,
        maps=[_describe(cross, structure, tuple(dataset.shape), resolution) for cross in maps],
        dtype=job.output.dtype,
        inputs_dtype="float32" if job.output.inputs == "copy" else None,
        data=job.data.model_dump(mode="json", exclude_none=True),
        provenance=Provenance(
            identity=identity(job, dataset),
            job=job.toml(),
            argv=argv,
            versions={**versions(), **backend.versions},
            git=git_state(Path(__file__).parent),
            model_sha256=file_sha256(Path(job.model.weights)) if job.model.weights else "",
            data_fingerprint=dataset.fingerprint,
            device=backend.device,
            seed=job.explain.seed,
            batch_size=job.explain.batch_size,
            started=now(),
        ),
    )
    return Plan(job, dataset, structure, targets, maps, schema)


def settle_layer(name: str, structure: Structure) -> str:
    """The layer that ``name`` means; `RequestError` where no CAM can be taken there."""
    known = {layer.name: layer for layer in structure.layers}
    if name == "auto":
        if structure.auto is None:
            raise RequestError(
                "layer auto: no layer keeps the input's spatial axes; `camsweep inspect` lists the layers"
            )
        return structure.auto
    if name not in known:
        raise RequestError(
            f"no layer {name!r} runs in the model. {nearest(name, known)} `camsweep inspect` lists them."
        )
    layer = known[name]
    if layer.calls > 1:
        raise RequestError(f"layer {name!r} runs {layer.calls} times in a forward; choose one that runs once")
    if not layer.tappable:
        last = f"; the last layer with them is {structure.auto!r}" if structure.auto else ""
        raise RequestError(f"layer {name!r} has no spatial axes, its output is {layer.shape}{last}")
    return name


def example(dataset: Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first good sample, as a batch of one."""
    for row in range(len(dataset)):
        batch = dataset.read([row])
        if len(batch.rows):
            return batch.values
    raise RequestError("none of the samples can be read and is finite")


def file_sha256(path: Path) -> str:
    """Of a file's bytes; "" for what is not a file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Commit of the checkout that runs, "" where it is installed."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def now() -> str:
    """Wall time for the record; no decision depends on it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(cross: Cross, structure: Structure, shape: tuple[int, ...], resolution: str) -> MapInfo:
    expression, method = cross.expression, cross.expression.method
    if cross.layer is not None:
        own = next(layer.shape[1:] for layer in structure.layers if layer.name == cross.layer)
        # A layer of another rank (a picture made of a signal) has no place on the input's axes: it keeps its own.
        shape = shape[1:] if resolution == "input" and len(own) == len(shape) - 1 else own
    return MapInfo(
        expression=str(expression),
        layer=cross.layer,
        method=method.name,
        shape=shape,
        per_channel=method.per_channel,
        signed=expression.signed,
        relu=expression.settings.get("relu"),
        units=expression.units,
        formula=expression.formula,
        source=method.source,
    )


def _stored(output: Path) -> Mapping[str, Any]:
    try:
        return stored_identity(output)
    except RequestError as error:
        raise OutputError(
            f"output {output} exists and is no results file of ours ({error}); give another --out"
        ) from None


def _listed(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])}{' and more' if len(keys) > 3 else ''} differ{'s' if len(keys) == 1 else ''}"
