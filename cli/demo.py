"""``camsweep demo``: the sample jobs, explained and rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import emit
from .explain import Json, Quiet

DRAWN = 12
"""Samples of each set that are drawn; `camsweep render` draws the rest."""


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put results and pictures.")] = Path("demo"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain the sample data (an ECG, handwritten digits, video clips) and draw the maps.

    Example: camsweep demo /tmp/demo
    """
    import importlib.resources
    import sys

    from ..core.errors import OutputError
    from ..core.job import Job
    from ..core.run import run_job
    from .console import Progress
    from .explain import load_backend
    from .render import draw
    from .signals import stopping

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made: {(error.strerror or str(error)).lower()}") from None
    answers, lines = [], []
    with importlib.resources.as_file(importlib.resources.files("camsweep.sample_data")) as samples:
        for job in sorted(samples.glob("*.toml")):
            results = folder / f"{job.stem}.h5"
            resolved = Job.load(job, {"output": {"path": str(results)}})
            with stopping() as stop, Progress(f"explaining {job.stem}", quiet=quiet) as progress:
                outcome = run_job(resolved, load_backend, watch=progress, stop=stop, argv=sys.argv)
            pictures = draw(outcome.path, folder / job.stem, limit=DRAWN, quiet=quiet)
            answers.append({"results": str(results), "status": outcome.counts, "pictures": pictures})
            lines.append(f"{results}: {outcome.samples} samples; {pictures['files']} pictures in {pictures['folder']}")
    emit({"demo": answers}, lines, as_json=as_json)
