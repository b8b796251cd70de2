"""Every command from end to end on tiny jobs; numbers are held against plain torch."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from camsweep.cli.app import application
from camsweep.core.job import Job
from camsweep.core.results import Status, open_results, verify

from .conftest import CLASSES, IMAGES, fill, job_text, load_models
from .references import cam, gradient, parts

COMMANDS = {command.callback.__name__: command.callback for command in application().registered_commands}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != "__pycache__"} - {
        path.relative_to(folder).as_posix() for path in folder.rglob("__pycache__/*")
    }


def read(path, name):
    with open_results(path) as results:
        return results.map(name).read()


# explain


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


def test_layers_cross_methods_and_targets(bench, call, net, signals):
    methods, layers = ["gradcam", "hirescam", "grad"], ["first", "second"]
    words = [w for m in methods for w in ("-m", m)] + [w for layer in layers for w in ("-l", layer)]
    assert call("explain", "job.toml", *words, "-t", "label", "-t", "top:2", cwd=bench).code == 0
    with open_results(bench / "run.h5") as results:
        assert set(results.maps) == {
            "gradcam@first", "gradcam@second", "hirescam@first", "hirescam@second", "grad",
        }  # fmt: skip
        assert results.target_names == ("label", "top:1", "top:2")
        assert results.map("gradcam@second").shape == (10, 3, 17)
        assert results.map("grad").shape == (10, 3, 2, 17)
        for row, x in enumerate(signals["x"]):
            for t in range(3):
                index = results.target_index[row, t]
                found = results.map("hirescam@first").read([row])[0, t]
                np.testing.assert_allclose(found, cam(net, x, "hirescam", index), rtol=1e-4, atol=1e-6)
                found = results.map("grad").read([row])[0, t]
                np.testing.assert_allclose(found, gradient(net, x, index), rtol=1e-4, atol=1e-6)


TARGETS = {
    "predicted": (["predicted"], lambda s, y: [s.argmax()]),
    "top:3": (["top:1", "top:2", "top:3"], lambda s, y: np.argsort(-s)),
    "label": (["label"], lambda s, y: [y]),
    "class:flutter": (["class:flutter"], lambda s, y: [1]),
    "class:2": (["class:2"], lambda s, y: [2]),
    "all": (["class:sinus", "class:flutter", "class:noise"], lambda s, y: [0, 1, 2]),
    "output:0": (["output:0"], lambda s, y: [0]),
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_stored_with_index_and_score(bench, call, net, signals, target):
    names, indices = TARGETS[target]
    assert call("explain", "job.toml", "-t", target, cwd=bench).code == 0
    with open_results(bench / "run.h5") as results:
        assert list(results.target_names) == names
        for row, (x, y) in enumerate(zip(signals["x"], signals["y"], strict=True)):
            scores = parts(net, x)[3].numpy()
            expected = list(indices(scores, y))
            assert list(results.target_index[row]) == expected
            np.testing.assert_allclose(results.target_score[row], scores[expected], rtol=1e-5, atol=1e-6)


def test_all_without_class_names_numbers_them(bench, call):
    (bench / "job.toml").write_text(job_text().replace('classes = "classes"', ""))
    assert call("explain", "job.toml", "-t", "all", cwd=bench).code == 0
    with open_results(bench / "run.h5") as results:
        assert results.target_names == ("class:0", "class:1", "class:2")
        assert results.classes is None


def test_a_final_softmax_is_stepped_behind_and_outputs_stay_raw(bench, call, net, signals):
    answer = call("explain", "job.toml", "--model-arg", "final=softmax", cwd=bench)
    assert answer.code == 0
    with open_results(bench / "run.h5") as results:
        assert results.final == "softmax"
        scores = np.stack([parts(net, x)[3].numpy() for x in signals["x"]])
        np.testing.assert_allclose(results.outputs.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(results.target_score[:, 0], scores.max(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            results.map("hirescam@first").read()[0, 0], cam(net, signals["x"][0], "hirescam"), rtol=1e-4, atol=1e-6
        )
    assert "behind the final softmax" in call(
        "explain", "job.toml", "--model-arg", "final=softmax", "--dry-run", cwd=bench
    ).out  # fmt: skip


def test_resolution_of_the_layer_or_of_the_input(bench, call, net, signals):
    assert call("explain", "job.toml", "-m", "gradcam", "--resolution", "layer", cwd=bench).code == 0
    assert call("explain", "job.toml", "-m", "gradcam", "-o", "input.h5", cwd=bench).code == 0
    layer, resized = read(bench / "run.h5", "gradcam@first"), read(bench / "input.h5", "gradcam@first")
    assert (layer.shape, resized.shape) == ((10, 1, 9), (10, 1, 17))
    for row, x in enumerate(signals["x"]):
        np.testing.assert_allclose(layer[row, 0], cam(net, x, "gradcam", resolution="layer"), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(resized[row, 0], cam(net, x, "gradcam"), rtol=1e-4, atol=1e-6)


def test_float16_holds_maps_to_a_fraction_of_their_peak(bench, call):
    assert call("explain", "job.toml", "-m", "hirescam", "-m", "grad", cwd=bench).code == 0
    assert call(
        "explain", "job.toml", "-m", "hirescam", "-m", "grad", "--dtype", "float16", "-o", "16.h5", cwd=bench
    ).code == 0  # fmt: skip
    with h5py.File(bench / "16.h5") as file:
        assert file["maps/grad/values"].dtype == np.float16
    for name in ("hirescam@first", "grad"):
        full, half = read(bench / "run.h5", name), read(bench / "16.h5", name)
        assert np.isfinite(half).all()
        peak = np.abs(full).reshape(10, -1).max(1).reshape(10, *[1] * (full.ndim - 1))
        assert (np.abs(full - half) <= 2.5e-4 * peak).all()


def test_float16_holds_gradients_that_float16_cannot(bench, call):
    with np.load(bench / "signals.npz") as file:
        arrays = dict(file)
    net = fill(load_models(bench / "models.py").Net())
    with torch.no_grad():
        net.head.weight.mul_(1e-9)
    torch.save(net.state_dict(), bench / "weights.pt")
    assert arrays["x"].shape == (10, 2, 17)
    assert call("explain", "job.toml", "-m", "grad", cwd=bench).code == 0
    assert call("explain", "job.toml", "-m", "grad", "--dtype", "float16", "-o", "16.h5", cwd=bench).code == 0
    full, half = read(bench / "run.h5", "grad"), read(bench / "16.h5", "grad")
    assert 0 < np.abs(full).max() < 1e-7
    peak = np.abs(full).max((1, 2, 3), keepdims=True)
    assert (np.abs(full - half) <= 2.5e-4 * peak).all()


def test_float64_runs_the_model_in_double(bench, call, net, signals):
    words = ["-m", "hirescam", "-m", "gradcam", "-m", "grad+input", "--dtype", "float64"]
    assert call("explain", "job.toml", *words, cwd=bench).code == 0
    net = net.double()
    with open_results(bench / "run.h5") as results:
        for row, x in enumerate(signals["x"].astype(np.float64)):
            for method in ("hirescam", "gradcam"):
                found = results.map(f"{method}@first").read([row])[0, 0]
                assert found.dtype == np.float64
                np.testing.assert_allclose(found, cam(net, x, method), rtol=1e-12, atol=1e-12)
            found = results.map("grad+input").read([row])[0, 0]
            np.testing.assert_allclose(found, gradient(net, x, times_input=True), rtol=1e-12, atol=1e-12)


def test_float64_keeps_scores_in_double_too(bench, call, net, signals):
    assert call("explain", "job.toml", "--dtype", "float64", cwd=bench).code == 0
    net = net.double()
    with open_results(bench / "run.h5") as results:
        scores = np.stack([parts(net, x.astype(np.float64))[3].numpy() for x in signals["x"]])
        np.testing.assert_allclose(results.outputs, scores, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(results.target_score[:, 0], scores.max(1), rtol=1e-12, atol=1e-12)


def test_inputs_are_copied_where_asked(bench, call, signals):
    (bench / "job.toml").write_text(job_text(output='inputs = "copy"', data="transforms = [{ scale = 3.0 }]"))
    assert call("explain", "job.toml", cwd=bench).code == 0
    (bench / "signals.npz").unlink()
    with open_results(bench / "run.h5") as results:
        np.testing.assert_array_equal(results.inputs(range(10)), signals["x"])  # as stored, before the scale
    assert call("render", "run.h5", "--limit", 1, "-q", cwd=bench).code == 0


def test_linked_inputs_are_found_again_and_missed_when_gone(bench, call, signals):
    assert call("explain", "job.toml", cwd=bench).code == 0
    with open_results(bench / "run.h5") as results:
        np.testing.assert_array_equal(results.inputs([3, 1]), signals["x"][[3, 1]])
    (bench / "signals.npz").unlink()
    answer = call("render", "run.h5", "-q", cwd=bench)
    assert answer.code == 2
    assert "signals.npz" in answer.err
    assert not (bench / "run").exists()


def test_images_in_a_folder_with_transforms(bench, call):
    (bench / "images.toml").write_text(IMAGES)
    answer = call("explain", "images.toml", "--json", cwd=bench)
    assert answer.code == 0
    assert answer.json["status"] == {"ok": 6}
    net = load_models(bench / "models.py").Net(rank=2, channels=3)
    net.load_state_dict(torch.load(bench / "weights2d.pt", weights_only=True))
    with open_results(bench / "images.h5") as results:
        assert results.ids[0] == "cat/0.png"
        assert results.classes == ("cat", "dog", "emu")
        stored = results.inputs(range(6)).astype(np.float32)
        assert stored.shape == (6, 3, 8, 10)
        assert stored.max() > 200
        for row, x in enumerate((stored / 255 - 0.5) / 0.25):
            expected = cam(net, x, "hirescam", results.labels[row])
            found = results.map("hirescam@first").read([row])[0, 0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# inspect


def test_inspect_says_what_the_model_is(bench, call, net):
    answer = call("inspect", "models.py:Net", "--weights", "weights.pt", "--shape", "2,17", "--json", cwd=bench)
    assert answer.code == 0
    found = answer.json
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert (found["outputs"], found["final"], found["auto"], found["input"]) == (3, None, "act", [2, 17])
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["first", "second", "act", "head"]
    assert layers["first"] == {"name": "first", "kind": "Conv1d", "shape": [3, 9], "grid": "", "calls": 1, "cam": True}
    assert layers["head"]["cam"] is False
    shown = call("inspect", "models.py:Net", "--weights", "weights.pt", "--shape", "2,17", cwd=bench).out
    assert re.search(r"^act\s+ReLU\s+2 x 9\s+auto$", shown, re.M)
    assert re.search(r"^head\s+Linear\s+3$", shown, re.M)


def test_inspect_takes_a_job_file_or_data(bench, call):
    by_job = call("inspect", "job.toml", "--json", cwd=bench)
    by_data = call(
        "inspect", "models.py:Net", "--weights", "weights.pt", "--data", "signals.npz", "--layout", "NCT",
        "--input", "x", "--json", cwd=bench,
    )  # fmt: skip
    assert by_job.code == by_data.code == 0
    assert by_job.json == by_data.json


def test_inspect_names_a_layer_that_runs_twice_and_a_final_softmax(bench, call):
    twice = call("inspect", "models.py:Twice", "--shape", "2,17", "--json", cwd=bench).json
    assert {layer["name"]: (layer["calls"], layer["cam"]) for layer in twice["layers"]}["act"] == (2, False)
    words = ["inspect", "models.py:Net", "--model-arg", "final=softmax", "--shape", "2,17"]
    assert call(*words, "--json", cwd=bench).json["final"] == "softmax"
    assert "softmax" in call(*words, cwd=bench).out


# methods


def test_methods_lists_the_registry(call):
    from camsweep import list_methods

    answer = call("methods", "--json")
    assert answer.code == 0
    assert [each["name"] for each in answer.json["methods"]] == [method.name for method in list_methods()]
    shown = call("methods").out
    for method in list_methods():
        assert re.search(rf"^{re.escape(method.name)}\s", shown, re.M)
        one = call("methods", method.name)
        assert one.code == 0
        assert method.formula in one.out
        assert method.source in one.out


def test_methods_explains_an_expression(call):
    answer = call("methods", "grad+input", "--json")
    assert answer.json["expression"] == "grad+input"
    assert "+input" in call("methods").out
    assert call("methods", "gradcam:relu=off", "--json").json["expression"] == "gradcam:relu=off"
    assert call("methods", "gradcam:relu=on", "--json").json["expression"] == "gradcam"  # one spelling


# render and info


@pytest.fixture
def explained(bench, call):
    assert call("explain", "job.toml", "-m", "hirescam", "-m", "grad", "--limit", 4, cwd=bench).code == 0
    return bench


def pngs(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_render_draws_what_is_asked_for(explained, call):
    answer = call("render", "run.h5", "--sample", "patient 2", "--sample", "patient 0", "--json", cwd=explained)
    assert answer.code == 0
    drawn = pngs(explained / "run")
    assert answer.json == {"folder": "run", "files": 4, "skipped": []}
    assert len(drawn) == 4
    assert {name.partition("/")[0] for name in drawn} == {"hirescam@first", "grad"}
    assert {name.partition("/")[2][:6] for name in drawn} == {"000000", "000002"}
    limited = call("render", "run.h5", "--limit", 1, "--map", "grad", "-o", "one", "--json", cwd=explained)
    assert limited.json["files"] == 1
    assert [name[:11] for name in pngs(explained / "one")] == ["grad/000000"]


def test_render_keeps_what_is_there(explained, call):
    assert call("render", "run.h5", "--limit", 1, "-q", cwd=explained).code == 0
    [first, *_] = pngs(explained / "run")
    stamp = (explained / "run" / first).stat().st_mtime_ns
    assert call("render", "run.h5", "--limit", 2, "-q", cwd=explained).code == 0
    assert (explained / "run" / first).stat().st_mtime_ns == stamp
    assert call("render", "run.h5", "--limit", 1, "-q", "--overwrite", cwd=explained).code == 0
    assert (explained / "run" / first).stat().st_mtime_ns != stamp


def test_results_without_a_suffix_have_pictures_too(bench, call):
    assert call("explain", "job.toml", "-o", "run", "--limit", 1, "--render", "-q", cwd=bench).code == 0
    [picture] = bench.rglob("*@first/*.png")
    stamp = picture.stat().st_mtime_ns
    assert call("render", "run", "-q", cwd=bench).code == 0
    assert [*bench.rglob("*@first/*.png")] == [picture]
    assert picture.stat().st_mtime_ns == stamp
    with open_results(bench / "run") as results:
        assert len(results) == 1


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--map", "hirescam@frist"], r"no map 'hirescam@frist'. Did you mean 'hirescam@first'\?"),
        (["--sample", "patient 22"], r"no sample 'patient 22'.*Did you mean 'patient 2'\?"),
        (["--norm", "runs"], r"Did you mean 'run'"),
        (["--limit", "0"], r"--limit"),
        (["--kind", "overlaid"], r"--kind 'overlaid' given. Did you mean 'overlay'\?"),
        (["--format", "jpg"], r"--format 'jpg' given. Did you mean 'png'\?"),
        (["--along", "tiem"], r"--along 'tiem' given. Did you mean 'time'\?"),
        (["--sheet", "--format", "svg"], r"--sheet draws PNG, --format svg given"),
    ],
)
def test_render_refuses_unknown_names(explained, call, words, pattern):
    answer = call("render", "run.h5", "-q", *words, cwd=explained)
    assert answer.code == 2
    assert re.fullmatch(rf"error: .*{pattern}.*\n", answer.err)
    assert not (explained / "run").exists()


def test_info_tells_numbers_that_are_there(explained, call):
    answer = call("info", "run.h5", "--json", cwd=explained)
    assert answer.code == 0
    found = answer.json
    with open_results(explained / "run.h5") as results:
        assert found["samples"] == 4
        assert found["status"] == {"ok": 4}
        assert found["accuracy"] == pytest.approx((results.predicted == results.labels).mean())
        assert found["labelled"] == 4
        for each in found["maps"]:
            values = results.map(each["name"]).read()
            assert each["min"] == pytest.approx(values.min())
            assert each["max"] == pytest.approx(values.max())
        assert found["provenance"] == results.provenance
    shown = call("info", "run.h5", cwd=explained).out
    assert "4 samples: 4 ok" in shown
    assert "hirescam@first" in shown


def test_info_json_is_strict_json_and_messages_are_named(bench, call, signals):
    x = signals["x"].copy()
    x[4, 0, 3] = np.nan
    np.savez(bench / "signals.npz", **(signals | {"x": x}))
    assert call("explain", "job.toml", cwd=bench).code == 3
    answer = call("info", "run.h5", "--json", cwd=bench)
    assert answer.code == 0
    assert "NaN" not in re.sub(r'"message": "[^"]*"', "", answer.out)
    [message] = answer.json["messages"]
    assert (message["id"], message["status"]) == ("patient 4", "non finite")
    assert "NaN" in message["message"]
    assert "patient 4" in call("info", "run.h5", cwd=bench).out


# demo


def test_demo_explains_and_draws_every_sample_set(call, tmp_path, monkeypatch):
    monkeypatch.setattr("camsweep.cli.demo.DRAWN", 1)
    answer = call("demo", "pictures", "--quiet", "--json", cwd=tmp_path)
    assert (answer.code, answer.err) == (0, "")
    entries = answer.json["demo"]
    assert [entry["results"] for entry in entries] == [f"pictures/{name}.h5" for name in ("digits", "ecg", "motion")]
    for entry in entries:
        assert set(entry["status"]) <= {"ok", "zero map"}
        assert entry["pictures"]["files"] > 0
        for kind in ("onnx", "keras"):
            assert entry[kind]["difference"] < 1e-5
            with open_results(tmp_path / entry[kind]["results"]) as results:
                assert (results.predicted == results.labels).mean() > 0.9
        with open_results(tmp_path / entry["results"]) as results:
            assert len(results) == sum(entry["status"].values())
            assert (results.predicted == results.labels).mean() > 0.9
            assert set(results.maps) == {m for m in results.maps if np.isfinite(results.map(m).range()).all()}
    assert len(list((tmp_path / "pictures/motion").rglob("*.gif"))) > 0


# help


def test_no_command_prints_help(call):
    answer = call()
    assert answer.code == 0
    assert all(re.search(rf"^\s+{name}\s", answer.out, re.M) for name in COMMANDS)
    assert call("--version").out.startswith("camsweep ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(call, name):
    answer = call(name, "--help")
    assert answer.code == 0
    [example] = re.findall(r"Example: (camsweep .*)", COMMANDS[name].__doc__)
    assert example.split()[1] == name
    assert f"Example: {example}" in " ".join(answer.out.split())  # however wide the terminal is
    for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", example):
        assert re.search(rf"^\s+(--?[a-z-]+, )?{option}\b", answer.out, re.M), option


def test_the_examples_work(call, tmp_path):
    class_ = (
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
        " nn.Linear(2, 3))\n"
    )
    (tmp_path / "net.py").write_text(class_)
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    torch.save(module.state_dict(), tmp_path / "net.pt")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(3, 3, 8, 9)).astype(np.float32))
    for name in ("methods", "inspect", "explain", "info", "render"):  # the later ones read what explain made
        [example] = re.findall(r"Example: camsweep (.*)", COMMANDS[name].__doc__)
        answer = call(*shlex.split(example), cwd=tmp_path)
        assert (answer.code, example) == (0, example), answer.err
    assert (tmp_path / "run.h5").exists()
    assert pngs(tmp_path / "run")


@pytest.mark.parametrize("words", [["--help"], ["methods"], ["explain", "--help"], ["demo", "--help"]])
def test_help_and_methods_import_no_framework(words):
    code = (
        "import sys\nfrom camsweep.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "loaded = {'torch', 'tensorflow', 'keras', 'onnx', 'onnxruntime', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_reader_that_goes_away_is_no_fault(bench):
    command = f"{shlex.quote(sys.executable)} -m camsweep methods --json | head -n 1"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=bench, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{\n", "")


def test_status_names_are_those_of_the_file(explained):
    with h5py.File(explained / "run.h5") as file:
        assert set(file["samples/status"][:]) == {Status.OK}


FINISHED = """
import sys
sys.argv[1:] = {words!r}
from camsweep.cli.entry import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sys.modules)
"""


def loaded(folder, *words):
    """What a process has loaded that ran a command."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = FINISHED.format(words=list(words))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout, set(done.stdout.splitlines()[-1].split())


def test_what_is_finished_is_told_without_loading_what_computes_or_draws(bench):
    (bench / "job.toml").write_text(job_text(output="render = true"))
    _, first = loaded(bench, "explain", "job.toml")
    assert {"torch", "matplotlib", "camsweep.core.explainer"} <= first
    assert "sympy" not in first  # which torch loads for a gradient that is given as such, in a second
    for words in (["explain", "job.toml"], ["render", "run.h5"], ["info", "run.h5"]):
        told, modules = loaded(bench, *words)
        assert "run.h5" in told or "pictures" in told
        heavy = {"torch", "tensorflow", "onnx", "matplotlib", "scipy", "sympy"}
        computing = {f"camsweep.core.{name}" for name in ("explainer", "plan", "sharded", "trace")}
        assert not (heavy | computing) & modules
    _, modules = loaded(bench, "--help")
    assert not {"numpy", "pydantic", "h5py", "camsweep.cli.explain"} & modules
