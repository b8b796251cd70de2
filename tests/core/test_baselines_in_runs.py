"""Baselines and files that a job names: found, told apart, told by their contents."""

import threading

import numpy as np
import pytest
import torch

from camsweep.core import fits
from camsweep.core.data import DataSection, open_dataset
from camsweep.core.errors import OutputError, RequestError, Stopped

from .small_runs import (
    LENGTH,
    Template,
    found_by,
    from_file,
    near,
    run,
    signals,
    smooth,
)
from .test_sweep import Watch


@pytest.fixture
def odd(tmp_path):
    """A folder whose name the grammar would misread, with a job file in it."""
    folder = tmp_path / "my data+more, a=b:c" / "50%"
    folder.mkdir(parents=True)
    return folder


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
