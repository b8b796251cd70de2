"""Relevance in whole runs: batches, stops, what is fitted, costs, and operators without a rule."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.errors import RequestError
from camsweep.core.results import open_results
from camsweep.core.run import plan_job, run_job

from ..backends.test_passes import Counted
from ..support import Net, maps
from .small_runs import found_by, job_of, loader, near, run, signals
from .test_sweep import Watch

METHODS = [
    "lrp:z", "lrp:z@zbox=data", "lrp:z@sign=mean", "lrp:eps=0.25std", "lrp:eps=0.25std@sign=0.1/-0.2", "lrp:A@flat",
    "lrp:B@zbox=-2/-3:3/2", "lrp:second.a2b1,gamma=0.25@w2", "lrp:eps=0.01,domain=fourier", "lrp:z,bias=ignore",
    "lrp:z,init=one", "lrp:z,init=probability", "lrp:z+sign=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    found = found_by(folder, Net(1), signals(), METHODS, batch_size=2, name="whole.h5")
    assert {name for name, _ in found} == set(METHODS)
    unsummed = {"lrp:z@sign=mean", "lrp:eps=0.25std@sign=0.1/-0.2", "lrp:z+sign=0"}
    assert {name for name, column in found if column == "residual"} == set(METHODS) - unsummed
    return folder, found


@pytest.mark.parametrize(("dtype", "share"), [("float64", 1e-11), ("float32", 1e-3)])
@pytest.mark.parametrize("more", [[], ["grad"]])
def test_batches_of_one_and_of_seven_give_the_same(tmp_path, whole, dtype, share, more):
    """Where gradients are asked for too, relevance has a forward of its own.

    In float32 LRP-z divides by sums that nearly cancel: 3e-4 off float64, and 4e-5 off another batch.
    """
    sizes = {}
    for size in (1, 7):
        found = sizes[size] = found_by(
            tmp_path, Net(1), signals(), METHODS + more, batch_size=size, name=f"{size}.h5", dtype=dtype
        )
        for key, values in whole[1].items():
            near(found[key], values, share, 1.0 if key[1] == "residual" else 0.0)
    for key, values in sizes[7].items():
        near(sizes[1][key], values, 1e-11 if dtype == "float64" else 1e-4, 1.0 if key[1] == "residual" else 0.0)


def test_a_run_gives_what_a_trace_gives(whole):
    x = signals()
    for name in ("lrp:z", "lrp:A@flat", "lrp:z,init=one"):
        [expected] = maps(Net(1), x, [name], target="predicted").values()
        near(whole[1][name, "values"][:, 0], expected.numpy())
    bounds = f"{x.min((0, 2))[0]!r}/{x.min((0, 2))[1]!r}:{x.max((0, 2))[0]!r}/{x.max((0, 2))[1]!r}"
    bounds = bounds.replace("np.float32(", "").replace(")", "")
    [expected] = maps(Net(1), x, [f"lrp:z@zbox={bounds}"]).values()
    near(whole[1]["lrp:z@zbox=data", "values"][:, 0], expected.numpy())


def test_what_is_taken_of_the_dataset_is_in_the_file(whole):
    x = signals()
    with h5py.File(whole[0] / "whole.h5") as file:
        assert np.array_equal(file["inputs/bounds"], [x.min((0, 2)), x.max((0, 2))])
        assert file["maps"].attrs["unruled"] == "{}"
        assert "x_i w_ij" in file["maps/lrp:z"].attrs["formula"]
        assert file["maps/lrp:z,init=one"].attrs["units"] == "share of 1"
        assert file["maps/lrp:z@sign=mean"].attrs["units"] == "score / input"


def costs(folder, methods):
    counted = Counted(1)
    np.savez(folder / "x.npz", x=signals(4), id=np.array([f"item {row}" for row in range(4)]))
    job = job_of(folder, methods, batch_size=4)
    plan = plan_job(job, loader(counted))
    counted.passes.clear()
    run_job(job, loader(counted), watch=Watch())
    counted.passes["forward"] -= 3  # the one sample that was sent through to see layers, operators, and their scores
    return plan.passes, dict(counted.passes)


@pytest.mark.parametrize(
    ("methods", "forward", "backward"),
    [
        (["lrp:z"], 1, 2),
        (["lrp:z", "lrp:z@flat", "lrp:z@sign=0", "lrp:z@w2", "lrp:z@zbox=data", "lrp:z,domain=fourier"], 1, 2),
        (["lrp:z", "lrp:eps=1", "lrp:A", "lrp:A@flat", "lrp:z,init=one"], 1, 8),
        (["lrp:z", "grad"], 2, 4),
        (["lrp:z", "gradcam", "lrp:z@flat"], 2, 4),
    ],
)
def test_a_batch_costs_what_the_plan_says(tmp_path, methods, forward, backward):
    """Of two targets; input rules share all that lies behind the first layer."""
    planned, counted = costs(tmp_path, methods)
    assert (planned["forward"], planned["backward"]) == (forward, backward)
    assert counted == {"forward": forward, "backward": backward}


class Odd(Net):
    """Has operators without a rule."""

    def tail(self, activation):
        return super().tail(torch.special.i0(activation) - torch.special.i0(activation.detach() * 0))


def test_operators_without_a_rule_are_stored_and_can_be_refused(tmp_path):
    with run(tmp_path, Odd(1), signals(), ["lrp:z"]) as results:
        assert results.counts() == {"ok": 7}
        assert results.unruled == {"special_i0": 1}
    with pytest.raises(RequestError, match=r"no rule of relevance for special_i0 \(1x\), and strict is set"):
        run(tmp_path, Odd(1), signals(), ["lrp:z"], name="strict.h5", strict=True)
    with run(tmp_path, Odd(1), signals(), ["grad"], name="grad.h5", strict=True) as results:
        assert results.counts() == {"ok": 7}


def test_a_layer_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RequestError, match=r"lrp: no layer with weights is 'secnd'\. Did you mean 'second'"):
        run(tmp_path, Net(1), signals(), ["lrp:secnd.a2b1,z"])
    assert not list(tmp_path.glob("*.parts"))


def test_a_start_from_a_probability_needs_a_class(tmp_path):
    with pytest.raises(RequestError, match="only a class of the whole input has a probability to start from"):
        run(tmp_path, Net(1), signals(), ["lrp:z,init=probability"], targets=["0-vs-1"])


class Ends(nn.Module):
    """In a softmax, behind in-place operators, out of sight for a moment."""

    def __init__(self):
        super().__init__()
        self.net = Net(1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x -= 0.5
        hidden = self.net.first(x)
        hidden *= 2
        hidden = self.act(hidden)
        scores = self.net.tail(hidden)
        scores += 0.1
        return scores.softmax(1)


def test_in_place_operators_and_a_final_softmax(tmp_path):
    with run(tmp_path, Ends(), signals(), ["lrp:z", "grad"]) as results:
        assert results.counts() == {"ok": 7}
        values, gradient = (results.map(name).read() for name in ("lrp:z", "grad"))
        assert np.allclose(values, gradient * signals()[:, None], rtol=1e-8, atol=1e-10)


def test_names_of_sign_xai_are_stored_as_what_they_are(tmp_path):
    run(tmp_path, Net(1), signals(), ["lrpsign_epsilon_0_25_std_x", "lrp:eps=0.25std@sign=0"]).close()
    with open_results(tmp_path / "run.h5") as results:
        assert list(results.maps) == ["lrp:eps=0.25std@sign=0"]
