"""From a results file whose maps lie on axes of their own to its pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from camsweep.core.data.axes import Axis
from camsweep.core.render import Look, Norm, render
from camsweep.core.render.request import MOST_ROWS, Request
from camsweep.core.results import open_results

from ..results.synthetic import begun, contents, finish, of_a_signal, own, schema


def written(tmp_path, **more):
    which = schema(2, inputs_dtype="float32", targets=["predicted"], ids=["a", "b"], **(of_a_signal() | more))
    parts, output = begun(tmp_path, which)
    rng = np.random.default_rng(0)
    columns = {
        path: rng.standard_normal(values.shape).astype(values.dtype) if values.dtype.kind == "f" else values
        for path, values in contents(which).items()
    }
    columns["samples/status"][:] = 1
    columns["outputs/predicted"][:], columns["targets/index"][:] = 1, 1
    finish(parts, columns, output)
    return open_results(output)


def test_each_layout_is_one_png(tmp_path):
    with written(tmp_path) as results:
        made = render(results, tmp_path / "out")
        assert made.skipped == []
        assert {file.relative_to(tmp_path / "out").as_posix() for file in made.files} == {
            f"{name}/{row:06d}-{sample}.png" for name in results.maps for row, sample in enumerate("ab")
        }
        before = {file: file.stat().st_mtime_ns for file in made.files}
        assert render(results, tmp_path / "out", norm=Norm()) == made
        assert {file: file.stat().st_mtime_ns for file in made.files} == before
    for file in made.files:
        with Image.open(file) as picture:
            assert min(picture.size) > 100


def scenes(results, channels=None):
    return {name: scene for name, _, scene in Request.of(results, None, None, channels).scenes(0, {})}


def test_channels_are_chosen_for_values_inputs_and_parts(tmp_path):
    names = [f"V{k}" for k in range(15)]
    with written(tmp_path, **of_a_signal(15), channels=names) as results:
        every = scenes(results)
        assert {name: len(scene.names) for name, scene in every.items()} == {
            "spectrum": 12, "cepstrum": 12, "stft": 12, "wavelet": 12, "levels": 15, "ica": 15, "parts": 12,
        }  # fmt: skip
        assert "first 12 of 15 channels" in every["stft"].heading
        assert not any("first" in word for name in ("levels", "ica") for word in every[name].heading)
        chosen = scenes(results, ["V14", 0])
        inputs = results.inputs([0])[0]
        for name in ("spectrum", "wavelet", "levels", "parts"):
            assert chosen[name].names == ("V14", "V0")
            np.testing.assert_array_equal(chosen[name].input, inputs[[14, 0]])
            np.testing.assert_array_equal(chosen[name].values, results.maps[name].read([0])[0, 0, [14, 0]])
        parts = results.maps["parts"].signals([0])[0]
        np.testing.assert_array_equal(chosen["parts"].signals, parts[:, [14, 0]])
        assert chosen["ica"].signals.shape == (3, 1, 40)
        assert chosen["ica"].values.shape == (3,)
        assert len(render(results, tmp_path / "out", rows=[0], channels=["V14"]).files) == 7
    (tmp_path / "many").mkdir()
    with written(tmp_path / "many", **of_a_signal(MOST_ROWS + 1)) as results:
        assert f"first {MOST_ROWS} of {MOST_ROWS + 1} channels" in scenes(results)["levels"].heading


def test_pictures_of_images_sum_channels_but_bars_tell_them_apart(tmp_path):
    axes = [Axis("height", "px"), Axis("width", "px")]
    hertz = (Axis("frequency height", "1/px", 1 / 8, -0.5), Axis("frequency width", "1/px", 1 / 12))
    level = Axis("level", "", labels=("A1", "D1"))
    maps = [
        own("fourier", (3, 8, 7), hertz, "image"),
        own("wavelet", (3, 2, 8, 12), (level, *axes), "image"),
        own("levels", (3, 2), (level,), "bars"),
        own("parts", (3, 2), (level,), "bars", signals=(2, 3, 8, 12)),
        own("code", (3, 5), (Axis("coefficient", ""),), "lines"),
    ]
    with written(tmp_path, shape=(3, 8, 12), axes=axes, maps=maps) as results:
        found = scenes(results)
        np.testing.assert_allclose(
            found["fourier"].values, results.maps["fourier"].read([0])[0, 0].sum(0), rtol=1e-5, atol=1e-6
        )
        assert {name for name, scene in found.items() if "summed over channels" in scene.heading} == {
            "fourier", "wavelet",
        }  # fmt: skip
        assert found["levels"].values.shape == (3, 2)
        one = scenes(results, [2])
        assert (one["levels"].values.shape, one["levels"].input.shape) == ((1, 2), (3, 8, 12))
        assert one["parts"].signals.shape == (2, 1, 8, 12)
        files = render(results, tmp_path / "out").files
        assert {file.suffix for file in files} == {".png"}
        assert len(files) == 10


@pytest.mark.parametrize("norm", ["sample", "run"])
def test_volumes_are_png_too(tmp_path, norm):
    axes = [Axis("z", "mm", 3.0), Axis("y", "mm"), Axis("x", "mm")]
    hertz = tuple(Axis(f"frequency {axis.name}", "1/mm", 0.1) for axis in axes)
    level, part = Axis("level", "", labels=("A1", "D1")), Axis("component", "", labels=("1", "rest"))
    maps = [
        own("fourier", (1, 4, 6, 5), hertz, "image"),
        own("wavelet", (1, 2, 4, 6, 8), (level, *axes), "image"),
        own("ica", (2,), (part,), "bars", per_channel=False, signals=(2, 4, 6, 8)),
    ]
    with written(tmp_path, shape=(1, 4, 6, 8), axes=axes, maps=maps) as results:
        made = render(results, tmp_path / "out", look=Look(frames=True, slices=True), norm=Norm.parse(norm))
        assert len(made.files) == 6
        assert {file.suffix for file in made.files} == {".png"}


def test_more_axes_than_a_signal_usually_has_and_none(tmp_path):
    maps = [
        own("deep", (2, 3, 4, 5), tuple(Axis(f"coefficient {k}", "") for k in "123"), "image"),
        own("flat", (2,), (), "image"),
    ]
    with written(tmp_path, maps=maps) as results:
        made = render(results, tmp_path / "out")
        assert [file.parent.name for file in made.files] == ["deep", "deep"]
        assert made.skipped[0] == ("a", "flat has no axis to draw; read it with camsweep.open_results")
        np.testing.assert_allclose(
            scenes(results)["deep"].values, results.maps["deep"].read([0])[0, 0].sum(0), rtol=1e-5, atol=1e-6
        )


def test_other_parts_are_another_picture(tmp_path):
    with written(tmp_path) as results:
        scene = scenes(results)["parts"]
        one, other = scene.signals.copy(), scene.signals.copy()
        other[0, 0, 0] += 1
        assert replace(scene, signals=one).mark == scene.mark
        assert replace(scene, signals=other).mark != scene.mark
        assert replace(scene, own=(Axis("component", "", labels=("x", "y", "z")),)).mark != scene.mark
