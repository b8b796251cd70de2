"""What a run costs: the passes that the plan foresees are those that the model sees."""

import numpy as np
import pytest
import torch

from camsweep.core.run import plan_job, run_job

from ..backends.test_passes import Counted
from .small_runs import FEW, everything, found_by, job_of, loader, near, run, signals, smooth
from .test_sweep import Watch


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
