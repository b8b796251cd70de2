"""Classes of one-logit, multi-label and softmax models: their logits, probabilities and contrasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from camsweep.core.results import Status

from . import models
from .conftest import known, of, outputs, same, samples

NAMES = np.array(["cat", "dog", "emu", "fox"])
PICTURES = samples(7, 9, count=6, seed=1)
MAP = "hirescam@features"


def sigmoid(z):
    """Of NumPy, with all its digits for a very negative z."""
    return np.exp(z) / (1 + np.exp(z)) if np.ndim(z) == 0 else np.where(z < 0, np.exp(np.minimum(z, 0)), 1) / (1 + np.exp(-np.abs(z)))  # fmt: skip


def wide(values):
    """(N,) against maps (N, H, W)."""
    return values[:, None, None]


# one logit

ONE = known(models.Vector(1), PICTURES, of(0))
Z = ONE.score
SIGN = np.where(Z > 0, 1, -1)
LABEL = np.array([1, 0, 1, 0, 0, 1])


def test_the_bench_has_logits_of_both_signs():
    assert 1 <= (Z > 0).sum() <= len(Z) - 1


@pytest.mark.parametrize("end", ["none", "flat", "sigmoid", "squeezed"])
def test_one_logit_is_class_1_and_its_negative_class_0(sweep, end):
    answer = sweep(
        "Vector", PICTURES, ["class:0", "class:1", "label", "class:1-vs-class:0"],
        args={"outputs": 1, "end": end}, arrays={"label": LABEL},
    )  # fmt: skip
    zero, one, label, contrast = answer.maps[MAP].swapaxes(0, 1)
    same(one, ONE.hirescam)
    same(zero, -ONE.hirescam)
    same(label, wide(2 * LABEL - 1) * ONE.hirescam)
    same(contrast, 2 * ONE.hirescam)
    same(answer.score, np.stack([-Z, Z, (2 * LABEL - 1) * Z, 2 * Z], 1))
    assert [answer.index[0, 0], answer.index[0, 1], *answer.index[:, 2]] == [0, 1, *LABEL]
    assert answer.foil[0].tolist() == [-1, -1, -1, 0]


@pytest.mark.parametrize(
    ("end", "names", "binary"),
    [
        ("none", None, False),
        ("flat", None, False),
        ("none", NAMES[:2], True),
        ("flat", NAMES[:2], True),
        ("sigmoid", None, True),
        ("squeezed", None, True),
        ("squeezed", NAMES[:2], True),
    ],
)
def test_predicted_of_one_output_is_a_class_where_it_is_known_to_be_two_classes(sweep, end, names, binary):
    arrays = {} if names is None else {"classes": names}
    answer = sweep("Vector", PICTURES, ["predicted"], args={"outputs": 1, "end": end}, arrays=arrays)
    side = SIGN if binary else np.ones(len(Z))
    same(answer.maps[MAP][:, 0], wide(side) * ONE.hirescam)
    same(answer.score[:, 0], side * Z)
    if binary:
        assert list(answer.index[:, 0]) == list(Z > 0)


@pytest.mark.parametrize("end", ["none", "flat", "sigmoid", "squeezed"])
@pytest.mark.parametrize("score", ["probability", "log-probability"])
def test_the_probability_of_one_logit_is_its_sigmoid(sweep, end, score):
    answer = sweep("Vector", PICTURES, ["class:1", "class:0"], args={"outputs": 1, "end": end}, score=score)
    for column, side in enumerate((1, -1)):
        p, q = sigmoid(side * Z), sigmoid(-side * Z)
        probable = score == "probability"
        same(answer.score[:, column], p if probable else np.log(p))
        same(answer.maps[MAP][:, column], wide(side * (p * q if probable else q)) * ONE.hirescam)
    assert score in answer.explained


@pytest.mark.parametrize("end", ["none", "sigmoid", "squeezed"])
def test_log_probability_of_one_saturated_logit_is_not_zero(sweep, end):
    gain = float(np.ceil(45 / np.abs(Z).min()))
    assert (np.maximum(sigmoid(gain * Z), sigmoid(-gain * Z)) == 1).all()
    answer = sweep(
        "Vector",
        PICTURES,
        ["class:1", "class:0"],
        args={"outputs": 1, "end": end, "gain": gain},
        score="log-probability",
    )
    for column, side in enumerate((1, -1)):
        left = sigmoid(-side * gain * Z)
        for n in range(len(Z)):  # each against its own size, 1e-20 for some and 1 for others
            same(answer.maps[MAP][n, column], side * gain * left[n] * ONE.hirescam[n], 1e-8)
            same(answer.score[n, column], logsigmoid(torch.tensor(side * gain * Z[n])).numpy(), 1e-8)
    assert (answer.status == Status.OK).all()


@pytest.mark.parametrize("end", ["none", "softmax"])
def test_log_probability_of_a_saturated_softmax_is_not_zero(sweep, end):
    plain = [known(models.Vector(), PICTURES, of(c)) for c in range(3)]
    z = np.stack([each.score for each in plain], 1)
    gain = float(np.ceil(45 / np.diff(np.sort(z, 1)[:, 1:]).min()))
    top = z.argmax(1)
    p = torch.from_numpy(gain * z).softmax(1).numpy()
    assert (p.max(1) == 1).all()
    # d log p_t = sum_j p_j (dz_t - dz_j)
    expected = [
        sum(gain * p[n, j] * (plain[top[n]].hirescam[n] - plain[j].hirescam[n]) for j in range(3) if j != top[n])
        for n in range(len(z))
    ]
    args = {"end": end, "gain": gain}
    answer = sweep("Vector", PICTURES, ["predicted"], args=args, score="log-probability")
    for n in range(len(z)):
        same(answer.maps[MAP][n, 0], expected[n], 1e-8)
        same(answer.score[n, 0], -np.delete(p[n], top[n]).sum(), 1e-8)
    assert (answer.status == Status.OK).all()


# several logits


@pytest.mark.parametrize(
    ("end", "activation", "score", "form"),
    [
        ("none", "auto", "logit", lambda z: z),
        ("sigmoid", "auto", "logit", lambda z: z),
        ("softmax", "auto", "logit", lambda z: z),
        ("sigmoid", "auto", "probability", torch.sigmoid),
        ("sigmoid", "auto", "log-probability", logsigmoid),
        ("none", "sigmoid", "probability", torch.sigmoid),
        ("none", "sigmoid", "log-probability", logsigmoid),
        ("none", "auto", "probability", lambda z: z.softmax(1)),
        ("none", "auto", "log-probability", lambda z: z.log_softmax(1)),
        ("none", "softmax", "probability", lambda z: z.softmax(1)),
        ("softmax", "auto", "probability", lambda z: z.softmax(1)),
        ("softmax", "auto", "log-probability", lambda z: z.log_softmax(1)),
        ("squares", "none", "logit", models.ENDS["squares"]),
        ("squares", "none", "probability", models.ENDS["squares"]),
        ("squares", "none", "log-probability", lambda z: models.ENDS["squares"](z).log()),
    ],
)
def test_the_score_that_is_asked_for_is_explained(sweep, end, activation, score, form):
    answer = sweep(
        "Vector", PICTURES, ["class:1", "class:emu", "label"], args={"end": end}, score=score, activation=activation,
        arrays={"classes": NAMES[:3], "label": LABEL}, methods=["hirescam", "gradcam"],
    )  # fmt: skip
    for column, index in enumerate((1, 2, LABEL)):
        index = np.broadcast_to(index, len(PICTURES)).copy()
        expected = known(models.Vector(), PICTURES, lambda z, index=index: of(index)(form(z)))
        same(answer.maps[MAP][:, column], expected.hirescam)
        same(answer.maps["gradcam@features"][:, column], expected.gradcam)
        same(answer.score[:, column], expected.score)
        assert list(answer.index[:, column]) == list(index)
    assert (answer.foil == -1).all()
    assert score == "logit" or score in answer.explained


def test_multi_label_probabilities_do_not_depend_on_each_other(sweep):
    answer = sweep("Vector", PICTURES, ["class:0"], score="probability", activation="sigmoid")
    plain = known(models.Vector(), PICTURES, of(0))
    p = sigmoid(plain.score)
    same(answer.score[:, 0], p)
    same(answer.maps[MAP][:, 0], wide(p * (1 - p)) * plain.hirescam)


# contrasts on a classifier

ARGS = {"outputs": 4, "end": "softmax"}
LOGITS = outputs(models.Vector(4), PICTURES)
ORDER = (-LOGITS).argsort(1)
TRUTH = np.where(np.arange(len(PICTURES)) % 3 == 0, ORDER[:, 0], ORDER[:, 2])
"""Every third sample is classified rightly."""
CONTRASTS = {
    "class:cat-vs-class:dog": (0, 1),
    "class:dog-vs-class:cat": (1, 0),
    "emu-vs-fox": (2, 3),
    "3-vs-1": (3, 1),
    "class:2-vs-cat": (2, 0),
    "predicted-vs-2nd": (ORDER[:, 0], ORDER[:, 1]),
    "2nd-vs-emu": (ORDER[:, 1], 2),
    "class:fox-vs-label": (3, TRUTH),
}


@pytest.fixture(scope="module", params=["logit", "probability", "log-probability"])
def contrasts(request, sweep):
    arrays = {"classes": NAMES, "label": TRUTH}
    answer = sweep("Vector", PICTURES, list(CONTRASTS), args=ARGS, arrays=arrays, score=request.param)
    return request.param, answer


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_contrast_is_the_difference_of_its_two_sides(contrasts, contrast):
    score, answer = contrasts
    column = list(CONTRASTS).index(contrast)
    first, second = (np.broadcast_to(side, len(PICTURES)).copy() for side in CONTRASTS[contrast])
    form = {"logit": lambda z: z, "probability": lambda z: z.softmax(1), "log-probability": lambda z: z.log_softmax(1)}

    def difference(z):
        return of(first)(form[score](z)) - of(second)(form[score](z))

    expected = known(models.Vector(4), PICTURES, difference)
    same(answer.maps[MAP][:, column], expected.hirescam)
    same(answer.score[:, column], expected.score)
    assert list(answer.index[:, column]) == list(first)
    assert list(answer.foil[:, column]) == list(second)


def test_a_contrast_is_minus_the_contrast_the_other_way_round(contrasts):
    _, answer = contrasts
    same(answer.maps[MAP][:, 0], -answer.maps[MAP][:, 1], 1e-12)
    same(answer.score[:, 0], -answer.score[:, 1], 1e-12)


def test_a_contrast_of_log_probabilities_is_that_of_the_logits(sweep):
    logit, log = (
        sweep("Vector", PICTURES, ["cat-vs-dog"], args=ARGS, arrays={"classes": NAMES}, score=score)
        for score in ("logit", "log-probability")
    )
    same(log.maps[MAP], logit.maps[MAP], 1e-12)
    same(log.score, logit.score, 1e-12)


def test_a_bare_name_in_a_contrast_is_the_class(sweep):
    bare, full = (
        sweep("Vector", PICTURES, [target], args=ARGS, arrays={"classes": NAMES})
        for target in ("cat-vs-dog", "class:cat-vs-class:dog")
    )
    np.testing.assert_array_equal(bare.maps[MAP], full.maps[MAP])
    np.testing.assert_array_equal(bare.score, full.score)


def test_the_label_against_the_same_prediction_is_a_zero_map_and_says_so(sweep):
    answer = sweep("Vector", PICTURES, ["label-vs-predicted"], args=ARGS, arrays={"classes": NAMES, "label": TRUTH})
    right = ORDER[:, 0] == TRUTH
    assert 0 < right.sum() < len(right)
    assert list(answer.status) == [Status.ZERO_MAP if each else Status.OK for each in right]
    assert all(("zero" in message) == each for message, each in zip(answer.messages, right, strict=True))
    assert not answer.maps[MAP][right].any()
    assert not answer.score[right].any()
    expected = known(models.Vector(4), PICTURES, lambda z: of(TRUTH)(z) - of(ORDER[:, 0].copy())(z))
    same(answer.maps[MAP][:, 0], expected.hirescam)
    np.testing.assert_array_equal(answer.foil[:, 0], ORDER[:, 0])


@pytest.mark.parametrize("target", ["cat-vs-cat", "class:cat-vs-owl", "all-vs-cat", "value:3-vs-cat"])
def test_a_contrast_that_means_nothing_is_refused(refused, target):
    refused("Vector", PICTURES, [target], args=ARGS, arrays={"classes": NAMES})
