"""Fewer digits: the stated error is the error, in the file as in the line, and what cannot be done so is refused."""

import numpy as np
import pytest

from camsweep.core.errors import OutputError, RequestError
from camsweep.core.precision import difference
from camsweep.core.results import open_results

from ..support import Net, inputs
from .test_sweep import METHODS, Stopping, Watch, run

MORE = ["ig:steps=4", "smoothgrad:n=3", "scorecam", "ablationcam", "shapleycam", "fullgrad", "rise:n=16"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_stated_error_is_that_of_the_first_batch(precision, rank, tmp_path):
    net, x, watch = Net(rank, smooth=True), inputs(rank, 12), Watch()
    asked = {"methods": [*METHODS[:4], "grad", *MORE], "layers": ["first"], "batch_size": 8, "targets": ["predicted"]}
    with run(tmp_path, net, x, explain=asked) as results:
        assert (results.precision, results.errors) == ("float32", {})
        full = {name: view.read(slice(0, 8)).astype(float) for name, view in results.maps.items()}
    with run(tmp_path, net, x, name="half.h5", watch=watch, explain={**asked, "precision": precision}) as results:
        assert results.precision == precision
        assert set(results.errors) == set(full)
        for name, (off, like) in results.errors.items():
            low, whole = results.map(name).read(slice(0, 8)).astype(float), full[name]
            assert off == pytest.approx(np.abs(low - whole).max() / np.abs(whole).max(), rel=1e-6, abs=1e-9), name
            found = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(low, whole, strict=True) if b.std() > 0]
            assert like == pytest.approx(min(found), abs=1e-6), name
            assert off < 0.1, name
        assert any(off > 0 for off, _ in results.errors.values()), "or nothing was computed in it"
        assert results.map("grad").dtype == "float32"
    [line] = [note for note in watch.notes if note.startswith(f"{precision} against float32")]
    assert "grad " in line


def test_differences_of_maps_that_lack_something():
    full = np.array([[[1.0, 2.0, 4.0]], [[np.nan] * 3], [[0.0] * 3]])
    low = full * 1.5
    assert difference(low, full) == (0.5, pytest.approx(1.0))
    low[0, 0, 0] = np.inf
    assert difference(low, full)[0] == np.inf
    assert difference(full[2:], full[2:])[0] == 0


def test_it_makes_another_run(tmp_path):
    run(tmp_path, Net(2), inputs(2, 4), explain={"methods": ["grad"]}).close()
    with pytest.raises(OutputError, match=r"another job \(explain\.precision differs\)"):
        run(tmp_path, Net(2), inputs(2, 4), explain={"methods": ["grad"], "precision": "bf16"})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"explain": {"methods": ["lrp:z"]}}, r"lrp:z\S* cannot be had in bf16: .* leave out one of them"),
        ({"output": {"dtype": "float64"}}, "precision bf16 and dtype float64 are asked for; leave one out"),
    ],
)
def test_what_cannot_be_done_is_refused(sections, told, tmp_path):
    sections = {**sections, "explain": {**sections.get("explain", {}), "precision": "bf16"}}
    with pytest.raises(RequestError, match=told):
        run(tmp_path, Net(2), inputs(2, 4), **sections)
    assert not list(tmp_path.glob("*.h5*"))


def test_a_backend_that_has_no_such_switch_refuses(tmp_path):
    from camsweep.backends.torch import TorchBackend

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchBackend, "switches", frozenset())
        with pytest.raises(
            RequestError, match=r"explain\.precision has no meaning for the torch backend here; take it"
        ):
            run(tmp_path, Net(2), inputs(2, 4), explain={"precision": "fp16"})


def test_a_killed_run_goes_on_with_the_same_error(tmp_path):
    import threading

    from camsweep.core.errors import Stopped

    stop, asked = threading.Event(), {"methods": ["grad"], "precision": "bf16", "batch_size": 4}
    with pytest.raises(Stopped):
        run(tmp_path, Net(2), inputs(2, 60), stop=stop, watch=Stopping(stop), explain=asked)
    run(tmp_path, Net(2), inputs(2, 60), explain=asked).close()
    with open_results(tmp_path / "run.h5") as results:
        assert set(results.errors) == {"grad"}
