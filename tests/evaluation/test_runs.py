"""The same numbers however they are computed; controls, additions, stops, predicted costs."""

import threading

import numpy as np
import pytest

from camsweep.core.errors import OutputError, RequestError, Stopped
from camsweep.core.evaluation.choices import SETS, parse_metrics
from camsweep.core.evaluation.plan import Request
from camsweep.core.evaluation.run import plan_evaluation
from camsweep.core.evaluation.summary import summary
from camsweep.core.metrics import METRICS
from camsweep.core.results import open_metrics, open_results, verify
from camsweep.core.results.metrics import beside

from ..core.test_sweep import Watch
from .bench import Net, explained, inputs, loader, masks, measured, numbers

MANY = ["gradcam", "ig:steps=4", "lrp:eps=0.25std", "occlusion:window=5,stride=5"]
SMALL = ",".join(
    {
        "sensitivity-n": "sensitivity-n:n=4",
        "faithfulness-correlation": "faithfulness-correlation:n=6",
        "max-sensitivity": "max-sensitivity:n=2",
        "mean-sensitivity": "mean-sensitivity:n=2",
        "lipschitz": "lipschitz:n=2",
        "randomisation": "randomisation:steps=2",
    }.get(name, name)
    for name in METRICS
)
"""Every metric, with few draws."""


def same(a, b, rtol=1e-9):
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=rtol, atol=1e-9, err_msg=path)


def test_the_sets_hold_what_is_registered():
    assert SETS["full"] == tuple(METRICS)
    assert set(SETS["fast"]) < set(SETS["standard"]) < set(SETS["full"])
    assert all(METRICS[name].needs != "maps" for name in SETS["standard"])
    found = parse_metrics(["fast,deletion:steps=5,fill=blur,gini"])
    assert {name for name, (_, named) in found.items() if named} == {"deletion:fill=blur,steps=5", "gini"}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_batches_of_one_two_and_thirty_two_give_the_same(rank, tmp_path):
    net = Net(rank, smooth=True)
    path = explained(tmp_path, net, MANY, rank=rank, count=3, targets=["top:2"])
    whole = numbers(measured(path, net, SMALL, batch=32))
    assert any("randomcam" in each for each in beside_controls(path))
    same(whole, numbers(measured(path, net, SMALL, batch=1 if rank == 1 else 2, force=True)))


def beside_controls(path):
    with open_results(path) as results:
        return {entry.control for entry in open_metrics(results).entries}


def test_stopped_and_gone_on_with_it_is_the_same(tmp_path):
    net = Net(smooth=True)
    path = explained(tmp_path, net, MANY[:3], count=6)
    whole = numbers(measured(path, net, SMALL))
    stop = threading.Event()

    class Halt(Watch):
        def advance(self, rows):
            stop.set()

    with pytest.raises(Stopped, match="of 6 rows done"):
        measured(path, net, SMALL, batch=2, stop=stop, watch=Halt(), force=True)
    assert set(numbers_of(path)) <= set(whole)  # the old file is there until the new one is whole
    parts = beside(path).with_name(beside(path).name + ".parts")
    assert list(parts.glob("rows-*.h5"))
    beside(path).unlink()
    watch = Watch()
    same(whole, numbers(measured(path, net, SMALL, batch=2, watch=watch)))
    assert 2 <= watch.began[0] < 6
    assert not parts.exists()
    assert verify(beside(path)) == []


def numbers_of(path):
    with open_results(path) as results:
        return open_metrics(results).values


def test_more_metrics_are_added_and_none_is_done_twice(tmp_path):
    net, loads = Net(smooth=True), []
    path = explained(tmp_path, net, ["gradcam", "grad"])
    before = numbers(measured(path, net, "gini,deletion:steps=4", loads=loads))
    assert len(loads) == 1
    outcome = measured(path, net, "gini,deletion:steps=4", loads=loads)
    assert outcome.was_complete
    assert len(loads) == 1
    after = numbers(measured(path, net, "deletion:steps=4,insertion:steps=4"))
    assert all(np.array_equal(after[name], values, equal_nan=True) for name, values in before.items())
    assert set(after) - set(before) == {
        f"{name}/{kind}insertion:steps=4" for name in ("gradcam@first", "grad") for kind in ("", "control/", "curve/")
    }
    alone = tmp_path / "alone"
    alone.mkdir()
    same(
        {k: v for k, v in after.items() if "insertion" in k},
        numbers(measured(explained(alone, net, ["gradcam", "grad"]), net, "insertion:steps=4")),
    )


