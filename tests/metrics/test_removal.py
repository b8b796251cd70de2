"""What the score does while places go: against loops, by hand, at the ends of the range."""

import numpy as np
import pytest
import torch

from camsweep.core.metrics import METRICS, Case, parse_metric
from camsweep.core.metrics.faithfulness import counts, parts
from camsweep.core.metrics.imputation import impute
from camsweep.core.metrics.versions import Imputed, Masked, Noisy, Removed, Shaken, Subset, scores

from . import references as ref
from .support import case, drawn, metrics, scored, smooth, value

RANKS = [1, 2, 3]


def single(t):
    """The score of one input, (channel, *s)."""
    return lambda x: smooth(torch.as_tensor(x)[None], torch.tensor([t])).item()


def loop(name, f, x, o, a, steps):
    y = f(x)
    at, most = ref.deletion_curve(f, x, o, a, steps)
    least = ref.lerf_curve(f, x, o, a, steps)[1]
    aopc = [sum(y - each for each in curve) / (steps + 1) for curve in (most, least)]
    shares = [ref.rounded(p * a.size / 100) for p in (1, 5, 10, 20, 50)]
    found = ref.order(a)
    masked = f(o + (a - a.min()) / (a.max() - a.min()) * (x - o))
    return {
        "deletion": lambda: ref.area(at, most),
        "insertion": lambda: ref.area(*ref.insertion_curve(f, x, o, a, steps)),
        "aopc": lambda: aopc[0],
        "abpc": lambda: aopc[0] - aopc[1],
        "sufficiency": lambda: np.mean([y - f(ref.without(o, x, found[:k])) for k in shares]),
        "comprehensiveness": lambda: np.mean([y - f(ref.without(x, o, found[:k])) for k in shares]),
        "average-drop": lambda: max(0, y - masked) / y,
        "gain": lambda: max(0, masked - y) / (1 - y),
        "increase": lambda: float(masked > y),
    }[name]()


