"""Parts: committed in any order, compacted, damaged, held."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camsweep.core.errors import OutputError, Stopped, StorageError
from camsweep.core.results import Parts, durable, merge, open_results, verify
from camsweep.core.results.parts import COMPACT_FROM, held

from .synthetic import IDS, Moment, begun, commit, contents, finish, info, schema, unlike


def merged(parts, columns, output):
    merge(parts, output, finished="now")
    with h5py.File(output) as file:
        return unlike(file, parts.schema, columns)


KINDS = {
    "float32": {},
    "float16 with a scale": {"dtype": "float16"},
    "float64": {"dtype": "float64"},
    "copied inputs": {"inputs_dtype": "float32"},
    "copied grey levels": {"inputs_dtype": "uint8"},
    "a signal": {"shape": (2, 23)},
    "a volume": {"shape": (1, 5, 8, 7)},
    "a row is a chunk": {"shape": (3, 50, 60)},
    "a row is a chunk, float16": {"shape": (3, 60, 70), "dtype": "float16"},
    "one channel, no target but one": {"shape": (1, 4, 4), "targets": ["predicted"]},
}


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_every_kind_of_column_comes_back_bit_by_bit(tmp_path, more):
    which = schema(11, **more)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for rows in ([3, 4, 5], [0, 1, 2], [10, 6], [7, 9, 8]):
        assert (parts.owners()[rows] == -1).all()
        commit(parts, columns, rows)
        assert (parts.owners()[rows] >= 0).all()
    assert merged(parts, columns, output) == []
    assert verify(output) == []
    assert not parts.folder.exists()


def test_a_row_of_more_than_four_megabytes_is_split(tmp_path):
    which = schema(3, shape=(1, 1100, 1000), targets=["predicted"], maps=[info(shape=(1100, 1000))])
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    finish(parts, columns, output, 1)
    with h5py.File(output) as file:
        values = file["maps/gradcam@layer4/values"]
        assert np.prod(values.chunks) * 4 <= 1 << 20
        assert values.chunks[0] == 1
        assert unlike(file, which, columns) == []
    assert verify(output) == []


def test_short_rows_share_chunks_of_256_and_more(tmp_path):
    which = schema(700, shape=(1, 4, 4), maps=[info(shape=(4, 4))])
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    finish(parts, columns, output, 100)
    with h5py.File(output) as file:
        assert all(file[column.path].chunks[0] >= 256 for column in which.columns)
        assert unlike(file, which, columns) == []


def test_overlapping_and_repeated_parts(tmp_path):
    which = schema(12)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for rows in (range(5), range(3, 9), range(5), [11, 3], range(6, 12), [0]):
        commit(parts, columns, rows)
    assert merged(parts, columns, output) == []


def test_parts_with_the_same_ends_do_not_replace_each_other(tmp_path):
    which = schema(10)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    commit(parts, columns, [0, 3, 9])
    commit(parts, columns, [0, 5, 9])
    assert set(np.flatnonzero(parts.owners() >= 0)) == {0, 3, 5, 9}
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []


@st.composite
def runs(draw):
    """A schema, and an order in which its rows are committed: split anyhow, some of them twice."""
    count = draw(st.integers(1, 30))
    shape = (draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 60), min_size=1, max_size=2)))
    dtype = draw(st.sampled_from(["float32", "float16", "float64"]))
    rows = [*draw(st.permutations(range(count))), *draw(st.lists(st.integers(0, count - 1), max_size=10))]
    cuts = sorted(draw(st.sets(st.integers(1, len(rows)), max_size=8)))
    splits = [sorted(set(piece)) for piece in np.split(rows, cuts) if len(piece)]
    which = schema(count, shape=shape, dtype=dtype, inputs_dtype=draw(st.sampled_from([None, "float32"])))
    return which, splits, draw(st.booleans())


@given(run=runs(), seed=st.integers(0, 99))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_order_the_file_holds_the_rows(tmp_path_factory, run, seed):
    which, splits, unsorted = run
    parts, output = begun(tmp_path_factory.mktemp("run"), which)
    columns = contents(which, seed)
    rng = np.random.default_rng(seed)
    for rows in splits:
        commit(parts, columns, rng.permutation(rows) if unsorted else rows)
    assert merged(parts, columns, output) == []
    assert verify(output) == []


# Compaction


def small_parts(tmp_path, count=COMPACT_FROM, **more):
    which = schema(2 * count + 3, **more)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for i in range(count):
        commit(parts, columns, [2 * i, 2 * i + 1])
    return parts, output, columns


@pytest.mark.parametrize("shape", [(2, 9, 14), (1, 50, 50)], ids=["short rows", "a row is a chunk"])
def test_compaction_keeps_every_row_and_removes_the_small_parts(tmp_path, shape):
    parts, output, columns = small_parts(tmp_path, shape=shape)
    before = parts.owners() >= 0
    parts.compact()
    assert len(parts.files()) == 1
    assert ((parts.owners() >= 0) == before).all()
    commit(parts, columns, [2, 3])  # a row in both
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, parts.schema, columns) == []


def test_a_stop_while_parts_are_put_together_leaves_them_as_they_are(tmp_path):
    parts, output, columns = small_parts(tmp_path)
    before = {path: path.read_bytes() for path in parts.folder.iterdir()}
    for n in (0, 1, COMPACT_FROM, COMPACT_FROM + 1, 2 * COMPACT_FROM, 2 * COMPACT_FROM + 9):
        parts.stop = Moment(n)
        parts.compact()
        assert {path: path.read_bytes() for path in parts.folder.iterdir()} == before
    parts.stop = threading.Event()
    parts.compact()
    assert len(parts.files()) == 1
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, parts.schema, columns) == []


def test_no_compaction_below_its_number(tmp_path):
    parts, _, _ = small_parts(tmp_path, COMPACT_FROM - 1)
    parts.compact()
    assert len(parts.files()) == COMPACT_FROM - 1


def test_a_kill_between_publishing_and_removing_is_harmless(tmp_path):
    parts, output, columns = small_parts(tmp_path)
    small = {path: path.read_bytes() for path in parts.files()}
    parts.compact()
    for path, data in list(small.items())[3:]:  # removed in order: the others are still there
        path.write_bytes(data)
    assert (parts.owners() >= 0).sum() == 2 * COMPACT_FROM
    for path, data in small.items():
        path.write_bytes(data)
    parts.compact()  # once more, over the compacted part
    assert (parts.owners() >= 0).sum() == 2 * COMPACT_FROM
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, parts.schema, columns) == []


def test_two_compactions(tmp_path):
    which = schema(4 * COMPACT_FROM)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for start in range(0, len(which), 2):
        commit(parts, columns, [start, start + 1])
        parts.compact()
    assert len(parts.files()) == 2
    assert merged(parts, columns, output) == []


def test_a_damaged_part_is_not_compacted_into_a_wrong_one(tmp_path):
    parts, output, columns = small_parts(tmp_path)
    path = parts.files()[5]
    flip(path, path.stat().st_size // 2)
    parts.compact()
    assert (parts.owners() >= 0).sum() in (2 * COMPACT_FROM, 2 * COMPACT_FROM - 2)
    again(parts, columns, output)


# Damage


def flip(path, place, bit=3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def again(parts, columns, output):
    """Run until it is finished: a damaged part may be found by any step, but no later than by the second merge."""
    said = []
    while not output.exists():
        try:
            finish(parts, columns, output)
        except StorageError as error:
            said.append(str(error))
        assert len(said) < 3, said
    assert all("run the same command again" in each for each in said)
    with h5py.File(output) as file:
        assert unlike(file, parts.schema, columns) == []


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: np.random.default_rng(0).bytes(len(data)),
    "half a page lost": lambda data: data[:512] + bytes(512) + data[1024:],
    "a part of something else": lambda data: Path(__file__).read_bytes(),
}


@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_part_is_set_aside_and_its_rows_done_again(tmp_path, how):
    which = schema(12)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for start in (0, 4, 8):
        commit(parts, columns, range(start, start + 4))
    path = parts.files()[1]
    path.write_bytes(how(path.read_bytes()))
    again(parts, columns, output)


def test_another_programs_hdf5_is_set_aside(tmp_path):
    which = schema(4)
    parts, _ = begun(tmp_path, which)
    path = parts.folder / "rows-000000000-000000003.h5"
    with h5py.File(path, "w") as file:
        file["row"] = ["a", "b"]
    durable.seal(path)
    assert (parts.owners() < 0).all()
    assert [path.suffix for path in parts.folder.glob("rows-*")] == [".bad"]


@pytest.mark.parametrize("shape", [(1, 9, 14), (1, 50, 50)], ids=["short rows", "a row is a chunk"])
def test_no_flipped_bit_of_a_part_ends_in_a_wrong_file(tmp_path, shape):
    """In a process of its own, with a limit: HDF5 can hang over a damaged file, or crash."""
    done = subprocess.run(
        [sys.executable, "-c", FLIPS.format(package=__package__, folder=str(tmp_path), shape=shape)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-500:] + done.stderr[-2000:]


FLIPS = """
import shutil
from pathlib import Path
import numpy as np
from {package}.synthetic import begun, commit, contents, schema
from {package}.test_parts import again, flip

