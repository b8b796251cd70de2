"""How alike maps are, and ARCC."""

import math

import numpy as np
import pytest
import torch

from camsweep.core.metrics import Case, parse_metric, similarity
from camsweep.core.metrics.stability import pearson
from camsweep.core.metrics.versions import Masked, Shaken

from . import references as ref
from .support import case, drawn, value

RANKS = [1, 2, 3]


def norm(u):
    return math.sqrt(sum(v * v for v in u.ravel()))


def answer(text, of, **letters):
    return parse_metric(text)(of, **{k: torch.as_tensor(v) for k, v in letters.items()})


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_similarity_equals_the_loop(rank, per_channel):
    (_, A), (_, B) = drawn(rank, per_channel=per_channel), drawn(rank, per_channel=per_channel, seed=1)
    A[0] = A[0].round()
    ranks, cosines = (
        similarity(torch.as_tensor(A), torch.as_tensor(B)),
        similarity(torch.as_tensor(A), torch.as_tensor(B), "cosine"),
    )
    for i, t in np.ndindex(*A.shape[:2]):
        a, b = A[i, t].ravel(), B[i, t].ravel()
        expected = ref.pearson(ref.midrank(list(abs(a))), ref.midrank(list(abs(b))))
        assert ranks[i, t].item() == pytest.approx(expected, rel=1e-12)
        assert cosines[i, t].item() == pytest.approx((a * b).sum() / norm(a) / norm(b), rel=1e-12)


def test_similarity_by_hand_and_at_its_ends():
    a = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64)
    assert similarity(a, a).item() == similarity(a, -2 * a).item() == pytest.approx(1)  # of what matters, not how
    assert similarity(a, 1 / a).item() == pytest.approx(-1)
    assert similarity(a, -2e-200 * a, "cosine").item() == pytest.approx(-1)
    assert similarity(a, a[..., [1, 0, 2]], "cosine").item() == pytest.approx(13 / 14)
    assert similarity(a, 0 * a + 1).isnan().all()
    wide = torch.arange(7.0, dtype=torch.float64)[None, None]
    assert pearson(wide, 0 * wide + 0.1).isnan().all()  # whose mean is not 0.1
    assert similarity(a, 0 * a, "cosine").isnan().all()


def test_randomisation_and_random_logit():
    _, maps = drawn(2)
    of, others = case(maps), np.stack([drawn(2, seed=s)[1] for s in (0, 1, 2)])
    found = answer("randomisation:by=cosine,steps=3", of, w=others)
    expected = np.stack([similarity(of.whole, torch.as_tensor(each), "cosine") for each in others], 2)
    np.testing.assert_allclose(found.heights, expected)
    np.testing.assert_allclose(found.heights[..., 0], 1)  # a map that did not change
    np.testing.assert_allclose(found.value, expected.mean(2))
    np.testing.assert_allclose(found.at, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(answer("random-logit", of, l=-maps), 1)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_robustness_equals_the_loop(rank, per_channel):
    x, maps = drawn(rank, per_channel=per_channel)
    of, keys = case(maps, x, per_channel=per_channel), "n=4,r=0.1"
    again = parse_metric(f"lipschitz:{keys}").again(of.places)
    assert again == [Shaken(draw, 0.1) for draw in range(4)]
    e = np.stack([drawn(rank, per_channel=per_channel, seed=9 + k)[1] for k in range(4)])
    moved = [[[norm(b[i, t] - maps[i, t]) for b in e] for t in range(2)] for i in range(3)]
    rows = torch.arange(3)
    far = [[norm((each(of, rows, rows) - of.x)[i].numpy()) for each in again] for i in range(3)]
    for i, t in np.ndindex(3, 2):
        relative = [each / norm(maps[i, t]) for each in moved[i][t]]
        assert value(answer(f"max-sensitivity:{keys}", of, e=e))[i, t] == pytest.approx(max(relative))
        assert value(answer(f"mean-sensitivity:{keys}", of, e=e))[i, t] == pytest.approx(np.mean(relative))
        steep = max(m / d for m, d in zip(moved[i][t], far[i], strict=True))
        assert value(answer(f"lipschitz:{keys}", of, e=e))[i, t] == pytest.approx(steep)
    for name in ("max-sensitivity", "mean-sensitivity", "lipschitz"):  # a map that does not move
        assert (value(answer(f"{name}:{keys}", of, e=np.stack([maps] * 4))) == 0).all()


def test_shaking_stays_within_its_radius_and_is_the_samples_own():
    x = np.random.default_rng(0).random((3, 2, 500)) * [[[1]], [[10]], [[100]]] + 3
    of, rows = case(x[:, :1], x), torch.arange(3)
    moved = (Shaken(1, 0.05)(of, rows, rows) - of.x).flatten(1).abs()
    width = of.x.flatten(1).amax(1) - of.x.flatten(1).amin(1)
    assert (moved <= 0.05 * width[:, None] * (1 + 1e-9)).all()
    assert (moved.amax(1) > 0.049 * width).all()
    alone = Shaken(1, 0.05)(of, rows[1:2], rows[1:2])
    torch.testing.assert_close(alone[0], Shaken(1, 0.05)(of, rows, rows)[1], rtol=0, atol=0)


def test_the_mask_is_the_map_from_0_to_1():
    a = torch.tensor([[[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]])
    x = torch.tensor([[[10.0, 20.0, 30.0]]])
    of = Case(a, x=x, seeds=[(0,)])
    made = Masked()(of, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert made.tolist() == [[[0, 20, 15]], [[0, 0, 0]]]


def test_arcc_by_hand():
    a = torch.tensor([[[0.0, 1.0, 2.0, 1.0]]])  # 0, 1/2, 1, 1/2: mean 1/2
    v = torch.tensor([[[0.9, 0.2, 0.7, 0.4]]])  # of each share the least relevant gone, then the most: (0.7 + 0.3) / 2
    of = Case(a, x=a, seeds=[(0,)])
    found = answer("arcc:percent=20.40", of, v=v, e=(2 * a + 1)[None])
    assert found.item() == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.5), rel=1e-6)
    assert answer("arcc:percent=20.40", of, v=v, e=-a[None]).item() == pytest.approx(0, abs=1e-6)  # coherency 0
    assert answer("arcc:percent=20.40", of, v=v.flip(2), e=a[None]).item() == 0  # the opposite of the truth
