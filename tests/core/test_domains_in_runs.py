"""Paths, domains, noise and perturbations in whole runs: batches, stops, baselines, single bad samples, costs."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core import fits
from camsweep.core.data import DataSection, open_dataset
from camsweep.core.errors import OutputError, RequestError, Stopped
from camsweep.core.job import Job
from camsweep.core.results import Status, open_results
from camsweep.core.run import plan_job, run_job

from ..backends.test_passes import Counted
from ..support import Net
from ..targets import models
from .test_sweep import Stopping, Watch

RATE, LENGTH, ROWS = 100, 32, 7
METHODS = [
    "grad", "grad+sign=mean", "grad+input:domain=stft",
    "ig:steps=3", "ig:baseline=mean,rule=trapezoid,steps=3", "ig:baseline=blur,steps=3", "ig:baseline=uniform,steps=3",
    "ig:baseline=0.1/-0.2,steps=3", "ig:baseline=item 3,steps=3",
    "ig:steps=3,domain=fourier", "ig:steps=3,domain=fourier,sided=two", "ig:steps=3,domain=fourier,bands=low:0-10/20-40",
    "ig:steps=3,domain=stft", "ig:steps=3,domain=wavelet", "ig:steps=3,domain=wavelet,per=level,wavelet=haar",
    "ig:steps=3,domain=ica", "ig:steps=3,domain=ica,fit=dataset,n=1", "ig:steps=3,domain=parts,period=5",
    "ig:steps=3,domain=cepstrum",
    "smoothgrad:n=3", "smoothgrad2:n=3", "vargrad:n=3",
    "occlusion:window=16", "occlusion:channels=each,fill=mean,window=16", "rise:n=5",
]  # fmt: skip


def signals(count=ROWS, seed=1, shape=(2, LENGTH)):
    return np.random.default_rng(seed).uniform(-2, 2, (count, *shape)).astype(np.float32)


def smooth(classes=3, rank=1):
    return Net(rank, classes, smooth=True)


def job_of(folder, methods, *, name="run.h5", dtype="float64", data=None, **explain):
    sections = {
        "model": {"source": "tests:none"},
        "data": {"path": "x.npz", "input": "x", "id": "id", "layout": "NCT", "rate": RATE, **(data or {})},
        "explain": {"methods": methods, "targets": ["top:2"], **explain},
        "output": {"path": name, "dtype": dtype, "commit_every": 0},
    }
    sections["data"] = {key: value for key, value in sections["data"].items() if value is not None}
    return Job.load(None, sections, folder)


def run(folder, module, x, methods, *, stop=None, watch=None, force=False, arrays=None, **settings):
    """Explain ``x`` with ``module`` and open the results."""
    ids = np.array([f"item {row}" for row in range(len(x))])
    np.savez(folder / "x.npz", **{"x": x, "id": ids, **(arrays or {})})
    job = job_of(folder, methods, **settings)
    run_job(job, loader(module), watch=watch or Watch(), stop=stop, force=force)
    return open_results(job.output.path)


def loader(module):
    def load(job):
        return TorchBackend(
            module, device=torch.device("cpu"), dtype=job.output.compute_dtype, argument=job.data.argument
        )

    return load


def everything(results):
    """{(map, column): array}."""
    found = {}
    for name, view in results.maps.items():
        columns = {"values": view.read(), "residual": view.residual(), "signals": view.signals()}
        found |= {(name, key): values for key, values in columns.items() if values is not None}
    return found


def found_by(folder, module, x, methods, **settings):
    with run(folder, module, x, methods, **settings) as results:
        assert not {"failed", "non finite"} & results.counts().keys(), results.messages
        return everything(results)


def near(found, expected, share=1e-11, floor=0.0):
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() <= share * max(floor, np.abs(expected).max())


# Batches, seeds, stops


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


class Template(nn.Module):
    """A sum over the samples weighted with a 5 Hz wave: it hears nothing else."""

    def __init__(self, length):
        super().__init__()
        wave = np.sin(2 * np.pi * 5 * np.arange(length) / RATE)
        self.weight = nn.Parameter(torch.tensor(np.stack([wave, -wave])))

    def forward(self, x):
        return x[:, 0] @ self.weight.mT.to(x.dtype)


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


# Baselines


@pytest.fixture
def odd(tmp_path):
    """A folder whose name the grammar would misread, with a job file in it."""
    folder = tmp_path / "my data+more, a=b:c" / "50%"
    folder.mkdir(parents=True)
    return folder


def from_file(folder, module, x, methods, **flags):
    ids = np.array([f"item {row}" for row in range(len(x))])
    np.savez(folder / "x.npz", x=x, id=ids)
    (folder / "job.toml").write_text(
        '[model]\nsource = "tests:none"\n[data]\npath = "x.npz"\ninput = "x"\nid = "id"\nlayout = "NCT"\n'
        f'[explain]\nmethods = {methods!r}\n[output]\npath = "run.h5"\ndtype = "float64"\n'
    )
    job = Job.load(folder / "job.toml", flags, Path("/"))
    run_job(job, loader(module), watch=Watch())
    with open_results(folder / "run.h5") as results:
        assert not {"failed", "non finite"} & results.counts().keys(), results.messages
        return {name: view.read() for name, view in results.maps.items()}


OWN = """
class Flip:
    axes = [("backwards", "s")]

    def forward(self, x):
        return x.flip(-1)

    inverse = forward


