"""``camsweep explain``: the main job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Progress, aside, emit, size, table
from .entry import BEGAN
from .signals import leaving, stopping

if TYPE_CHECKING:
    from ..core.backend import Backend
    from ..core.job import Job
    from ..core.plan import Plan
    from ..core.run import Outcome
    from ..core.sharded import Done

Model = Annotated[
    str | None,
    typer.Option(help="A checkpoint (PyTorch, ONNX, Keras, SavedModel), or a network's code: FILE.py:CLASS."),
]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint with the weights, for a model built by code.")]
ModelArg = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the model's code. Repeatable.")
]
Backend_ = Annotated[
    str | None, typer.Option("--backend", help="torch, onnx or tensorflow; else told by what is in the file.")
]
Native = Annotated[
    bool, typer.Option("--native", help="Run the model in TensorFlow, or an ONNX graph in onnxruntime, itself.")
]
Trust = Annotated[bool, typer.Option("--trust-checkpoint", help="Load pickled code from the checkpoint. It is run.")]
Output = Annotated[
    str | None, typer.Option("--output", metavar="KEY", help="Which output, of a model that gives several.")
]
Tokens = Annotated[str | None, typer.Option(help="How tokens become a grid: prefix=1,grid=14x14, or channels=last.")]
Data = Annotated[Path | None, typer.Option(help="NPZ, NPY or HDF5 file, or a folder of images.")]
Input = Annotated[str | None, typer.Option(help="Name of the input array in the file.")]
Layout = Annotated[str | None, typer.Option(help="How the stored array is laid out: NCT, NHWC, NTHWC, ..")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ..")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def explain(
    job: Annotated[Path | None, typer.Argument(metavar="[JOB.toml]", help="Job file; flags override it.")] = None,
    model: Model = None,
    weights: Weights = None,
    model_arg: ModelArg = None,
    backend: Backend_ = None,
    output: Output = None,
    tokens: Tokens = None,
    native: Native = False,
    trust_checkpoint: Trust = False,
    data: Data = None,
    input: Input = None,  # noqa: A002  (named as in the job file)
    label: Annotated[str | None, typer.Option(help="Name of the label array.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Name of the array of class names, or names joined by commas.")
    ] = None,
    layout: Layout = None,
    rate: Annotated[float | None, typer.Option(help="Sampling rate along T, in Hz.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Method, as in `camsweep methods`. Repeatable.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Layer for CAMs, or auto. Repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="predicted, top:3, label, class:NAME, all, output:0, A-vs-B, .. Repeatable."
        ),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", "-b", metavar="N|auto", help="Samples in a batch; auto finds it.")
    ] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="Threads for computing, of this process.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read ahead.")] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last/--no-channels-last", help="Memory layout of inputs and activations.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, or bf16 or fp16 with a stated error, of what the model computes.")
    ] = None,
    compile: Annotated[  # noqa: A002  (named as in the job file)
        bool, typer.Option("--compile", help="Compile what methods run the model for again and again; takes a minute.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Try threads, memory layout and batch size first, and say what was best.")
    ] = False,
    score: Annotated[
        str | None, typer.Option(help="What of a class is explained: logit, probability or log-probability.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a model with operators that lrp has no rule for.")
    ] = False,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="PATH", help="Results file to write.")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Store CAMs at the resolution of the input or the layer.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 (with a scale), or float64 (the model too).")
    ] = None,
    render: Annotated[
        bool | None, typer.Option("--render/--no-render", help="Pictures too, into OUT without its suffix.")
    ] = None,
    commit_every: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Commit so much work at once, 1s unless said; 0 every batch.")
    ] = None,
    compression: Annotated[
        str | None, typer.Option(metavar="auto|none|lzf|gzip:1-9", help="Of the maps in the file.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop before that by itself, with exit code 75: 55m, 3300s, ..")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="K/N|auto[/N]", help="Only this share, beside the others; then `camsweep merge`."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="With --shard: merge where it is the last shard to finish.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Start anew, and replace what is at --out when done.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time went, stage by stage.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved job and the plan; compute nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain every sample of a dataset. The same command goes on with a run that was stopped.

    Example: camsweep explain --model net.py:Net --weights net.pt --data x.npz --layout NCHW -m gradcam -o run.h5
    """
    flags = {
        "model": {
            **model_flags(model),
            **({"weights": str(weights)} if weights else {}),
            "args": dict(map(_argument, model_arg)) if model_arg else None,
            "backend": backend,
            "output": output,
            "tokens": tokens,
            "native": native or None,
            "trust_checkpoint": trust_checkpoint or None,
        },
        "data": {
            "path": data and str(data),
            "input": input,
            "label": label,
            "classes": classes.split(",") if classes and "," in classes else classes,
            "layout": layout,
            "rate": rate,
            "limit": limit,
        },
        "explain": {
            "methods": method,
            "layers": layer,
            "targets": target,
            "batch_size": int(batch_size) if batch_size and batch_size.lstrip("-").isdecimal() else batch_size,
            "device": device,
            "threads": threads,
            "workers": workers,
            "channels_last": channels_last,
            "precision": precision,
            "compile": compile or None,
            "tune": tune or None,
            "score": score,
            "strict": strict or None,
            "time_budget": time_budget,
        },
        "output": {
            "path": out,
            "resolution": resolution,
            "dtype": dtype,
            "commit_every": commit_every,
            "compression": compression,
            "render": render,
        },
    }
    from ..core.scheduling.allocation import settings

    _consistent(shard, merge=merge, force=force)
    with stopping() as stop, aside():
        from ..core.job import Job

        resolved = Job.load(job, given(flags))
        os.environ.update(settings(os.environ, resolved.explain.threads))
        from ..core.run import plan_job, run_job  # HDF5 and all; what is wrong with a job is told sooner
        from ..core.stages import OFF, Profile

        clock = Profile(BEGAN) if profile else OFF
        if dry_run:
            plan = plan_job(resolved, load_backend, sys.argv)
        elif shard is not None:
            from ..core.sharded import run_shard

            with leaving(resolved.explain.time_budget), Progress("explaining", quiet=quiet) as progress:
                done = run_shard(
                    resolved,
                    load_backend,
                    shard,
                    watch=progress,
                    stop=stop,
                    merging=merge,
                    argv=sys.argv,
                    began=BEGAN,
                    clock=clock,
                )
        else:
            with leaving(resolved.explain.time_budget), Progress("explaining", quiet=quiet) as progress:
                for line in _renamed(resolved):
                    progress.note(line)
                outcome = run_job(
                    resolved,
                    load_backend,
                    watch=progress,
                    stop=stop,
                    force=force,
                    argv=sys.argv,
                    began=BEGAN,
                    clock=clock,
                )
    if dry_run:
        emit(plan_answer(plan), _plan_lines(plan), as_json=as_json)
        return
    spent = {"profile": told} if (told := clock.answer()) else {}
    if shard is not None:
        emit(_shard_answer(done) | spent, [*_shard_lines(done), *clock.lines()], as_json=as_json)
        outcome_failed = done.failed
    else:
        if not as_json:  # before the pictures, which take their time
            emit({}, _lines(outcome), as_json=False)
        pictures = draw_beside(outcome.path, quiet=quiet) if resolved.output.render else None
        rest = [f"{pictures['folder']}: {pictures['files']} pictures"] if pictures else []
        rest += clock.lines()
        if as_json or rest:
            emit(_answer(outcome, pictures) | spent, rest, as_json=as_json)
        outcome_failed = outcome.failed
    if outcome_failed:
        from ..core.errors import SAMPLES_FAILED

        raise typer.Exit(SAMPLES_FAILED)


