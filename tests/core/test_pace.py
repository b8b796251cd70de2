"""The batch size that is found on the way, threads and layouts that are tried: the numbers stay the same."""

import threading

import numpy as np
import pytest
import torch

from camsweep.core import sweep
from camsweep.core.backend import Execution
from camsweep.core.errors import RequestError, Stopped
from camsweep.core.pace import Memory, Pace
from camsweep.core.tuning import options, threads, tuned

from ..support import Net, inputs
from .test_sweep import Forgetful, Stopping, Watch, everything, run


class Plenty:
    taken, free = 0, float("inf")


def paced(seconds, memory=None, batches=60):
    """A pace that saw batches of ``seconds(size)``, each asked for while the one before is worked on."""
    lines = []
    found = Pace(memory or Plenty(), lines.append)
    coming, sizes = found.next(), []
    for _ in range(batches):
        size, coming = coming, found.next()
        sizes.append(size)
        found.saw(size, seconds(size))
    return found, lines, sizes


def test_the_size_is_the_smallest_of_the_fastest():
    found = paced(lambda size: 0.1 + 0.001 * size)[0]
    assert found.size == 2048, "within 5 % of 4096, which is the last one tried"
    found, lines, sizes = paced(lambda size: 0.002 * max(size, 32))
    assert (found.size, found.settled, len(lines)) == (32, True, 1)
    assert lines[0].startswith("batch size 32, by samples a second (8: 125, 16: 250, 32: 500, 64: 500, 128: 500")
    assert all(sizes.count(size) >= 2 for size in (8, 16, 32, 64, 128))
    assert set(sizes[-5:]) == {32}


def test_the_first_batch_of_a_size_does_not_count():
    seen = set()

    def slow_at_first(size):
        took = 0.002 * max(size, 32) * (1 if size in seen else 50)
        seen.add(size)
        return took

    assert paced(slow_at_first)[0].size == 32


def test_memory_sets_an_end():
    class Little:
        free, taken = 1000, 0

    little = Little()

    def seconds(size):
        little.taken = max(little.taken, 10 * size)
        return 1.0

    _, lines, sizes = paced(seconds, little)
    assert max(sizes) == 32, "64 would take 640 of 1000, more than half"
    assert lines[0].endswith("; memory allows no more")
    assert 0 < Memory("cpu").free < 1 << 60
    assert Memory("cpu").taken >= 0


def test_where_the_samples_run_out_that_is_said():
    lines = []
    found = Pace(Plenty(), lines.append)
    found.next()
    found.saw(8, 1.0)
    found.end()
    assert lines == ["batch size 8: the samples ran out before a larger one could be tried"]


def test_maps_are_the_same_and_another_size_goes_on(tmp_path):
    net, x, watch = Net(2, smooth=True), inputs(2, 120), Watch()
    settings = {"output": {"dtype": "float64"}}
    with run(tmp_path, net, x, watch=watch, explain={"batch_size": "auto"}, **settings) as results:
        found = everything(results)
        assert results.counts() == {"ok": 120}
    assert len([note for note in watch.notes if note.startswith("batch size ")]) == 1
    assert watch.rows[:2] == [8, 8]
    assert max(watch.rows) > 8
    with run(tmp_path, net, x, name="plain.h5", **settings) as results:
        for name, values in everything(results).items():
            assert np.allclose(found[name], values, rtol=1e-12, atol=1e-14), name
    stop = threading.Event()
    halt = Stopping(stop)
    with pytest.raises(Stopped):
        run(tmp_path, net, x, name="half.h5", stop=stop, watch=halt, explain={"batch_size": "auto"}, **settings)
    with run(tmp_path, net, x, name="half.h5", explain={"batch_size": 7}, **settings) as results:
        for name, values in everything(results).items():
            assert np.allclose(found[name], values, rtol=1e-12, atol=1e-14), name


def test_memory_that_gives_out_sets_an_end_too(tmp_path):
    watch = Watch()
    with run(tmp_path, Forgetful(2), inputs(2, 40), watch=watch, explain={"batch_size": "auto"}) as results:
        assert results.counts() == {"ok": 40}
    assert watch.notes[-1].startswith("batch size 2")
    assert watch.notes[-1].endswith("; memory allows no more")