def halves(x):
    return {"half": x / 2}
"""


def test_files_are_found_beside_the_job_file_whatever_its_folder_is_called(odd):
    x = signals(3)
    (odd / "base lines").mkdir()
    np.save(odd / "base lines" / "o 1.npy", np.float32([0.1, -0.2]))
    np.save(odd / "full.npy", np.broadcast_to(np.float32([[0.1], [-0.2]]), (2, LENGTH)))
    np.save(odd / "third.npy", x[2])
    np.savez(odd / "fit.npz", mixing=np.eye(2), mean=np.zeros(2))
    (odd / "own.py").write_text(OWN)
    found = from_file(odd, smooth(), x, [
        "ig:baseline=0.1/-0.2", "ig:baseline=base lines/o 1.npy", "ig:baseline=full.npy",
        "ig:baseline=item 2", "ig:baseline=third.npy", "ig", "ig:domain=own.py:Flip", "ig:domain=parts,of=own.py:halves",
        "ig:domain=ica,fit=fit.npz", "grad+sign=full.npy", "grad+sign=0.1/-0.2",
        "occlusion:fill=full.npy", "occlusion:fill=0.1/-0.2",
    ])  # fmt: skip
    assert list(found) == [name for name in found if "my data" not in name]
    near(
        found["ig:baseline=o 1.npy"], found["ig:baseline=0.1/-0.2"], 1e-6
    )  # the file's numbers are of single precision
    near(found["ig:baseline=full.npy"], found["ig:baseline=o 1.npy"], 0)
    near(found["ig:baseline=third.npy"], found["ig:baseline=item 2"], 0)
    assert (found["ig:baseline=item 2"][2] == 0).all()
    near(found["ig:domain=own.py:Flip"], found["ig"][..., ::-1])
    near(found["ig:domain=parts,of=own.py:halves"], found["ig"].sum(-1)[..., None] * [0.5, 0.5])
    near(found["ig:domain=ica,fit=fit.npz"][..., :2], found["ig"].sum(-1))
    near(found["grad+sign=full.npy"], found["grad+sign=0.1/-0.2"], 0)
    near(found["occlusion:fill=full.npy"], found["occlusion:fill=0.1/-0.2"], 1e-6)


def test_an_array_as_a_baseline_warns_of_nothing(tmp_path):
    """Warnings are errors here: PyTorch's, of an array that may not be written, comes once in a process."""
    np.save(tmp_path / "o.npy", np.full((2, LENGTH), 0.25))
    torch.set_warn_always(True)
    try:
        found = found_by(tmp_path, smooth(), signals(3), [f"ig:baseline={tmp_path}/o.npy", "ig:baseline=0.25"])
    finally:
        torch.set_warn_always(False)
    near(found["ig:baseline=o.npy", "values"], found["ig:baseline=0.25", "values"])


