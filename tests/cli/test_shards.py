"""One job by many processes: planned, explained shard by shard, watched and merged, from the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from camsweep.core.results import Parts, Status, open_results, verify
from camsweep.tests.crash.bench import contrast

from .conftest import job_text

OWN = ("started", "finished", "git", "job", "argv", "data")
"""What two runs of one job may differ in: the last is where its data lie."""
METHODS = (
    '\nmethods = ["hirescam", "smoothgrad:n=3", "rise:n=6", "grad+input", "dff:k=2"]\nlayers = ["first", "second"]\n'
)


@pytest.fixture
def job(bench):
    """A job of 10 samples in batches of 2, with methods that draw random numbers and one that is fitted."""
    text = job_text().replace('methods = ["hirescam"]\nlayers = ["first"]\nbatch_size = 4', f"batch_size = 2{METHODS}")
    (bench / "job.toml").write_text(text)
    return bench


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    """The run that is not split, once made."""
    return {}


@pytest.fixture
def whole(job, call, made):
    if not made:
        assert call("explain", "job.toml", "-o", "whole.h5", cwd=job).code == 0
        made["whole"] = (job / "whole.h5").read_bytes()
    (job / "whole.h5").write_bytes(made["whole"])
    return job / "whole.h5"


def shards(call, folder, count, which=None, *more):
    for index in range(count) if which is None else which:
        answer = call("explain", "job.toml", "--shard", f"{index}/{count}", "--quiet", *more, cwd=folder)
        assert answer.code == 0, answer.err
    return answer


@pytest.mark.parametrize("count", [1, 3, 16])
def test_any_number_of_shards_makes_the_same_file_to_the_bit(job, whole, call, count):
    order = list(np.random.default_rng(count).permutation(count))
    answer = shards(call, job, count, order)
    assert "all shards are done: camsweep merge" in answer.out
    assert not (job / "run.h5").exists()
    merged = call("merge", "run.h5", "--json", cwd=job)
    assert merged.json["status"] == {"ok": 10}
    assert contrast(whole, job / "run.h5", but=OWN) == []
    assert verify(job / "run.h5") == []
    assert not Parts.folder_of(job / "run.h5").exists()


def test_rows_are_dealt_out_by_batches(job, call):
    shards(call, job, 3, [1])
    answer = call("status", "run.h5", "--json", cwd=job).json
    assert [(each["shard"], each["samples"], each["done"]) for each in answer["shards"]] == [
        (0, 4, 0),
        (1, 4, 4),
        (2, 2, 0),
    ]
    assert answer["missing"] == [[0, 1], [4, 7]]
    assert (answer["done"], answer["complete"], answer["failed"]) == (4, False, 0)
    told = call("status", "run.h5", cwd=job).out
    assert "4 of 10 samples done" in told
    assert "missing: 0-1,4-7" in told


def test_what_is_missing_is_told_with_the_line_to_type(job, call):
    shards(call, job, 4, [0, 3])
    for more in ([], ["-o", "copy.h5"]):
        answer = call("merge", "run.h5", *more, cwd=job)
        assert answer.code == 75
        assert answer.err.count("\n") == 1
        assert "4 of 10 rows are missing or damaged: 2-5, of shards 1-2;" in answer.err
        assert "camsweep submit job.toml --tasks 4 --only 1-2" in answer.err
    assert [path.name for path in job.glob("*.h5")] == []
    shards(call, job, 4, [1, 2])
    assert call("merge", "run.h5", cwd=job).code == 0


def test_missing_rows_are_nan_and_the_rest_can_be_done_later(job, whole, call):
    shards(call, job, 3, [0])
    answer = call("merge", "run.h5", "--allow-missing", "--json", cwd=job)
    assert answer.code == 3
    assert answer.json["status"] == {"todo": 6, "ok": 4}
    assert answer.json["missing"] == 6
    assert verify(job / "run.h5") == []
    missing = np.isin(np.arange(10) // 2 % 3, [1, 2])
    with open_results(job / "run.h5") as found, open_results(whole) as expected:
        assert (found.status == np.where(missing, Status.TODO, Status.OK)).all()
        assert found.ids == expected.ids
        for name, view in expected.maps.items():
            np.testing.assert_array_equal(found.maps[name].read()[~missing], view.read()[~missing])
            assert np.isnan(found.maps[name].read()[missing]).all()
        np.testing.assert_array_equal(found.outputs[~missing], expected.outputs[~missing])
        assert (found.predicted[missing] == -1).all()
        assert np.isnan(found.target_score[missing]).all()
    assert "todo" in call("info", "run.h5", cwd=job).out
    assert "4 of 10 samples done" in call("status", "run.h5", cwd=job).out
    shards(call, job, 3, [1, 2])
    assert call("merge", "run.h5", cwd=job).code == 0
    assert contrast(whole, job / "run.h5", but=OWN) == []
    assert not Parts.folder_of(job / "run.h5").exists()


def test_a_look_at_what_is_done_leaves_the_parts(job, whole, call):
    shards(call, job, 3, [1])
    assert call("merge", "run.h5", "--allow-missing", "-o", "now.h5", cwd=job).code == 3
    shards(call, job, 3, [0, 2])
    assert call("merge", "run.h5", "-o", "copy.h5", cwd=job).code == 0
    assert contrast(whole, job / "copy.h5", but=OWN) == []
    assert call("merge", "run.h5", cwd=job).code == 0
    assert contrast(whole, job / "run.h5", but=OWN) == []


def test_a_merged_file_without_its_parts_is_what_it_is(job, call):
    shards(call, job, 3, [1])
    call("merge", "run.h5", "--allow-missing", cwd=job)
    shutil.rmtree(job / "run.h5.parts")
    answer = call("merge", "run.h5", cwd=job)
    assert (answer.code, "6 todo" in answer.out) == (3, True)
    answer = call("explain", "job.toml", cwd=job)
    assert (answer.code, "lacks 6 rows, and its parts are gone" in answer.err) == (73, True)
    assert call("explain", "job.toml", "--force", cwd=job).code == 0
    assert call("merge", "run.h5", cwd=job).out.endswith("10 samples, 10 ok (already merged)\n")


def test_the_last_shard_merges_where_it_is_asked_to(job, whole, call):
    answer = shards(call, job, 3, [2, 0], "--merge")
    assert "2 samples of other shards" not in answer.out
    assert not (job / "run.h5").exists()
    assert "merged: all shards are done" in shards(call, job, 3, [1], "--merge").out
    assert contrast(whole, job / "run.h5", but=OWN) == []
    again = shards(call, job, 3, [1])
    assert "4 ok (already complete)" in again.out


def test_a_shard_that_is_done_is_not_done_again(job, call, monkeypatch):
    shards(call, job, 3, [1])
    monkeypatch.setattr("camsweep.cli.explain.load_backend", None)
    assert "already complete" in shards(call, job, 3, [1]).out


def test_whole_runs_and_shards_go_on_with_each_other(job, whole, call):
    shards(call, job, 3, [1])
    assert call("plan", "job.toml", "--shards", 5, cwd=job).code == 0
    shards(call, job, 5, [0])
    counts = [each["done"] for each in call("status", "run.h5", "--json", cwd=job).json["shards"]]
    assert counts == [2, 2, 0, 0, 2]
    assert call("explain", "job.toml", "--quiet", cwd=job).code == 0
    assert contrast(whole, job / "run.h5", but=OWN) == []


def test_the_plan_says_of_how_many(job, call, monkeypatch):
    answer = call("plan", "job.toml", "--shards", 5, "--json", cwd=job)
    assert answer.json["shards"] == 5
    assert answer.json["news"]
    assert not call("plan", "job.toml", "--json", cwd=job).json["news"]
    for key, value in {"ID": 3, "COUNT": 2, "MIN": 1, "MAX": 3, "STEP": 2}.items():  # --array=1,3 again
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", str(value))
    assert "shard 3/5" in call("explain", "job.toml", "--shard", "auto", cwd=job).out
    answer = call("explain", "job.toml", "--shard", "auto/4", cwd=job)
    assert (answer.code, "planned for 5" in answer.err) == (2, True)


def test_other_versions_than_those_of_the_plan_are_told(job, call):
    assert call("plan", "job.toml", "--shards", 2, cwd=job).code == 0
    folder = Parts.folder_of(job / "run.h5")
    planned = Parts.open(folder).schema
    other = replace(planned.provenance, versions={**planned.provenance.versions, "numpy": "0.9"})
    Parts.create(folder, replace(planned, provenance=other))
    answer = call("explain", "job.toml", "--shard", "0/2", cwd=job)
    assert answer.code == 0
    assert f"not as where the run was planned: numpy {np.__version__}, not 0.9\n" in answer.err
    assert call("explain", "job.toml", "--shard", "0/2", cwd=job).err.count("planned") == 0  # nothing is to do


def test_the_job_says_of_how_many(job, call, monkeypatch):
    with (job / "job.toml").open("a") as file:
        file.write("\nshards = 5\n")
    monkeypatch.setenv("PBS_ARRAY_INDEX", "4")
    assert "shard 4/5" in call("explain", "job.toml", "--shard", "auto", cwd=job).out


def test_more_shards_than_batches(job, call):
    assert "2 shards will have nothing to do" in call("plan", "job.toml", "--shards", 7, cwd=job).out
    assert "no samples" in shards(call, job, 7, [6]).out


def test_plan_with_force_starts_anew(job, call):
    shards(call, job, 3, [1])
    (job / "job.toml").write_text((job / "job.toml").read_text().replace("dff:k=2", "dff:k=1"))
    answer = call("explain", "job.toml", "--shard", "0/3", cwd=job)
    assert (answer.code, "another job" in answer.err) == (73, True)
    assert call("plan", "job.toml", "--shards", 3, "--force", cwd=job).code == 0
    assert call("status", "run.h5", "--json", cwd=job).json["done"] == 0
    shards(call, job, 3)
    assert call("merge", "run.h5", cwd=job).code == 0
    answer = call("plan", "job.toml", "--shards", 3, "--force", cwd=job)
    assert (answer.code, "is finished" in answer.err) == (73, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["explain", "job.toml", "--merge"], 2, "--merge goes with --shard"),
        (["explain", "job.toml", "--shard", "0/2", "--force"], 2, "camsweep plan JOB --force"),
        (["explain", "job.toml", "--shard", "2/2"], 2, "from 0 to 1"),
        (["explain", "job.toml", "--shard", "auto/2"], 2, "no task of an array"),
        (["plan", "job.toml"], 2, "--shards N"),
        (["plan", "none.toml", "--shards", "2"], 2, "job file not found"),
        (["merge", "run.h5"], 2, "no run into run.h5"),
        (["status", "run.h5"], 2, "no run into run.h5"),
        (["merge", "job.toml"], 2, "cannot be read as HDF5"),
    ],
)
def test_bad_requests_are_told_in_one_line(bench, call, words, code, message):
    answer = call(*words, cwd=bench)
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert not list(bench.glob("*.parts"))


def test_damaged_parts_are_set_aside_and_their_rows_done_again(job, whole, call):
    shards(call, job, 3)
    (part,) = (job / "run.h5.parts" / "shard-0002").glob("rows-*.h5")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(data)
    answer = call("merge", "run.h5", cwd=job)
    assert answer.code == 75
    assert "2 of 10 rows are missing or damaged: 4-5, of shards 2;" in answer.err
    shards(call, job, 3, [2])
    assert call("merge", "run.h5", cwd=job).code == 0
    assert contrast(whole, job / "run.h5", but=OWN) == []


def test_samples_that_fail_are_told_by_their_shard(job, call):
    with np.load(job / "signals.npz") as file:
        arrays = dict(file)
    arrays["x"][3] = np.nan
    np.savez(job / "signals.npz", **arrays)
    answer = call("explain", "job.toml", "--shard", "1/3", "--json", cwd=job)
    assert answer.code == 3
    assert answer.json["status"] == {"ok": 3, "non finite": 1}
    assert [each["failed"] for each in call("status", "run.h5", "--json", cwd=job).json["shards"]] == [0, 1, 0]


# Several processes


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "camsweep", *words]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )  # fmt: skip


HOLD = """
import sys, time
from pathlib import Path
from camsweep.core.results.locks import held
with held(Path(sys.argv[1]), *map(int, sys.argv[2:])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """``holder(folder, 1)``: a process that holds shard 1, or all without a number."""
    begun = []

    def hold(folder, *shard):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *map(str, shard)], stdout=subprocess.PIPE, text=True)  # fmt: skip
        begun.append(process)
        assert process.stdout.readline() == "held\n"
        return process.pid

    yield hold
    for process in begun:
        process.kill()
        process.communicate()