def test_maps_alone_need_no_model(tmp_path):
    net, loads = Net(smooth=True), []
    path = explained(tmp_path, net, ["grad", "ig:steps=4", "gradcam"])
    outcome = measured(path, net, "gini,relevance-rank,completeness", maps=["grad", "ig:steps=4"], loads=loads)
    assert not loads
    assert outcome.forwards == 0
    rows = summary(outcome.file)
    assert sorted((row.map, row.metric) for row in rows) == [
        ("grad", "gini"), ("grad", "relevance-rank"),
        ("ig:steps=4", "completeness"), ("ig:steps=4", "gini"), ("ig:steps=4", "relevance-rank"),
    ]  # fmt: skip
    measured(path, net, "gini", loads=loads)  # a Random-CAM is made of activations
    assert len(loads) == 1


@pytest.mark.parametrize("relu", ["on", "off"])
def test_the_control_of_a_cam_is_random_cam(relu, tmp_path):
    net = Net(smooth=True)
    suffix = "" if relu == "on" else ":relu=off"
    path = explained(tmp_path, net, [f"gradcam{suffix}", f"randomcam{suffix}"])
    outcome = measured(
        path, net, "deletion:steps=5,average-drop,relevance-rank,gini,max-sensitivity:n=2,randomisation:steps=2"
    )
    for entry in outcome.file.entries:
        if entry.map.startswith("gradcam"):
            twin = next(e for e in outcome.file.entries if e.map.startswith("randomcam") and e.metric == entry.metric)
            assert entry.control == f"randomcam{suffix}@first"
            np.testing.assert_allclose(
                outcome.file.controls[entry.path()], outcome.file.values[twin.path()], rtol=1e-5, atol=1e-7
            )


def test_a_random_map_is_beaten_and_beats_nothing(tmp_path):
    """Controls are of maps without a meaning: localisation at chance, no correlation with any other map."""
    net = Net(smooth=True)
    path = explained(tmp_path, net, ["grad+input"], count=40)
    rows = {row.metric: row for row in summary(measured(path, net, "roc-auc,random-logit,randomisation:steps=2").file)}
    assert rows["roc-auc"].control == pytest.approx(0.5, abs=0.03)
    assert abs(rows["random-logit"].control) < 0.03
    assert abs(rows["randomisation:steps=2"].control) < 0.03
    assert rows["roc-auc"].undefined == 1


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("metrics", ["fast", "standard", SMALL])
def test_as_many_forwards_as_foreseen(metrics, rank, tmp_path):
    net = Net(rank, smooth=True)
    path = explained(tmp_path, net, ["gradcam", "grad", "ig:steps=4", "lrp:eps=0.25std"], rank=rank)
    outcome = measured(path, net, metrics)
    assert outcome.forwards == pytest.approx(outcome.predicted, rel=0.2)
    plan = plan_evaluation(Request(path, [metrics], None, {"data": {"mask": "mask"}}), loader(net))
    assert plan["forwards_per_sample"] == outcome.predicted
    if metrics == "fast":  # the inputs themselves, whose activations make the Random-CAM, however many maps
        assert outcome.forwards == 1


def test_what_does_not_fit_is_said(tmp_path):
    net = Net(smooth=True)
    path = explained(tmp_path, net, ["gradcam", "grad"])
    outcome = measured(path, net, "standard", mask=False)
    assert outcome.file.missing["grad: pointing"].startswith("there is no ground truth")
    assert outcome.file.missing["grad: completeness"] == "its sum says nothing"
    with pytest.raises(RequestError, match="pointing fits none of the maps: there is no ground truth"):
        measured(path, net, "pointing", mask=False)
    with pytest.raises(RequestError, match=r"unknown metric 'delete'. Did you mean 'deletion'\?"):
        measured(path, net, "delete")
    with pytest.raises(RequestError, match="3 numbers given, expected one"):
        measured(path, net, "deletion:fill=0.1/0.2/0.3")


def test_what_the_documents_say_that_sets_cost():
    import re
    from pathlib import Path

    import camsweep
    from camsweep.core.evaluation.scoring import whatever_the_map

    text = (Path(camsweep.__file__).parent / "docs" / "metrics.md").read_text("utf-8")
    for name, metrics in SETS.items():
        choices = [choice for choice, _ in parse_metrics([",".join(metrics)]).values()]
        asked = {(version, c.metric.probability) for c in choices for version in c.plan(50176)}
        shared = {each for each in asked if whatever_the_map(each[0], 50176)}
        again = {
            each for c in choices for each in (*c.again(50176), *c.redrawn(), *(["l"] if "l" in c.metric.asks else []))
        }
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |")).split("|")
        assert int(row[2]) == len(asked - shared)
        assert [int(n) for n in re.findall("[0-9]+", row[4])] == [n for n in (len(shared), len(again)) if n]