def test_the_mean_is_that_of_the_good_samples(tmp_path):
    x = signals(70, shape=(2, 5)) + np.float32([[3], [-1]])
    x[4, 0, 1], x[66] = np.nan, np.inf
    good = np.delete(x, [4, 66], 0).astype(float)
    with run(tmp_path, Template(5), x, ["ig:baseline=mean", "grad+sign=mean"], targets=["class:0"]) as results:
        assert results.counts() == {"ok": 68, "non finite": 2}
        values = results.map("ig:baseline=mean").read()[:, 0]
        assert np.isnan(values[[4, 66]]).all()
        weight = Template(5).weight.detach().numpy()[0]
        near(np.delete(values, [4, 66], 0)[:, 0], (good - good.mean((0, 2), keepdims=True))[:, 0] * weight, 1e-6)
        with np.errstate(invalid="ignore"):
            sign = np.where(good >= good.mean((0, 2), keepdims=True), 1, -1)
        signed = np.delete(results.map("grad+sign=mean").read()[:, 0], [4, 66], 0)
        near(signed[:, 0], sign[:, 0] * weight, 1e-6)


def test_the_mean_leaves_out_files_that_cannot_be_read(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for row, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / "images" / f"{row}.png")
    data = (tmp_path / "images" / "1.png").read_bytes()
    (tmp_path / "images" / "1.png").write_bytes(data[: len(data) // 2])
    dataset = open_dataset(DataSection(path=tmp_path / "images"))
    near(np.array(fits.mean(dataset)), pixels[[0, 2, 3]].astype(float).mean((0, 1, 2)))


FILES = {
    "ig:baseline=o.npy,steps=2": ("o.npy", lambda at: np.save(at, np.zeros(2)), lambda at: np.save(at, np.ones(2))),
    "grad+sign=o.npy": ("o.npy", lambda at: np.save(at, np.zeros(2)), lambda at: np.save(at, np.ones(2))),
    "ig:steps=2,domain=ica,fit=fit.npz": (
        "fit.npz",
        lambda at: np.savez(at, mixing=np.eye(2), mean=np.zeros(2)),
        lambda at: np.savez(at, mixing=2 * np.eye(2)[::-1], mean=np.zeros(2)),
    ),
    "ig:steps=2,domain=own.py:Flip": (
        "own.py",
        lambda at: at.write_text(OWN),
        lambda at: at.write_text(OWN.replace("flip(-1)", "flip(1)")),
    ),
    "ig:steps=2,domain=parts,of=own.py:halves": (
        "own.py",
        lambda at: at.write_text(OWN),
        lambda at: at.write_text(OWN.replace("x / 2", "x / 4")),
    ),
}


@pytest.mark.parametrize("method", FILES)
def test_another_file_of_the_same_name_is_another_job(tmp_path, method):
    """Stopped or finished; and by force it is that file that counts."""
    name, before, after = FILES[method]
    x, stop = signals(3), threading.Event()
    asked = [method.replace(name, f"{tmp_path}/{name}"), "ig:steps=2"]
    before(tmp_path / name)

    class Halt(Watch):
        def start(self, done, total):
            stop.set()

    with pytest.raises(Stopped):
        run(tmp_path, smooth(), x, asked, batch_size=1, stop=stop, watch=Halt())
    after(tmp_path / name)
    with pytest.raises(OutputError, match=r"is from another job \(explain\.files differs\)"):
        run(tmp_path, smooth(), x, asked, batch_size=1)
    before(tmp_path / name)
    found = found_by(tmp_path, smooth(), x, asked, batch_size=1)
    after(tmp_path / name)
    with pytest.raises(OutputError, match=r"exists from another job \(explain\.files differs\)"):
        run(tmp_path, smooth(), x, asked)
    changed = found_by(tmp_path, smooth(), x, asked, force=True)
    near(changed["ig:steps=2", "values"], found["ig:steps=2", "values"])
    assert np.abs(changed[method, "values"] - found[method, "values"]).max() > 1e-3


def test_the_same_file_elsewhere_is_the_same_job(tmp_path):
    x = signals(3)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "o.npy", np.zeros(2))
        watch = Watch()
        run(tmp_path, smooth(), x, [f"ig:baseline={tmp_path / folder}/o.npy"], watch=watch).close()
        assert (watch.began is None) == (folder == "b")


@pytest.mark.parametrize("pattern", ["ig:steps={},domain={}/own.py:Half", "ig:steps={},domain=ica,fit={}/fit.npz"])
def test_two_files_of_one_name_do_not_stand_for_each_other(tmp_path, pattern):
    """Refused, or each for itself."""
    for folder, part in (("a", ".5"), ("b", "1")):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "fit.npz", mixing=np.eye(2)[:, : 1 + (part == "1")], mean=np.zeros(2))
        (tmp_path / folder / "own.py").write_text(
            f"class Half:\n    def forward(self, x):\n        return x.roll({part == '1':d}, -1)\n\n"
            f"    def inverse(self, z):\n        return z.roll(-{part == '1':d}, -1)\n"
        )
    x = signals(2)
    asked = [pattern.format(steps, tmp_path / folder) for steps, folder in ((2, "a"), (3, "b"))]
    apart = [found_by(tmp_path, smooth(), x, [each], name=f"{i}.h5") for i, each in enumerate(asked)]
    try:
        both = found_by(tmp_path, smooth(), x, asked)
    except RequestError as error:
        assert "one name" in str(error)  # noqa: PT017
    else:
        for key, values in {**apart[0], **apart[1]}.items():
            near(both[key], values)


