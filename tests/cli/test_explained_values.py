"""What `explain` stores, held against plain torch: layers, targets, scores, resolutions, precision, inputs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from camsweep.core.results import open_results

from .conftest import IMAGES, fill, job_text, load_models
from .references import cam, gradient, parts


def read(path, name):
    with open_results(path) as results:
        return results.map(name).read()


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
