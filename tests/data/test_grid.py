import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from camsweep.core.grid import resize

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
OLD = {1: (11,), 2: (11, 7), 3: (5, 8, 6)}
NEW = {1: [(23,), (4,)], 2: [(25, 9), (4, 3), (25, 3)], 3: [(9, 17, 7), (3, 4, 2)]}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize(("rank", "new"), [(rank, new) for rank in MODES for new in NEW[rank]])
def test_resize_is_torch_s_interpolation(rank, new, dtype, tolerance):
    x = np.random.default_rng(0).random((2, 3, *OLD[rank])).astype(dtype)
    expected = interpolate(torch.from_numpy(x), new, mode=MODES[rank], align_corners=False)
    ours, theirs = resize(x, new), resize(torch.from_numpy(x), new)
    assert ours.dtype == dtype
    assert theirs.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected.numpy(), atol=tolerance, rtol=0)
    np.testing.assert_allclose(theirs.numpy(), expected.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("new", [(9, 13), (57, 44), (17, 60)])
def test_antialias_is_torch_s(new):
    x = torch.rand(2, 3, 40, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = interpolate(x, new, mode="bilinear", align_corners=False, antialias=True).numpy()
    np.testing.assert_allclose(resize(x.numpy(), new, antialias=True), expected, atol=1e-12, rtol=0)
    np.testing.assert_allclose(resize(x, new, antialias=True).numpy(), expected, atol=1e-12, rtol=0)


def test_half_pixel_centres():
    expected = [[0, 0.0625, 0.1875, 0.25], [0.125, 0.203125, 0.359375, 0.4375], [0.375, 0.484375, 0.703125, 0.8125]]
    expected.append([0.5, 0.625, 0.875, 1])
    np.testing.assert_array_equal(resize(np.array([[0, 1], [2, 4]]) / 4, (4, 4)), expected)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("new", [(3, 50), (17, 2)])
def test_a_constant_stays(new, antialias):
    np.testing.assert_allclose(resize(np.full((2, 7, 9), 0.3), new, antialias=antialias), 0.3, rtol=1e-15)


def test_equal_sizes_are_not_copied():
    x, t = np.ones((2, 4, 5)), torch.ones(2, 4, 5)
    assert resize(x, (4, 5)) is x
    assert resize(t, (4, 5)) is t


def test_whole_numbers_become_float32():
    assert resize(np.arange(6).reshape(2, 3), (2, 3)).dtype == np.float32
    assert resize(torch.arange(6), (3,)).dtype == torch.float32


def test_no_leading_axes_are_needed():
    np.testing.assert_allclose(resize(np.array([0.0, 1.0]), (4,)), [0, 0.25, 0.75, 1])
