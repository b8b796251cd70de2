"""The solver behind imputation: right for any mask, and in as few steps for a wide hole as for narrow ones."""

import numpy as np
import pytest
import torch

from camsweep.core.metrics import imputation, multigrid
from camsweep.core.metrics.imputation import impute

from . import references as ref

SIZES = [(40, 27), (48, 64), (10, 11, 12), (1, 40, 30), (3, 3, 90)]
RANGES = np.array([1, 1e-6, 1e20])


def mask(kind, sizes):
    """What goes: a hole as wide as the picture, all but one place, corridors, a board of squares."""
    grid = np.indices(sizes)
    middle = (np.array(sizes) // 2).reshape(-1, *[1] * len(sizes))
    return {
        "hole": (abs(grid - middle) < 0.4 * np.array(sizes).reshape(middle.shape)).all(0),
        "all but one": grid.sum(0) > 0,
        "corridors": grid[-1] % 4 < 3,
        "board": (grid // 5).sum(0) % 2 == 0,
    }[kind]


@pytest.fixture
def steps(monkeypatch):
    """The cycles on the finest grid, of turns that were taken."""
    monkeypatch.setattr(imputation, "_scipy", lambda: False)
    solved, cycled, found = multigrid._solved, multigrid.Cycle.__call__, []

    def turn(cycle, rest, exact):
        found.append(0)
        cycle.finest = True
        return solved(cycle, rest, exact)

    def count(self, rest):
        found[-1] += getattr(self, "finest", False)
        return cycled(self, rest)

    monkeypatch.setattr(multigrid, "_solved", turn)
    monkeypatch.setattr(multigrid.Cycle, "__call__", count)
    return found


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["hole", "all but one", "corridors", "board"])
def test_any_mask(sizes, kind, steps):
    """In float32 within 1e-6 of the channel's range, in float64 within 1e-9, by a handful of steps."""
    gone = np.stack([mask(kind, sizes), ~mask(kind, sizes)])
    x = np.random.default_rng(0).normal(size=(2, 3, *sizes)).astype(np.float32)
    x = x * RANGES.astype(np.float32).reshape(3, *[1] * len(sizes))
    expected = np.stack([ref.imputed(*pair) for pair in zip(x.astype(float), gone, strict=True)])
    for dtype, within in ((np.float32, 1e-6), (np.float64, 1e-9)):
        found = impute(torch.as_tensor(x.astype(dtype)), torch.as_tensor(gone)).numpy()
        apart = abs(found - expected).max((0, *range(2, x.ndim))) / RANGES
        assert apart.max() < within, (dtype, apart)
    assert len(steps) == 5
    assert max(steps) <= 16, steps


def test_a_row_alone_is_as_among_others(steps):
    x, gone = torch.randn(5, 2, 70, 80), torch.rand(5, 70, 80) < torch.linspace(0, 1, 5)[:, None, None]
    together = impute(x, gone)
    alone = torch.cat([impute(*each) for each in zip(x.split(1), gone.split(1), strict=True)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [(7, 6), (5, 1), (4, 3, 2)])
def test_coarse_and_fine_are_each_other_transposed(sizes):
    u = torch.randn(*sizes, 1, dtype=torch.float64)
    coarse = multigrid._sums(u)
    v = torch.randn_like(coarse)
    torch.testing.assert_close((coarse * v).sum(), (u * multigrid._between(v, sizes)).sum())


@pytest.mark.parametrize("sizes", [(2, 2), (8, 6), (7, 6), (9, 5)])
def test_pictures_in_one_pass_are_those_axis_by_axis(sizes):
    """In single precision oneDNN, in double precision slices."""
    u = torch.randn(*sizes, 3)
    coarse = multigrid._sums(u)
    for one, many in (
        (multigrid.blurred(u, (0, 1)), multigrid.blurred(u.double(), (0, 1))),
        (coarse, multigrid._sums(u.double())),
        (multigrid._between(coarse, sizes), multigrid._between(coarse.double(), sizes)),
    ):
        torch.testing.assert_close(one.double(), many, rtol=0, atol=1e-5)
