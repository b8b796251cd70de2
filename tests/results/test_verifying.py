"""Every flipped bit is found, or lies outside of anything that is read."""

import json
import shutil

import h5py
import numpy as np
import pytest

from camsweep.core.errors import RequestError, StorageError
from camsweep.core.results import Parts, open_results, stored_identity, verify
from camsweep.core.results.durable import BLOCK, SEAL, Sealed, intact, seal, sealed
from camsweep.core.results.verifying import verify_all

from .synthetic import begun, commit, contents, finish, schema, unlike

FLIPS = 200


def flipped(whole, rng, place=None):
    data = bytearray(whole)
    place = int(rng.integers(len(data))) if place is None else place
    data[place] ^= 1 << int(rng.integers(8))
    return place, bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    which = schema(24, shape=(2, 50, 50))
    parts, output = begun(folder, which)
    finish(parts, contents(which), output)
    return output


def everything(path):
    """All that a reader gives."""
    with open_results(path) as file:
        maps = [(name, view.read().tobytes(), view.range().tobytes(), view.units) for name, view in file.maps.items()]
        told = [file.ids, file.messages, file.classes, file.axes, file.target_names, file.provenance, file.score]
        arrays = [file.labels, file.status, file.outputs, file.predicted, file.target_index, file.target_score]
        return maps, told, [each.tobytes() for each in arrays]


def test_a_finished_file_is_intact(whole):
    verdict = verify_all(whole)
    assert (verdict.kind, verdict.faults, verdict.rows, verdict.size) == ("results", [], 24, whole.stat().st_size)
    assert verify(whole) == []
    with h5py.File(whole) as file:  # the seal is nothing to HDF5
        assert len(file["samples/status"]) == 24


def test_every_flipped_bit_of_a_results_file_is_found_and_none_is_read(whole, tmp_path):
    """Half of them where HDF5 keeps its headers; the last in the seal, which nobody reads but to check."""
    rng, data, path = np.random.default_rng(0), whole.read_bytes(), tmp_path / "run.h5"
    expected = everything(whole)
    tail = len(data) - SEAL.size
    found, told = 0, []
    for trial in range(FLIPS):
        limited = (
            int(rng.integers(0, 4000)) if trial < 80 else int(rng.integers(tail, len(data))) if trial > 180 else None
        )
        place, damaged = flipped(data, rng, limited)
        path.write_bytes(damaged)
        found += not intact(path)
        try:
            assert everything(path) == expected, place
        except StorageError as error:
            told.append(str(error))
    assert found == FLIPS
    assert len(told) > FLIPS / 3
    assert all("camsweep verify" in each and "\n" not in each for each in told)


@pytest.mark.parametrize("place", [40, 0.5, -10])
def test_the_verdict_names_the_place(whole, tmp_path, place):
    data, path = whole.read_bytes(), tmp_path / "run.h5"
    at = int(place * len(data)) if isinstance(place, float) else place % len(data)
    path.write_bytes(flipped(data, np.random.default_rng(1), at)[1])
    verdict = verify_all(path)
    start = at // BLOCK * BLOCK
    assert verdict.faults[0].startswith("its seal is" if place == -10 else f"bytes {start} to ")
    if place == -10:  # and nothing else is wrong with it
        assert (len(verdict.faults), verdict.rows) == (1, 24)


def test_a_file_that_another_program_wrote_into_opens_but_is_no_longer_what_was_written(whole, tmp_path):
    path = tmp_path / "run.h5"
    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        file["notes"] = np.arange(1000)
        file["maps/gradcam@layer4/values"][5, 0, 0, 0] += 1
    with open_results(path) as file:
        assert len(file) == 24
    assert verify_all(path).faults == [
        "its seal is missing or damaged: it was cut short, written into since, or not made by this version",
        "1 of 24 rows are damaged: 5",
    ]


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, 0.5, -1])
def test_a_file_that_was_cut_short_is_told_in_one_line(whole, tmp_path, cut):
    data, path = whole.read_bytes(), tmp_path / "run.h5"
    path.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    assert verify_all(path).faults
    if cut != -1:
        for read in (open_results, stored_identity):
            with pytest.raises((RequestError, StorageError)) as caught:
                read(path)
            assert "\n" not in str(caught.value)


def test_hdf5_is_not_waited_for(whole):
    (fault,) = verify_all(whole, limit=-1).faults
    assert fault.startswith("HDF5 reads it for more than")


