"""The sweep: the same numbers however the rows are batched, and one bad sample is one bad row."""

import threading

import numpy as np
import pytest
import torch

from camsweep.backends.torch import TorchBackend
from camsweep.core.errors import RequestError, Stopped
from camsweep.core.job import Job
from camsweep.core.results import Parts, Status, open_results
from camsweep.core.run import run_job
from camsweep.core.stages import OFF

from ..support import SHAPES, Net, inputs

METHODS = ["gradcam", "gradcam++", "layercam", "eigencam", "grad", "grad+input"]


class Watch:
    def __init__(self):
        self.notes, self.rows, self.began = [], [], None

    def start(self, done, total):
        self.began = (done, total)

    def advance(self, rows):
        self.rows.append(rows)

    def note(self, message):
        self.notes.append(message)


def run(folder, module, x, *, name="run.h5", stop=None, watch=None, force=False, labels=None, clock=OFF, **sections):
    """Explain ``x`` with ``module`` and open the results."""
    arrays = {"x": x} if labels is None else {"x": x, "y": labels}
    if not (folder / "x.npz").exists():
        np.savez(folder / "x.npz", **arrays)
    rank = x.ndim - 2
    job = Job.load(
        None,
        {
            "model": {"source": "tests:none"},
            "data": {
                "path": "x.npz",
                "input": "x",
                "layout": "NC" + "DHW"[-rank:] if rank > 1 else "NCT",
                **({} if labels is None else {"label": "y"}),
                **sections.get("data", {}),
            },
            "explain": {
                "methods": METHODS,
                "layers": ["first", "second"],
                "targets": ["top:2"],
                **sections.get("explain", {}),
            },
            "output": {"path": name, "commit_every": 0, **sections.get("output", {})},
        },
        folder,
    )

    def load(job):
        return TorchBackend(module, device=torch.device("cpu"), dtype=job.output.compute_dtype)

    run_job(job, load, watch=watch or Watch(), stop=stop, force=force, clock=clock)
    return open_results(folder / name)


def everything(results):
    return {name: view.read() for name, view in results.maps.items()} | {
        "outputs": results.outputs,
        "score": results.target_score,
        "index": results.target_index,
    }


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_batch_sizes_one_seven_and_sixty_four_give_the_same(rank, tmp_path):
    net, x = Net(rank, smooth=True), inputs(rank, 70)
    whole = {}
    for size in (64, 1, 7):
        with run(
            tmp_path, net, x, name=f"{size}.h5", explain={"batch_size": size}, output={"dtype": "float64"}
        ) as results:
            found = everything(results)
        whole = whole or found
        for name, values in found.items():
            largest = np.abs(whole[name]).max()
            assert np.abs(values - whole[name]).max() <= 1e-12 * largest, (size, name)  # sums in another order


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_file_holds_what_the_engine_computes(rank, tmp_path):
    """Stored at the layer's resolution in float64, a CAM is the trace's own; the gradient is plain autograd."""
    net, x = Net(rank), inputs(rank, 5)
    with run(tmp_path, net, x, output={"dtype": "float64", "resolution": "layer"}) as results:
        found = everything(results)
        assert results.input_shape == SHAPES[rank]
    net = net.double()
    leaf = torch.from_numpy(x).double().requires_grad_()
    scores = net(leaf)
    best = scores.topk(2).indices
    assert np.array_equal(found["index"], best.numpy())
    for t in range(2):
        [gradient] = torch.autograd.grad(scores.gather(1, best[:, t : t + 1]).sum(), leaf, retain_graph=True)
        assert np.allclose(found["grad"][:, t], gradient, rtol=1e-12, atol=1e-15)
        assert np.allclose(found["grad+input"][:, t], (gradient * leaf).detach(), rtol=1e-12, atol=1e-15)
    activation = net.first(leaf.detach()).detach().requires_grad_()
    [gradient] = torch.autograd.grad(net.tail(activation).gather(1, best[:, :1]).sum(), activation)
    space = tuple(range(2, activation.ndim))
    cam = (gradient.mean(space, keepdim=True) * activation).sum(1).relu()
    assert np.allclose(found["gradcam@first"][:, 0], cam.detach(), rtol=1e-12, atol=1e-15)


