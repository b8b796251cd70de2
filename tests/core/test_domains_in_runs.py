"""Paths, domains, noise and perturbations in whole runs: batches, seeds, stops, axes."""

import threading

import numpy as np
import pytest
import torch

from camsweep.core import fits
from camsweep.core.errors import Stopped
from camsweep.core.results import open_results

from .small_runs import (
    LENGTH,
    METHODS,
    RATE,
    ROWS,
    Template,
    found_by,
    near,
    run,
    signals,
    smooth,
)
from .test_sweep import Stopping, Watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All methods in batches of 2, and the folder they lie in."""
    folder = tmp_path_factory.mktemp("whole")
    found = found_by(folder, smooth(), signals(), METHODS, batch_size=2, name="whole.h5")
    assert {name for name, _ in found} == set(METHODS)
    assert {name for name, column in found if column == "residual"} == {m for m in METHODS if m.startswith("ig")}
    assert len([name for name, column in found if column == "signals"]) == 3
    return folder, found


@pytest.mark.parametrize(("dtype", "share"), [("float64", 1e-11), ("float32", 1e-6)])
def test_batches_of_one_five_and_sixteen_give_the_same(tmp_path, whole, dtype, share):
    x, sizes = signals(), {}
    for size in (16, 1, 5):
        sizes[size] = found_by(tmp_path, smooth(), x, METHODS, batch_size=size, name=f"{size}.h5", dtype=dtype)
    for size in (1, 5):
        for key, values in sizes[size].items():
            score = 1.0 if key[1] == "residual" else 0.0  # it is what scores of about 1 leave
            near(values, sizes[16][key], share, score)
    if dtype == "float64":
        for key, values in whole[1].items():
            near(sizes[16][key], values, share, 1.0 if key[1] == "residual" else 0.0)
    else:
        for key, values in whole[1].items():
            near(sizes[16][key], values, 1e-3, 1.0)


def test_the_seed_decides_on_all_that_is_random_and_on_nothing_else(tmp_path, whole):
    again = found_by(tmp_path, smooth(), signals(), METHODS, batch_size=2)
    other = found_by(tmp_path, smooth(), signals(), METHODS, batch_size=2, name="other.h5", seed=1)
    random = ("smoothgrad", "vargrad", "rise", "ig:baseline=uniform")
    for (name, column), values in whole[1].items():
        assert np.array_equal(again[name, column], values), name
        if name.startswith(random):
            rows = (other[name, column] != values).reshape(len(values), -1).any(1)
            assert rows.all(), (name, column)
        elif "ica" not in name:  # two fits of the same components, to rounding
            assert np.array_equal(other[name, column], values), name


def stopped(folder, **settings):
    stop = threading.Event()
    with pytest.raises(Stopped):
        run(folder, smooth(), signals(), METHODS, batch_size=2, stop=stop, watch=Stopping(stop), **settings)


def test_a_stopped_run_goes_on_with_the_same_fits(tmp_path, whole, monkeypatch):
    stopped(tmp_path)
    monkeypatch.setattr(fits, "mean", None)  # found once: a second time would fail
    monkeypatch.setattr(fits, "independent", None)
    watch = Watch()
    found = found_by(tmp_path, smooth(), signals(), METHODS, batch_size=2, watch=watch)
    assert 0 < watch.began[0] < ROWS
    for key, values in whole[1].items():
        assert np.array_equal(found[key], values), key


def test_force_begins_anew(tmp_path, whole):
    stopped(tmp_path)
    for began in ("unfinished", "finished"):
        watch = Watch()
        found = found_by(tmp_path, smooth(), signals(), METHODS, batch_size=2, watch=watch, force=True)
        assert watch.began == (0, ROWS), began
        assert not (tmp_path / "run.h5.parts").exists()
        for key, values in whole[1].items():
            assert np.array_equal(found[key], values), key


# What the file holds


def test_the_residual_is_what_the_sum_of_the_map_misses(whole):
    folder, _ = whole
    net, x = smooth().double(), torch.from_numpy(signals()).double()
    mean = x.mean((0, 2), keepdim=True).float().double()  # data are of single precision, and so is their mean
    baselines = {
        "baseline=mean": mean.expand_as(x),
        "baseline=0.1/-0.2": x.new_tensor([[0.1], [-0.2]]).expand_as(x),
        "baseline=item 3": x[3].expand_as(x),
    }
    with open_results(folder / "whole.h5") as results, torch.no_grad():
        score = torch.from_numpy(results.target_score)
        index = torch.from_numpy(results.target_index).long()
        assert torch.allclose(net(x).gather(1, index), score, rtol=1e-12)
        checked = 0
        for name, view in results.maps.items():
            known = [o for text, o in baselines.items() if text in name]
            if view.residual() is None or "blur" in name or "uniform" in name:
                continue
            change = score - net(known[0] if known else 0 * x).gather(1, index)
            missed = change.numpy() - view.read().reshape(ROWS, 2, -1).sum(2)
            near(view.residual(), missed, 1e-11, 1.0)
            assert np.abs(missed).max() < np.abs(change.numpy()).max(), name
            checked += 1
        assert checked == 14


def test_signals_of_parts_add_up_to_the_sample(whole):
    folder, _ = whole
    with open_results(folder / "whole.h5") as results:
        view = results.map("ig:steps=3,domain=parts,period=5")
        assert view.signals_shape == (3, 2, LENGTH)
        near(view.signals().sum(1), signals().astype(float), 1e-12)
        assert view.axes[0].labels == ("trend", "season", "rest")
        assert view.read().shape == (ROWS, 2, 2, 3)
        one = results.map("ig:steps=3,domain=ica,fit=dataset,n=1")
        assert one.signals_shape == (2, LENGTH)
        assert one.axes[0].labels == ("1", "rest")


def test_axes_say_where_the_energy_of_a_wave_lies(tmp_path):
    """A wave of 5 Hz in the first channel, only between 1 and 1.5 s in the second sample."""
    t = np.arange(200) / RATE
    wave = np.sin(2 * np.pi * 5 * t)
    x = np.stack([wave, wave * ((t >= 1) & (t < 1.5))])[:, None].astype(np.float32)
    domains = [
        "fourier",
        "fourier,sided=two",
        "fourier,bands=eeg",
        "stft,hop=10,length=40",
        "wavelet",
        "wavelet,per=level",
    ]
    with run(tmp_path, Template(200), x, [f"ig:steps=2,domain={d}" for d in domains], targets=["class:0"]) as results:
        views = [results.map(f"ig:steps=2,domain={domain}") for domain in domains]
        one, two, bands, stft, wavelet, level = views
        for view in views:
            near(view.read().reshape(2, -1).sum(1), (x[:, 0] * wave).sum(1), 1e-9)

        def peak(view, row):
            values = view.read([row])[0, 0, 0]
            places = np.unravel_index(np.abs(values).argmax(), values.shape)
            return [a.labels[i] if a.labels else a.coordinates(n)[i]
                    for a, i, n in zip(view.axes, places, values.shape, strict=True)]  # fmt: skip

        assert [axis.unit for axis in one.axes] == ["Hz"]
        assert peak(one, 0) == pytest.approx([5])
        assert np.abs(peak(two, 0)) == pytest.approx([5])
        assert two.axes[0].start == pytest.approx(-50)
        assert peak(bands, 0) == ["theta 4-8 Hz"]
        assert [(axis.name, axis.unit) for axis in stft.axes] == [("frequency", "Hz"), ("time", "s")]
        frequency, time = peak(stft, 1)
        assert frequency == pytest.approx(5)
        assert 1.1 < time < 1.4
        assert peak(level, 0) == ["D4 3.12-6.25 Hz"]
        label, time = peak(wavelet, 1)
        assert label == "D4 3.12-6.25 Hz"
        assert wavelet.axes[1] == results.axes[0]
        assert 0.9 < time < 1.6
