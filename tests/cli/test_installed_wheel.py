"""The wheel, built from this tree, installed elsewhere and run from there: no checkout needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from camsweep.core.results import open_results, verify

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "dist", "demo", "outputs", "shared", "*.egg-info", "__pycache__", "*.h5", "*.parts"
)
SETS = {"digits": "*.png", "ecg": "*.png", "motion": "*.gif"}


def run(*words: object, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP", "COV"))}
    ended = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder / "source", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    target = wheel.parent.parent / "site"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", target,
        wheel, cwd=target.parent)  # fmt: skip
    return target


def test_the_wheel_holds_what_it_should(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "camsweep/py.typed" in names
    for name in SETS:
        assert {f"camsweep/sample_data/{name}.{suffix}" for suffix in ("npz", "pt", "onnx", "keras", "toml")} <= names
    assert "camsweep/sample_data/models.py" in names
    assert not [name for name in names if "tests" in name or "conftest" in name]
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"camsweep"}
    licence = [name for name in names if name.endswith("LICENSE")]
    assert len(licence) == 1
    # every module of the tree
    ours = {
        f"camsweep/{path.relative_to(ROOT).as_posix()}"
        for room in ("backends", "cli", "core")
        for path in (ROOT / room).rglob("*.py")
    }
    assert ours <= names


def test_the_demo_runs_from_the_wheel(installed, tmp_path):
    where = "import camsweep; print(camsweep.__file__, camsweep.__version__)"
    file, version = run("-P", "-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).split()
    assert Path(file) == installed / "camsweep" / "__init__.py"
    assert f"camsweep-{version}-" in next(installed.parent.glob("dist/*.whl")).name
    out = run("-P", "-m", "camsweep", "demo", "pictures", "--quiet", cwd=tmp_path, PYTHONPATH=str(installed))
    assert len(out.splitlines()) == 3 * len(SETS)
    for name, pictures in SETS.items():
        results = tmp_path / "pictures" / f"{name}.h5"
        assert verify(results) == []
        with open_results(results) as file:
            assert set(file.counts()) <= {"ok", "zero map"}
            assert str(installed) in file.provenance["job"]
        folders = [path for path in (tmp_path / "pictures" / name).iterdir() if path.is_dir()]
        assert len(folders) == 3  # one for each map
        for folder in folders:
            drawn = list(folder.glob(pictures))
            assert len(drawn) >= 12
            assert all(path.stat().st_size > 100 for path in drawn)
    assert not list((tmp_path / "pictures").glob("*.parts"))
