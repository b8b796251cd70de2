"""What is there of a job before anything is computed: its data, and an output that is finished, begun or another's.

Loads nothing that computes: a finished run that is run again says so at once.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from .data import Dataset, open_dataset
from .errors import OutputError, RequestError
from .job import Job, differences
from .results import Parts, Schema, lacking, stored_identity

SMALL = 1 << 20
"""Bytes of a file that is read again each time: two versions of it may be written within a tick of the clock."""


def opened(job: Job) -> Dataset:
    """The data of a job; `RequestError` where they cannot be what is asked of them, whatever the model is."""
    dataset = open_dataset(job.data)
    kinds = {part.kind for target in job.explain.parsed_targets for part in target.parts}
    if "label" in kinds and (dataset.labels is None or (dataset.labels < 0).all()):
        raise RequestError("target label: the data have no labels; name them with data.label, or choose another target")
    return dataset


def standing(job: Job, dataset: Dataset, *, force: bool) -> tuple[bool, Parts[Schema] | None]:
    """Whether the output is finished, and the parts of an unfinished one; `OutputError` where it is another job's.

    With ``force`` whatever is there is no obstacle (it is replaced only when the new results are complete), and of what
    is unfinished only that counts which was itself begun so, by the same job.
    """
    output, mine = job.output.path, identity(job, dataset)
    try:
        output.exists()
    except OSError as error:  # its name is too long
        raise OutputError(f"output {output}: {(error.strerror or str(error)).lower()}; give another --out") from None
    if output.is_dir() or not output.name:
        raise OutputError(f"output {output} is a folder; give a file name with --out")
    if not output.parent.is_dir():
        raise OutputError(f"output folder {output.parent} does not exist; make it, or choose another with --out")
    folder = Parts.folder_of(output)
    if force:
        _check_writable(output.parent)
        return False, _forced(folder, mine)
    if output.exists():
        if theirs := differences(mine, _stored(output)):
            raise OutputError(
                f"output {output} exists from another job ({_listed(theirs)}); give another --out, or --force"
            )
        if not (missing := lacking(output)):
            return True, None
        if not folder.is_dir():
            raise OutputError(f"output {output} lacks {missing} rows, and its parts are gone; start anew with --force")
    parts: Parts[Schema] | None = Parts.open(folder)
    if parts is not None and (theirs := differences(mine, parts.schema.provenance.identity)):
        raise OutputError(f"{folder} is from another job ({_listed(theirs)}); give another --out, or --force")
    _check_writable(output.parent)
    return False, parts


def identity(job: Job, dataset: Dataset) -> dict[str, Any]:
    """What decides whether an output is this job's: its settings, its weights, its data."""
    weights, code = job.model.weights, file_of(job.model.source or "")
    return {
        **job.identity,
        "model.code": file_sha256(Path(code)) if code.endswith((".py", ".json")) else "",
        "model.weights": model_sha256(Path(weights)) if weights is not None else "",
        "data.contents": dataset.fingerprint,
        "explain.files": sorted(
            file_sha256(Path(str(file)))
            for file in (
                *(part.file for target in job.explain.parsed_targets for part in target.parts if part.file),
                *(file for expression in job.explain.expressions for file in expression.files),
            )
        ),
    }


def file_of(source: str) -> str:
    """The file in ``FILE.py:NAME``; an architecture is a file itself."""
    return source if source.endswith(".json") else source.rpartition(":")[0]


def file_sha256(path: Path) -> str:
    """Of a file's bytes; "" for what is not a file."""
    if not path.is_file():
        return ""
    now = path.stat()
    remembered = _digest if now.st_size > SMALL else _digest.__wrapped__
    return remembered(path, now.st_ino, now.st_size, now.st_mtime_ns)


@lru_cache(64)
def _digest(path: Path, *_stat: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_sha256(path: Path) -> str:
    """Of a checkpoint: all files of a folder, or a file with what belongs to it and lies beside it.

    That is weights called ``X.onnx.data`` or the like, and the architecture ``X.json`` of ``X.weights.h5`` or ``X.h5``.
    """
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        told = [f"{each.relative_to(path)}\0{file_sha256(each)}\0" for each in files]
        return hashlib.sha256("".join(told).encode()).hexdigest()
    beside: list[Path] = []
    if path.suffix == ".onnx":
        beside = sorted(path.parent.glob(f"{glob.escape(path.name)}?*"))
    elif path.suffix in (".h5", ".hdf5"):
        beside = [path.with_name(path.stem.removesuffix(".weights") + ".json")]
    digests = [digest for each in (path, *beside) if (digest := file_sha256(each))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""


def _forced(folder: Path, mine: Mapping[str, Any]) -> Parts[Schema] | None:
    """The parts of this job that were begun with ``force``."""
    with suppress(OutputError):  # a manifest that cannot be read is what force is for
        parts: Parts[Schema] | None = Parts.open(folder)
        if parts is not None and parts.forced and not differences(mine, parts.schema.provenance.identity):
            return parts
    return None


def _check_writable(folder: Path) -> None:
    """`OutputError` where nothing can be written, before a model is loaded for nothing."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"output folder {folder} cannot be written to: {reason}; choose another with --out") from None


def _stored(output: Path) -> Mapping[str, Any]:
    try:
        return stored_identity(output)
    except RequestError as error:
        raise OutputError(
            f"output {output} exists and is no results file of ours ({error}); give another --out"
        ) from None


def _listed(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])}{' and more' if len(keys) > 3 else ''} differ{'s' if len(keys) == 1 else ''}"
