"""``camsweep inspect``: what a model is made of, and where a CAM can be taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Native,
    Output,
    Tokens,
    Trust,
    Weights,
    _argument,
    given,
    load_backend,
    model_flags,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def inspect(
    model: Annotated[str, typer.Argument(metavar="JOB.toml|MODEL", help="A job file, or a model as in --model.")],
    weights: Weights = None,
    model_arg: ModelArg = None,
    backend: Backend_ = None,
    output: Output = None,
    tokens: Tokens = None,
    native: Native = False,
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
            **({"weights": str(weights)} if weights else {}),
            "args": dict(map(_argument, model_arg)) if model_arg else None,
            "backend": backend,
            "output": output,
            "tokens": tokens,
            "native": native or None,
            "trust_checkpoint": trust_checkpoint or None,
        },
        "data": {"path": data and str(data), "input": input, "layout": layout},
        "explain": {"device": device},
    }
    bare = file is None and data is None
    if bare:
        flags["data"]["path"] = "."  # a shape stands in for it
    job = Job.load(file, given(flags))
    sizes = _sizes(shape)
    with aside():
        extra: Mapping[str, NDArray[Any]] = {}
        if sizes is None and not bare:
            batch = example(open_dataset(job.data))
            sample, extra = batch.values, batch.extra
        loaded = load_backend(job)
        if bare or sizes is not None:
            if (sizes := sizes or loaded.input_shape) is None:
                raise RequestError(
                    f"{model} does not say what it takes: give --shape 3,224,224, or --data with --layout"
                )
            sample = np.zeros((1, *sizes), np.float32)
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
        "notes": list(loaded.notes),
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
        *(["", *loaded.notes] if loaded.notes else []),
    ]
    emit(answer, lines, as_json=as_json)


def _sizes(shape: str | None) -> tuple[int, ...] | None:
    from ..core.errors import RequestError

    try:
        return None if shape is None else tuple(map(int, shape.split(",")))
    except ValueError:
        raise RequestError(f"--shape {shape!r} given, expected whole numbers with commas: 3,224,224") from None
