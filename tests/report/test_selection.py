"""Which samples are shown where there are too many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camsweep.core.report.selection import shares, spread


def filled(sizes, limit):
    """Slowly: one after the other, each time to the group that has got least and has more to give."""
    got = [0] * len(sizes)
    for _ in range(min(limit, sum(sizes))):
        wanting = [k for k, size in enumerate(sizes) if got[k] < size]
        got[min(wanting, key=lambda k: got[k])] += 1
    return got


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 120))
def test_every_group_gives_as_many_as_any_other_while_it_has_some(sizes, limit):
    given_ = shares(np.array(sizes), limit)
    assert sorted(given_.tolist()) == sorted(filled(sizes, limit))
    level = given_.max()
    assert given_.sum() == min(limit, sum(sizes))
    assert all(g == size or g >= level - 1 for g, size in zip(given_, sizes, strict=True))
    assert all(g <= size for g, size in zip(given_, sizes, strict=True))


def test_what_is_left_over_goes_to_the_largest():
    assert shares(np.array([3, 50, 9, 50]), 11).tolist() == [2, 3, 3, 3]
    assert shares(np.array([1, 1, 7, 1]), 2).tolist() == [1, 0, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=60), st.integers(1, 60))
def test_rows_rise_and_there_are_as_many_as_asked(groups, limit):
    chosen = spread(np.array(groups), limit)
    assert len(chosen) == min(limit, len(groups))
    assert (np.diff(chosen) > 0).all()


def test_within_a_group_rows_are_evenly_spaced():
    groups = np.array([[0]] * 100 + [[1]] * 4)
    assert spread(groups, 8).tolist() == [12, 37, 62, 87, 100, 101, 102, 103]


def test_a_hundred_thousand_are_chosen_at_once_and_the_same_every_time():
    groups = np.random.default_rng(0).integers(0, 10, (100_000, 3))
    first = spread(groups, 1000)
    assert first.tolist() == spread(groups.copy(), 1000).tolist()
    _, often = np.unique(groups[first], axis=0, return_counts=True)
    assert (len(often), often.min(), often.max()) == (1000, 1, 1)


@pytest.mark.parametrize("limit", [4, 5])
def test_all_are_shown_where_they_fit(limit):
    assert spread(np.zeros((4, 1), int), limit).tolist() == [0, 1, 2, 3]