# Single bad samples

MOODY = """
class Picky:
    axes = [("place", "")]

    def forward(self, x):
        if (x[:, 0, 0] > 50).any():
            raise ValueError("I do not like\\nthis one")
        return x.flip(-1)

    def inverse(self, z):
        return z.flip(-1)


class Lossy(Picky):
    def forward(self, x):
        return x.clamp(max=50)

    def inverse(self, z):
        return z


class Bent(Lossy):
    def forward(self, x):
        return x.where(x < 50, x * x)

    def inverse(self, z):
        return z.where(z < 50, z.clamp(min=1).sqrt())


class Coarse(Picky):
    '''Loses what is small.'''

    def forward(self, x):
        return x.where(x.abs() > 1e-3, 0)

    def inverse(self, z):
        return z


def short(x):
    return {"part": x[..., 1:] if (x[:, 0, 0] > 50).any() else x / 2}


def turned(x):
    parts = {"third": x / 3, "half": x / 2}
    return dict(reversed(parts.items())) if (x[:, 0, 0] > 50).any() else parts
"""


@pytest.fixture
def moody(tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    return f"{tmp_path}/moody.py"


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("MOODY:Picky", "ValueError: I do not like"),
        ("MOODY:Lossy", "ValueError: domain Lossy: inverse(forward(x)) is off x by"),
        ("MOODY:Bent", "ValueError: domain Bent is not linear"),
        ("parts,of=MOODY:short", "short must give a dict of tensors"),
    ],
)
def test_a_sample_that_the_users_code_fails_on_is_one_row(tmp_path, moody, domain, message):
    x = signals(9)
    x[5, 0, 0] = 60
    asked = ["ig:steps=3,domain=" + domain.replace("MOODY", moody), "ig:steps=3", "occlusion:window=6"]
    with run(tmp_path, smooth(), x, asked, batch_size=4) as results:
        assert results.counts() == {"ok": 8, "failed": 1}
        assert message in results.messages[5]
        found = everything(results)
    x[5] = 1
    for key, values in found_by(tmp_path, smooth(), x, asked, name="good.h5", batch_size=4).items():
        near(np.delete(found[key], 5, 0), np.delete(values, 5, 0), floor=float(key[1] == "residual"))
        assert np.isnan(found[key][5]).all()