def test_every_key_is_in_the_file(tmp_path):
    import json

    net = Net(smooth=True)
    entry = measured(explained(tmp_path, net, ["grad"]), net, "deletion:steps=3").file.entries[0]
    assert json.loads(entry.settings) == {"steps": "3", "fill": "zero", "blur": "0.1"}


def test_the_weights_come_back_whatever_happens():
    import torch

    net = Net(smooth=True)
    before = [weights.clone() for weights in net.parameters()]
    backend = loader(net)(type("J", (), {"output": type("O", (), {"compute_dtype": "float32"})}))
    backend.structure(inputs(2, 1))

    def interrupted():
        with backend.redrawn(1.0, 0):
            assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_one_bad_sample_is_marked_and_counted(tmp_path, monkeypatch):
    from camsweep.core.evaluation.evaluator import Evaluator

    net, real = Net(smooth=True), Evaluator.columns

    def columns(self, batch):
        if 3 in batch.rows:
            raise ValueError("odd")
        return real(self, batch)

    monkeypatch.setattr(Evaluator, "columns", columns)
    outcome = measured(explained(tmp_path, net, ["grad"]), net, "gini")
    assert outcome.failed == 1
    assert outcome.file.status.tolist() == [1, 1, 1, 4, 1]
    assert outcome.file.messages[3] == "ValueError: odd"
    assert np.isfinite(outcome.file.values["grad/gini"][:, 0]).tolist() == [True, True, True, False, True]


def test_ground_truth_may_come_later(tmp_path):
    net = Net(smooth=True)
    path = explained(tmp_path, net, ["grad"])
    before = measured(path, net, "fast", mask=False)
    assert "grad: topk" in before.file.missing
    after = measured(path, net, "fast")
    assert "grad: topk" not in after.file.missing
    assert {entry.metric for entry in after.file.entries} > {entry.metric for entry in before.file.entries}
    assert measured(path, net, "fast", mask=False).was_complete
    with pytest.raises(RequestError, match="none of these metrics fits a map; "):
        measured(explained(tmp_path, net, ["dff:k=2"], name="dff.h5"), net, "fast")


def test_metrics_of_other_results_are_in_the_way(tmp_path):
    net = Net(smooth=True)
    path = explained(tmp_path, net, ["gradcam", "grad"])
    measured(path, net, "gini")
    path.unlink()
    explained(tmp_path, Net(smooth=True, seed=3), ["gradcam", "grad"])
    with pytest.raises(OutputError, match="is of other results; replace it with --force"):
        measured(path, net, "gini")
    with pytest.raises(RequestError, match="the model gives other scores than when"):
        measured(path, net, "deletion", force=True)
    measured(path, Net(smooth=True, seed=3), "gini", force=True)
    with pytest.raises(OutputError, match="another seed"):
        measured(path, Net(smooth=True, seed=3), "gini", seed=4)


def test_a_sample_without_maps_has_no_metrics(tmp_path):
    net, count = Net(smooth=True), 5
    x = inputs(2, count)
    x[2, 0, 0, 0] = np.nan
    np.savez(tmp_path / "x.npz", x=x, mask=masks(2, count), y=np.arange(count) % 3)
    path = explained(tmp_path, net, ["gradcam", "grad"], count=count)
    outcome = measured(path, net, "standard", batch=2)
    assert outcome.file.status.tolist() == [1, 1, 3, 1, 1]
    for entry in outcome.file.entries:
        assert np.isnan(outcome.file.values[entry.path()][2]).all()
    assert {row.undefined for row in summary(outcome.file, {"gini"})} == {0}


def test_a_label_that_is_missing_has_no_metrics(tmp_path):
    net = Net(smooth=True)
    np.savez(tmp_path / "x.npz", x=inputs(2, 3), mask=np.ones((3, 9, 14)), y=[0, -1, 2])
    path = explained(tmp_path, net, ["grad"], count=3, targets=["label"])
    outcome = measured(path, net, "deletion:steps=3,gini,average-drop,random-logit")
    for entry in outcome.file.entries:
        assert np.isfinite(outcome.file.values[entry.path()][:, 0]).tolist() == [True, False, True], entry.metric