def test_cams_are_resized_linearly_to_the_input(tmp_path):
    net, x = Net(2), inputs(2, 3)
    with run(tmp_path, net, x, name="layer.h5", output={"resolution": "layer"}) as results:
        small = torch.from_numpy(results.map("gradcam@first").read())
    with run(tmp_path, net, x, name="input.h5") as results:
        large = results.map("gradcam@first").read()
    want = torch.nn.functional.interpolate(small, SHAPES[2][1:], mode="bilinear", align_corners=False)
    assert np.allclose(large, want, rtol=1e-5, atol=1e-7)


class Forgetful(Net):
    """Runs out of memory for more than ``most`` samples, or for one whose first value is 99."""

    most = 3

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if (x.flatten(1)[:, 0] == 99).any():
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return super().forward(x)


def test_batches_are_halved_when_memory_runs_out(tmp_path):
    x, watch = inputs(2, 20), Watch()
    x[13, 0, 0, 0] = 99
    with run(tmp_path, Forgetful(2), x, watch=watch, explain={"batch_size": 16}) as results:
        status, messages, found = results.status, results.messages, everything(results)
    assert [note for note in watch.notes if "batches of" in note][-1].startswith("out of memory: batches of 1")
    assert status[13] == Status.FAILED
    assert messages[13] == "out of memory, even alone"
    assert (np.delete(status, 13) == Status.OK).all()
    with run(tmp_path, Net(2), x, name="plain.h5") as results:
        for name, values in everything(results).items():
            good = np.delete(np.arange(20), 13)
            assert np.allclose(found[name][good], values[good], rtol=1e-4, atol=1e-6)
            assert np.isnan(found[name][13]).all() or name == "index"


class Picky(Net):
    def forward(self, x):
        if (x.flatten(1)[:, 0] > 50).any():
            raise ValueError("I do not like\nthis one")
        return super().forward(x)


def test_a_sample_the_model_fails_on_is_one_row(tmp_path):
    x = inputs(2, 20)
    x[5, 0, 0, 0] = 60
    with run(tmp_path, Picky(2), x, explain={"batch_size": 8}) as results:
        assert results.counts() == {"ok": 19, "failed": 1}
        assert results.messages[5] == "ValueError: I do not like"
        assert np.isnan(results.map("grad").read([5])).all()
        assert results.predicted[5] == -1


def test_a_model_that_fails_on_every_sample_ends_the_run(tmp_path):
    x = inputs(2, 20)
    x[1:, 0, 0, 0] = 60  # all but the one that the run is planned with
    with pytest.raises(RequestError, match="every sample of a batch fails with ValueError: I do not like"):
        run(tmp_path, Picky(2), x, explain={"batch_size": 4})


def test_inputs_and_outputs_that_are_not_finite_are_marked(tmp_path):
    class Log(Net):
        def forward(self, x):
            return super().forward(x) + x.flatten(1)[:, :1].clamp(min=0).log() * 0 + 0

    x = np.abs(inputs(2, 12)) + 0.1
    x[3, 0, 2, 2] = np.nan
    x[4, 1, 0, 0] = np.inf
    x[7, 0, 0, 0] = -1.0  # log(0) * 0 is NaN
    with run(tmp_path, Log(2), x, explain={"batch_size": 5}) as results:
        assert results.counts() == {"ok": 9, "non finite": 3}
        assert results.messages[3] == "input has 1 NaN or infinite values"
        assert results.messages[7] == "the model's output is not finite"
        clean = everything(results)
    x[[3, 4, 7]] = 1.0
    (tmp_path / "x.npz").unlink()
    with run(tmp_path, Log(2), x, name="clean.h5", explain={"batch_size": 5}) as results:
        good = np.delete(np.arange(12), [3, 4, 7])
        for name, values in everything(results).items():
            assert np.allclose(clean[name][good], values[good], rtol=1e-4, atol=1e-6)