def test_who_holds_what_is_told_to_those_it_concerns(job, call, holder):
    shards(call, job, 3, [0])
    first, second = (holder(job / "run.h5.parts", index) for index in (1, 2))
    host = os.uname().nodename
    for words, told in {
        ("explain", "job.toml", "--shard", "1/3"): f"({host} pid {first})",
        ("explain", "job.toml"): f"(shard 1: {host} pid {first}, shard 2: {host} pid {second})",
        ("explain", "job.toml", "--force"): f"shard 1: {host} pid {first}",
        ("plan", "job.toml", "--shards", "3", "--force"): f"shard 1: {host} pid {first}",
    }.items():
        answer = call(*words, cwd=job)
        assert (answer.code, answer.out) == (75, "")
        assert told in answer.err
        assert answer.err.count("\n") == 1
    assert "already complete" in shards(call, job, 3, [0]).out
    working = [each["at_work"] for each in call("status", "run.h5", "--json", cwd=job).json["shards"]]
    assert working == [None, f"{host} pid {first}", f"{host} pid {second}"]
    assert "(at work: 1-2)" in call("merge", "run.h5", cwd=job).err
    assert call("merge", "run.h5", "--allow-missing", cwd=job).code == 75
    assert call("merge", "run.h5", "--allow-missing", "-o", "copy.h5", cwd=job).code == 3


