"""``camsweep inspect``: what a model is made of, and where a CAM can be taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import aside, emit, table
from .explain import (
    Backend_,
    Data,
    Device,
    Input,
    Json,
    Layout,
    ModelArg,
    Output,
    Tokens,
    Trust,
    Weights,
    _argument,
    given,
    load_backend,
    model_flags,
)


def inspect(
    model: Annotated[str, typer.Argument(metavar="JOB.toml|MODEL", help="A job file, or a model as in --model.")],
    weights: Weights = None,
    model_arg: ModelArg = None,
    backend: Backend_ = None,
    output: Output = None,
    tokens: Tokens = None,
    trust_checkpoint: Trust = False,
    data: Data = None,
    input: Input = None,  # noqa: A002
    layout: Layout = None,
    shape: Annotated[str | None, typer.Option(help="Shape of one sample in place of data: 3,224,224.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show a model's layers, output shapes, outputs and final activation.

    Example: camsweep inspect net.py:Net --weights net.pt --shape 3,224,224
    """
    import numpy as np

    from ..core.data import open_dataset
    from ..core.errors import RequestError, counted
    from ..core.job import Job
    from ..core.plan import example

    file = Path(model) if model.endswith(".toml") else None
    flags: dict[str, dict[str, Any]] = {
        "model": {
            **({} if file else model_flags(model)),
            "weights": str(weights) if weights else None if file or ":" in model else model,
            "args": dict(map(_argument, model_arg)) if model_arg else None,
            "backend": backend,
            "output": output,
            "tokens": tokens,
            "trust_checkpoint": trust_checkpoint or None,
        },
        "data": {"path": data and str(data), "input": input, "layout": layout},
        "explain": {"device": device},
    }
    if shape is not None and file is None and data is None:
        flags["data"]["path"] = "."  # the shape stands in for it
    if shape is None and file is None and data is None:
        raise RequestError("a torch module does not say what it takes: give --shape 3,224,224, or --data with --layout")
    job = Job.load(file, given(flags))
    if shape is None:
        with aside():
            batch = example(open_dataset(job.data))
            sample, extra = batch.values, batch.extra
    else:
        try:
            sample, extra = np.zeros((1, *map(int, shape.split(","))), np.float32), {}
        except ValueError:
            raise RequestError(f"--shape {shape!r} given, expected whole numbers with commas: 3,224,224") from None
    with aside():
        loaded = load_backend(job)
        structure = loaded.structure(sample, extra)
        try:
            unruled, cannot = loaded.unruled(sample, extra), ""
        except RequestError as error:
            unruled, cannot = {}, str(error)
    answer = {
        "backend": loaded.name,
        "device": loaded.device,
        "input": sample.shape[1:],
        "outputs": structure.outputs,
        "places": structure.places,
        "keys": structure.keys,
        "final": structure.final,
        "parameters": structure.parameters,
        "auto": structure.auto,
        "unruled": unruled,
        "layers": [
            {
                "name": each.name,
                "kind": each.kind,
                "shape": each.shape,
                "grid": each.grid,
                "calls": each.calls,
                "cam": each.tappable,
            }
            for each in structure.layers
        ],
    }

    def good(name: str, tappable: bool, calls: int) -> str:
        return ("auto" if name == structure.auto else "yes") if tappable else "runs twice" if calls > 1 else ""

    rows = [
        (
            each.name,
            each.kind,
            " x ".join(map(str, each.shape)),
            each.grid or ("?" if each.doubt else ""),
            good(each.name, each.tappable, each.calls),
        )
        for each in structure.layers
    ]
    final = f", behind a final {structure.final} that targets step over" if structure.final else ""
    outputs = f"{structure.outputs} outputs" + (
        f" at each of {places}" if (places := " x ".join(map(str, structure.places))) else ""
    )
    outputs = "boxes" if structure.detects else outputs
    lines = [
        f"{loaded.name} on {loaded.device}: {structure.parameters:,} parameters",
        f"input {' x '.join(map(str, sample.shape[1:]))} -> {outputs}{final}",
        "",
        *table(rows, ("layer", "kind", "output", "tokens", "CAM")),
        *(["", f"lrp has no rule for {counted(unruled)}, and takes the gradient there"] if unruled else []),
        *(["", cannot] if cannot else []),
    ]
    emit(answer, lines, as_json=as_json)
