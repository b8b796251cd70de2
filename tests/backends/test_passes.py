"""What a run costs, counted at the model, and what the plan said it would."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.core.job import Job
from camsweep.core.methods import METHODS
from camsweep.core.run import plan_job, run_job

from ..support import Net, inputs

CAMS = [name for name, method in METHODS.items() if method.family == "cam" and name != "dff"]
TARGETS = 3


class Counted(nn.Module):
    """A net that counts how often it goes forward, and how often a gradient comes back to its scores."""

    def __init__(self, rank=2):
        super().__init__()
        self.net = Net(rank, classes=5, smooth=False)
        self.passes = Counter()

    def forward(self, x):
        self.passes["forward"] += 1
        scores = self.net(x)
        if scores.requires_grad:
            scores.register_hook(self.back)
        return scores

    def back(self, gradient):
        self.passes["backward"] += 1
        return gradient


class Quiet:
    def start(self, done, total): ...
    def advance(self, rows): ...
    def note(self, message): ...


def run(folder, methods, layers, rows=4, batch=4):
    """The plan's passes and those that the model saw."""
    np.savez(folder / "x.npz", x=inputs(2, rows))
    job = Job.load(
        None,
        {
            "model": {"source": "unused:net"},
            "data": {"path": str(folder / "x.npz"), "layout": "NCHW"},
            "explain": {"methods": methods, "layers": layers, "targets": [f"top:{TARGETS}"], "batch_size": batch},
            "output": {"path": str(folder / f"{abs(hash(tuple(methods + layers)))}.h5")},
        },
    )
    net = Counted()

    def load(_):
        return TorchBackend(net, device=torch.device("cpu"), dtype="float32")

    plan = plan_job(job, load)
    net.passes.clear()
    run_job(job, load, watch=Quiet())
    net.passes["forward"] -= 1  # the one sample that was sent through to see the layers
    return plan.passes, net.passes


def test_a_run_costs_what_the_plan_says(tmp_path):
    planned, counted = run(tmp_path, CAMS, ["net.first", "net.second"])
    checks = 2  # each layer's tail is held against the whole model once
    assert counted["forward"] == planned["forward"] + checks
    second_order = TARGETS * 2  # Shapley-CAM's, one for each layer; a net of ReLUs has none, and starts none
    assert counted["backward"] == planned["backward"] - second_order


def test_thirteen_methods_at_two_layers_for_three_targets_cost_little_more_than_one(tmp_path):
    gradient = [name for name in CAMS if METHODS[name].asks in (("A", "G"), ("A",)) and METHODS[name].aim is None]
    planned, counted = run(tmp_path, gradient, ["net.first", "net.second"])
    assert len(gradient) >= 12
    assert planned == {"forward": 1, "backward": TARGETS, "tail": 0}
    assert counted == {"forward": 1, "backward": TARGETS}


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("eigencam", {"forward": 1, "backward": 0, "tail": 0}),
        ("gradcam", {"forward": 1, "backward": 3, "tail": 0}),
        ("finercam", {"forward": 1, "backward": 3, "tail": 0}),
        ("fullgrad", {"forward": 1, "backward": 3, "tail": 0}),
        ("guided", {"forward": 1, "backward": 3, "tail": 0}),
        ("guided-gradcam", {"forward": 1, "backward": 6, "tail": 0}),
        ("gradcam:smooth=aug", {"forward": 6, "backward": 18, "tail": 0}),
        ("ablationcam", {"forward": 1, "backward": 0, "tail": 4}),
        ("scorecam", {"forward": 1 + 4, "backward": 0, "tail": 0}),
        ("scorecam:top=2", {"forward": 1 + 2, "backward": 0, "tail": 0}),
    ],
)
def test_each_costs_what_it_says(tmp_path, method, passes):
    planned, counted = run(tmp_path, [method], ["net.first"])
    assert planned == passes
    assert counted["forward"] == passes["forward"] + (method == "ablationcam")
    assert counted["backward"] == passes["backward"]


def test_masked_inputs_are_packed_into_full_batches(tmp_path):
    """Five samples in batches of 4, 4 channels: 4 full batches and one for the last sample, not 4 small ones."""
    _, counted = run(tmp_path, ["scorecam"], ["net.first"], rows=5)
    assert counted["forward"] == (1 + 4) + (1 + 1)
