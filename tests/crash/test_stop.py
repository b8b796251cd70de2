"""Being asked to stop: the batch in hand is kept, one line says how far it came, the same command goes on."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import h5py
import pytest

import camsweep
from camsweep.core.results import merge
from camsweep.tests.results.synthetic import begun, commit, contents, info, schema, unlike

from .bench import Bench as Whole
from .bench import contrast, heed
from .forks import Forked as Bench

SAMPLES = 320
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("reference"), samples=SAMPLES, pause=0.05)
    assert bench.finish()[0] == 0
    return bench.output


def until(happened, process, limit=60):
    began = monotonic()
    while not happened():
        assert process.poll() is None, process.communicate()
        assert monotonic() - began < limit
        sleep(0.01)


def same(reference, bench, *but):
    return contrast(reference, bench.output, but=("started", "finished", "git", "job", "argv", "data", *but))


def test_each_signal_stops_after_the_batch_in_hand_and_the_same_command_goes_on(tmp_path, reference):
    bench = Bench(tmp_path, samples=SAMPLES, pause=0.05)
    done = 0
    for number in (*SIGNALS, signal.SIGUSR2):
        with bench.start() as process:
            until(lambda enough=done + 16: bench.computed().total() >= enough, process)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        assert out == ""
        assert err.count("\n") == 1
        told = re.search(rf"stopped with (\d+) of {SAMPLES} rows done", err)
        assert told, err
        rows, _, unreadable = bench.committed()
        assert not unreadable
        assert int(told[1]) == len(rows)
        assert set(bench.computed()) == rows  # the batch in hand was committed
        assert len(rows) > done
        assert not bench.output.exists()
        done = len(rows)
    code, _, err = bench.finish()
    assert (code, err) == (0, "")
    assert bench.computed() == dict.fromkeys(range(SAMPLES), 1)
    assert same(reference, bench) == []
    assert bench.litter() == []


def test_a_second_interrupt_leaves_at_once(tmp_path):
    bench = Bench(tmp_path, samples=16, pause=60)
    with bench.start() as process:
        until(lambda: bench.computed().total() > 0, process)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)  # the batch is being finished
        began = monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert monotonic() - began < 5
    assert process.returncode == 130
    assert out == ""
    assert not bench.output.exists()


def test_an_interrupt_after_another_signal_leaves_at_once_too(tmp_path):
    bench = Bench(tmp_path, samples=16, pause=60)
    with bench.start() as process:
        until(lambda: bench.computed().total() > 0, process)
        process.send_signal(signal.SIGTERM)
        sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_signals_while_the_interpreter_starts_lose_nothing(tmp_path, reference):
    bench = Whole(tmp_path, samples=SAMPLES, pause=0.05)
    for number, wait in zip(SIGNALS * 2, (0.02, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2, 2.0), strict=True):
        with bench.start() as process:
            sleep(wait)
            process.send_signal(number)
            process.communicate(timeout=60)
        # Before our first line Python decides: by the signal, or 1 where a Ctrl-C meets its own start.
        assert process.returncode in ((75, -number, 130, 1) if wait < 0.5 else (75,)), process.returncode
    assert bench.finish()[0] == 0
    assert same(reference, bench) == []
    assert bench.litter() == []


def heeds(pid):
    """Whether the process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="told by /proc")
def test_signals_are_heeded_a_fifth_of_a_second_after_the_start(tmp_path):
    bench, took = Whole(tmp_path, samples=16, pause=0), []
    for _ in range(5):
        began = monotonic()
        with bench.start() as process:
            while not heeds(process.pid):
                assert monotonic() - began < 10
                sleep(0.002)
            took.append(monotonic() - began)
            process.send_signal(signal.SIGTERM)
            err = process.communicate(timeout=60)[1]
        assert (process.returncode, err.count("\n")) == (75, 1)
    assert min(took) < 0.2


def test_nothing_heavy_is_loaded_before_signals_are_heeded(tmp_path):
    (tmp_path / "camsweep").symlink_to(Path(camsweep.__file__).parent)  # an editable install is found by heavy means
    code = "import sys; before = set(sys.modules); import camsweep.cli.entry; print(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path = {[str(tmp_path), *sys.path]!r}; {code}"],
        capture_output=True,
        text=True,
    )
    assert "camsweep.cli.entry" in loaded.stdout, loaded.stderr
    assert not {"typing", "pathlib", "typer", "numpy", "importlib.metadata", "contextlib"} & set(loaded.stdout.split())