LOOPS = [
    "deletion",
    "insertion",
    "aopc",
    "abpc",
    "sufficiency",
    "comprehensiveness",
    "average-drop",
    "gain",
    "increase",
]


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_equals_the_loop(name, rank, per_channel):
    x, maps = drawn(rank, per_channel=per_channel)
    keys = "fill=0.3" + (",steps=6" if "steps" in METRICS[name].keys else "")
    found = value(scored(f"{name}:{keys}", case(maps, x, per_channel=per_channel)))
    places = maps.sum(2) if per_channel else maps
    expected = [[loop(name, single(t), own, np.full_like(own, 0.3), a, 6) for t, a in enumerate(row)]
                for own, row in zip(x, places, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_curves_are_kept():
    x, maps = drawn(2)
    for name, curve in (("deletion", ref.deletion_curve), ("insertion", ref.insertion_curve)):
        found = scored(f"{name}:steps=7", case(maps, x))
        at, heights = curve(single(1), x[2], 0 * x[2], maps[2, 1], 7)
        np.testing.assert_allclose(found.at, at)
        np.testing.assert_allclose(found.heights[2, 1], heights)


def linear(x, t):
    """The sum of the first channel over the places: each place is worth what it holds."""
    return x[:, 0].flatten(1).sum(1) * (1 + t)


def test_by_hand():
    x = torch.tensor([[[4.0, 2.0, 1.0, 1.0]]])  # of 8, in this order
    good = Case(x, x=x, seeds=[(0,)])
    assert scored("deletion:steps=4", good, linear).heights.tolist() == [[[8, 4, 2, 1, 0]]]
    assert value(scored("deletion:steps=4", good, linear)).item() == pytest.approx((4 + 4 + 2 + 1) / 4)
    assert scored("insertion:steps=4", good, linear).heights.tolist() == [[[0, 4, 6, 7, 8]]]
    assert value(scored("aopc:steps=4", good, linear)).item() == pytest.approx((0 + 4 + 6 + 7 + 8) / 5)
    assert value(scored("abpc:steps=4", good, linear)).item() == pytest.approx((0 + 3 + 4 + 3 + 0) / 5)
    assert value(scored("comprehensiveness:percent=25.50", good, linear)).item() == 5
    assert value(scored("sufficiency:percent=25.50", good, linear)).item() == 3
    # x a' = 4, 2/3, 0, 0
    assert value(scored("average-drop", good, linear)).item() == pytest.approx((8 - 14 / 3) / 8)


@pytest.mark.parametrize("name", ["deletion", "insertion", "aopc", "abpc", "sufficiency", "comprehensiveness",
                                  "road-confidence:noise=0"])  # fmt: skip
@pytest.mark.parametrize("rank", RANKS)
def test_nothing_is_better_than_the_truth_or_worse_than_its_opposite(name, rank):
    rng = np.random.default_rng(3)
    sizes = drawn(rank)[0].shape[2:]
    x = rng.permutation(np.linspace(0.1, 1, np.prod(sizes)) ** 3).reshape(1, 1, *sizes)
    others = rng.normal(size=(1, 20, *sizes))
    found = value(scored(name, case(np.concatenate([x, -x, others], 1), x), lambda x, t: linear(x, 0 * t)))[0]
    best, worst, rest = found[0], found[1], found[2:]
    if METRICS[name.partition(":")[0]].better == "lower":
        best, worst, rest = -best, -worst, -rest
    assert best > rest.max() >= rest.min() > worst


@pytest.mark.parametrize("places", [1, 4, 23, 100, 50176])
def test_as_many_go_as_were_asked_for(places):
    assert counts(places, 20) == [ref.rounded(t * places / 20) for t in range(21)]
    assert parts(places, "1.5.50.99.100") == [ref.rounded(p * places / 100) for p in (1, 5, 50, 99, 100)]


MAPS = {
    "mostly zeros": lambda a: a * (a > np.quantile(a, 0.98)),
    "constant": lambda a: 0 * a + 2,
    "zeros": lambda a: 0 * a,
    "any": lambda a: a,
}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("change", [Removed, Imputed])
def test_exactly_the_share_goes_of_every_map(rank, kind, change):
    sizes = {1: (200,), 2: (14, 16), 3: (5, 6, 7)}[rank]
    a = MAPS[kind](np.random.default_rng(0).random((2, 3, *sizes)))
    x = np.random.default_rng(1).normal(size=(2, 2, *sizes)) + 5
    of = case(a, x)
    i, t = torch.arange(6) // 3, torch.arange(6) % 3
    for percent in (0, 1, 10, 50, 90, 99, 100):
        [count] = parts(of.places, str(percent))
        gone = {}
        for first in ("most", "least"):
            made = change(first, count)(of, i, t)
            assert made.isfinite().all()
            gone[first] = (made != of.x[i]).all(1).flatten(1)
            assert (gone[first].sum(1) == count).all()
        if 2 * count == of.places:
            assert (gone["most"] ^ gone["least"]).all()
    for r, c in np.ndindex(2, 3):  # what is largest goes first
        ranks, flat = of.ranks[r, c].flatten(), of.a[r, c].flatten()
        assert (flat[ranks.argsort()].diff() <= 0).all()


def test_equal_places_go_in_an_order_of_the_seed():
    a, x = np.zeros((3, 2, 30)), np.ones((3, 1, 30))
    ranks = case(a, x).ranks
    assert (ranks[:, 0] == ranks[:, 1]).all()
    assert len({tuple(each.tolist()) for each in ranks[:, 0]}) == 3
    assert (ranks[:, 0] != torch.arange(30)).any(1).all()


@pytest.mark.parametrize(
    "shape", [(2, 31), (2, 9, 11), (2, 23, 31), (1, 4, 5, 6), (1, 3, 11, 13), (1, 1, 12), (1, 1, 500)]
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("how", ["band", "bands", "multigrid"])
def test_imputation_solves_the_dense_system(shape, share, how, monkeypatch):
    monkeypatch.setattr("camsweep.core.metrics.imputation._scipy", lambda: how != "multigrid")
    if how == "bands":
        monkeypatch.setattr("camsweep.core.metrics.imputation.BAND", 0)
    rng = np.random.default_rng(0)
    x, places = rng.normal(size=(3, *shape)) * 100 - 30, np.prod(shape[1:])
    removed = np.zeros((3, places), bool)
    for row in removed:
        row[rng.permutation(places)[: min(places - 1, int(share * places))]] = True
    removed = removed.reshape(3, *shape[1:])
    found = impute(torch.as_tensor(x), torch.as_tensor(removed)).numpy()
    expected = np.stack([ref.imputed(*pair) for pair in zip(x, removed, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_imputation_by_hand():
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    centre, corner = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    centre[0, 1, 1] = corner[0, 0, 0] = True
    assert impute(x, centre)[0, 0, 1, 1].item() == pytest.approx(4)
    assert impute(x, corner)[0, 0, 0, 0].item() == pytest.approx(2.4)
    line = torch.tensor([[[9.0, 1, 9, 9, 4, 9]]], dtype=torch.float64)
    gone = torch.tensor([[True, False, True, True, False, True]])
    assert impute(line, gone).flatten().tolist() == pytest.approx([1, 1, 2, 3, 4, 4])


@pytest.mark.parametrize("sizes", [(7,), (4, 5), (3, 4, 2), (1, 1)])
def test_where_all_goes_the_mean_stays(sizes):
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(2, 3, *sizes)))
    found = impute(x, torch.ones(2, *sizes, dtype=torch.bool))
    torch.testing.assert_close(found, x.flatten(2).mean(2).reshape(2, 3, *[1] * len(sizes)).expand_as(x))


@pytest.mark.parametrize("rank", RANKS)
def test_road_equals_the_loop(rank):
    x, maps = drawn(rank)
    found = scored("road-confidence:percent=20.60,noise=0", case(maps, x))
    for i, t in np.ndindex(*maps.shape[:2]):
        order, f, halves = ref.order(maps[i, t]), single(t), []
        for percent in (20, 60):
            sides = []
            for side in (order[::-1], order):
                removed = np.zeros(maps.shape[2:], bool)
                for place in side[: ref.rounded(percent * len(order) / 100)]:
                    removed[place] = True
                sides.append(f(ref.imputed(x[i], removed)))
            halves.append((sides[0] - sides[1]) / 2)
        np.testing.assert_allclose(found.heights[i, t], halves, rtol=1e-6)
        np.testing.assert_allclose(found.value[i, t], np.mean(halves), rtol=1e-6)


def test_noise_is_as_wide_as_it_says_and_the_samples_own():
    x = np.random.default_rng(0).normal(size=(2, 1, 60, 60)) * 40
    a = np.random.default_rng(1).normal(size=(2, 1, 60, 60))
    of, i, t = case(a, x), torch.arange(2), torch.zeros(2, dtype=torch.long)
    noisy, still = Imputed("most", 1800, 0.1)(of, i, t), Imputed("most", 1800, 0)(of, i, t)
    drawn_ = (noisy - still)[noisy != of.x].reshape(2, -1)
    assert drawn_.shape[1] == 1800
    np.testing.assert_allclose(drawn_.std(1) / torch.as_tensor(x).flatten(1).std(1), [0.1, 0.1], rtol=0.05)
    assert not torch.equal(drawn_[0], drawn_[1])


@pytest.mark.parametrize("name", metrics("scores"))
@pytest.mark.parametrize("rank", RANKS)
def test_batch_mates_do_not_matter(name, rank):
    x, maps = drawn(rank, n=8)
    maps[::2] *= maps[::2] > 1  # ties
    found = value(scored(name, case(maps, x), batch=16))
    alone = [value(scored(name, case(maps, x, rows=slice(i, i + 1)), batch=1)) for i in range(8)]
    np.testing.assert_allclose(np.concatenate(alone), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["deletion", "insertion", "aopc", "abpc", "road-confidence", "sufficiency",
                                  "comprehensiveness", "average-drop", "gain", "increase"])  # fmt: skip
def test_only_the_order_matters_or_the_scale_does_not(name):
    x, maps = drawn(2)
    found = value(scored(name, case(maps, x)))
    np.testing.assert_allclose(value(scored(name, case(maps * 1e6 + 3, x))), found, rtol=1e-6, atol=1e-9)
    if name not in ("average-drop", "gain", "increase"):
        np.testing.assert_array_equal(value(scored(name, case(np.exp(maps), x))), found)


@pytest.mark.parametrize(
    "version", [Removed("most", 5), Imputed("least", 5), Masked(), Subset(0, 5), Noisy(0, 0.1), Shaken(0, 0.1)]
)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_stay_as_the_model_takes_them(version, rank, dtype):
    x, maps = (torch.as_tensor(each).to(dtype) for each in drawn(rank))
    made = version(Case(maps.half(), x=x, seeds=[(i,) for i in range(3)]), torch.tensor([2, 0]), torch.tensor([1, 1]))
    assert (made.dtype, made.shape) == (dtype, (2, *x.shape[1:]))
    assert ((made - x[[2, 0]]).flatten(1) != 0).any(1).all()


def test_equal_inputs_are_scored_once_and_batches_are_full():
    x, maps = drawn(1, n=3)
    of = case(maps, x)
    sizes = []

    def score(inputs, i, t):
        sizes.append(len(inputs))
        torch.testing.assert_close(inputs.shape[1:], of.x.shape[1:])
        return smooth(inputs, t)

    plans = [parse_metric(f"{name}:steps=10").plan(of.places) for name in ("deletion", "aopc", "abpc")]
    scores([each for plan in plans for each in plan], of, score, 16)
    assert sum(sizes) == (9 + 9 + 1) * 6  # two orders of steps that share the last
    assert set(sizes[:-1]) == {16}
