"""What holds for every command, and the small ones: inspect, methods, demo, help; loading no more than is needed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from camsweep.cli.app import application
from camsweep.core.results import Status, open_results

from .conftest import job_text, pngs

COMMANDS = {command.callback.__name__: command.callback for command in application().registered_commands}


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
import atexit, sys
sys.argv[1:] = {words!r}
atexit.register(lambda: print(*sys.modules))
from camsweep.cli.entry import main
main()
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
