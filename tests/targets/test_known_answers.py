"""Every kind of model and target, held against an answer known by hand or from torch's autograd alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.results import Status

from . import models
from .conftest import MODELS, ablationcam, known, of, outputs, same, samples

NAMES = np.array(["cat", "dog", "emu", "fox"])
PLACES = {1: (16,), 2: (8, 10), 3: (4, 5, 6)}
PICTURES = samples(7, 9)

# detectors


def anchored(rank, x, i, listed=False):
    """Scores of all anchors, and the map of sample n's anchor i[n]: its channel over its region, divided by its size."""
    net = models.Detector(rank)
    A = known(net, x, lambda out: out["scores"].sum(1)).A
    regions = [tuple(slice(a[k], a[rank + k]) for k in reversed(range(rank))) for a in models.ANCHORS[rank]]
    scores = np.stack([A[(slice(None), m, *where)].reshape(len(x), -1).mean(1) for m, where in enumerate(regions)], 1)
    maps = np.zeros((len(x), *x.shape[2:]))
    for n, m in enumerate(i(scores)):
        if m is not None:
            maps[(n, *regions[m])] = A[(n, m, *regions[m])] / A[(n, m, *regions[m])].size
    return scores, maps


def near(anchor, by=0.25):
    """The anchor with its first corner moved a little."""
    return ",".join(map(str, (anchor[0] + by, *anchor[1:])))


@pytest.fixture(scope="module", params=[1, 2, 3])
def detected(request, sweep):
    first, second = (near(anchor) for anchor in models.ANCHORS[request.param][:2])
    targets = [
        "box:0", "box:1", f"box:dog@{first}", f"box:emu@{second}", f"box:cat@{second}", f"box:1@{first}-vs-box:2@{second}",
        "box:0-vs-box:1",
    ]  # fmt: skip
    x = samples(*PLACES[request.param])
    answer = sweep("Detector", x, targets, args={"rank": request.param}, arrays={"classes": NAMES[:3]})
    return request.param, x, answer


@pytest.mark.parametrize(
    ("column", "which"),
    [
        (0, lambda scores: scores.argmax(1)),
        (1, lambda scores: (-scores).argsort(1)[:, 1]),
        (2, lambda scores: [0] * len(scores)),
        (3, lambda scores: [1] * len(scores)),
    ],
)
def test_a_box_explains_its_own_region_and_nothing_else(detected, column, which):
    rank, x, answer = detected
    scores, maps = anchored(rank, x, which)
    same(answer.maps["hirescam@features"][:, column], maps)
    assert not answer.maps["hirescam@features"][:, column][maps == 0].any()
    same(answer.score[:, column], scores[np.arange(len(x)), which(scores)])
    assert list(answer.index[:, column]) == [models.LABELS[i] for i in which(scores)]


def test_a_box_of_another_class_is_not_found(detected):
    _, _, answer = detected
    assert not answer.score[:, 4].any()
    assert not answer.maps["hirescam@features"][:, 4].any()


def test_two_boxes_are_held_against_each_other(detected):
    _, _, answer = detected
    maps = answer.maps["hirescam@features"]
    for contrast, first, second in ((5, 2, 3), (6, 0, 1)):
        same(maps[:, contrast], maps[:, first] - maps[:, second])
        same(answer.score[:, contrast], answer.score[:, first] - answer.score[:, second])
    assert list(answer.foil[:, 5]) == [2] * len(maps)


def test_a_box_that_overlaps_by_less_than_half_scores_nothing(sweep):
    x0, y0, _, y1 = models.ANCHORS[2][1]
    answer = sweep(
        "Detector", samples(*PLACES[2]), [f"box:2@{x0},{y0},{x0 + 2},{y1}", f"box:2@{x0},{y0},{x0 + 3},{y1}"]
    )
    assert not answer.score[:, 0].any()
    assert answer.score[:, 1].all()


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("place", [0, 1])
def test_a_list_of_detections_may_vary_in_length(sweep, rank, place):
    x = samples(*PLACES[rank], count=12)

    def which(scores):
        order = (-scores).argsort(1)[:, place]
        return [i if scores[n, i] > 0 else None for n, i in enumerate(order)]

    scores, maps = anchored(rank, x, which)
    there = np.array([i is not None for i in which(scores)])
    assert {0, 1, 2} <= set((scores > 0).sum(1))
    answer = sweep("Detector", x, [f"box:{place}"], args={"rank": rank, "listed": True})
    same(answer.maps["hirescam@features"][there, 0], maps[there])
    same(answer.score[there, 0], -np.sort(-scores)[there, place])
    assert list(answer.status == Status.OK) == list(there)
    assert set(answer.status[~there]) == {Status.FAILED}
    assert all(f"box:{place}" in answer.messages[row] for row in np.flatnonzero(~there))


