"""What all formats have in common: whole files, nothing written twice, nothing of others touched; the command line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from camsweep.cli.export import export as command
from camsweep.core.data import Axis
from camsweep.core.errors import OutputError, RequestError, StorageError
from camsweep.core.export import FORMATS, export

from ..results.synthetic import info

SHAPES = {"csv": (2, 40), "nifti": (1, 4, 5, 6), "virelay": (1, 9, 14), "npz": (1, 9, 14), "zarr": (1, 4, 5, 6)}
NAMES = {1: ["time"], 2: ["height", "width"], 3: ["depth", "height", "width"]}
FORMAT = pytest.mark.parametrize("to", sorted(FORMATS))


def fitting(make, to, **more):
    shape = SHAPES[to]
    axes = [Axis(name, "mm", 0.5) for name in NAMES[len(shape) - 1]]
    maps = [info(shape=shape[1:]), info("grad+input", None, shape, per_channel=True)]
    return make(shape=shape, axes=axes, maps=maps, **more)


def state(path):
    """Every file with its content and when it was written."""
    files = [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.is_file()]
    return {each: (each.read_bytes(), each.stat().st_mtime_ns) for each in files}


def test_every_format_is_tested():
    assert {*SHAPES} == {*FORMATS}


@FORMAT
def test_the_same_export_again_writes_nothing(make, opened, to):
    results = opened(fitting(make, to).path)
    told = []
    task = export(results, to, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (task.total, task.total) != (0, 0)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    before = {path: at for path, at in state(task.out).items() if path.name != "index.csv"}
    again = export(results, to)
    assert {path: at for path, at in state(task.out).items() if path.name != "index.csv"} == before
    assert again.kept == len(again.files) == len(task.files)
    assert [path for path in task.out.parent.iterdir() if path.name.startswith(".")] == []


@FORMAT
def test_other_results_are_not_mixed_in(make, opened, to):
    first = opened(fitting(make, to).path)
    other = opened(fitting(make, to, name="other.h5", ids=[f"other {k}" for k in range(9)]).path)
    out = export(first, to).out
    before = state(out)
    with pytest.raises(OutputError, match=r"is an export of other results, maps or samples; give another --out"):
        export(other, to, out)
    assert state(out) == before
    task = export(other, to, out, overwrite=True)
    assert task.kept == 0
    fresh = export(other, to, out.with_name("fresh" + out.suffix))
    assert [path.relative_to(out) for path in state(out)] == [path.relative_to(fresh.out) for path in state(fresh.out)]


@FORMAT
def test_what_is_not_ours_is_never_touched(make, opened, to, tmp_path):
    results = opened(fitting(make, to).path)
    file, folder = tmp_path / "mine", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for out in (file, folder):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=f"is there, and is no {to} export of camsweep; give another --out"):
                export(results, to, out, overwrite=overwrite)
    assert file.read_text() == (folder / "mine").read_text() == "mine"
    with pytest.raises(OutputError, match="is the results file itself"):
        export(results, to, results.path, overwrite=True)


@FORMAT
def test_a_choice_of_samples_and_maps_is_checked_before_anything_is_written(make, opened, to):
    results = opened(fitting(make, to).path)
    with pytest.raises(RequestError, match=r"has no map 'gradcam@layer3'. Did you mean 'gradcam@layer4'"):
        export(results, to, maps=["gradcam@layer3"])
    with pytest.raises(RequestError, match=r"no sample 'ab' in .*Did you mean"):
        export(results, to, samples=["ab"])
    with pytest.raises(RequestError, match=r"no format 'npy'. Did you mean 'npz'"):
        export(results, "npy")
    assert [path.name for path in results.path.parent.iterdir()] == ["run.h5"]


@FORMAT
def test_a_package_that_is_not_there_is_named(make, opened, to, monkeypatch):
    results = opened(fitting(make, to).path)
    monkeypatch.setattr("camsweep.core.export.formats.find_spec", lambda name: None)
    if FORMATS[to].needs:
        extra = FORMATS[to].extra
        with pytest.raises(
            RequestError, match=rf"--to {to} needs {FORMATS[to].needs}: pip install 'camsweep\[{extra}\]'"
        ):
            export(results, to)
    else:
        export(results, to)


@FORMAT
def test_a_disk_that_refuses_leaves_no_half_file(make, opened, to, monkeypatch):
    results = opened(fitting(make, to).path)
    replace, calls = os.replace, []

    def refuses(path, target):
        calls.append(target)
        if len(calls) > 1 or to in ("npz", "zarr"):
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda self, target: refuses(self, target))
        with pytest.raises(StorageError, match="no space left"):
            export(results, to)
    left = [path for path in results.path.parent.rglob("*") if path.is_file() and path != results.path]
    assert [path.name for path in left] == ([] if to in ("npz", "zarr") else ["export.json"])
    task = export(results, to)
    assert task.files
    assert task.kept == 0
    assert not [path for path in results.path.parent.rglob(".*") if path.suffix != ""]


@FORMAT
def test_an_interrupt_leaves_no_half_file(make, opened, to):
    results = opened(fitting(make, to).path)

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(results, to, progress=stop)
    clean = export(results, to, results.path.with_name("clean" + FORMATS[to].end))
    out = export(results, to).out
    assert not [path for path in results.path.parent.rglob("*") if path.name.startswith(".") and ".z" not in path.name]
    for path, (content, _) in state(clean.out).items():
        if path.suffix in (".csv", ".gz", ".json", ".yaml") or to == "zarr":
            assert (out / path.relative_to(clean.out)).read_bytes() == content, path


def run(*words):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words])


@FORMAT
def test_the_command_line(make, to):
    path = fitting(make, to).path
    ended = run(path, "--to", to, "--json", "--quiet")
    assert ended.exit_code == 0, ended.exception
    answer = json.loads(ended.stdout)
    assert set(answer) == {"path", "files", "kept", "notes"}
    assert answer["path"] == str(path.with_name("run" + FORMATS[to].end))
    assert answer["kept"] == 0 < answer["files"]
    assert ended.stderr == ""
    again = run(path, "--to", to)
    assert f"{answer['files']} file" in again.stdout
    assert f", {answer['files']} there already" in again.stdout
    some = run(path, "--to", to, "-o", path.with_name("some"), "--map", "gradcam@layer4", "--sample", "aB", "--sample", "CON", "--limit", 1)  # fmt: skip
    assert some.exit_code == 0, some.exception
    if to == "npz":
        with np.load(path.with_name("some")) as found:
            assert found["ids"].tolist() == ["aB"]


def test_the_command_line_refuses_what_it_does_not_know(make):
    path = make().path
    assert run(path, "--to", "npy").exit_code == 2
    assert isinstance(run(path, "--to", "nifti").exception, RequestError)
    assert isinstance(run(path.with_name("no.h5"), "--to", "npz").exception, RequestError)