def test_shards_do_not_begin_beside_a_whole_run(job, call, holder):
    call("plan", "job.toml", "--shards", 3, cwd=job)
    pid = holder(job / "run.h5.parts")
    answer = call("explain", "job.toml", "--shard", "1/3", cwd=job)
    assert (answer.code, f"pid {pid}" in answer.err) == (75, True)
    shutil.rmtree(job / "run.h5.parts")
    pid = holder(job / "run.h5.parts")
    answer = call("explain", "job.toml", "--shard", "1/3", cwd=job)
    assert (answer.code, f"pid {pid}" in answer.err) == (75, True)


def test_shards_begun_at_once_write_one_plan_and_merge_waits_for_them(job, whole, call):
    tasks = [start(job, "explain", "job.toml", "--shard", f"{index}/3", "--quiet", "--merge") for index in range(3)]
    for task in tasks:
        out, err = task.communicate(timeout=120)
        assert (task.returncode, err) == (0, ""), out
    assert contrast(whole, job / "run.h5", but=OWN) == []
    assert sorted(path.name for path in job.glob("run.h5*")) == ["run.h5"]


def test_a_merge_that_waits(job, whole, call):
    shards(call, job, 3, [0, 2])
    merging = start(job, "merge", "run.h5", "--wait")
    time.sleep(1)
    assert merging.poll() is None
    shards(call, job, 3, [1])
    out, err = merging.communicate(timeout=60)
    assert (merging.returncode, err) == (0, ""), out
    assert contrast(whole, job / "run.h5", but=OWN) == []