def test_a_sample_without_detections_is_done_too(sweep):
    x = samples(*PLACES[2], count=12)
    scores, _ = anchored(2, x, lambda found: [0] * len(found))
    none = (scores <= 0).all(1)
    assert none.any()
    anchor = ",".join(map(str, models.ANCHORS[2][0]))
    answer = sweep("Detector", x, [f"box:{models.LABELS[0]}@{anchor}"], args={"listed": True})
    assert set(answer.status[none]) == {Status.ZERO_MAP}
    assert not answer.score[none].any()


# segmentation

WHERE = {1: (5,), 2: (2, 3), 3: (1, 2, 3)}


def over(number, weight):
    """The mean of a class over the places where the weight is not 0."""
    return lambda z: (z[:, number] * (weight != 0)).flatten(1).sum(1) / (weight != 0).flatten(1).sum(1)


def predicted_nowhere(rank):
    """Three samples; class 1 is predicted nowhere in the last."""
    x = samples(*PLACES[rank], seed=0)
    x[2, 0], x[2, 1] = 0 if rank == 2 else -3, 1
    found = outputs(models.Segmenter(rank), x).argmax(1)
    assert [(found[n] == 1).any() for n in range(3)] == [True, True, False]
    assert [(found[n] == 0).any() for n in range(2)] == [True, True]
    return x


def test_augmented_inputs_are_not_flipped_where_the_target_is_at_a_place(sweep):
    x = samples(*PLACES[2])
    answer = sweep("Segmenter", x, ["pixel:1@2,3"], methods=["hirescam:smooth=aug"])
    expected = [
        known(models.Segmenter(2), x.astype(np.float64) * gain, lambda z: z[:, 1, 2, 3]).hirescam
        for gain in (1, 0.9, 1.1)
    ]
    same(answer.maps["hirescam:smooth=aug@features"][:, 0], np.mean([np.asarray(each) for each in expected], 0))


@pytest.fixture(
    scope="module",
    params=[(1, "none", "logit"), (2, "none", "logit"), (3, "none", "logit"), *[(2, "softmax", s) for s in ("logit", "probability", "log-probability")]],
    ids=lambda case: "{}d-{}-{}".format(*case),
)  # fmt: skip
def segmented(request, sweep, tmp_path_factory):
    """The answer, and each target's score as a function of the logits."""
    rank, end, score = request.param
    x, folder = predicted_nowhere(rank)[:2], tmp_path_factory.mktemp("masks")
    each, one = (np.random.default_rng(4).integers(-1, 2, size) for size in ((2, *PLACES[rank]), PLACES[rank]))
    np.save(folder / "each.npy", each)
    np.save(folder / "one.npy", one > 0)
    at, text = (..., *WHERE[rank]), ",".join(map(str, WHERE[rank]))
    z = torch.from_numpy(outputs(models.Segmenter(rank), x))
    hard, there = z.argmax(1), z.argmax(1)[at]
    scores = {
        "mask:1": over(1, hard == 1),
        f"mask:0@{folder / 'each.npy'}": over(0, torch.from_numpy(each)),
        f"mask:2@{folder / 'one.npy'}": over(2, torch.from_numpy(one > 0)[None]),
        f"pixel:1@{text}": lambda z: z[:, 1][at],
        f"pixel:predicted@{text}": lambda z: of(there)(z[at]),
        "mask:1-vs-mask:0": lambda z: over(1, hard == 1)(z) - over(0, hard == 0)(z),
    }
    form = {"logit": lambda z: z, "probability": lambda z: z.softmax(1), "log-probability": lambda z: z.log_softmax(1)}
    answer = sweep(
        "Segmenter", x, list(scores), args={"rank": rank, "end": end}, score=score, methods=["hirescam", "gradcam"]
    )
    references = [known(models.Segmenter(rank), x, lambda z, f=f: f(form[score](z))) for f in scores.values()]
    return answer, references, there