def test_whether_a_sample_comes_back_does_not_depend_on_the_batch(tmp_path, moody):
    x = signals(4) + 3 * np.sign(signals(4))
    x[2] *= 1e-4  # all of it is lost; beside the others that is little
    statuses = []
    for size in (1, 4):
        with run(tmp_path, smooth(), x, [f"ig:domain={moody}:Coarse"], batch_size=size, name=f"{size}.h5") as results:
            statuses.append(results.status.tolist())
    assert statuses[0] == [Status.OK, Status.OK, Status.FAILED, Status.OK]
    assert statuses[1] == statuses[0]


def test_parts_are_told_by_their_names(tmp_path, moody):
    x = signals(3)
    x[1, 0, 0] = 60
    method = f"ig:domain=parts,of={moody}:turned"
    with run(tmp_path, smooth(), x, [method, "ig"], batch_size=1) as results:
        view = results.map("ig:domain=parts,of=moody.py:turned")
        assert view.axes[0].labels == ("third", "half", "rest")
        near(view.signals(), x[:, None] * np.array([1 / 3, 1 / 2, 1 / 6]).reshape(1, 3, 1, 1), 1e-6)
        near(view.read(), results.map("ig").read().sum(-1)[..., None] * [1 / 3, 1 / 2, 1 / 6], 1e-6)


def test_a_sick_sample_leaves_its_neighbours_as_they_are(tmp_path):
    methods = [m for m in METHODS if "mean" not in m and "dataset" not in m and "item" not in m]
    x = signals(5)
    clean = found_by(tmp_path, smooth(), x, methods, batch_size=4, name="clean.h5")
    x[2, 1, 5] = np.nan
    with run(tmp_path, smooth(), x, methods, batch_size=4) as results:
        assert results.counts() == {"ok": 4, "non finite": 1}
        assert results.messages[2] == "input has 1 NaN or infinite values"
        for key, values in everything(results).items():
            near(np.delete(values, 2, 0), np.delete(clean[key], 2, 0), 1e-11, float(key[1] == "residual"))
            assert np.isnan(values[2]).all()


SHAPES = """
class Pairs:
    '''(channel, place, half).'''
    axes = [("place", "s"), ("half", "")]

    def forward(self, x):
        return x.unflatten(-1, (-1, 2))

    def inverse(self, z):
        return z.flatten(-2)


class Mixed:
    '''Sum and difference of the channels, which belong to no channel.'''
    per_channel = False
    axes = [("mode", ""), ("place", "s")]

    def forward(self, x):
        return x.new_tensor([[1, 1], [1, -1]]) @ x

    def inverse(self, z):
        return z.new_tensor([[1, 1], [1, -1]]) @ z / 2


class Flat:
    axes = [("place", "")]

    def forward(self, x):
        return x.flatten(1)

    def inverse(self, z):
        return z.unflatten(1, (2, -1))


class Bare:
    def forward(self, x):
        return x.flatten(1)

    def inverse(self, z):
        return z.unflatten(1, (2, -1))
"""


def test_the_users_domains_of_all_shapes(tmp_path):
    (tmp_path / "own.py").write_text(SHAPES)
    x = signals(3)
    names = ["Pairs", "Mixed", "Flat", "Bare"]
    with run(tmp_path, smooth(), x, ["ig", *(f"ig:domain={tmp_path}/own.py:{name}" for name in names)]) as results:
        plain = results.map("ig").read()
        views = {name: results.map(f"ig:domain=own.py:{name}") for name in names}
        told = {
            name: (view.per_channel, view.shape[2:], [(a.name, a.unit) for a in view.axes], view.layout)
            for name, view in views.items()
        }
        assert told == {
            "Pairs": (True, (2, 16, 2), [("place", "s"), ("half", "")], "image"),
            "Mixed": (False, (2, LENGTH), [("mode", ""), ("place", "s")], "image"),
            "Flat": (False, (2 * LENGTH,), [("place", "")], "lines"),
            "Bare": (False, (2 * LENGTH,), [("coefficient 1", "")], "lines"),
        }
        for name in ("Pairs", "Flat", "Bare"):
            near(views[name].read().reshape(plain.shape), plain)
        near(views["Mixed"].read().sum(2), plain.sum(2))


