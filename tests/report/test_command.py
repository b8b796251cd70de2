"""``camsweep report`` on the command line."""

import json
import re

import pytest
import typer

from camsweep.cli.report import report
from camsweep.core.errors import RequestError

from .conftest import parse, write


@pytest.fixture
def run(capsys):
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(report)

    def run(*words):
        app([str(word) for word in words], standalone_mode=False)
        return capsys.readouterr()

    return run


def test_the_page_lies_beside_the_results_unless_it_is_said(run, tmp_path):
    path = write(tmp_path, 2, 3)
    said = run(path, "-q")
    size = (tmp_path / "run.html").stat().st_size
    assert re.fullmatch(rf"{tmp_path}/run.html: 3 samples, 15 pictures, {size / 1000:.1f} kB\n", said.out)
    assert said.err == ""
    run(path, "-q", "--out", tmp_path / "new" / "other.html", "--title", "Mine")
    assert parse(tmp_path / "new" / "other.html").one("h1").text == "Mine"


def test_several_files_have_both_names(run, tmp_path):
    paths = [write(tmp_path, 2, 3, name=f"{name}.h5") for name in "ab"]
    answer = json.loads(run(*paths, "-q", "--json", "--limit", 2).out)
    page = tmp_path / "a+b.html"
    assert answer == {"path": str(page), "samples": 3, "shown": 2, "pictures": answer["pictures"], "troubled": 0,
                      "size": page.stat().st_size}  # fmt: skip
    assert answer["pictures"] == len(parse(page).all("figure")) - len(parse(page).all("figure", cls="chart"))


def test_what_is_chosen_is_shown(run, tmp_path):
    path = write(tmp_path, 2, 3, targets=["predicted", "label"])
    run(path, "-q", "-m", "gradcam", "-t", "label")
    data = json.loads(parse(tmp_path / "run.html").one("script", id="data").text)
    assert [(c["method"], c["goal"]) for c in data["columns"]] == [("gradcam", "label")]
    run(path, "-q", "--map", "grad+input")
    data = json.loads(parse(tmp_path / "run.html").one("script", id="data").text)
    assert [c["method"] for c in data["columns"]] == ["grad+input"] * 2


def test_progress_goes_to_stderr(run, tmp_path):
    said = run(write(tmp_path, 2, 3))
    assert said.err.startswith("drawing: 3 of 3 in ")


@pytest.mark.parametrize(("name", "line"), [("run.txt", "cannot be read as HDF5"), ("none.h5", "results not found")])
def test_what_is_no_results_file_is_refused_in_a_line(name, line, run, tmp_path):
    (tmp_path / "run.txt").write_text("no results")
    with pytest.raises(RequestError, match=line) as raised:
        run(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]
