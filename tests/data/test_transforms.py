import sys

import numpy as np
import pytest
from PIL import Image
from scipy.signal import butter, sosfiltfilt

from camsweep.core.data import DataSection, open_dataset
from camsweep.core.data.section import located
from camsweep.core.errors import RequestError


@pytest.fixture
def images(tmp_path):
    """Eight images (8, 10, 14, 3) uint8, and a way to open them transformed."""
    x = np.random.default_rng(0).integers(0, 256, (8, 10, 14, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)

    def opened(*transforms, **more):
        return open_dataset(DataSection(path=tmp_path / "x.npy", layout="NHWC", transforms=list(transforms), **more))

    return np.moveaxis(x, 3, 1).astype(np.float32), opened


@pytest.fixture
def series(tmp_path):
    x = np.random.default_rng(1).normal(size=(4, 2, 400)).astype(np.float32)
    np.save(tmp_path / "t.npy", x)

    def opened(*transforms, rate=100.0):
        return open_dataset(DataSection(path=tmp_path / "t.npy", layout="NCT", rate=rate, transforms=list(transforms)))

    return x, opened


def all_of(dataset):
    return dataset.read(range(len(dataset))).values


def test_scale_and_normalize(images):
    x, opened = images
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    dataset = opened({"scale": 1 / 255}, {"normalize": {"mean": mean, "std": std}})
    expected = (x / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(all_of(dataset), expected, atol=1e-6)
    assert all_of(dataset).dtype == np.float32
    np.testing.assert_array_equal(dataset.display(range(8)), x)


def test_normalize_by_one_number(images):
    x, opened = images
    np.testing.assert_allclose(all_of(opened({"normalize": {"mean": 100.0, "std": 50.0}})), (x - 100) / 50, atol=1e-6)


def test_resize_is_pillow_s(images):
    x, opened = images
    dataset = opened({"resize": [6, 5]})
    planes = [[np.asarray(Image.fromarray(c).resize((5, 6), Image.Resampling.BILINEAR)) for c in one] for one in x]
    np.testing.assert_allclose(all_of(dataset), planes, atol=1e-3)
    assert dataset.shape == (3, 6, 5)
    assert [axis.step * size for axis, size in zip(dataset.axes, (6, 5), strict=True)] == pytest.approx([10, 14])
    assert [axis.start for axis in dataset.axes] == pytest.approx([(10 / 6 - 1) / 2, (14 / 5 - 1) / 2])


def test_crop(images):
    x, opened = images
    np.testing.assert_array_equal(all_of(opened({"crop": [4, 7]})), x[:, :, 3:7, 3:10])
    dataset = opened({"crop": {"size": [4, 7], "start": [5, 1]}})
    np.testing.assert_array_equal(all_of(dataset), x[:, :, 5:9, 1:8])
    assert [axis.start for axis in dataset.axes] == [5, 1]


@pytest.mark.parametrize(("align", "row", "column"), [("start", 0, 0), ("center", 1, 3), ("end", 3, 6)])
def test_pad(images, align, row, column):
    x, opened = images
    dataset = opened({"pad": {"size": [13, 20], "value": 7.0, "align": align}})
    expected = np.full((8, 3, 13, 20), 7, np.float32)
    expected[:, :, row : row + 10, column : column + 14] = x
    np.testing.assert_array_equal(all_of(dataset), expected)
    assert [axis.start for axis in dataset.axes] == [-row, -column]


@pytest.mark.parametrize("order", [[2, 1, 0], "bgr"])
def test_channel_order(images, order):
    x, opened = images
    dataset = opened({"channel-order": order})
    np.testing.assert_array_equal(all_of(dataset), x[:, ::-1])
    np.testing.assert_array_equal(dataset.display([1]), x[1:2, ::-1])


def test_names_go_where_their_channels_go(images):
    _, opened = images
    assert opened({"channel-order": "bgr"}, channels=["r", "g", "b"]).channels == ("b", "g", "r")


def test_names_are_those_of_the_stored_channels(images):
    _, opened = images
    assert opened({"channel-order": [1]}, channels=["r", "g", "b"]).channels == ("g",)


def test_resample_keeps_a_ramp(tmp_path):
    t = np.arange(400) / 100
    np.save(tmp_path / "ramp.npy", t[None, None].astype(np.float32))
    dataset = open_dataset(
        DataSection(path=tmp_path / "ramp.npy", layout="NCT", rate=100, transforms=[{"resample": 40}])
    )
    [axis] = dataset.axes
    assert (dataset.shape, axis.step, axis.unit) == ((1, 160), pytest.approx(1 / 40), "s")
    inside = slice(3, -3)
    where = axis.start + axis.step * np.arange(160)
    np.testing.assert_allclose(all_of(dataset)[0, 0, inside], where[inside], atol=2e-4)


def test_bandpass_is_scipy_s(series):
    x, opened = series
    sections = butter(4, [5, 20], "bandpass", fs=100, output="sos")
    dataset = opened({"bandpass": {"low": 5, "high": 20}})
    np.testing.assert_allclose(all_of(dataset), sosfiltfilt(sections, x, axis=-1), atol=1e-5)
    np.testing.assert_array_equal(dataset.display(range(4)), x)


def test_bandpass_without_scipy(series, monkeypatch):
    _, opened = series
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(RequestError, match=r"needs .*pip install 'camsweep\[signal\]'"):
        opened({"bandpass": {"low": 5, "high": 20}})


@pytest.mark.parametrize("name", ["bandpass", "resample"])
def test_filters_need_a_rate(series, name):
    _, opened = series
    with pytest.raises(RequestError, match="rate"):
        opened({name: {"low": 5, "high": 20} if name == "bandpass" else 50}, rate=None)


def test_python_file_relative_to_the_job(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1, 5), np.float32))
    (tmp_path / "mine.py").write_text("def triple(x):\n    return 3 * x\n\ndef bad(x):\n    return x[:1]\n")
    section = DataSection(
        **located({"path": "x.npy", "layout": "NCT", "transforms": [{"python": "mine.py:triple"}]}, tmp_path)
    )
    np.testing.assert_array_equal(all_of(open_dataset(section)), np.full((3, 1, 5), 3))


