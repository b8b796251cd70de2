"""``camsweep info``: what is in a results file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import emit, size, table
from .explain import Json

SHOWN = 10
"""Samples that failed, named one by one before the rest are counted."""


def info(
    results: Annotated[Path, typer.Argument(help="A results file.")],
    as_json: Json = False,
) -> None:
    """Show what a results file holds: samples, targets, maps with their ranges, and where it comes from.

    Example: camsweep info run.h5
    """
    import numpy as np

    from ..core.errors import counted
    from ..core.results import Status, open_results
    from ..core.results.schema import told

    with open_results(results) as file:
        maps: list[dict[str, Any]] = []
        for view in file.maps.values():
            ranges = view.range()
            finite = ranges[np.isfinite(ranges).all(2)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
            maps.append(
                {
                    "name": view.name,
                    "shape": view.shape,
                    "min": low,
                    "max": high,
                    "units": view.units,
                    "formula": view.formula,
                }
            )
        troubled = np.flatnonzero(file.status != Status.OK)
        labelled = (file.labels >= 0) & (file.predicted >= 0)
        accuracy = float((file.predicted == file.labels)[labelled].mean()) if labelled.any() else None
        answer: dict[str, Any] = {
            "results": str(results),
            "samples": len(file),
            "status": file.counts(),
            "accuracy": accuracy,
            "labelled": int(labelled.sum()),
            "targets": list(file.target_names),
            "score": file.score,
            "maps": maps,
            "unruled": file.unruled,
            "precision": file.precision,
            "errors": file.errors,
            "messages": [
                {
                    "id": file.ids[row],
                    "status": Status(file.status[row]).name.lower().replace("_", " "),
                    "message": file.messages[row],
                }
                for row in troubled
            ],
            "provenance": file.provenance,
        }
        shape = " x ".join(map(str, file.input_shape))
        axes = ", ".join(f"{a.name} (step {a.step:g} {a.unit})" for a in file.axes)
    counts = ", ".join(f"{count} {name}" for name, count in answer["status"].items())
    rows = [
        (m["name"], " x ".join(map(str, m["shape"])), _number(m["min"]), _number(m["max"]), m["units"]) for m in maps
    ]
    source = answer["provenance"]
    lines = [
        f"{results}  {size(results.stat().st_size)}",
        f"{answer['samples']} samples: {counts}",
        f"input {shape}; axes {axes}",
        *([f"accuracy {accuracy:.3f} of {answer['labelled']} labelled"] if accuracy is not None else []),
        f"targets: {', '.join(answer['targets'])}",
        f"score: {answer['score']}",
        "",
        *table(rows, ("map", "shape", "min", "max", "units")),
        *(
            ["", f"no rule of relevance, the gradient was taken: {counted(unruled)}"]
            if (unruled := answer["unruled"])
            else []
        ),
        *(["", told(answer["precision"], answer["errors"])] if answer["errors"] else []),
        "",
        f"made {source['finished']} on {source['device']} by camsweep {source['versions']['camsweep']}",
        *_messages(answer["messages"]),
    ]
    emit(answer, lines, as_json=as_json)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _messages(messages: list[dict[str, str]]) -> list[str]:
    shown = table([(m["id"], m["status"], m["message"]) for m in messages[:SHOWN]], ("sample", "status", "message"))
    more = len(messages) - SHOWN
    return ["", *shown, *([f".. and {more} more; --json lists them all"] if more > 0 else [])] if messages else []
