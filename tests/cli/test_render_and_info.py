"""`render` and `info` of results that are there."""

from __future__ import annotations

import re

import numpy as np
import pytest

from camsweep.core.results import open_results

from .conftest import pngs


def test_render_draws_what_is_asked_for(explained, call):
    answer = call("render", "run.h5", "--sample", "patient 2", "--sample", "patient 0", "--json", cwd=explained)
    assert answer.code == 0
    drawn = pngs(explained / "run")
    assert answer.json == {"folder": "run", "files": 4, "skipped": []}
    assert len(drawn) == 4
    assert {name.partition("/")[0] for name in drawn} == {"hirescam@first", "grad"}
    assert {name.partition("/")[2][:6] for name in drawn} == {"000000", "000002"}
    limited = call("render", "run.h5", "--limit", 1, "--map", "grad", "-o", "one", "--json", cwd=explained)
    assert limited.json["files"] == 1
    assert [name[:11] for name in pngs(explained / "one")] == ["grad/000000"]


def test_render_keeps_what_is_there(explained, call):
    assert call("render", "run.h5", "--limit", 1, "-q", cwd=explained).code == 0
    [first, *_] = pngs(explained / "run")
    stamp = (explained / "run" / first).stat().st_mtime_ns
    assert call("render", "run.h5", "--limit", 2, "-q", cwd=explained).code == 0
    assert (explained / "run" / first).stat().st_mtime_ns == stamp
    assert call("render", "run.h5", "--limit", 1, "-q", "--overwrite", cwd=explained).code == 0
    assert (explained / "run" / first).stat().st_mtime_ns != stamp


def test_results_without_a_suffix_have_pictures_too(bench, call):
    assert call("explain", "job.toml", "-o", "run", "--limit", 1, "--render", "-q", cwd=bench).code == 0
    [picture] = bench.rglob("*@first/*.png")
    stamp = picture.stat().st_mtime_ns
    assert call("render", "run", "-q", cwd=bench).code == 0
    assert [*bench.rglob("*@first/*.png")] == [picture]
    assert picture.stat().st_mtime_ns == stamp
    with open_results(bench / "run") as results:
        assert len(results) == 1


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--map", "hirescam@frist"], r"no map 'hirescam@frist'. Did you mean 'hirescam@first'\?"),
        (["--sample", "patient 22"], r"no sample 'patient 22'.*Did you mean 'patient 2'\?"),
        (["--norm", "runs"], r"Did you mean 'run'"),
        (["--limit", "0"], r"--limit"),
        (["--kind", "overlaid"], r"--kind 'overlaid' given. Did you mean 'overlay'\?"),
        (["--format", "jpg"], r"--format 'jpg' given. Did you mean 'png'\?"),
        (["--along", "tiem"], r"--along 'tiem' given. Did you mean 'time'\?"),
        (["--sheet", "--format", "svg"], r"--sheet draws PNG, --format svg given"),
    ],
)
def test_render_refuses_unknown_names(explained, call, words, pattern):
    answer = call("render", "run.h5", "-q", *words, cwd=explained)
    assert answer.code == 2
    assert re.fullmatch(rf"error: .*{pattern}.*\n", answer.err)
    assert not (explained / "run").exists()


def test_info_tells_numbers_that_are_there(explained, call):
    answer = call("info", "run.h5", "--json", cwd=explained)
    assert answer.code == 0
    found = answer.json
    with open_results(explained / "run.h5") as results:
        assert found["samples"] == 4
        assert found["status"] == {"ok": 4}
        assert found["accuracy"] == pytest.approx((results.predicted == results.labels).mean())
        assert found["labelled"] == 4
        for each in found["maps"]:
            values = results.map(each["name"]).read()
            assert each["min"] == pytest.approx(values.min())
            assert each["max"] == pytest.approx(values.max())
        assert found["provenance"] == results.provenance
    shown = call("info", "run.h5", cwd=explained).out
    assert "4 samples: 4 ok" in shown
    assert "hirescam@first" in shown


def test_info_json_is_strict_json_and_messages_are_named(bench, call, signals):
    x = signals["x"].copy()
    x[4, 0, 3] = np.nan
    np.savez(bench / "signals.npz", **(signals | {"x": x}))
    assert call("explain", "job.toml", cwd=bench).code == 3
    answer = call("info", "run.h5", "--json", cwd=bench)
    assert answer.code == 0
    assert "NaN" not in re.sub(r'"message": "[^"]*"', "", answer.out)
    [message] = answer.json["messages"]
    assert (message["id"], message["status"]) == ("patient 4", "non finite")
    assert "NaN" in message["message"]
    assert "patient 4" in call("info", "run.h5", cwd=bench).out
