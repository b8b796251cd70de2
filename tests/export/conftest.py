"""Results to hand on: made up, with every kind of row and name, and of the sample jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camsweep
from camsweep.core.results import Schema, open_results

from ..results.synthetic import begun, contents, finish, schema

HOSTILE = [
    "../../etc/x",
    "CON",
    "x" * 300,
    "Ab",
    "aB",
    "",
    'line\nbreak, and "quotes"',
    b"caf\xe9-\xff".decode("utf-8", "surrogateescape"),
]
FAILED, LACKING, ZERO = 2, 3, 4
"""Rows: one that failed, one that lacks the second target, one whose maps are zero."""
SAMPLES = Path(camsweep.__file__).parent / "sample_data"


@dataclass
class Made:
    """A results file, and what was put into it."""

    schema: Schema
    columns: dict[str, Any]
    path: Path

    def values(self, name: str) -> np.ndarray:
        """Of a map, as stored."""
        return self.columns[self.group(name) + "/values"]

    def group(self, name: str) -> str:
        return next(each.group for each in self.schema.maps if each.name == name)


@pytest.fixture
def make(tmp_path):
    """``make(shape=.., maps=..)``: rows with hostile ids; finite but for those that are known not to be."""

    def made(name: str = "run.h5", odd: bool = False, **more: Any) -> Made:
        given = {"ids": HOSTILE, "inputs_dtype": "float32", "targets": ["predicted", "label-vs-predicted"], **more}
        which = schema(len(given["ids"]), **given)
        columns = contents(which)
        rows = np.arange(len(which))
        for path, values in columns.items():
            if values.dtype.kind == "f":
                if not odd:
                    values[...] = np.nan_to_num(values, nan=0.25, posinf=2, neginf=-2)
                values[FAILED] = np.nan
                if path.startswith("maps/") and path.endswith("/values"):
                    values[LACKING, 1:] = np.nan
                    values[ZERO] = 0
                if path == "inputs/values" and not odd:
                    values[FAILED] = 0.5
        columns["samples/status"][:] = 1
        columns["samples/status"][[FAILED, ZERO]] = 4, 2
        columns["outputs/predicted"][:] = rows % 3
        columns["targets/index"][:, 0] = rows % 3
        parts, output = begun(tmp_path, which, name)
        finish(parts, columns, output)
        return Made(which, columns, output)

    return made


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    """``jobs("ecg")``: the results of a sample job, one of whose inputs is not finite, with three targets."""
    folder, done = tmp_path_factory.mktemp("jobs"), dict[str, Path]()

    def result(name: str) -> Path:
        if name not in done:
            with np.load(SAMPLES / f"{name}.npz") as file:
                arrays = {
                    key: file[key] if file[key].dtype.kind == "U" and key == "classes" else file[key][:6]
                    for key in file
                }
            arrays["x"] = arrays["x"].astype(np.float32)
            arrays["x"][1] = np.nan
            arrays["id"] = np.array([*HOSTILE[:5], "last"])
            np.savez(folder / f"{name}.npz", **arrays)
            done[name] = camsweep.explain(
                SAMPLES / f"{name}.toml",
                data={"path": str(folder / f"{name}.npz")},
                explain={"targets": ["predicted", "label", "predicted-vs-2nd"], "device": "cpu"},
                output={"path": str(folder / f"{name}.h5"), "render": False},
            )
        return done[name]

    return result


@pytest.fixture
def opened():
    """``opened(path)``: an open results file, closed when the test ends."""
    files = []

    def opened(path: Path) -> Any:
        files.append(open_results(path))
        return files[-1]

    yield opened
    for file in files:
        file.close()