def test_the_fastest_layout_and_threads_are_taken():
    took = {(True, 1): 3.0, (True, 2): 2.0, (False, 1): 1.0, (False, 2): 1.5}
    before = torch.get_num_threads()

    def seconds(execution):
        return took.get((execution.channels_last, torch.get_num_threads()), 9.0)

    with threads(1):
        execution, count = tuned(seconds, Execution(), frozenset({"channels_last"}), 2)
        assert (execution.channels_last, count, torch.get_num_threads()) == (False, 1, 1)
        assert options(execution, count) == "--threads 1 --no-channels-last"
        execution, count = tuned(seconds, Execution(), frozenset(), 2)
        assert execution == Execution()
        assert options(execution, 3) == "--threads 3"
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("last", [True, False])
def test_the_layout_changes_no_map(rank, last, tmp_path):
    net, x = Net(rank, smooth=True), inputs(rank, 9)
    with run(tmp_path, net, x, explain={"channels_last": last, "threads": 1}) as results:
        found = everything(results)
    with run(tmp_path, net, x, name="plain.h5") as results:
        for name, values in everything(results).items():
            assert np.allclose(found[name], values, rtol=1e-4, atol=1e-6), name


def test_tuning_says_what_to_type_and_leaves_the_maps(tmp_path, monkeypatch):
    monkeypatch.setattr("camsweep.core.tuning.LEAST", 0.01)
    net, x, watch, before = Net(2, smooth=True), inputs(2, 60), Watch(), torch.get_num_threads()
    with run(tmp_path, net, x, watch=watch, explain={"tune": True}) as results:
        found = everything(results)
    assert torch.get_num_threads() == before
    [line] = [note for note in watch.notes if note.startswith("tuned; ")]
    assert line.startswith("tuned; to have it so again: --threads ")
    assert "channels-last --batch-size " in line
    with run(tmp_path, net, x, name="plain.h5") as results:
        for name, values in everything(results).items():
            assert np.allclose(found[name], values, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_threads_that_read_keep_the_order(workers, tmp_path):
    x = inputs(2, 50)
    x[13] = np.nan
    with run(tmp_path, Net(2), x, explain={"workers": workers, "batch_size": 4}) as results:
        found, status = everything(results), results.status
    with run(tmp_path, Net(2), x, name="plain.h5", explain={"batch_size": 4}) as results:
        assert np.array_equal(status, results.status)
        for name, values in everything(results).items():
            assert np.array_equal(found[name], values, equal_nan=True), name


def test_what_is_read_ahead_is_bounded(tmp_path, monkeypatch):
    from camsweep.core.data import Dataset

    begun, ahead, plain = [], [], Dataset.read

    def read(self, rows):
        begun.extend([1] * (len(rows) == 4))
        return plain(self, rows)

    class Counting(Net):
        def forward(self, given):
            ahead.append(len(begun) - (len(ahead) + 1)) if len(given) == 4 else None
            return super().forward(given)

    monkeypatch.setattr(Dataset, "read", read)
    monkeypatch.setattr(sweep, "MOST_HELD", 1000)  # one batch takes more
    with run(tmp_path, Counting(2), inputs(2, 64), explain={"workers": 4, "batch_size": 4}) as results:
        assert results.counts() == {"ok": 64}
    assert len(begun) == len(ahead) == 16
    assert max(ahead[4:]) <= 1, "but for the first ones, of which the size was not known"


def test_a_layout_that_a_backend_does_not_have_is_refused(tmp_path):
    from camsweep.backends.torch import TorchBackend

    class Rigid(TorchBackend):
        switches = frozenset()

    from camsweep.core.checks import check_switches
    from camsweep.core.job import Job

    job = Job.load(None, {"model": {"source": "a:b"}, "data": {"path": "x"}, "explain": {"channels_last": True}})
    rigid = Rigid(Net(2), device=torch.device("cpu"))
    with pytest.raises(RequestError, match=r"explain\.channels_last has no meaning for the torch backend here; take"):
        check_switches(job, rigid, None)
    check_switches(
        job.model_copy(update={"explain": job.explain.model_copy(update={"channels_last": None})}), rigid, None
    )


def test_threads_asked_for_are_set_before_a_framework_is_imported():
    from camsweep.core.scheduling.allocation import THREADS, settings

    assert {k: v for k, v in settings({"OMP_NUM_THREADS": "7"}, 3).items() if k in THREADS} == dict.fromkeys(
        THREADS, "3"
    )
    assert "OMP_NUM_THREADS" not in settings({"OMP_NUM_THREADS": "7"})
