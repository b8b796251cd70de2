"""`explain` from end to end on tiny jobs: what is read, printed, written, kept and begun anew."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.job import Job
from camsweep.core.results import Status, open_results, verify

from .conftest import CLASSES, digest, files, job_text
from .references import cam, gradient, parts


def read(path, name):
    with open_results(path) as results:
        return results.map(name).read()


def test_the_profile_is_printed(bench, call):
    answer = call("explain", "job.toml", "--profile", cwd=bench)
    lines = answer.out.splitlines()
    assert lines[1].split() == ["stage", "seconds", "share"]
    assert lines[-1].startswith("outside the model: ")
    answer = call("explain", "job.toml", "--profile", "--json", "--force", cwd=bench)
    told = answer.json["profile"]
    assert set(told) == {"wall", "stages", "rest", "outside_model"}
    assert told["stages"]["forward and explain"] > 0
    assert "profile" not in call("explain", "job.toml", "--json", cwd=bench).json


def test_explain_computes_what_plain_torch_does(bench, call, net, signals):
    answer = call(
        "explain", "job.toml", "--json",
        *("-m", "gradcam", "-m", "layercam", "-m", "hirescam", "-m", "grad", "-m", "grad+input"), cwd=bench,
    )  # fmt: skip
    assert answer.code == 0
    results = bench / "run.h5"
    # a ReLU leaves nothing of one sample's CAM, and the row says so
    empty = [
        row for row, x in enumerate(signals["x"]) if not all(cam(net, x, m).any() for m in ("gradcam", "layercam"))
    ]
    assert len(empty) == 1
    assert answer.json == {
        "results": str(results), "samples": 10, "status": {"ok": 9, "zero map": 1}, "was_complete": False,
        "score": "output of the model",
    }  # fmt: skip
    assert not (bench / "run.h5.parts").exists()
    assert verify(results) == []
    with open_results(results) as file:
        assert list(np.flatnonzero(file.status == Status.ZERO_MAP)) == empty
        assert file.messages[empty[0]].endswith("@first is zero everywhere")
        assert file.ids == list(signals["id"])
        assert file.classes == tuple(CLASSES)
        np.testing.assert_array_equal(file.labels, signals["y"])
        assert file.target_names == ("predicted",)
        assert list(file.maps) == ["gradcam@first", "layercam@first", "hirescam@first", "grad", "grad+input"]
        for row, x in enumerate(signals["x"]):
            _, _, _, scores, index = parts(net, x)
            np.testing.assert_allclose(file.outputs[row], scores, rtol=1e-5, atol=1e-6)
            assert file.predicted[row] == file.target_index[row, 0] == index
            np.testing.assert_allclose(file.target_score[row, 0], scores[index], rtol=1e-5, atol=1e-6)
            for method in ("gradcam", "layercam", "hirescam"):
                found = file.map(f"{method}@first").read([row])[0, 0]
                np.testing.assert_allclose(found, cam(net, x, method), rtol=1e-4, atol=1e-6)
            for name, times in (("grad", False), ("grad+input", True)):
                found = file.map(name).read([row])[0, 0]
                np.testing.assert_allclose(found, gradient(net, x, times_input=times), rtol=1e-4, atol=1e-6)


def test_results_go_to_stdout_and_progress_to_stderr(bench, call):
    answer = call("explain", "job.toml", cwd=bench)
    assert answer.code == 0
    assert answer.out.splitlines() == [f"{bench / 'run.h5'}: 10 samples, 10 ok"]
    assert re.fullmatch(r"explaining: 10 of 10 in [\d.]+ s \([\d.]+/s\)\n", answer.err)


def test_a_model_that_prints_leaves_stdout_alone(bench, call):
    (bench / "steps.py").write_text("def same(x):\n    print('a batch')\n    return x\n")
    text = job_text(data='transforms = [{ python = "steps.py:same" }]').replace("py:Net", "py:Chatty")
    (bench / "job.toml").write_text(text)
    for words in (["explain", "job.toml", "--dry-run"], ["explain", "job.toml"], ["inspect", "job.toml"]):
        answer = call(*words, "--json", cwd=bench)
        assert answer.code == 0
        assert answer.json
        assert "being built" in answer.err
        assert "forward (1, 2, 17)" in answer.err
        assert "a batch" in answer.err


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_quiet_leaves_stderr_empty(bench, call, as_json):
    answer = call("explain", "job.toml", "--quiet", "--render", *as_json, cwd=bench)
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out
    again = call("render", "run.h5", "--overwrite", "--quiet", *as_json, cwd=bench)
    assert (again.code, again.err) == (0, "")


def test_dry_run_writes_nothing_and_shows_the_plan(bench, call):
    before = files(bench)
    words = ["explain", "job.toml", "--dry-run", "-m", "gradcam", "-m", "grad", "-t", "predicted", "-t", "class:noise"]
    answer = call(*words, "--json", cwd=bench)
    assert answer.code == 0
    assert answer.err == ""
    plan = answer.json
    assert [each["name"] for each in plan["maps"]] == ["gradcam@first", "grad"]
    assert [each["shape"] for each in plan["maps"]] == [[17], [2, 17]]
    assert plan["passes_per_batch"] == {"forward": 1, "backward": 2, "tail": 0}
    assert (plan["samples"], plan["batches"], plan["input_shape"], plan["outputs"]) == (10, 3, [2, 17], 3)
    assert plan["targets"] == ["predicted", "class:noise"]
    # for each sample and target: values and range of two maps; scores, index and score of targets, status, message
    maps = 2 * (17 * 4 + 2 * 4) + 2 * (34 * 4 + 2 * 4)
    rest = 3 * 4 + 4 + 2 * 8 + 1
    assert 10 * (maps + rest) <= plan["bytes"] <= 10 * (maps + rest + 1024)
    shown = call(*words, cwd=bench)
    assert "gradcam@first" in shown.out
    assert "each batch: 1 forward, 2 backward" in shown.out
    assert re.search(r"at most [\d.]+ kB before compression, into .*run\.h5", shown.out)
    assert files(bench) == before
    printed = tomllib.loads(shown.out.partition("\n\n10 samples")[0])
    assert printed["explain"]["methods"] == ["gradcam", "grad"]


def test_dry_run_counts_no_backward_for_methods_without_gradients(bench, call):
    plan = call("explain", "job.toml", "--dry-run", "--json", "-m", "eigencam", "-t", "all", cwd=bench).json
    assert plan["passes_per_batch"] == {"forward": 1, "backward": 0, "tail": 0}


def test_flags_override_the_file(bench, call, signals):
    job = job_text(data="limit = 5", explain='targets = ["label"]\nseed = 7')
    (bench / "job.toml").write_text(job)
    answer = call(
        "explain", "job.toml", "--limit", 4, "-t", "top:1", "-m", "grad", "-o", "other.h5", "--batch-size", 3,
        "--dtype", "float64", "--json", cwd=bench,
    )  # fmt: skip
    assert answer.code == 0
    assert not (bench / "run.h5").exists()
    with open_results(bench / "other.h5") as results:
        assert results.ids == list(signals["id"][:4])
        assert results.target_names == ("top:1",)
        assert list(results.maps) == ["grad"]
        assert results.maps["grad"].dtype == "float64"
        assert results.provenance["batch_size"] == 3
        assert results.provenance["seed"] == 7  # the file's, not overridden


def test_a_job_of_nothing_but_flags_equals_the_file(bench, call):
    assert call("explain", "job.toml", cwd=bench).code == 0
    answer = call(
        "explain", "--model", "models.py:Net", "--weights", "weights.pt", "--data", "signals.npz", "--input", "x",
        "--label", "y", "--classes", ",".join(CLASSES), "--layout", "NCT", "--method", "hirescam", "--layer", "first",
        "--model-arg", "classes=3", "--model-arg", "final=none", "--device", "cpu", "-o", "flags.h5",
        "--rate", "50", "--json", cwd=bench,
    )  # fmt: skip
    assert answer.code == 0
    with open_results(bench / "run.h5") as mine, open_results(bench / "flags.h5") as theirs:
        np.testing.assert_allclose(mine.map("hirescam@first").read(), theirs.map("hirescam@first").read(), rtol=1e-6)
        assert theirs.classes == mine.classes
        assert theirs.axes[0].step == 1 / 50
        assert theirs.ids[0] == "000000"
        job = tomllib.loads(theirs.provenance["job"])
        assert job["model"]["args"] == {"classes": 3, "final": "none"}
        assert theirs.provenance["argv"][1] == "explain"


def test_a_whole_checkpoint_is_a_model(bench, call, signals):
    """``--model`` is a checkpoint where it is no code; one that is pickled whole is trusted on request."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 3)).eval()
    torch.save(whole, bench / "whole.pt")
    words = ["--model", "whole.pt", "--data", "signals.npz", "--input", "x", "--layout", "NCT", "-m", "grad"]
    assert "--trust-checkpoint" in call("explain", *words, "-o", "whole.h5", cwd=bench).err
    assert call("explain", *words, "-o", "whole.h5", "--trust-checkpoint", cwd=bench).code == 0
    with open_results(bench / "whole.h5") as results, torch.no_grad():
        expected = whole(torch.from_numpy(signals["x"]))
        np.testing.assert_allclose(results.outputs, expected, rtol=1e-5, atol=1e-6)


