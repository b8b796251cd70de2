"""The benchmarks themselves: turns, ratios, missing peers and the table of docs/speed.md."""

import importlib
import json
import sys

import pytest

from camsweep.tests.benchmarks import race, table
from camsweep.tests.benchmarks.peers import PEERS, peer
from camsweep.tests.benchmarks.race import Bench, Elsewhere, Missing, Row, take_turns


def waiting():
    """A party elsewhere, which gives what it is asked for."""
    return lambda: [1, 2]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--threads", "1", "--out", str(tmp_path / "a.json")])
    monkeypatch.setattr(race, "CLOCKS", {"wall": iter(range(100)).__next__})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Bench("a", "A title.\n", {})


def test_turns_alternate_and_none_is_always_first():
    order = []
    times = take_turns({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_slow_peer_has_a_single_turn_that_counts(monkeypatch):
    now = [0]
    monkeypatch.setattr(race, "CLOCKS", {"wall": lambda: now[0]})

    def taking(seconds):
        def run():
            now[0] += seconds

        return run

    times = take_turns({"camsweep": taking(2), "slow": taking(11), "slower than ours": taking(9)}, 3)
    assert times.seconds == {"camsweep": [2, 2, 2], "slow": [11], "slower than ours": [9, 9, 9]}
    assert times.ratios("slow", "camsweep") == [5.5]


def test_a_ratio_is_the_median_of_those_of_the_same_turns(bench):
    times = race.Times({"theirs": [2.0, 9.0, 4.0], "camsweep": [1.0, 1.0, 4.0]})
    bench.against("case", times)
    [row] = bench.rows
    assert (row.what, row.value, row.low, row.high, row.seconds) == ("theirs / camsweep", 2.0, 1.0, 9.0, 4.0)
    assert row.met


def test_who_is_not_there_or_fails_is_a_row_and_ours_must_not_fail(bench):
    def fails():
        raise ValueError("first line\nsecond")

    times = bench.race("case", {"camsweep": int, "gone": Missing("not installed: make bench-peers"), "broken": fails})
    assert list(times.seconds) == ["camsweep"]
    assert {row.what: row.note for row in bench.rows} == {
        "gone": "not installed: make bench-peers",
        "broken": "fails: ValueError: first line",
    }
    with pytest.raises(ValueError, match="first line"):
        take_turns({"camsweep": fails}, 1)


def test_a_peer_that_is_not_installed_says_how_to(monkeypatch):
    monkeypatch.setitem(PEERS, "nobody", ("no_such_package_of_ours.part", ()))
    with pytest.raises(Missing, match="not installed: make bench-peers"):
        peer("nobody")


def test_a_party_elsewhere_takes_turns_and_says_what_is_wrong():
    party = Elsewhere("camsweep.tests.benchmarks.test_race:waiting")
    assert party() == [1, 2]
    assert party.processor >= 0
    party.close()
    missing = Elsewhere.start("camsweep.tests.benchmarks.test_race:nothing_so_called")
    assert isinstance(missing, Missing)
    assert "nothing_so_called" in str(missing)


def test_rows_go_through_json_into_the_table(bench):
    bench.add("nets | all", "a / b", 1.234, low=1.0, high=2.0, goal="<= 1.1", note="half")
    bench.add("nets | all", "c", note="not installed: make bench-peers")
    bench.close()
    answer = json.loads(bench.out.read_text())
    made = table.table([answer])
    assert "### A title" in made
    assert "| nets / all | a / b | 1.23x (1 .. 2) | **<= 1.1, missed** | half; why: see above |" in made
    assert "|  | c |  |  | not installed: make bench-peers |" in made
    names = set(answer["machine"])
    assert not names & {"host", "hostname", "node"}


def test_the_document_has_its_marks_and_keeps_the_rest():
    document = table.DOCUMENT.read_text()
    new = table.placed(document, "| x |")
    assert new.count(table.BEGIN) == new.count(table.END) == 1
    assert "| x |" in new
    assert table.placed(new, "") == table.placed(document, "")
    lines = [
        line for line in document.partition(table.BEGIN)[2].partition(table.END)[0].splitlines() if line.startswith("|")
    ]
    assert all(line.count("|") == 6 for line in lines)
    with pytest.raises(ValueError, match="lacks its marks"):
        table.placed("no marks", "")


@pytest.mark.parametrize(("goal", "met"), [(">= 1", True), ("<= 1.1", False), ("", None)])
def test_goals(goal, met):
    assert Row("case", "a / b", 2.0, goal=goal).met is met
    assert Row("case", "a / b", goal=goal).met is None


@pytest.mark.parametrize("name", table.ALL)
def test_importing_a_benchmark_runs_nothing(name, capsys):
    importlib.import_module(f"camsweep.tests.benchmarks.{name}")
    assert capsys.readouterr().out == ""
