"""``camsweep evaluate`` as it is typed."""

import csv
import io
import shutil

import h5py
import numpy as np
import pytest

from camsweep.core.results import open_metrics, open_results, verify

METHODS = ["-m", "gradcam", "-m", "grad+input", "-m", "lrp:eps=0.25std"]


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    from pathlib import Path

    import camsweep

    folder = tmp_path_factory.mktemp("digits")
    for name in ("models.py", "digits.pt", "digits.npz"):
        shutil.copy(Path(camsweep.__file__).parent / "sample_data" / name, folder)
    text = (Path(camsweep.__file__).parent / "sample_data" / "digits.toml").read_text("utf-8")
    (folder / "digits.toml").write_text(text.replace("[data]\n", "[data]\nlimit = 6\n", 1), "utf-8")
    return folder


@pytest.fixture
def work(explained, tmp_path, call):
    shutil.copytree(explained, tmp_path / "w")
    assert call("explain", "digits.toml", *METHODS, "--no-render", "-q", cwd=tmp_path / "w").code == 0
    return tmp_path / "w"


def test_the_table_says_what_it_is_of(work, call):
    answer = call("evaluate", "digits.h5", cwd=work)
    assert answer.code == 0
    lines = answer.out.splitlines()
    at = lines.index("gradcam@features.9")
    assert lines[at + 1] == "control: randomcam@features.9"
    assert lines[at + 2].split()[:3] == ["metric", "better", "mean"]
    assert any(line.startswith("relevance-rank ") for line in lines)
    assert lines[-1].endswith("digits.metrics.h5: 6 of 6 samples; forwards a sample: 1, foreseen: 1")
    again = call("evaluate", "digits.h5", cwd=work)
    assert again.out.splitlines()[:-1] == lines[:-1]
    assert again.out.splitlines()[-1].endswith("(already complete)")
    with open_results(work / "digits.h5") as results:
        before = (work / "digits.h5").stat().st_mtime_ns
        metrics = open_metrics(results)
    assert {entry.map for entry in metrics.entries} == {"gradcam@features.9", "grad+input", "lrp:eps=0.25std"}
    assert verify(work / "digits.metrics.h5") == []
    assert (work / "digits.h5").stat().st_mtime_ns == before
    with h5py.File(work / "digits.metrics.h5") as file:  # as any program reads it
        dataset = file["grad+input/gini"]
        assert dataset.shape == (6, 1)
        assert dataset.attrs["better"] == "higher"
    assert call("verify", "digits.metrics.h5", cwd=work).code == 0


def test_json_and_csv_hold_the_same_numbers(work, call):
    metrics = "deletion:steps=4,relevance-rank,random-logit"
    answer = call("evaluate", "digits.h5", "--metrics", metrics, "--json", "-q", cwd=work).json
    assert answer["forwards_per_sample"]["ran"] == pytest.approx(answer["forwards_per_sample"]["predicted"], rel=0.2)
    text = call("evaluate", "digits.h5", "--metrics", metrics, "--csv", "-q", cwd=work).out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["metric"] for row in rows] == [row["metric"] for row in answer["rows"]]
    for row, other in zip(rows, answer["rows"], strict=True):
        assert float(row["mean"]) == other["mean"]
        assert row["map"] == other["map"]
    with open_results(work / "digits.h5") as results:
        file = open_metrics(results)
        entry = next(e for e in file.entries if e.map == "grad+input" and e.metric == "deletion:steps=4")
        mine = next(r for r in answer["rows"] if r["map"] == "grad+input" and r["metric"] == "deletion:steps=4")
        assert mine["mean"] == pytest.approx(np.mean(file.values[entry.path()]))
        assert mine["control"] == pytest.approx(np.mean(file.controls[entry.path()]))
        assert mine["low"] < mine["mean"] < mine["high"]


def test_a_dry_run_writes_nothing(work, call):
    answer = call("evaluate", "digits.h5", "--metrics", "standard", "--dry-run", "--json", cwd=work).json
    assert answer["samples"] == 6
    assert answer["controls"]["gradcam@features.9"] == ["randomcam@features.9"]
    assert "conservation" in answer["metrics"]["lrp:eps=0.25std"]
    assert answer["missing"]["grad+input: conservation"] == "it is no relevance"
    assert not (work / "digits.metrics.h5").exists()
    assert not (work / "digits.metrics.h5.parts").exists()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["digits.h5", "-m", "fats"], 2, "unknown metric 'fats'. Did you mean 'fast'?"),
        (["digits.h5", "-m", "deletion:step=4"], 2, "deletion has no key 'step'. Did you mean 'steps'?"),
        (["digits.h5", "-m", "deletion:steps=0"], 2, "deletion: steps='0' given, expected a whole number from 1"),
        (["digits.h5", "--map", "gradcam"], 2, "has no map 'gradcam'. Did you mean 'gradcam@features.9'?"),
        (["digits.h5", "--mask", "musk"], 2, "no array 'musk'"),
        (["gone.h5"], 2, "results not found: gone.h5"),
        (["digits.npz"], 2, "cannot be read as HDF5"),
        (["digits.h5", "--weights", "other.pt"], 2, "other.pt"),
        (
            ["digits.h5", "-m", "completeness", "--map", "grad+input"],
            2,
            "completeness fits none of the maps: its sum says nothing",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(work, call, words, code, line):
    answer = call("evaluate", *words, cwd=work)
    assert answer.code == code
    assert line in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not list(work.glob("*.metrics.h5*"))


def test_another_model_is_refused(work, call):
    import torch

    weights = torch.load(work / "digits.pt", weights_only=True)
    torch.save({name: values * 1.5 for name, values in weights.items()}, work / "other.pt")
    answer = call("evaluate", "digits.h5", "--weights", "other.pt", cwd=work)
    assert answer.code == 2
    assert "was made by another model (model.weights)" in answer.err


def test_methods_tells_of_metrics(call):
    listed = call("methods", "--json").json
    from camsweep.core.metrics import METRICS

    assert [each["name"] for each in listed["metrics"]] == list(METRICS)
    assert {each["name"]: each["cost"] for each in listed["metrics"]}["deletion"] == "20 forwards"
    one = call("methods", "deletion:steps=7").out
    assert "deletion:steps=7" in one
    assert "Petsiuk" in one
    assert "standard, full" in one