# Costs


def costs(folder, methods, rows=4, batch=4, targets=("top:2",), module=None):
    """The plan's passes and those that the model saw."""
    counted = Counted(1)
    counted.net = module or counted.net
    np.savez(folder / "x.npz", x=signals(rows), id=np.array([f"item {row}" for row in range(rows)]))
    job = job_of(folder, methods, batch_size=batch, targets=list(targets))
    plan = plan_job(job, loader(counted))
    counted.passes.clear()
    run_job(job, loader(counted), watch=Watch())
    counted.passes["forward"] -= 1  # the one sample that was sent through to see the layers
    return (plan.passes["forward"], plan.passes["backward"]), (counted.passes["forward"], counted.passes["backward"])


LINEAR = [f"ig:steps=8,domain={d}" for d in ("time", "fourier", "stft", "wavelet", "ica", "parts,period=4")]


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["ig:steps=8"], (1 + 1 + 8, 16)),
        (LINEAR, (1 + 1 + 8, 16)),
        ([*LINEAR, "ig:steps=8,domain=cepstrum"], (1 + 1 + 8 + 8, 32)),
        (["ig:steps=8,domain=cepstrum", "ig:steps=8,domain=cepstrum,floor=0.1"], (1 + 1 + 8 + 8, 32)),
        ([*LINEAR, "ig:steps=8,baseline=mean"], (1 + 2 + 16, 32)),
        ([*LINEAR, "ig:steps=8,rule=riemann", "ig:steps=3"], (1 + 1 + 8 + 8 + 3, 38)),
        (["ig:steps=8,baseline=blur", "ig:steps=8,baseline=blur,blur=0.2,domain=fourier"], (1 + 2 + 16, 32)),
        (["smoothgrad:n=6", "smoothgrad2:n=6", "vargrad:n=6"], (1 + 6, 12)),
        (["smoothgrad:n=6", "vargrad:n=6,sd=0.1", "grad", "grad+sign"], (1 + 12, 24 + 2)),
        (["occlusion:window=8,stride=4"], (1 + 7, 0)),
        (["occlusion:window=8,stride=4,channels=each", "occlusion:window=8,fill=mean"], (1 + 14 + 7, 0)),
        (["rise:n=9", "rise:n=5,p=0.3"], (1 + 14, 0)),
        (["grad", "grad+input:domain=stft", "ig:steps=2", "rise:n=3", "vargrad:n=2"], (1 + 1 + 2 + 3 + 2, 2 + 4 + 4)),
    ],
)
def test_a_full_batch_costs_what_the_plan_says(tmp_path, methods, expected):
    planned, counted = costs(tmp_path, methods)
    assert planned == expected
    assert counted == expected