@pytest.mark.parametrize(
    "column", range(6), ids=["mask", "mask of each", "mask of all", "pixel", "pixel predicted", "mask vs mask"]
)
def test_segmentation_is_explained_as_autograd_says(segmented, column):
    answer, references, there = segmented
    for method in ("hirescam", "gradcam"):
        same(answer.maps[f"{method}@features"][:, column], getattr(references[column], method))
    same(answer.score[:, column], references[column].score)
    assert list(answer.index[:, column]) == [[1, 1], [0, 0], [2, 2], [1, 1], there.tolist(), [1, 1]][column]
    assert (answer.status == Status.OK).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_class_that_is_predicted_nowhere_fails_its_sample_alone(sweep, rank):
    x = predicted_nowhere(rank)
    answer = sweep("Segmenter", x, ["mask:1"], args={"rank": rank})
    assert list(answer.status) == [Status.OK, Status.OK, Status.FAILED]
    assert "mask:1" in answer.messages[2]
    assert "nowhere" in answer.messages[2]
    hard = torch.from_numpy(outputs(models.Segmenter(rank), x[:2])).argmax(1)
    same(answer.maps["hirescam@features"][:2, 0], known(models.Segmenter(rank), x[:2], over(1, hard == 1)).hirescam)


@pytest.mark.parametrize("turned", [False, True])
def test_a_contrast_that_fails_says_which_side_is_not_there(sweep, turned):
    contrast = "mask:1-vs-mask:0" if turned else "mask:0-vs-mask:1"
    answer = sweep("Segmenter", predicted_nowhere(2), [contrast])
    assert list(answer.status) == [Status.OK, Status.OK, Status.FAILED]
    assert "mask:1" in answer.messages[2].replace(contrast, "")
    assert "mask:0" not in answer.messages[2].replace(contrast, "")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("target", ["predicted", "class:1", "label"])
def test_a_class_of_a_whole_segmentation_is_refused_with_what_to_write(refused, rank, target):
    line = refused("Segmenter", samples(*PLACES[rank]), [target], args={"rank": rank}, arrays={"label": np.arange(3)})
    assert "mask:" in line
    assert "pixel:" in line


# embeddings


def test_cosine_to_a_sample_is_1_at_itself_and_autograds_elsewhere(sweep):
    x = samples(7, 9, count=4)
    ids = np.array([f"scan-{n}" for n in range(4)])
    answer = sweep(
        "Vector", x, ["cosine:scan-2"], args={"outputs": 5}, methods=["gradcam", "hirescam"], arrays={"id": ids}
    )
    assert answer.score[2, 0] == pytest.approx(1, abs=1e-12)
    reference = torch.from_numpy(outputs(models.Vector(5), x))[2]
    expected = known(models.Vector(5), x, lambda z: nn.functional.cosine_similarity(z, reference[None], dim=1, eps=0))
    same(answer.maps["gradcam@features"][:, 0], expected.gradcam)
    same(answer.maps["hirescam@features"][:, 0], expected.hirescam)
    same(answer.score[:, 0], expected.score)


def test_cosine_to_an_unknown_sample_is_refused_with_the_nearest(refused):
    ids = np.array(["scan-left", "scan-right", "other"])
    assert "'scan-left'" in refused("Vector", PICTURES, ["cosine:scan-lft"], arrays={"id": ids})


# regression

REGRESSION = {
    "output:0": of(0),
    "output:1": of(1),
    "output:0-vs-value:72.5": lambda z: z[:, 0] - 72.5,
    "output:0-vs-output:1": lambda z: z[:, 0] - z[:, 1],
}


@pytest.fixture(scope="module")
def regression(sweep):
    return sweep("Vector", PICTURES, list(REGRESSION), methods=["gradcam", "hirescam", "ablationcam"])


@pytest.mark.parametrize("target", REGRESSION)
def test_an_output_of_a_regression_is_explained_as_autograd_says(regression, target):
    expected, column = known(models.Vector(), PICTURES, REGRESSION[target]), list(REGRESSION).index(target)
    same(regression.maps["gradcam@features"][:, column], expected.gradcam)
    same(regression.maps["hirescam@features"][:, column], expected.hirescam)
    same(regression.score[:, column], expected.score)
    ablated = ablationcam(models.Vector(), PICTURES, REGRESSION[target])
    same(regression.maps["ablationcam@features"][:, column], ablated)