def test_what_is_no_results_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "text.h5").write_text("text")
    assert "not a camsweep results file" in verify_all(tmp_path / "other.h5").faults[1]
    assert "HDF5 cannot read it" in verify_all(tmp_path / "text.h5").faults[1]
    with pytest.raises(RequestError, match=r"Did you mean 'other.h5'"):
        verify_all(tmp_path / "othr.h5")
    (tmp_path / "run.h5.parts").mkdir()
    with pytest.raises(RequestError, match="is not finished yet; verify"):
        verify_all(tmp_path / "run.h5")
    with pytest.raises(RequestError, match="no manifest"):
        verify_all(tmp_path / "run.h5.parts")


@pytest.mark.parametrize("shards", [None, 2])
def test_every_flipped_bit_of_a_part_or_the_manifest_is_found(tmp_path, shards):
    which = schema(12, shards=shards)
    parts, _ = begun(tmp_path, which)
    for k, start in enumerate((0, 4)):
        commit(parts.shard(k) if shards else parts, contents(which), range(start, start + 4))
    verdict = verify_all(parts.folder)
    assert (verdict.kind, verdict.faults, verdict.rows) == ("parts", [], 8)
    files, rng = [*parts.files(), parts.folder / "manifest.json"], np.random.default_rng(0)
    before = [path.read_bytes() for path in files]
    for trial in range(FLIPS):
        path, data = files[trial % 3], before[trial % 3]
        place, damaged = flipped(data, rng)
        path.write_bytes(damaged)
        verdict = verify_all(parts.folder)
        assert len(verdict.faults) == 1, (path.name, place)
        assert str(path.relative_to(parts.folder)) in verdict.faults[0]
        path.write_bytes(data)
    assert verify_all(parts.folder).faults == []


def test_a_damaged_part_of_a_shard_is_set_aside_and_its_rows_are_done_again(tmp_path):
    which = schema(12, shards=3)
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    for k in range(3):
        commit(parts.shard(k), columns, range(4 * k, 4 * k + 4))
    bad = parts.files()[1]
    bad.write_bytes(flipped(bad.read_bytes(), np.random.default_rng(0))[1])
    assert verify_all(parts.folder).faults == [
        f"shard-0001/{bad.name} is damaged; its rows are done again by the next run"
    ]
    assert np.flatnonzero(parts.shard(1).owners() < 0).tolist() == [4, 5, 6, 7]
    verdict = verify_all(parts.folder)
    assert verdict.faults == []
    assert verdict.notes == ["8 of 12 rows done", "1 parts were found damaged before, and set aside"]
    commit(parts.shard(1), columns, range(4, 8))
    finish(parts, columns, output)
    with h5py.File(output) as file:
        assert unlike(file, which, columns) == []
    assert verify_all(output).faults == []


def test_a_damaged_part_is_never_given_to_hdf5(tmp_path, monkeypatch):
    which = schema(8)
    parts, _ = begun(tmp_path, which)
    commit(parts, contents(which), range(4))
    commit(parts, contents(which), range(4, 8))
    bad = parts.files()[0]
    bad.write_bytes(flipped(bad.read_bytes(), np.random.default_rng(0))[1])
    opened, real = [], h5py.File
    monkeypatch.setattr(
        h5py, "File", lambda path, *more, **options: opened.append(path) or real(path, *more, **options)
    )
    assert (Parts.open(parts.folder).owners() < 0).tolist() == [True] * 4 + [False] * 4
    assert bad not in opened
    assert bad.with_suffix(".bad").exists()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_a_seal_is_the_same_in_memory_and_on_disk_and_hands_on_what_was_sealed(tmp_path, size):
    data, path = np.random.default_rng(size).bytes(size), tmp_path / "file"
    path.write_bytes(data)
    seal(path)
    assert path.read_bytes() == sealed(data)
    assert intact(path)
    with Sealed(path) as file:
        assert file.read() == data
        for place in (0, size // 2, max(0, size - 3)):
            file.seek(place)
            assert file.read(10) == data[place : place + 10]
        assert file.seek(0, 2) == size


def test_the_command(whole, tmp_path, capfd, monkeypatch):
    import sys

    from camsweep.cli.app import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["camsweep", "verify", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfd.readouterr()

    code, said = call(whole)
    assert (code, said.err) == (0, "")
    assert said.out.startswith(f"{whole}: intact; 24 samples, ")
    path = tmp_path / "run.h5"
    path.write_bytes(flipped(whole.read_bytes(), np.random.default_rng(0), 70_000)[1])
    code, said = call(path, "--json")
    answer = json.loads(said.out)
    assert (code, answer["intact"], answer["path"]) == (74, False, str(path))
    assert answer["faults"][0].startswith("bytes 65536 to 81919 of")
    code, said = call(tmp_path / "none.h5")
    assert (code, said.out) == (2, "")
    assert said.err.count("\n") == 1
