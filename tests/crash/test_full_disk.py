"""A disk that gives out: one line, nothing half published, and the same command goes on once there is room."""

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from camsweep.cli.app import main
from camsweep.core.errors import StorageError
from camsweep.core.results import durable

from .bench import contrast
from .forks import Forked as Bench

SAMPLES = 536
"""67 batches: one compaction."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("reference"), samples=SAMPLES, pause=0)
    assert bench.finish()[0] == 0
    return bench.output


def same(reference, bench):
    return contrast(reference, bench.output, but=("started", "finished", "git", "job", "argv", "data"))


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(size, *, again=False):
        options = f"{'remount,' if again else ''}size={size}"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if made.returncode:
            pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    yield mounted
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


# As a share of the finished file: while the first parts are written, .. the last, in the compaction, in the merge.
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 1.1, 1.7, 1.98])
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_once_there_is_room(tmp_path, reference, small_disk, share):
    disk = small_disk(max(64 << 10, int(share * reference.stat().st_size)))
    bench = Bench(tmp_path, samples=SAMPLES, pause=0, output=disk / "run.h5")
    code, out, err = bench.finish()
    told(code, out, err, "no space left")
    rows, _, unreadable = bench.committed()
    assert not unreadable
    assert not bench.output.exists()
    assert not list(disk.rglob("*.tmp"))
    small_disk("300m", again=True)
    code, _, err = bench.finish()
    assert (code, err) == (0, "")
    assert same(reference, bench) == []
    assert bench.litter() == []
    assert all(bench.computed()[row] == 1 for row in rows)


def test_a_disk_full_from_the_start(tmp_path, reference, small_disk):
    disk = small_disk("64k")
    bench = Bench(tmp_path, samples=SAMPLES, pause=0, output=disk / "run.h5")
    with (disk / "filler").open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free:
            file.write(bytes(4096))
    told(*bench.finish(), "no space left")
    (disk / "filler").unlink()
    small_disk("300m", again=True)
    assert bench.finish()[0] == 0
    assert same(reference, bench) == []


def test_a_limit_on_file_size_ends_in_one_line(tmp_path, reference):
    """As a quota would, and without root: the parts fit, the compacted part or the finished file do not."""
    bench = Bench(tmp_path, samples=SAMPLES, pause=0)
    limit = reference.stat().st_size // 2
    code, out, err = bench.finish(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    told(code, out, err, "file too large")
    rows, _, _ = bench.committed()
    assert len(rows) >= 64 * 8
    code, _, err = bench.finish()
    assert (code, err) == (0, "")
    assert same(reference, bench) == []
    assert bench.litter() == []
    assert set(bench.computed()) >= rows


def told(code, out, err, what):
    assert code == 74, (code, err)
    assert out == ""
    assert err.count("\n") == 1, err
    assert what in err
    assert "Traceback" not in err


# What lies beneath: files that are whole or not there.


class Flaky(io.FileIO):
    """A file on a disk with room for ``room`` bytes, that writes at most 1000 of them at a time."""

    room = 0
    failures = 0

    def write(self, data):
        data = memoryview(data)[:1000]
        if self.tell() + len(data) > Flaky.room:
            Flaky.failures += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.fixture
def flaky(monkeypatch):
    whole = Path.open

    def opened(path, mode="r", buffering=-1, **options):
        return Flaky(path, mode.replace("b", "")) if "w" in mode else whole(path, mode, buffering, **options)

    def room(size):
        Flaky.room, Flaky.failures = size, 0
        monkeypatch.setattr(Path, "open", opened)

    return room


def raised_once(call, path, match):
    with pytest.raises(StorageError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("room", [0, 1, 999, 1000, 2500, 9999])
def test_write_publishes_nothing_on_a_full_disk(tmp_path, flaky, room):
    flaky(room)
    raised_once(lambda: durable.write(tmp_path / "file", bytes(10_000)), tmp_path / "file", "no space left")


def test_write_goes_on_after_a_short_write(tmp_path, flaky):
    flaky(1 << 20)
    data = np.random.default_rng(0).bytes(12_345)
    durable.write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def fill(path, size=200_000):
    with durable.hdf5(path) as file:
        for i in range(8):
            values = np.random.default_rng(i).integers(0, 255, size // 8, np.uint8)
            file.create_dataset(f"group {i}/values", data=values, chunks=(4096,), compression="gzip")
            assert (file[f"group {i}/values"][:100] == values[:100]).all() or Flaky.failures
            file[f"group {i}"].attrs["text"] = "x" * 500


@pytest.mark.parametrize("room", [0, 50, 3000, 10_000, 50_000, 100_000, 150_000, 190_000, 200_000])
def test_hdf5_publishes_nothing_on_a_full_disk_and_raises_once(tmp_path, flaky, room):
    flaky(room)
    raised_once(lambda: fill(tmp_path / "file.h5"), tmp_path / "file.h5", "no space left")
    assert Flaky.failures == 1  # the first error is kept, and the disk is asked no more


def test_hdf5_through_short_writes(tmp_path, flaky):
    flaky(10 << 20)
    fill(tmp_path / "file.h5")
    with h5py.File(tmp_path / "file.h5") as file:
        assert (file["group 7/values"][:] == np.random.default_rng(7).integers(0, 255, 25_000, np.uint8)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["file.h5"]


@pytest.mark.parametrize("make", [lambda path: durable.write(path, b"data"), fill])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failing_fsync_publishes_nothing(tmp_path, monkeypatch, make, number):
    def fsync(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable.os, "fsync", fsync)
    what = "input/output error" if number == errno.EIO else "no space left"
    raised_once(lambda: make(tmp_path / "file"), tmp_path / "file", what)


@pytest.mark.parametrize("make", [lambda path: durable.write(path, b"data"), fill])
def test_a_failing_rename_publishes_nothing(tmp_path, monkeypatch, make):
    def replace(_self, _target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", replace)
    raised_once(lambda: make(tmp_path / "file"), tmp_path / "file", "input/output error")


def test_what_was_there_stays_where_writing_fails(tmp_path, flaky):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    flaky(10)
    with pytest.raises(StorageError):
        durable.write(path, bytes(1000))
    with pytest.raises(StorageError):
        fill(path)
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_caller_passes_and_publishes_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), durable.hdf5(tmp_path / "file.h5") as file:
        file["x"] = 1 // 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [2000, 40_000, 150_000])
def test_a_limit_on_file_size_is_an_error_like_any_other(tmp_path, limit):
    """EFBIG from the kernel itself, in a process of its own: HDF5 must not take it down."""
    script = f"""