def test_zero_maps_are_marked(tmp_path):
    net = Net(2)
    with torch.no_grad():
        net.head.weight.zero_()
    with run(tmp_path, net, inputs(2, 4), explain={"methods": ["gradcam"], "layers": ["first"]}) as results:
        assert results.counts() == {"zero map": 4}
        assert results.messages[0] == "gradcam@first is zero everywhere"


def test_a_missing_label_leaves_the_other_targets(tmp_path):
    labels = np.array([0, 1, -1, 2])
    with run(tmp_path, Net(2), inputs(2, 4), labels=labels, explain={"targets": ["predicted", "label"]}) as results:
        assert results.status.tolist() == [1, 1, 4, 1]
        assert results.messages[2] == "no target label: the sample has no label"
        assert results.target_index[:, 1].tolist() == [0, 1, -1, 2]
        maps = results.map("gradcam@first").read()
        assert np.isnan(maps[2, 1]).all()
        assert np.isfinite(maps[2, 0]).all()


def test_half_precision_keeps_small_maps(tmp_path):
    net, x = Net(2), inputs(2, 6)
    with torch.no_grad():
        net.head.weight.mul_(1e-9)
    with run(tmp_path, net, x, name="single.h5") as results:
        single = everything(results)
    with run(tmp_path, net, x, name="half.h5", output={"dtype": "float16"}) as results:
        assert results.map("grad").dtype == "float16"
        half = everything(results)
    for name in ("grad", "gradcam@first"):
        largest = np.abs(single[name]).max(tuple(range(2, single[name].ndim)), keepdims=True)
        assert (np.abs(half[name] - single[name]) <= 2.5e-4 * largest).all()


class Stopping(Watch):
    """Stops a run after its first commit."""

    def __init__(self, stop):
        super().__init__()
        self.stop = stop

    def advance(self, rows):
        super().advance(rows)
        self.stop.set()


def test_stopping_keeps_what_is_done_and_the_same_command_goes_on(tmp_path):
    net, x, stop = Net(2), inputs(2, 40), threading.Event()

    class Stopping(Watch):
        def advance(self, rows):
            super().advance(rows)
            if len(self.rows) == 2:
                stop.set()

    settings = {"explain": {"batch_size": 4}, "output": {"dtype": "float64"}}
    with pytest.raises(Stopped, match=r"stopped with (8|12|16) of 40 rows done"):
        run(tmp_path, net, x, stop=stop, watch=Stopping(), **settings)
    assert not (tmp_path / "run.h5").exists()
    done = int((Parts.open(tmp_path / "run.h5.parts").owners() >= 0).sum())
    assert done in (8, 12, 16)
    watch = Watch()
    with run(tmp_path, net, x, watch=watch, **settings) as results:
        resumed = everything(results)
    assert watch.began == (done, 40)
    assert sum(watch.rows) == 40 - done
    assert not (tmp_path / "run.h5.parts").exists()
    with run(tmp_path, net, x, name="whole.h5", **settings) as results:
        for name, values in everything(results).items():
            assert np.array_equal(resumed[name], values, equal_nan=True), name


def test_commits_can_be_grouped(tmp_path):
    watch = Watch()
    settings = {"explain": {"batch_size": 4}, "output": {"commit_every": 3600.0}}
    run(tmp_path, Net(2), inputs(2, 40), watch=watch, **settings).close()
    assert watch.rows == [40]


def test_another_batch_size_may_finish_a_run(tmp_path):
    net, x, stop = Net(2), inputs(2, 23), threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run(tmp_path, net, x, stop=stop, explain={"batch_size": 5})
    with run(tmp_path, net, x, explain={"batch_size": 3}) as results:
        assert results.counts() == {"ok": 23}