rng = np.random.default_rng(0)
which = schema(8, shape={shape})
columns = contents(which)
for trial in range(60):
    folder = Path({folder!r}) / str(trial)
    folder.mkdir()
    parts, output = begun(folder, which)
    commit(parts, columns, range(4))
    commit(parts, columns, range(4, 8))
    path = parts.files()[trial % 2]
    size = path.stat().st_size
    # Half of them in the first kilobytes, where HDF5 keeps its headers.
    place = int(rng.integers(0, min(size, 4000) if trial < 30 else size))
    flip(path, place, int(rng.integers(8)))
    print("byte", place, "of", size, flush=True)
    again(parts, columns, output)
    shutil.rmtree(folder)
"""


def test_an_error_of_the_disk_is_told_and_sets_no_part_aside(tmp_path, monkeypatch):
    which = schema(4)
    parts, _ = begun(tmp_path, which)
    commit(parts, contents(which), range(4))
    real = h5py.File

    def broken(path, *more, **options):
        if str(path).endswith(".h5"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", broken)
        with pytest.raises(StorageError, match="permission denied"):
            parts.owners()
    assert (parts.owners() >= 0).all()


# The manifest


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"ids": []}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_told_in_one_line(tmp_path, data):
    folder = tmp_path / "run.h5.parts"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(OutputError, match="--force"):
        Parts.open(folder)


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_the_manifest_is_the_schema(tmp_path, more):
    which = schema(9, **more)
    parts, _ = begun(tmp_path, which)
    again = Parts.open(parts.folder)
    assert again.schema == which
    assert again.schema.columns == which.columns


def test_no_manifest_no_parts(tmp_path):
    assert Parts.open(tmp_path / "run.h5.parts") is None


def test_parts_of_a_job_whose_removal_was_cut_short_are_not_taken_for_ones_own(tmp_path):
    parts, output = begun(tmp_path, schema(8))
    commit(parts, contents(parts.schema, 1), range(8))
    (parts.folder / "manifest.json").unlink()
    parts = Parts.create(parts.folder, schema(8, final=None))
    assert (parts.owners() < 0).all()
    columns = contents(parts.schema, 2)
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, parts.schema, columns) == []


def test_ids_of_any_bytes_survive_the_manifest_and_the_merge(tmp_path):
    which = schema(len(IDS), ids=IDS)
    parts, output = begun(tmp_path, which)
    finish(Parts.open(parts.folder), contents(which), output)
    with open_results(output) as results:
        assert results.ids == IDS


# Held


HOLD = """
import sys, time
from pathlib import Path
from camsweep.core.results.parts import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_who_the_first_is_until_it_dies(tmp_path):
    folder = tmp_path / "run.h5.parts"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Stopped, match=rf"{os.uname().nodename} pid {first.pid}\b"), held(folder):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    with held(folder):
        assert (folder / "lock").read_text().endswith(f"pid {os.getpid()}")


def test_held_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write beside"), held(tmp_path / "file" / "run.h5.parts"):
        pass


def test_clean_removes_what_is_half_written_of_this_output_only(tmp_path):
    parts, _ = begun(tmp_path, schema(4), "run [1].h5")
    mine = [parts.folder / ".rows-000000000-000000003.h5.host.1.tmp", tmp_path / ".run [1].h5.host.1.tmp"]
    others = [tmp_path / ".run 1.h5.host.1.tmp", tmp_path / ".run [1].h5.host.1.tmp2", tmp_path / "run [1].h5.tmp"]
    for path in (*mine, *others):
        path.write_bytes(b"half")
    parts.clean()
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in others)