def test_relative_paths_are_the_job_files_own(bench, call, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    answer = call("explain", "../bench/job.toml", cwd=elsewhere)
    assert answer.code == 0
    assert (bench / "run.h5").exists()
    assert list(elsewhere.iterdir()) == []
    # and those of flags are taken from where one stands
    assert call("explain", "../bench/job.toml", "-o", "here.h5", cwd=elsewhere).code == 0
    assert [path.name for path in elsewhere.iterdir()] == ["here.h5"]


def test_the_stored_job_is_the_job(bench, call, tmp_path):
    transforms = "transforms = [{ scale = 2.0 }, { python = 'steps.py:halve' }]"
    (bench / "steps.py").write_text("def halve(x):\n    return x / 2\n")
    (bench / "job.toml").write_text(job_text(data=transforms, model="args = { classes = 3 }", explain="seed = 2"))
    assert call("explain", "job.toml", "-t", "predicted", "-t", "class:noise", cwd=bench).code == 0
    stored = tmp_path / "stored.toml"
    with open_results(bench / "run.h5") as results:
        stored.write_text(results.provenance["job"])
    flags = {"explain": {"targets": ["predicted", "class:noise"]}}
    assert Job.load(stored, {}) == Job.load(bench / "job.toml", flags)
    again = call("explain", stored, "--json", cwd=tmp_path)
    assert again.code == 0
    assert again.json["was_complete"] is True


def test_a_finished_job_is_left_alone_without_importing_torch(bench, call):
    assert call("explain", "job.toml", cwd=bench).code == 0
    before, stamp = digest(bench / "run.h5"), (bench / "run.h5").stat().st_mtime_ns
    code = (
        "import sys\n"
        "from camsweep.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0, ended.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "explain", "job.toml"], cwd=bench, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"{bench / 'run.h5'}: 10 samples, 10 ok (already complete)"]
    assert (digest(bench / "run.h5"), (bench / "run.h5").stat().st_mtime_ns) == (before, stamp)
    assert call("explain", "job.toml", "--json", cwd=bench).json["was_complete"] is True
    # how a batch is cut is no part of what was computed
    assert call("explain", "job.toml", "--json", "-b", 2, cwd=bench).json["was_complete"] is True


def test_force_starts_anew(bench, call):
    assert call("explain", "job.toml", cwd=bench).code == 0
    answer = call("explain", "job.toml", "-m", "grad", "--force", "--json", cwd=bench)
    assert answer.code == 0
    assert answer.json["was_complete"] is False
    with open_results(bench / "run.h5") as results:
        assert list(results.maps) == ["grad"]
    assert not (bench / "run.h5.parts").exists()
