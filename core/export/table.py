"""CSV: signals and their maps as tables, one line for each sample, target and point."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.axes import Axis
from ..errors import RequestError
from ..render.filenames import folders
from ..render.saving import replacing
from ..results import MapView
from .choice import Choice, axes_of, blocks, coordinates, input_names, lead_names, leading
from .formats import Format, Task, folder_mark, register

SAMPLES = "samples.csv"
ODD = {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}


@dataclass
class Table:
    """Maps on the same axes; ``inputs`` where they are the input's own, whose values stand in front of theirs."""

    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]
    inputs: bool
    maps: list[MapView] = field(default_factory=list)


def check(choice: Choice) -> None:
    """`RequestError` where the inputs are no signals."""
    if (rank := len(choice.results.input_shape) - 1) != 1:
        raise RequestError(
            f"{choice.results.path} has {rank} spatial axes, csv is for signals, of 1; take --to npz or --to zarr"
        )


def write(task: Task) -> None:
    """``samples.csv``, a line for each sample and target, and a table for each set of axes that the maps lie on.

    ``time.csv``: row, id, target, status, ``time [s]``, the input's channels ``input[I]``, .. and each map,
    ``gradcam@stage3`` or ``grad+input[I]``, ..; a spectrum is in ``frequency.csv`` with ``frequency [Hz]``. A sample
    or target without a finite value has one line that ends behind its status.
    """
    choice = task.choice
    tables = _tables(choice)
    if choice.no_inputs:
        task.notes.append(f"the inputs' values are left out: {choice.no_inputs}")
    task.total = len(choice.rows) * len(tables)
    if task.wanted(task.out / SAMPLES):
        _write(task.out / SAMPLES, _samples(choice))
    for name, table in tables.items():
        if task.wanted(task.out / f"{name}.csv"):
            _write(task.out / f"{name}.csv", _lines(task, table))
        else:
            task.advance(len(choice.rows))


def _tables(choice: Choice) -> dict[str, Table]:
    """By the names of their files; two on axes of one name are told apart by a map."""
    results = choice.results
    places = results.axes, results.input_shape[1:]
    found = {} if choice.no_inputs else {places: Table(*places, inputs=True)}
    for view in choice.maps:
        key = axes_of(results, view), view.shape[leading(view) :]
        found.setdefault(key, Table(*key, inputs=False)).maps.append(view)
    named: dict[str, Table] = {}
    for table in found.values():
        title = "-".join(axis.name for axis in table.axes) or "sums"
        named[f"{title} of {table.maps[0].name}" if title in named or title == "samples" else title] = table
    files = folders(named)
    return {files[title]: table for title, table in named.items()}


def _samples(choice: Choice) -> Iterator[Sequence[object]]:
    results = choice.results
    classes = results.classes or ()
    outputs = [classes[k] if k < len(classes) else str(k) for k in range(results.outputs.shape[1])]
    yield [
        "row", "id", "label", "predicted", "status", "message", "target", "index", "foil", "score",
        *(f"output[{name}]" for name in outputs),
    ]  # fmt: skip
    for row in choice.rows.tolist():
        for k, target in enumerate(results.target_names):
            yield [
                row, results.ids[row], results.labels[row], results.predicted[row], choice.status(row),
                results.messages[row], target, results.target_index[row, k], results.target_foil[row, k],
                *_written(results.target_score[row, k : k + 1]), *_written(results.outputs[row]),
            ]  # fmt: skip


def _lines(task: Task, table: Table) -> Iterator[Sequence[object]]:
    choice, results = task.choice, task.choice.results
    names = [f"input[{name}]" for name in input_names(results)] if table.inputs else []
    for view in table.maps:
        lead = lead_names(results, view)
        names += [view.name] if lead is None else [f"{view.name}[{name}]" for name in lead]
    points = [_point(axis, size) for axis, size in zip(table.axes, table.sizes, strict=True)]
    heads = [f"{axis.name} [{axis.unit}]" if axis.unit else axis.name for axis in table.axes]
    yield ["row", "id", "target", "status", *heads, *names]
    along = list(zip(*product(*points), strict=True))  # a column for each axis
    row_bytes = 8 * math.prod(table.sizes) * len(names) * len(results.target_names)
    for block in blocks(choice.rows, row_bytes):
        rows = block.tolist()
        inputs = results.inputs(rows) if table.inputs else None
        maps = [view.read(rows) for view in table.maps]
        for n, row in enumerate(rows):
            for k, target in enumerate(results.target_names):
                found = [values[n, k].reshape(-1, math.prod(table.sizes)) for values in maps]
                if inputs is not None:
                    found.insert(0, inputs[n])
                head = row, results.ids[row], target, choice.status(row)
                if not any(np.isfinite(values).any() for values in found[-len(maps) :]):
                    yield head
                    continue
                columns = [_written(line) for values in found for line in values]
                yield from zip(*map(repeat, head), *along, *columns, strict=False)
            task.advance()


def _point(axis: Axis, size: int) -> list[Any]:
    """Coordinates without the last digits of their arithmetic: 0.3, not 0.30000000000000004."""
    found = coordinates(axis, size)
    return found.tolist() if axis.labels else [float(f"{value:.12g}") for value in found]


def _written(values: NDArray[Any]) -> list[str]:
    """Numbers in as few digits as tell them from their neighbours; NaN, Inf and -Inf as R and pandas read them."""
    texts: list[str] = values.astype(str).tolist()
    return texts if np.isfinite(values).all() else [ODD.get(text, text) for text in texts]


def _write(path: Path, lines: Iterable[Sequence[object]]) -> None:
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


register(Format("csv", "-csv", write, folder_mark, check))