def test_a_constant_foil_moves_the_score_and_leaves_the_gradient(regression):
    np.testing.assert_array_equal(regression.maps["gradcam@features"][:, 2], regression.maps["gradcam@features"][:, 0])
    same(regression.score[:, 2], regression.score[:, 0] - 72.5)
    ablated = regression.maps["ablationcam@features"]
    assert np.abs(ablated[:, 2] - ablated[:, 0]).max() > 1e-3 * np.abs(ablated[:, 0]).max()


# a target of the user's own


def test_a_function_of_the_users_own_is_explained(sweep):
    answer = sweep("Vector", PICTURES, [f"{MODELS}:margin"], methods=["hirescam", "ablationcam"])
    same(answer.maps["hirescam@features"][:, 0], known(models.Vector(), PICTURES, models.margin).hirescam)
    same(answer.maps["ablationcam@features"][:, 0], ablationcam(models.Vector(), PICTURES, models.margin))
    same(answer.score[:, 0], models.margin(torch.from_numpy(outputs(models.Vector(), PICTURES))).numpy())
    assert (answer.index == -1).all()


def test_a_function_of_the_users_own_gets_all_outputs(sweep):
    answer = sweep("Several", PICTURES, [f"{MODELS}:both"], args={"kind": "dict"}, options={"output": "aux"})
    expected = known(models.Several("dict"), PICTURES, models.both)
    same(answer.maps["hirescam@features"][:, 0], expected.hirescam)
    same(answer.score[:, 0], expected.score)


# models with more than one output, input or tensor


@pytest.mark.parametrize(
    ("kind", "key", "pick"),
    [
        ("tuple", "1", lambda out: out[1]),
        ("tuple", "0", lambda out: out[0]),
        ("dict", "aux", lambda out: out["aux"]),
        ("dict", "main", lambda out: out["main"]),
        ("logits", None, lambda out: out["logits"]),
        ("logits", "hidden", lambda out: out["hidden"]),
        ("only", None, lambda out: out["answer"]),
    ],
)
def test_the_output_that_is_named_is_explained(sweep, kind, key, pick):
    options = {} if key is None else {"output": key}
    answer = sweep("Several", PICTURES, ["class:2"], args={"kind": kind}, options=options)
    expected = known(models.Several(kind), PICTURES, lambda out: pick(out)[:, 2])
    same(answer.maps["hirescam@features"][:, 0], expected.hirescam)
    same(answer.score[:, 0], expected.score)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [("tuple", {}, ["0", "1"]), ("dict", {}, ["main", "aux"]), ("dict", {"output": "auxx"}, ["'aux'"])],
)
def test_an_output_that_is_not_settled_is_refused_with_those_there_are(refused, kind, options, says):
    line = refused("Several", PICTURES, ["class:2"], args={"kind": kind}, options=options)
    assert all(re.search(rf"(?<!\w){each}(?!\w)", line) for each in says)


def test_a_layer_that_gives_a_tuple_is_explained_at_its_first(sweep):
    answer = sweep("Paired", PICTURES, ["class:1"], layer="block", methods=["hirescam", "gradcam"])
    expected = known(models.Paired(), PICTURES, of(1), "block")
    same(answer.maps["hirescam@block"][:, 0], expected.hirescam)
    same(answer.maps["gradcam@block"][:, 0], expected.gradcam)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_further_inputs_go_to_the_arguments_they_are_named_for(sweep, dtype):
    ages, sexes = np.array([0.25, 1.5, -3], dtype), np.array([1, 0, 1])
    answer = sweep(
        "Patient", PICTURES, ["class:0"], methods=["hirescam", "ablationcam"],
        arrays={"ages": ages, "sexes": sexes}, data={"extra": {"age": "ages", "sex": "sexes"}, "argument": "image"},
    )  # fmt: skip
    inputs = (ages, PICTURES, sexes)
    expected = known(models.Patient(), inputs, of(0))
    same(answer.maps["hirescam@features"][:, 0], expected.hirescam)
    same(answer.maps["ablationcam@features"][:, 0], ablationcam(models.Patient(), inputs, of(0)))
    same(answer.score[:, 0], expected.score)