def load_backend(job: Job) -> Backend:
    """The backend of a job, its framework imported."""
    from ..backends import load

    return load(job.model, device=job.explain.device, dtype=job.output.compute_dtype, argument=job.data.argument)


def model_flags(model: str | None) -> dict[str, Any]:
    """``--model`` is code where it has a colon, else a checkpoint, which needs none."""
    return {} if model is None else {"source": model} if ":" in model else {"source": "", "weights": model}


def given(flags: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The flags that were set."""
    kept = {section: {k: v for k, v in values.items() if v not in (None, [])} for section, values in flags.items()}
    return {section: values for section, values in kept.items() if values}


def _renamed(job: Job) -> list[str]:
    """What the names that SIGN-XAI has for methods are here."""
    return [f"{name} of SIGN-XAI is {meant}" for name, meant in job.explain.renamed.items()]


def _argument(text: str) -> tuple[str, Any]:
    """``channels=3``: the value is read as TOML where it is that, else as text."""
    import tomllib

    from ..core.errors import RequestError

    key, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"--model-arg {text!r} given, expected KEY=VALUE")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _consistent(shard: str | None, *, merge: bool, force: bool) -> None:
    from ..core.errors import RequestError

    if merge and shard is None:
        raise RequestError("--merge goes with --shard: a run that is not split merges by itself")
    if force and shard is not None:
        raise RequestError("--force with --shard would undo the others' work; `camsweep plan JOB --force` starts anew")


def draw_beside(results: Path, *, quiet: bool) -> dict[str, Any]:
    """The pictures of a results file, drawn into the folder that has its name; which and how many."""
    from .render import beside, draw

    return draw(results, beside(results), quiet=quiet)


def _answer(outcome: Outcome, pictures: dict[str, Any] | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "results": str(outcome.path),
        "samples": outcome.samples,
        "status": outcome.counts,
        "was_complete": outcome.was_complete,
        "score": outcome.score,
    }
    return answer | ({"pictures": pictures} if pictures else {})


def _shard_answer(done: Done) -> dict[str, Any]:
    return {
        "results": str(done.output),
        "shard": str(done.shard),
        "samples": sum(done.counts.values()),
        "status": done.counts,
        "was_complete": done.was_complete,
        "missing": done.left,
        "merged": done.merged,
    }


def _shard_lines(done: Done) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in done.counts.items()) or "no samples"
    lines = [f"{done.output}: shard {done.shard}, {counts}{' (already complete)' if done.was_complete else ''}"]
    if done.merged:
        lines.append("merged: all shards are done")
    elif done.left:
        lines.append(f"{done.left} samples of other shards are to do")
    elif not done.output.exists():
        lines.append(f"all shards are done: camsweep merge {done.output}")
    return lines


PLAIN = "output of the model"
"""The score that goes without saying."""


def _lines(outcome: Outcome) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items())
    lines = [
        f"{outcome.path}: {outcome.samples} samples, {counts}{' (already complete)' if outcome.was_complete else ''}"
    ]
    if outcome.score != PLAIN:
        lines.append(f"explained: {outcome.score}")
    if outcome.failed:
        lines.append(f"{outcome.failed} could not be explained; `camsweep info {outcome.path}` says why")
    return lines


def plan_answer(plan: Plan) -> dict[str, Any]:
    """The plan, for ``--json``."""
    return {
        "job": plan.job.model_dump(mode="json"),
        "samples": len(plan.schema),
        "input_shape": plan.schema.input_shape,
        "outputs": plan.schema.outputs,
        "final": plan.schema.final,
        "score": plan.schema.score,
        "targets": plan.schema.targets,
        "unruled": plan.schema.unruled,
        "maps": [{"name": m.name, "shape": m.shape, "formula": m.formula} for m in plan.schema.maps],
        "passes_per_batch": plan.passes,
        "batches": -(-len(plan.schema) // plan.job.explain.block),
        "bytes": plan.bytes,
    }


def _plan_lines(plan: Plan) -> list[str]:
    from ..core.errors import counted

    answer, passes = plan_answer(plan), plan.passes
    shape = " x ".join(map(str, plan.schema.input_shape))
    rows = [(info.name, " x ".join(map(str, info.shape)), info.formula) for info in plan.schema.maps]
    return [
        plan.job.toml().rstrip(),
        "",
        *_renamed(plan.job),
        f"{len(plan.schema)} samples of {shape} in {answer['batches']} batches of {plan.job.explain.block}",
        f"each batch: {passes['forward']} forward, {passes['backward']} backward"
        + (f", {passes['tail']} through the tail" if passes["tail"] else ""),
        f"targets: {', '.join(plan.schema.targets)}",
        f"score: {plan.schema.score}",
        *(
            [f"no rule of relevance, the gradient is taken: {counted(unruled)}"]
            if (unruled := plan.schema.unruled)
            else []
        ),
        *table(rows, ("map", "shape", "formula")),
        f"at most {size(plan.bytes)} before compression, into {plan.job.output.path}",
    ]
