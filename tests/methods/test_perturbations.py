"""Occlusion and RISE against loops and closed forms."""

import numpy as np
import pytest

from camsweep.core.errors import RequestError

from ..support import SHAPES, Net, inputs, maps
from . import path_references as ref

RANKS = [1, 2, 3]
ODD = {1: (3, 17), 2: (1, 7, 11), 3: (3, 3, 5, 7)}


def near(found, expected, share=1e-9):
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()


def filled(word, x):
    """The baselines that can be said in a few words."""
    if word == "blur":
        return ref.blurred(x)
    return ref.numbers([float(number) for number in ("0" if word == "zero" else word).split("/")], x)


def default(window, stride, sizes):
    window = [given or max(1, size // 8) for given, size in zip(window, sizes, strict=True)]
    return window, [given or max(1, length // 2) for given, length in zip(stride, window, strict=True)]


BOXES = {
    1: [("", [0], [0]), ("window=5", [5], [0]), ("window=4,stride=3", [4], [3]),
        ("window=23", [23], [0])],
    2: [("", [0, 0], [0, 0]), ("window=3", [3, 3], [0, 0]), ("window=2.5,stride=2", [2, 5], [2, 2]),
        ("window=4.3,stride=3.1", [4, 3], [3, 1])],
    3: [("", [0, 0, 0], [0, 0, 0]), ("window=3", [3, 3, 3], [0, 0, 0]), ("window=2.3.4,stride=2.3.3", [2, 3, 4], [2, 3, 3])],
}  # fmt: skip
CASES = [(rank, *box) for rank, boxes in BOXES.items() for box in boxes]


@pytest.mark.parametrize(("rank", "given", "window", "stride"), CASES)
@pytest.mark.parametrize("channels", ["joint", "each"])
@pytest.mark.parametrize("fill", ["zero", "0.5/-0.3", "blur"])
def test_occlusion_equals_the_loop(rank, given, window, stride, channels, fill):
    net, x = Net(rank).double(), inputs(rank, 2)
    window, stride = default(window, stride, SHAPES[rank][1:])
    settings = ",".join(each for each in (given, f"channels={channels}", f"fill={fill}") if each)
    [found] = maps(net, x, [f"occlusion:{settings}"], target=2).values()
    for values, sample in zip(found, x.astype(float), strict=True):
        near(values, ref.occlusion(net, sample, filled(fill, sample), 2, window, stride, channels))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("channels", ["joint", "each"])
def test_occlusion_of_a_linear_model_in_closed_form(rank, channels):
    """A window of w . (x - o): the mean over those that hold a point, of odd sizes and other numbers of channels."""
    x = np.random.default_rng(rank).normal(size=(2, *ODD[rank]))
    net = ref.Linear(ODD[rank])
    [found] = maps(net, x, [f"occlusion:window=3,stride=2,fill=0.4,channels={channels}"], (), 0).values()
    lost = net.of(0) * (x - 0.4)
    if channels == "joint":
        lost = lost.sum(1, keepdims=True)
    sums, counts = np.zeros_like(lost), np.zeros_like(lost)
    starts = [[*range(0, size - 3, 2), size - 3] for size in ODD[rank][1:]]
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, rank):
        box = (..., *(slice(a, a + 3) for a in corner))
        sums[box] += lost[box].sum(tuple(range(2, lost.ndim)), keepdims=True)
        counts[box] += 1
    near(found, (sums / counts)[:, 0] if channels == "joint" else sums / counts)


@pytest.mark.parametrize("rank", RANKS)
def test_a_window_of_one_point_is_the_loss_at_it(rank):
    x = inputs(rank).astype(float)
    net = ref.Linear(x.shape[1:])
    [found] = maps(net, x, ["occlusion:window=1,channels=each,fill=0.25"], (), 1).values()
    near(found, net.of(1) * (x - 0.25))


@pytest.mark.parametrize("rank", RANKS)
def test_a_window_of_the_whole_input_is_the_whole_change(rank):
    net, x = Net(rank).double(), inputs(rank)
    window = ".".join(map(str, x.shape[2:]))
    [found] = maps(net, x, [f"occlusion:window={window},fill=-0.5"], target=1).values()
    change = ref.outputs(net, x)[:, 1] - ref.outputs(net, np.full(x.shape, -0.5))[:, 1]
    near(found, np.broadcast_to(change.reshape(-1, *[1] * rank), found.shape))


def test_occlusion_by_another_sample_and_by_an_array(tmp_path):
    net, x = Net(1).double(), inputs(1)
    np.save(tmp_path / "rest.npy", x[2])
    path = f"{tmp_path}/rest.npy"
    references = {"quiet": x[2].astype(float), path: x[2].astype(float)}
    found = maps(net, x, ["occlusion:fill=quiet", f"occlusion:fill={path}"], target=1, references=references)
    window, stride = default([0], [0], [23])
    for values in found.values():
        for row in range(3):
            expected = ref.occlusion(net, x[row].astype(float), x[2].astype(float), 1, window, stride)
            assert np.abs(values[row].numpy() - expected).max() < 1e-12
        assert (values[2] == 0).all()  # what is replaced by itself loses nothing


@pytest.mark.parametrize("window", ["2.2", "3.3.3"])
def test_windows_name_one_number_or_all(window):
    with pytest.raises(RequestError, match="expected one number"):
        maps(Net(1).double(), inputs(1), [f"occlusion:window={window}"])


@pytest.mark.parametrize(("rank", "given"), [(1, "window=3,stride=4"), (2, "window=3.2,stride=3.3")])
def test_windows_that_leave_gaps_are_refused(rank, given):
    """What no window covers would have no value."""
    with pytest.raises(RequestError, match="stride"):
        maps(Net(rank).double(), inputs(rank), [f"occlusion:{given}"])


# RISE


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("n=20", {"n": 20}),
        ("n=7,cells=3", {"n": 7, "cells": 3}),
        ("n=9,cells=1,p=0.3", {"n": 9, "cells": 1, "p": 0.3}),
        ("n=12,cells=12,p=0.8", {"n": 12, "cells": 12, "p": 0.8}),  # more cells than points along some axes
    ],
)
@pytest.mark.parametrize("fill", ["zero", "0.5/-0.3", "blur"])
@pytest.mark.parametrize("seed", [0, 5])
def test_rise_equals_the_loop(rank, given, known, fill, seed):
    net, x = Net(rank).double(), inputs(rank, 2)
    [found] = maps(net, x, [f"rise:{given},fill={fill}"], target=0, seed=seed).values()
    for values, sample in zip(found, x.astype(float), strict=True):
        near(values, ref.rise(net, sample, filled(fill, sample), 0, seed=seed, **known))


@pytest.mark.parametrize("rank", RANKS)
def test_rise_of_a_linear_model_is_a_sum_over_its_masks(rank):
    x = np.random.default_rng(rank).normal(size=(2, *ODD[rank]))
    net = ref.Linear(ODD[rank])
    [found] = maps(net, x, ["rise:n=50,cells=4,fill=0.4"], (), 1).values()
    seen = ref.masks(ODD[rank][1:], 50, 4).reshape(50, -1)
    w, b = net.of(1), float(net.b.detach()[1])
    for values, sample in zip(found, x, strict=True):
        part = (w * (sample - 0.4)).sum(0).ravel()
        scores = b + 0.4 * w.sum() + seen @ part
        near(values, (scores @ seen / 25).reshape(ODD[rank][1:]))


def test_where_all_is_seen_rise_is_the_score():
    net, x = Net(2).double(), inputs(2)
    [found] = maps(net, x, ["rise:n=3,p=1"], target=1).values()
    near(found, np.broadcast_to(ref.outputs(net, x)[:, 1].reshape(-1, 1, 1), found.shape))


@pytest.mark.parametrize("rank", RANKS)
def test_masks_are_those_of_the_seed_whatever_the_batch(rank):
    net, x = Net(rank).double(), inputs(rank, 16)
    ids = [f"item {row}" for row in range(16)]
    asked = ["rise:n=30", "occlusion:window=4"]
    whole = maps(net, x, asked, target=1, ids=ids)
    for chunk in (1, 5, 32):
        for key, values in maps(net, x, asked, target=1, ids=ids, chunk=chunk).items():
            near(values, whole[key].numpy(), 1e-12)
    for row in (0, 7):
        for key, values in maps(net, x[row : row + 1], asked, target=1, ids=["another"]).items():
            near(values[0], whole[key][row].numpy(), 1e-12)
    other = maps(net, x, asked, target=1, ids=ids, seed=1)
    assert (other["rise:n=30", None] != whole["rise:n=30", None]).any()
    assert (other["occlusion:window=4", None] == whole["occlusion:window=4", None]).all()
