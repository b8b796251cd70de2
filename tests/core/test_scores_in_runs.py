"""Which score is explained along a path, and models that change their input."""

import numpy as np
import pytest
import torch
from torch import nn

from ..support import Net
from ..targets import models
from .small_runs import FEW, found_by, near, signals, smooth


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
