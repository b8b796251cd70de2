"""``camsweep evaluate``: metrics of the maps in a results file, beside those of a control."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Progress, aside, emit, table
from .explain import Device, Json, Quiet, Trust, given, load_backend, model_flags
from .signals import stopping

if TYPE_CHECKING:
    from ..core.evaluation.run import Outcome
    from ..core.evaluation.summary import Row


def evaluate(
    results: Annotated[Path, typer.Argument(help="A results file.", metavar="RESULTS")],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics", "-m", help="fast, standard, full, or metrics as in `camsweep methods`, joined by commas."
        ),
    ] = None,
    map: Annotated[  # noqa: A002
        list[str] | None, typer.Option("--map", help="Only this map, as `camsweep info` names it. Repeatable.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Ground truth: an array of the data's file, an NPY file, or a folder of masks."),
    ] = None,
    boxes: Annotated[
        str | None, typer.Option(help="Ground truth as boxes: an array of the data's file, starts and ends.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Where the model lies now, if it was moved.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Where its weights lie now.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data lie now.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", "-b", min=1, help="Samples in a forward.")] = None,
    device: Device = None,
    trust_checkpoint: Trust = False,
    seed: Annotated[int, typer.Option(min=0, help="Of random maps, subsets, noise and intervals.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Start anew, and replace the metrics that are there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what fits and what it costs; compute nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
) -> None:
    """Measure how far the maps of a results file can be trusted, each beside a control that cannot.

    The numbers go into RESULTS' metrics file, run.metrics.h5 for run.h5; the same command goes on where it stopped.
    Example: camsweep evaluate run.h5 --metrics standard --mask mask
    """
    with stopping() as stop, aside():
        from ..core.evaluation.plan import Request
        from ..core.evaluation.run import evaluate as run
        from ..core.evaluation.run import plan_evaluation
        from ..core.evaluation.summary import summary

        request = Request(
            results,
            tuple(metrics or ["fast"]),
            map,
            given(
                {
                    "model": {
                        **model_flags(model),
                        **({"weights": str(weights)} if weights else {}),
                        "trust_checkpoint": trust_checkpoint or None,
                    },
                    "data": {"path": data and str(data), "mask": mask, "boxes": boxes},
                    "explain": {"batch_size": batch_size, "device": device},
                }
            ),
            seed,
            force,
        )
        if dry_run:
            plan = plan_evaluation(request, load_backend)
        else:
            with Progress("evaluating", quiet=quiet) as progress:
                outcome = run(request, load_backend, watch=progress, stop=stop, argv=sys.argv)
            rows = summary(outcome.file, _asked(request.metrics), map, seed)
    if dry_run:
        emit(plan, _plan_lines(plan), as_json=as_json)
        return
    if as_csv:
        typer.echo(_csv(rows), nl=False)
    else:
        emit(_answer(outcome, rows), _lines(outcome, rows), as_json=as_json)
    if outcome.failed:
        from ..core.errors import SAMPLES_FAILED

        raise typer.Exit(SAMPLES_FAILED)


def _asked(texts: Sequence[str]) -> set[str]:
    from ..core.evaluation.choices import parse_metrics

    return set(parse_metrics(texts))


def _answer(outcome: Outcome, rows: list[Row]) -> dict[str, Any]:
    """As one JSON object; what is not a number is null."""
    return {
        "metrics_file": str(outcome.file.path),
        "was_complete": outcome.was_complete,
        "failed": outcome.failed,
        "forwards_per_sample": {"predicted": outcome.predicted, "ran": outcome.forwards},
        "missing": outcome.file.missing,
        "rows": [{key: _json(value) for key, value in asdict(row).items()} for row in rows],
    }


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[Row]) -> str:
    from ..core.evaluation.summary import Row

    text = io.StringIO()
    writer = csv.DictWriter(text, [*Row.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if _json(value) is None else value for key, value in asdict(row).items()} for row in rows)
    return text.getvalue()


NO_MAPS = "no maps: "
"""Begins what is said of a sample that could not be explained in the first place."""
HEAD = ("metric", "better", "mean", "median", "95 % of the mean", "control", "ahead", "n", "undefined")


def _lines(outcome: Outcome, rows: list[Row]) -> list[str]:
    lines = []
    for name, target in dict.fromkeys((row.map, row.target) for row in rows):
        mine = [row for row in rows if (row.map, row.target) == (name, target)]
        several = len(outcome.file.targets) > 1
        controls = dict.fromkeys(row.control_is for row in mine)
        lines += [f"{name} · {target}" if several else name, f"control: {', '.join(controls)}"]
        lines += [*table([_cells(row) for row in mine], HEAD), ""]
    ran = f"; forwards a sample: {outcome.forwards:.4g}, foreseen: {outcome.predicted:.4g}"
    done = int((outcome.file.status == 1).sum())
    lines.append(
        f"{outcome.file.path}: {done} of {len(outcome.file.status)} samples"
        f"{' (already complete)' if outcome.was_complete else ran}"
    )
    if outcome.failed:
        first = next(message for message in outcome.file.messages if message and not message.startswith(NO_MAPS))
        lines.append(f"{outcome.failed} samples could not be evaluated; the first: {first}")
    return lines


def _cells(row: Row) -> tuple[object, ...]:
    return (
        row.metric, row.better, _number(row.mean), _number(row.median), f"{_number(row.low)} to {_number(row.high)}",
        _number(row.control), "-" if math.isnan(row.ahead) else f"{row.ahead:.0%}", row.count, row.undefined,
    )  # fmt: skip


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    rows = [(name, ", ".join(plan["controls"][name]), " ".join(found)) for name, found in plan["metrics"].items()]
    left = [f"{what}: {reason}" for what, reason in plan["missing"].items()]
    return [
        *table(rows, ("map", "control", "metrics")),
        *(["", "left out", *left] if left else []),
        "",
        f"samples: {plan['samples']}, forwards a sample: {plan['forwards_per_sample']:.4g}, in all: {plan['forwards']}",
        f"into {plan['metrics_file']}",
    ]