def test_a_time_budget_is_kept(tmp_path):
    bench = Bench(tmp_path, samples=800, pause=0.3)
    began = monotonic()
    code, out, err = bench.finish("--time-budget", "8s")
    assert monotonic() - began < 8
    assert (code, out, err.count("\n")) == (75, "", 1), err
    rows, _, _ = bench.committed()
    told = re.search(r"stopped with (\d+) of 800 rows done \(the time budget of 8 s is nearly over\)", err)
    assert told, err
    assert int(told[1]) == len(rows) == len(bench.computed()) > 0


def test_a_batch_that_takes_longer_than_the_time_that_is_left_is_not_waited_for(tmp_path):
    bench = Bench(tmp_path, samples=16, pause=60)
    began = monotonic()
    code, out, err = bench.finish("--time-budget", "6s")
    assert monotonic() - began < 6
    assert (code, out, err.count("\n")) == (75, "", 1), err
    assert "time budget" in err


def test_a_time_budget_that_is_over_before_the_first_batch(tmp_path):
    bench = Bench(tmp_path, samples=16, pause=0)
    code, out, err = bench.finish("--time-budget", "1")
    assert (code, out) == (75, "")
    assert err.count("\n") == 1
    assert "time budget" in err
    assert not bench.computed()


def test_work_is_committed_as_seldom_as_was_asked_and_a_stop_commits_it_all(tmp_path, reference):
    bench = Bench(tmp_path, samples=SAMPLES, pause=0.05)
    with bench.start("--commit-every", "1h") as process:
        until(lambda: bench.computed().total() >= 64, process)
        assert not bench.committed()[0]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 75
    rows, digests, _ = bench.committed()
    assert set(bench.computed()) == rows
    assert len(digests) == 1
    assert bench.finish("--commit-every", "0.4s")[0] == 0
    assert bench.computed() == dict.fromkeys(range(SAMPLES), 1)
    assert same(reference, bench) == []


