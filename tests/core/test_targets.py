"""Targets: which output each column explains."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camsweep.core.errors import RequestError
from camsweep.core.outputs import Outputs, Readout
from camsweep.core.targets import Reading, parse_target, settle

SCORES = torch.tensor([[0.1, 3.0, 2.0, -1.0], [5.0, 5.0, -2.0, 5.0]])
LABELS = torch.tensor([2, -1])
CLASSES = ("cat", "dog", "7", "bird")


def indices(text, scores, labels, classes):
    """The class or output that each column explains, (batch, columns)."""
    outputs = Outputs(scores, torch.arange(len(scores)), {"": scores})
    reading = Reading(Readout(scores.shape[1], names=classes), labels, np.arange(len(scores)))
    return torch.stack([each.index for each in settle(parse_target(text), outputs, reading)], 1)


@pytest.mark.parametrize(
    ("text", "columns", "index"),
    [
        ("predicted", ["predicted"], [[1], [0]]),  # the lower number where two tie
        ("top:3", ["top:1", "top:2", "top:3"], [[1, 2, 0], [0, 1, 3]]),
        ("label", ["label"], [[2], [-1]]),
        ("class:dog", ["class:dog"], [[1], [1]]),
        ("class:7", ["class:7"], [[2], [2]]),  # a name comes before a number
        ("class:3", ["class:3"], [[3], [3]]),
        ("output:0", ["output:0"], [[0], [0]]),
        ("all", ["class:cat", "class:dog", "class:7", "class:bird"], [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ],
)
def test_columns_and_index(text, columns, index):
    target = parse_target(text)
    assert str(target) == text
    assert list(target.columns(Readout(4, names=CLASSES))) == columns
    assert indices(text, SCORES, LABELS, CLASSES).tolist() == index


def test_a_label_the_model_does_not_have_is_undefined():
    assert indices("label", SCORES, torch.tensor([4, 3]), None).tolist() == [[-1], [3]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("predictd", "Did you mean 'predicted'"),
        ("top", "expected top:3"),
        ("top:0", "top:1 or more"),
        ("top:x", "'x' is not a whole number"),
        ("class", "expected class:NAME or class:7"),
        ("class:", "expected class:NAME or class:7"),
        ("label:3", "expected label"),
        ("output:-1", "'-1' is not a whole number from 0"),
        ("", "unknown target ''"),
        ("value:3", "write output:0-vs-value:3"),
        ("all-vs-label", "all is several targets"),
        ("value:1-vs-output:0", "write output:0-vs-value:1"),
        ("label-vs-label", "against itself"),
        ("label-vs-", "one target on each side"),
        ("pixel:cat", "expected pixel:CLASS@Y,X"),
        ("box:cat@1,2,3", "expected box:0 or box:CLASS@X0,Y0,X1,Y1"),
        ("output:0-vs-value:nan", "expected value:72.5"),
    ],
)
def test_what_is_no_target(text, says):
    with pytest.raises(RequestError, match=says):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "classes", "says"),
    [
        ("top:5", CLASSES, "write top:4 or less"),
        ("class:dgo", CLASSES, "no such class. Did you mean 'dog'"),
        ("class:dog", None, "the data name no classes"),
        ("class:9", CLASSES, "outputs 0..3"),
        ("output:4", None, "outputs 0..3"),
        ("class:-1", None, "the data name no classes"),  # never silently the last
    ],
)
def test_what_the_model_does_not_have(text, classes, says):
    with pytest.raises(RequestError, match=says):
        parse_target(text).columns(Readout(4, names=classes))


@given(
    st.lists(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4), min_size=1, max_size=6), st.integers(1, 4)
)
def test_top_is_sorted_distinct_and_begins_with_the_predicted(rows, count):
    scores = torch.tensor(rows)
    labels = torch.full((len(rows),), -1)
    top = indices(f"top:{count}", scores, labels, None)
    assert torch.equal(top[:, :1], indices("predicted", scores, labels, None))
    picked = scores.gather(1, top)
    assert (picked[:, :-1] >= picked[:, 1:]).all()
    assert all(len(set(row)) == count for row in top.tolist())