def test_a_merge_does_not_wait_for_ever(job, call):
    from camsweep.core.errors import Stopped
    from camsweep.core.sharded import merge_run

    shards(call, job, 3, [0, 2])
    with pytest.raises(Stopped, match="4 of 10 rows are missing"):
        merge_run(job / "run.h5", wait=True, stop=threading.Event(), patience=0.6)


def test_status_and_merge_import_no_framework(job, call):
    shards(call, job, 3)
    for words in (["status", "run.h5"], ["merge", "run.h5"]):
        code = (
            "import sys; from camsweep.cli.app import main\n"
            f"sys.argv = ['camsweep', *{words}]\n"
            "try: main()\n"
            "finally: print(sorted({'torch', 'tensorflow', 'onnx', 'keras'} & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=job, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_rate_and_the_time_left_are_told(job, call):
    shards(call, job, 1)
    parts = sorted((job / "run.h5.parts" / "shard-0000").glob("rows-*.h5"))
    for i, part in enumerate(parts):
        os.utime(part, (1_000_000, 1_000_000 + 4 * i))
    (share,) = call("status", "run.h5", "--json", cwd=job).json["shards"]
    assert share["rate"] == pytest.approx(0.5)  # 2 rows each 4 s
    assert re.search(r"0 +10 of 10 +0 +0.5/s", call("status", "run.h5", cwd=job).out)


def test_parts_of_shards_lie_in_folders_of_their_own(job, call):
    shards(call, job, 3, [1])
    (folder,) = (job / "run.h5.parts").glob("shard-*")
    with h5py.File(next(folder.glob("rows-000000002-000000003-*.h5"))) as part:
        assert part["row"][:].tolist() == [2, 3]


# Submitting


def test_submit_prints_a_script_for_the_shards_that_are_missing(bench, call):
    answer = call("submit", "job.toml", "--tasks", 16, "--only", "5,9-11", "--sbatch=--partition=long", cwd=bench)
    assert answer.code == 0
    assert '--array="${1:-5,9-11}"' in answer.out
    assert "--shard auto/16" in answer.out
    assert answer.out.count("#SBATCH --partition=long") == 2
    assert "#SBATCH --gres" not in answer.out
    assert subprocess.run(["bash", "-n"], input=answer.out, text=True).returncode == 0
    assert (
        call("submit", "job.toml", "--tasks", 16, "--gpu", "--json", cwd=bench).json["script"].count("--gres=gpu:1")
        == 1
    )


def test_submit_hands_the_script_on(bench, call, tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\ncat > /dev/null\necho 41\n')
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "[" not in call("submit", "job.toml", "--tasks", 4, "--run", "--dry-run", cwd=bench).err
    assert not (tmp_path / "asked").exists()
    assert call("submit", "job.toml", "--tasks", 4, "--run", cwd=bench).out == "array 41, merge 41\n"
    assert (tmp_path / "asked").read_text() == "--parsable --array=0-3\n--parsable --dependency=afterany:41\n"
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho 'error: Invalid\npartition' >&2\nexit 1\n")
    answer = call("submit", "job.toml", "--tasks", 4, "--run", cwd=bench)
    assert (answer.code, answer.err) == (74, "error: sbatch refused: error: Invalid partition\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "how many tasks"),
        (["--tasks", "4", "--only", "4"], "shards from 0 to 3"),
        (["--tasks", "4", "--only", "x"], "shards from 0 to 3"),
        (["--tasks", "4", "--scheduler", "slrum"], "Did you mean 'slurm'"),
        (["--tasks", "4", "--scheduler", "htcondor", "--run"], "there is no condor_submit_dag here"),
    ],
)
def test_what_cannot_be_submitted_is_told_in_one_line(bench, call, words, message):
    answer = call("submit", "job.toml", *words, cwd=bench)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_a_shard_that_comes_after_the_merge_leaves_it_alone(job, whole, call, monkeypatch):
    """It had seen the run unfinished, and gets its lock when all is merged."""
    from camsweep.core import sharded

    shards(call, job, 3)
    real = sharded.held

    def late(folder, *shard):
        monkeypatch.setattr(sharded, "held", real)
        assert call("merge", "run.h5", cwd=job).code == 0
        return real(folder, *shard)

    monkeypatch.setattr(sharded, "held", late)
    assert "4 ok (already complete)" in shards(call, job, 3, [1]).out
    assert contrast(whole, job / "run.h5", but=OWN) == []
    assert sorted(path.name for path in job.glob("run.h5*")) == ["run.h5"]