import resource
from pathlib import Path
import h5py, numpy as np
from camsweep.cli.app import main
from camsweep.core.errors import StorageError
from camsweep.core.results import durable
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
path = Path({str(tmp_path / "file.h5")!r})
for attempt in range(2):
    try:
        with durable.hdf5(path) as file:
            for i in range(8):
                file[f"g{{i}}/values"] = np.arange(5000)
    except StorageError as error:
        assert "file too large" in str(error), error
        print("told")
try:
    durable.write(path, bytes(200_000))
except StorageError as error:
    print("told")
assert not list(path.parent.iterdir())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n" * 3, "")


# What is made of a finished file: pictures, a page, other tools' files.

HANDED_ON = {
    "render": ["render", "{run}", "-o", "{disk}/out"],
    "report": ["report", "{run}", "-o", "{disk}/out.html"],
    "npz": ["export", "{run}", "--to", "npz", "-o", "{disk}/out.npz"],
    "virelay": ["export", "{run}", "--to", "virelay", "-o", "{disk}/out"],
    "zarr": ["export", "{run}", "--to", "zarr", "-o", "{disk}/out"],
}


def handed_on(what, run, disk, monkeypatch, capfd):
    words = [word.format(run=run, disk=disk) for word in HANDED_ON[what]]
    monkeypatch.setattr(sys, "argv", ["camsweep", *words, "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("few"), samples=48, pause=0)
    assert bench.finish()[0] == 0
    return bench.output


@pytest.mark.parametrize("what", HANDED_ON)
def test_a_full_disk_under_what_is_made_of_results(what, few, tmp_path, small_disk, monkeypatch, capfd):
    if what == "zarr":
        pytest.importorskip("zarr")
    disk = small_disk("300m")
    assert handed_on(what, few, disk, monkeypatch, capfd)[0] == 0
    whole = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
    for share in (0.0, 0.3, 0.8):
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        small_disk(max(8192, int(share * whole)), again=True)
        told(*handed_on(what, few, disk, monkeypatch, capfd), "no space left")
        assert not [path for path in disk.rglob(".*") if path.is_file() and path.stat().st_size]
    small_disk("300m", again=True)
    code, _, err = handed_on(what, few, disk, monkeypatch, capfd)
    assert (code, err) == (0, "")
    small_disk("300m,ro", again=True)  # all is there: nothing is to be written, or nothing can be
    code, _, err = handed_on(what, few, disk, monkeypatch, capfd)
    assert code in (0, 73, 74), err
    assert err.count("\n") == (code != 0)


@pytest.mark.parametrize("what", HANDED_ON)
def test_read_only_media(what, few, small_disk, monkeypatch, capfd):
    if what == "zarr":
        pytest.importorskip("zarr")
    disk = small_disk("1m")
    small_disk("1m,ro", again=True)
    code, out, err = handed_on(what, few, disk, monkeypatch, capfd)
    assert (code, out, err.count("\n")) == (73, "", 1), err
    assert "read-only file system" in err


def test_explaining_onto_read_only_media(tmp_path, small_disk):
    disk = small_disk("1m")
    small_disk("1m,ro", again=True)
    code, out, err = Bench(tmp_path, samples=16, pause=0, output=disk / "run.h5").finish()
    assert (code, out, err.count("\n")) == (73, "", 1), err
    assert "read-only file system" in err
    assert not (tmp_path / "rows.log").exists()
