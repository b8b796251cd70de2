"""Counts in bins, and what is drawn of them."""

import re

import numpy as np
import pytest

from camsweep.core.report.histogram import BINS, Histogram


def test_counts_are_those_of_numpy_and_missing_values_are_told():
    values = np.random.default_rng(0).uniform(-2, 3, (50, 4))
    values[:3, 0] = np.nan, np.inf, -np.inf
    made = Histogram.of("x", values)
    known = values[np.isfinite(values)]
    assert made.counts == tuple(np.histogram(known, BINS, (known.min(), known.max()))[0])
    assert (made.missing, made.below, made.above, made.low, made.high) == (3, 0, 0, known.min(), known.max())


def test_far_tails_are_counted_at_the_ends():
    values = np.r_[np.linspace(0, 1, 1000), [1e6, -1e6]]
    made = Histogram.of("x", values)
    assert (sum(made.counts), made.below > 0, made.above > 0) == (1002, True, True)
    assert made.ends[0].startswith("≤ ")
    assert made.ends[1].startswith("≥ ")
    assert -0.1 < made.low < made.high < 1.1


def test_the_outline_has_the_heights_of_the_counts():
    made = Histogram.of("x", np.r_[np.zeros(4), np.ones(1)])
    steps = [(float(y), int(x)) for y, x in re.findall(r"V([\d.e-]+)H(\d+)", made.path)]
    assert [x for _, x in steps] == list(range(1, BINS + 1))
    assert [1 - y for y, _ in steps] == pytest.approx([c / 4 for c in made.counts], abs=2e-3)


def test_zero_is_marked_inside_only():
    assert Histogram.of("x", np.array([-1.0, 3.0])).zero == BINS / 4
    assert Histogram.of("x", np.array([0.0, 3.0])).zero is None


@pytest.mark.parametrize("values", [[], [np.nan, np.inf]])
def test_nothing_comes_of_no_value(values):
    assert Histogram.of("x", np.array(values)) is None


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_one_value_is_one_bar(value):
    made = Histogram.of("x", np.full(5, value))
    assert (made.counts[0], sum(made.counts)) == (5, 5)