@pytest.mark.parametrize(("rows", "batch"), [(3, 16), (1, 32), (5, 7), (32, 32)])
def test_a_dataset_smaller_than_a_batch_costs_what_the_plan_says(tmp_path, rows, batch):
    """Versions are packed: with 3 samples, 5 of each in a batch of 16."""
    methods = [*LINEAR, "ig:steps=8,domain=cepstrum", "smoothgrad:n=7", "occlusion:window=8", "rise:n=11"]
    planned, counted = costs(tmp_path, methods, rows, batch)
    assert counted == planned
    packed = batch // rows
    expected = [-(-count // packed) for count in (8, 8, 7, 7, 11)]
    assert planned == (1 + 1 + sum(expected), 2 * sum(expected[:3]))


def test_more_than_sixteen_targets_go_in_groups(tmp_path):
    """Twenty targets: the forwards of a path twice, those of windows and masks once."""
    methods = ["ig:steps=3", "smoothgrad:n=4", "occlusion:window=16", "rise:n=5"]
    planned, counted = costs(tmp_path, methods, targets=["all"], module=smooth(20))
    assert planned == (1 + 1 + 2 * (3 + 4) + 3 + 5, 20 * 7)
    assert counted == planned


# Targets and models


FEW = ["ig:steps=2,domain=stft", "ig:steps=2", "ig:steps=2,domain=cepstrum", "grad+input:domain=fourier", "smoothgrad:n=2",
       "vargrad:n=2", "occlusion:window=16", "rise:n=3"]  # fmt: skip


def test_many_targets_at_once_equal_each_alone(tmp_path):
    x, net = signals(3), smooth(20)
    many = found_by(tmp_path, net, x, FEW, targets=["all"], batch_size=3)
    for target in (15, 16):
        alone = found_by(tmp_path, net, x, FEW, targets=[f"class:{target}"], batch_size=2, name=f"{target}.h5")
        for (name, column), values in alone.items():
            near(many[name, column][:, [target]], values, 1e-11, float(column == "residual"))


def test_the_two_best_equal_each_sample_with_its_own_class(tmp_path):
    x, net = signals(7) * 3, smooth()
    with torch.no_grad():
        net.head.bias -= net(torch.from_numpy(x)).mean(0)
    with run(tmp_path, net, x, FEW, targets=["top:2"], batch_size=5) as results:
        index, top = results.target_index, everything(results)
    assert len(np.unique(index[:, 0])) > 1
    every = found_by(tmp_path, net, x, FEW, targets=["all"], batch_size=5, name="all.h5")
    for (name, column), values in top.items():
        expected = np.take_along_axis(every[name, column], index.reshape(*index.shape, *[1] * (values.ndim - 2)), 1)
        near(values, expected, 1e-11, float(column == "residual"))


def gradients(score, x, places):
    """Of ``score`` at every place, by autograd."""
    for place in places:
        leaf = place.clone().requires_grad_()
        yield torch.autograd.grad(score(leaf).sum(), leaf)[0]


def integrated(score, x, steps=3):
    """(map, f(x) - f(0)) of ``score``, (n,) of (n, channel, *s), with a baseline of 0."""
    x = torch.from_numpy(x).double()
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = sum(w / 2 * g for w, g in zip(weights, gradients(score, x, [(a + 1) / 2 * x for a in nodes]), strict=True))
    with torch.no_grad():
        return (x * total).numpy(), (score(x) - score(0 * x)).numpy()


def agrees(folder, module, x, target, truth, data=None, arrays=None, **explain):
    """A run's path, and the same path in the Fourier domain, against autograd."""
    asked = ["ig:steps=3", "ig:steps=3,domain=fourier", "occlusion:window=99"]
    data = {"layout": {3: "NCT", 4: "NCHW"}[x.ndim], "rate": None, **(data or {})}
    settings = {"targets": [target], "batch_size": 2, "data": data, "arrays": arrays, **explain}
    found = found_by(folder, module, x, asked, **settings)
    expected, change = integrated(truth, x)
    near(found["ig:steps=3", "values"][:, 0], expected, 1e-9)
    near(
        found["ig:steps=3,domain=fourier", "values"].reshape(len(x), -1).sum(1),
        expected.reshape(len(x), -1).sum(1),
        1e-9,
        1.0,
    )
    near(found["ig:steps=3", "residual"][:, 0], change - expected.reshape(len(x), -1).sum(1), 1e-9, 1.0)
    near(
        found["occlusion:window=99", "values"][:, 0],
        np.broadcast_to(change.reshape(-1, *[1] * (x.ndim - 2)), (len(x), *x.shape[2:])),
        1e-9,
    )


PICTURES = signals(3, shape=(2, 8, 10))


@pytest.mark.parametrize(
    ("args", "explain", "score"),
    [
        ({}, {"score": "probability"}, lambda z: z.softmax(1)[:, 1]),
        ({}, {"score": "log-probability"}, lambda z: z.log_softmax(1)[:, 1]),
        ({"end": "softmax"}, {}, lambda z: z[:, 1]),
        ({"end": "softmax"}, {"score": "probability"}, lambda z: z.softmax(1)[:, 1]),
        ({"end": "sigmoid"}, {"score": "probability"}, lambda z: z[:, 1].sigmoid()),
        ({"gain": 3.0}, {"score": "probability", "activation": "sigmoid"}, lambda z: z[:, 1].sigmoid()),
    ],
)  # fmt: skip
def test_scores_along_the_path(tmp_path, args, explain, score):
    """With a softmax or sigmoid at the end of the model, a logit is what stands before it."""
    plain = models.Vector(**{**args, "end": "none"}).double()
    agrees(tmp_path, models.Vector(**args), PICTURES, "class:1", lambda x: score(plain(x)), **explain)


def test_a_regression(tmp_path):
    net = models.Vector(1).double()
    agrees(tmp_path, models.Vector(1), PICTURES, "output:0", lambda x: net(x)[:, 0])


def test_a_segmentation_over_the_places_of_the_clean_sample(tmp_path):
    net, x = models.Segmenter().double(), PICTURES
    with torch.no_grad():
        hard = net(torch.from_numpy(x).double()).argmax(1) == 1
    assert hard.any((1, 2)).all()
    assert not hard.all((1, 2)).any()
    agrees(
        tmp_path, models.Segmenter(), x, "mask:1",
        lambda x: (net(x)[:, 1] * hard).sum((1, 2)) / hard.sum((1, 2)),
    )  # fmt: skip


def test_further_inputs_stay_with_their_sample(tmp_path):
    age, sex = np.array([0.25, 1.5, -3]), np.array([1, 0, 1])
    net = models.Patient().double()
    agrees(
        tmp_path, models.Patient(), PICTURES, "class:2",
        lambda x: net(torch.from_numpy(age), x, torch.from_numpy(sex))[:, 2],
        data={"extra": {"age": "age", "sex": "sex"}, "argument": "image"}, arrays={"age": age, "sex": sex},
    )  # fmt: skip


class InPlace(nn.Module):
    """Begins by changing its input, and goes on with an in-place ReLU; or the same with copies."""

    def __init__(self, copies):
        super().__init__()
        self.copies, self.net = copies, Net(1)
        self.relu = nn.ReLU(inplace=not copies)

    def forward(self, x):
        if self.copies:
            x = (x - 0.1) * 1.5
        else:
            x.sub_(0.1).mul_(1.5)
        return self.net.head(self.relu(self.net.second(self.relu(self.net.first(x)))).mean(2))


@pytest.mark.parametrize("size", [1, 2])
def test_a_model_that_changes_its_input_in_place_changes_nothing_else(tmp_path, size):
    """Baselines, samples and thresholds are as they were, for the next map and the next batch."""
    x = signals(3)
    np.save(tmp_path / "o.npy", signals(1, 9)[0])
    words = ["zero", "mean", "blur", "uniform", "0.3", "item 2", f"{tmp_path}/o.npy"]
    asked = [f"ig:steps=2,baseline={word}{rest}" for word in words for rest in ("", ",domain=fourier")]
    asked += ["ig:steps=3,domain=cepstrum", "grad+input", f"grad+sign={tmp_path}/o.npy", "smoothgrad:n=3", "rise:n=5"]
    asked += [f"occlusion:window=16,fill={word}" for word in words]
    found, expected = (
        found_by(tmp_path, InPlace(copies), x, asked, batch_size=size, name=f"{copies}.h5") for copies in (False, True)
    )
    for key, values in expected.items():
        near(found[key], values, 1e-11, float(key[1] == "residual"))


def test_a_relu_that_overwrites_the_input_itself(tmp_path):
    x = signals(3)
    nets = [nn.Sequential(nn.ReLU(inplace=inplace), smooth()) for inplace in (True, False)]
    asked = [*FEW, "ig:steps=3,baseline=item 1", "ig:steps=3,baseline=item 1,domain=wavelet"]
    found, expected = (found_by(tmp_path, net, x, asked, name=f"{i}.h5") for i, net in enumerate(nets))
    for key, values in expected.items():
        near(found[key], values, 1e-11, float(key[1] == "residual"))