def test_under_nohup_a_hangup_is_ignored(tmp_path, reference):
    bench = Whole(tmp_path, samples=SAMPLES, pause=0.05)
    with bench.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        until(lambda: bench.committed()[0], process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert same(reference, bench) == []


def test_a_second_run_on_the_same_output_is_told_who_holds_it(tmp_path, reference):
    bench = Bench(tmp_path, samples=SAMPLES, pause=1)
    with bench.start() as first:
        until(lambda: bench.committed()[0], first)
        rows, digests, _ = bench.committed()
        for more in ((), ("--force",)):
            code, _, err = bench.finish(*more)
            assert code == 75, err
            assert f"pid {first.pid}" in err
            assert err.count("\n") == 1
        after, kept, _ = bench.committed()
        assert rows <= after
        assert digests.items() <= kept.items()
        first.kill()
        first.communicate()


@pytest.mark.parametrize("manifest", [True, False])
def test_parts_left_by_a_kill_after_the_file_was_published_are_cleared_away(tmp_path, manifest):
    bench = Bench(tmp_path, samples=32, pause=0.3)
    with bench.start() as process:
        until(lambda: bench.committed()[0], process)
        process.kill()
        process.communicate()
    left = tmp_path / "left"
    shutil.copytree(bench.parts, left)
    assert bench.finish()[0] == 0
    left.rename(bench.parts)
    if not manifest:  # the folder's removal had begun
        (bench.parts / "manifest.json").unlink()
    code, out, _ = bench.finish()
    assert code == 0
    assert "already complete" in out
    assert bench.litter() == []


def test_a_run_with_force_that_was_killed_goes_on_and_what_was_there_stays_until_it_is_done(tmp_path, reference):
    bench = Bench(tmp_path, samples=SAMPLES, pause=0.05)
    shutil.copy(reference, bench.output)
    old = bench.output.read_bytes()
    for number, code, enough in ((signal.SIGKILL, -9, 32), (signal.SIGTERM, 75, 64)):
        with bench.start("--force") as process:
            until(lambda enough=enough: len(bench.computed()) >= enough, process)
            process.send_signal(number)
            process.communicate(timeout=60)
        assert process.returncode == code
        assert bench.output.read_bytes() == old
    done = len(rows_in_parts(bench))
    assert done >= 40
    computed = bench.computed().total()
    assert bench.finish("--force")[0] == 0
    assert bench.computed().total() - computed == SAMPLES - done
    assert bench.output.read_bytes() != old
    assert same(reference, bench) == []
    assert bench.litter() == []
    before = bench.computed().total()
    assert bench.finish("--force")[0] == 0  # of what is finished nothing is kept
    assert bench.computed().total() - before == SAMPLES


def rows_in_parts(bench):
    rows = set()
    for path in bench.parts.glob("rows-*.h5"):
        with h5py.File(path, "r", locking=False) as part:
            rows |= set(part["row"][:].tolist())
    return rows


def test_force_does_not_go_on_with_what_was_begun_without_it(tmp_path):
    bench = Bench(tmp_path, samples=32, pause=0.3)
    with bench.start() as process:
        until(lambda: bench.committed()[0], process)
        process.kill()
        process.communicate()
    before = bench.computed().total()
    assert bench.finish("--force")[0] == 0
    assert bench.computed().total() - before == 32


def test_of_many_that_begin_at_once_one_runs_and_the_others_say_who(tmp_path, reference):
    """Races for one output, without a framework: whoever comes second is told in half a second."""
    folder = tmp_path / "run.h5.parts"
    script = f"""
import os, sys, time
from pathlib import Path
from camsweep.core.errors import Stopped
from camsweep.core.results.parts import held
sys.path = {sys.path!r}
for race in range(50):
    go = Path({str(tmp_path)!r}) / f"go{{race}}"
    while not go.exists():
        time.sleep(0.0005)
    began = time.monotonic()
    try:
        with held(Path({str(folder)!r})):
            print(race, "holds", os.getpid(), flush=True)
            while not go.with_suffix(".done").exists():
                time.sleep(0.0005)
    except Stopped as told:
        print(race, "told", round(time.monotonic() - began, 3), str(told), flush=True)
    while not go.with_suffix(".done").exists():
        time.sleep(0.0005)
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path = {sys.path!r}\n{script}"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for race in range(50):
        go = tmp_path / f"go{race}"
        go.touch()
        answers = [run.stdout.readline().split(maxsplit=3) for run in runs]
        assert sorted(answer[1] for answer in answers) == ["holds", "told", "told"], answers
        holder = next(answer[2] for answer in answers if answer[1] == "holds")
        for answer in answers:
            assert answer[0] == str(race)
            if answer[1] == "told":
                assert float(answer[2]) < 0.5
                assert f"pid {holder})" in answer[3], answer
        go.with_suffix(".done").touch()
    for run in runs:
        assert run.wait(30) == 0
        run.stdout.close()


def test_the_temporary_file_of_a_killed_merge_is_cleared_away(tmp_path):
    bench = Bench(tmp_path, samples=16, pause=0)
    (tmp_path / f".{bench.output.name}.host.123.tmp").write_bytes(b"half a file")
    (tmp_path / ".other.h5.host.123.tmp").write_bytes(b"another run's")
    assert bench.finish()[0] == 0
    assert bench.litter() == [".other.h5.host.123.tmp"]


MERGING = """
import sys, time
import camsweep.core.results.parts as parts
copy = parts._copy_chunks
parts._copy_chunks = lambda *row: (time.sleep(0.1), copy(*row))
sys.argv[1:] = ["merge", "run.h5"]
from camsweep.cli.entry import main
main()
"""


def test_a_signal_while_the_file_is_put_together_is_heeded_soon_and_nothing_is_lost(tmp_path):
    """A merge of 20 seconds: 200 rows, each a tenth of a second."""
    which = schema(200, shape=(1, 70, 70), maps=[info(shape=(70, 70))])
    columns = contents(which)
    parts, output = begun(tmp_path, which)
    for k in range(0, 200, 20):
        commit(parts, columns, range(k, k + 20))
    before = {path: path.read_bytes() for path in parts.files()}
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path = {sys.path!r}\n{MERGING}"],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed,
        ) as process:  # fmt: skip
            until(lambda: list(tmp_path.glob(".run.h5.*.tmp")), process)
            sleep(0.3)
            began = monotonic()
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            assert monotonic() - began < 5  # a tenth of a second and the end of Python, on a busy machine
        assert (process.returncode, out, err.count("\n")) == (75, "", 1), err
        assert "the same command goes on" in err
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))
        assert {path: path.read_bytes() for path in parts.files()} == before
    merge(parts, output, finished="now")
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []
