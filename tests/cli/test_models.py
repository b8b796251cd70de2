"""The command line on files of each kind, as they are given by people who do not know what is in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from camsweep import open_results

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
SHAPES = {"ecg": (3, 500), "digits": (1, 32, 40), "motion": (1, 12, 24, 32)}


@pytest.fixture
def samples(tmp_path):
    for path in SAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", [".onnx", ".keras"])
@pytest.mark.parametrize("name", SHAPES)
def test_inspect_needs_no_shape_where_the_file_says_it(call, name, suffix):
    answer = call("inspect", str(SAMPLES / f"{name}{suffix}"), "--json")
    assert answer.code == 0, answer.err
    torch = call("inspect", str(SAMPLES / f"{name}.toml"), "--json")
    for key in ("outputs", "places", "final"):
        assert answer.json[key] == torch.json[key]
    assert tuple(answer.json["input"]) == SHAPES[name]
    shapes = {each["name"]: each["shape"] for each in answer.json["layers"]}
    there = {each["name"]: each["shape"] for each in torch.json["layers"]}
    assert shapes[answer.json["auto"]] == there[torch.json["auto"]]


def test_inspect_asks_for_a_shape_where_nobody_says_it(call):
    answer = call("inspect", str(SAMPLES / "models.py:EcgNet"), "--weights", str(SAMPLES / "ecg.pt"))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "does not say what it takes: give --shape" in answer.err


def test_a_checkpoint_takes_the_place_of_code_and_weights(call, samples):
    """The name of a module that the graph has the parts of stands for its last one."""
    answer = call(
        *[
            "explain",
            "ecg.toml",
            "--model",
            "ecg.onnx",
            "--layer",
            "stage3",
            "--limit",
            "5",
            "--no-render",
            "-q",
            "-o",
            "onnx.h5",
        ],
        cwd=samples,
    )
    assert answer.code == 0, answer.err
    assert call(*["explain", "ecg.toml", "--limit", "5", "--no-render", "-q", "-o", "torch.h5"], cwd=samples).code == 0
    with open_results(samples / "onnx.h5") as onnx, open_results(samples / "torch.h5") as torch:
        for name in torch.maps:
            theirs = torch.map(name).read()
            mine = onnx.map(name.replace("@stage3", "@stage3.Relu_1")).read()
            np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())
        assert {"onnx", "torch"} <= onnx.provenance["versions"].keys()


def test_a_folder_is_known_again_by_what_is_in_it(tmp_path):
    from camsweep.core.standing import model_sha256

    for folder in ("a", "b"):
        (tmp_path / folder / "model" / "variables").mkdir(parents=True)
        (tmp_path / folder / "model" / "saved_model.pb").write_bytes(b"graph")
        (tmp_path / folder / "model" / "variables" / "data").write_bytes(b"weights")
    same = model_sha256(tmp_path / "a" / "model")
    assert same == model_sha256(tmp_path / "b" / "model") != ""
    (tmp_path / "b" / "model" / "variables" / "data").write_bytes(b"others")
    assert same != model_sha256(tmp_path / "b" / "model")
    (tmp_path / "a" / "model").rename(tmp_path / "a" / "renamed")
    assert same == model_sha256(tmp_path / "a" / "renamed")
    (tmp_path / "x.weights.h5").write_bytes(b"weights")
    bare = model_sha256(tmp_path / "x.weights.h5")
    (tmp_path / "x.json").write_text("{}")
    assert bare != model_sha256(tmp_path / "x.weights.h5")
    assert model_sha256(tmp_path / "none.pt") == ""
    (tmp_path / "x.onnx").write_bytes(b"graph")
    alone = model_sha256(tmp_path / "x.onnx")
    (tmp_path / "x.onnx.data").write_bytes(b"weights")
    assert alone != model_sha256(tmp_path / "x.onnx")


def run(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "camsweep", *words], cwd=cwd, env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_native_is_tensorflow_itself(call, samples):
    job = "explain digits.toml --model digits.keras --layer features --limit 4 --no-render -q"
    words = [*job.split(), "-m", "gradcam", "-m", "grad+sign", "-m", "ig:steps=8"]
    done = run(*words, "--native", "-o", "native.h5", cwd=samples)
    assert (done.returncode, done.stderr) == (0, "")
    assert call(*words, "-o", "imported.h5", cwd=samples).code == 0
    with open_results(samples / "native.h5") as native, open_results(samples / "imported.h5") as imported:
        assert list(native.maps) == list(imported.maps)
        for name in native.maps:
            theirs = imported.map(name).read()
            np.testing.assert_allclose(native.map(name).read(), theirs, atol=1e-4 * np.abs(theirs).max())
    refused = run(*job.split(), "-m", "lrp", "--native", "-o", "lrp.h5", cwd=samples)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "the relevance at the input, which the tensorflow backend cannot give" in refused.stderr


WRITE = """
import tf_keras, tensorflow as tf
tf_keras.utils.set_random_seed(0)
x = tf_keras.Input((16, 2))
h = tf_keras.layers.Conv1D(3, 3, activation="relu", name="conv")(x)
h = tf.math.erfinv(tf.tanh(h) * 0.5)
tf_keras.Model(x, tf_keras.layers.Dense(3)(tf_keras.layers.GlobalAveragePooling1D()(h))).save("old.h5")
"""


def test_what_cannot_be_imported_runs_in_tensorflow(tmp_path):
    pytest.importorskip("tf_keras")
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRITE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(3, 16, 2)).astype(np.float32))
    words = [
        "explain",
        "--model",
        "old.h5",
        "--data",
        "x.npz",
        "--input",
        "x",
        "--layout",
        "NTC",
        "-m",
        "gradcam",
        "-m",
        "grad",
        "-l",
        "conv",
        "-o",
        "run.h5",
        "-q",
    ]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert "runs math.erfinv of TensorFlow's" in line
    assert line.endswith("--native runs it in TensorFlow itself")
    with open_results(tmp_path / "run.h5") as results:
        assert results.counts() == {"ok": 3}
        assert np.abs(results.map("grad").read()).max() > 0
    again = run(*words, cwd=tmp_path)  # the same command finds it complete
    assert again.returncode == 0
    assert "already complete" in again.stdout