def test_a_python_file_is_loaded_once(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1, 5), np.float32))
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nwith Path(__file__).with_suffix('.log').open('a') as log:\n    log.write('.')\n"
        "def same(x):\n    return x\n"
    )
    steps = [{"python": f"{tmp_path / 'mine.py'}:same"}]
    dataset = open_dataset(DataSection(path=tmp_path / "x.npy", layout="NCT", transforms=steps))
    dataset.read([0])
    dataset.read([1])
    assert (tmp_path / "mine.log").read_text() == "."


def test_python_faults_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1, 5), np.float32))
    (tmp_path / "mine.py").write_text("def fails(x):\n    return 1 / 0\n\ndef bad(x):\n    return x[0]\n")
    for name, words in {"fails": "ZeroDivisionError", "bad": "made", "gone": "no function|has no"}.items():
        where = f"{tmp_path / 'mine.py'}:{name}"
        section = DataSection(path=tmp_path / "x.npy", layout="NCT", transforms=[{"python": where}])
        with pytest.raises(RequestError, match=words) as error:
            open_dataset(section)
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"scael": 2}, "Did you mean 'scale'"),
        ({"scale": 2, "resize": [3, 4]}, "one key"),
        ({}, "one key"),
        ({"scale": "much"}, "scale"),
        ({"resize": [5]}, "1 size"),
        ({"resize": [5, 0]}, "resize"),
        ({"normalize": {"mean": [1.0, 2.0], "std": [1.0]}}, "2 "),
        ({"normalize": {"mean": 1.0, "std": 0.0}}, "std"),
        ({"channel-order": [0, 3]}, "channel"),
        ({"crop": [40, 40]}, "crop"),
        ({"pad": [4, 4]}, "pad"),
    ],
)
def test_errors_in_one_line(images, item, words):
    _, opened = images
    with pytest.raises(RequestError, match=words) as error:
        opened(item)
    assert "\n" not in str(error.value)
