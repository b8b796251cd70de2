"""``camsweep demo``: the sample jobs, explained and rendered, and the same networks in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import emit
from .explain import Json, Quiet

if TYPE_CHECKING:
    from ..core.run import Outcome

DRAWN = 12
"""Samples of each set that are drawn; `camsweep render` draws the rest."""
FORMATS = {".onnx": "onnx", ".keras": "tensorflow"}
"""What the networks are there as, besides PyTorch, and the backend that reads it."""


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put results and pictures.")] = Path("demo"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain the sample data (an ECG, handwritten digits, video clips) and draw the maps.

    The networks are there as PyTorch, ONNX and Keras files: each backend that is installed explains them, and the
    maps are compared.

    Example: camsweep demo /tmp/demo
    """
    import importlib.resources

    from ..backends import installed
    from ..core.errors import OutputError
    from .render import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made: {(error.strerror or str(error)).lower()}") from None
    answers, lines = [], []
    with importlib.resources.as_file(importlib.resources.files("camsweep.sample_data")) as samples:
        for job in sorted(samples.glob("*.toml")):
            results = folder / f"{job.stem}.h5"
            outcome = _explained(job, {"output": {"path": str(results)}}, quiet=quiet)
            pictures = draw(outcome.path, folder / job.stem, limit=DRAWN, quiet=quiet)
            answer: dict[str, Any] = {"results": str(results), "status": outcome.counts, "pictures": pictures}
            lines.append(f"{results}: {outcome.samples} samples; {pictures['files']} pictures in {pictures['folder']}")
            for suffix, backend in FORMATS.items():
                if backend not in installed():
                    lines.append(f"{job.stem}{suffix}: not explained, pip install 'camsweep[{backend}]'")
                    continue
                other = folder / f"{job.stem}-{suffix[1:]}.h5"
                weights = samples / f"{job.stem}{suffix}"
                tables: dict[str, dict[str, Any]] = {
                    "model": {"source": "", "weights": str(weights)},
                    "explain": {"layers": ["auto"]},
                    "output": {"path": str(other)},
                }
                _explained(job, tables, quiet=quiet)
                answer[suffix[1:]] = {"results": str(other), "difference": (apart := _difference(results, other))}
                lines.append(
                    f"{other}: maps by the {backend} backend, at most {apart:.0e} of the largest value off those above"
                )
            answers.append(answer)
    emit({"demo": answers}, lines, as_json=as_json)


def _explained(job: Path, tables: dict[str, dict[str, Any]], *, quiet: bool) -> Outcome:
    import sys

    from ..core.job import Job
    from ..core.run import run_job
    from .console import Progress
    from .explain import load_backend
    from .signals import stopping

    resolved = Job.load(job, tables)
    with stopping() as stop, Progress(f"explaining {resolved.output.path.stem}", quiet=quiet) as progress:
        return run_job(resolved, load_backend, watch=progress, stop=stop, argv=sys.argv)


def _difference(first: Path, second: Path) -> float:
    """Between the maps of two files, the largest in terms of each map's largest value."""
    import numpy as np

    from ..core.results import open_results

    with open_results(first) as mine, open_results(second) as theirs:
        pairs = [
            (mine.map(a).read(slice(None)), theirs.map(b).read(slice(None)))
            for a, b in zip(mine.maps, theirs.maps, strict=True)
        ]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
