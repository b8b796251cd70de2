"""Reading back, and noticing damage."""

import h5py
import numpy as np
import pytest

from camsweep.core.errors import RequestError
from camsweep.core.results import open_results, stored_identity, verify

from .synthetic import begun, contents, finish, info, provenance, schema


def made(tmp_path, which):
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    finish(parts, columns, output)
    return columns, output


def test_everything_is_read_back(tmp_path):
    which = schema(20, channels=["red", "größe"], inputs_dtype="float32")
    columns, output = made(tmp_path, which)
    with open_results(output) as results:
        assert len(results) == 20
        assert results.ids == which.ids
        assert results.labels.tolist() == which.labels
        assert list(results.classes) == which.classes
        assert list(results.channels) == which.channels
        assert list(results.axes) == which.axes
        assert results.input_shape == which.input_shape
        assert results.final == "softmax"
        assert list(results.target_names) == which.targets
        assert results.messages == [message.decode() for message in columns["samples/message"]]
        for name, path in [
            ("status", "samples/status"),
            ("outputs", "outputs/scores"),
            ("predicted", "outputs/predicted"),
            ("target_index", "targets/index"),
            ("target_score", "targets/score"),
        ]:
            assert getattr(results, name).tobytes() == columns[path].tobytes()
        assert sum(results.counts().values()) == 20
        assert results.inputs([3, 0]).tobytes() == columns["inputs/values"][[3, 0]].tobytes()
        assert results.provenance["identity"] == which.provenance.identity
        assert results.provenance["job"] == which.provenance.job
        assert results.provenance["batch_size"] == 4
    assert stored_identity(output) == which.provenance.identity


@pytest.mark.parametrize(
    ("final", "activation", "function"),
    [
        ("softmax", "auto", lambda x: x),
        (None, "auto", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (None, "sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        (None, "none", None),
    ],
)
def test_confidence_is_the_probability_of_the_predicted(tmp_path, final, activation, function):
    job = f"[explain]\nactivation = '{activation}'\n"
    which = schema(6, final=final, provenance=provenance(job=job))
    parts, output = begun(tmp_path, which)
    columns = contents(which)
    scores = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    columns["outputs/scores"], columns["outputs/predicted"] = scores, np.array([0, 1, 2, -1, 2, 0], np.int32)
    finish(parts, columns, output)
    with open_results(output) as results:
        if function is None:
            assert results.confidence is None
            return
        expected = function(scores.astype(float))[np.arange(6), [0, 1, 2, 0, 2, 0]]
        expected[3] = np.nan
        np.testing.assert_allclose(results.confidence, expected, rtol=1e-6)


def test_maps_are_read_in_any_order(tmp_path):
    which = schema(20)
    columns, output = made(tmp_path, which)
    stored = columns["maps/gradcam@layer4/values"]
    with open_results(output) as results:
        view = results.map("gradcam@layer4")
        assert view.shape == stored.shape
        assert view.read([7, 0, 7]).tobytes() == stored[[7, 0, 7]].tobytes()
        assert view.read(slice(3, 9, 2)).tobytes() == stored[3:9:2].tobytes()
        assert view.read().tobytes() == stored.tobytes()
        assert view.range().tobytes() == columns["maps/gradcam@layer4/range"].tobytes()
        with pytest.raises(RequestError, match="Did you mean 'gradcam@layer4'"):
            results.map("gradcam@layer3")


def test_float16_is_read_with_its_scale(tmp_path):
    which = schema(6, dtype="float16")
    columns, output = made(tmp_path, which)
    with open_results(output) as results, np.errstate(invalid="ignore", over="ignore"):
        for each in which.maps:
            scale = columns[f"{each.group}/scale"]
            values = columns[f"{each.group}/values"].astype(np.float32)
            expected = values * scale.reshape(*scale.shape, *[1] * (values.ndim - 2))
            assert results.map(each.name).dtype == "float16"
            np.testing.assert_array_equal(results.map(each.name).read(), expected)


def test_without_names(tmp_path):
    which = schema(3, classes=None, channels=None, final=None)
    _, output = made(tmp_path, which)
    with open_results(output) as results:
        assert (results.classes, results.channels, results.final) == (None, None, None)


def chunks(path, name):
    """Where the chunks of a dataset lie in the file: offset, size."""
    with h5py.File(path) as file:
        dataset = file[name].id
        infos = [dataset.get_chunk_info(i) for i in range(dataset.get_num_chunks())]
        return [(each.byte_offset, each.size) for each in infos]


@pytest.mark.parametrize("shape", [(1, 9, 14), (1, 60, 60)], ids=["short rows", "a row is a chunk"])
def test_verify_finds_a_flipped_bit_anywhere_in_the_maps(tmp_path, shape):
    which = schema(12, shape=shape, maps=[info(shape=shape[1:]), info("grad", None, shape, per_channel=True)])
    _, output = made(tmp_path, which)
    assert verify(output) == []
    whole = output.read_bytes()
    rng = np.random.default_rng(0)
    places = [place for each in which.maps for place in chunks(output, f"{each.group}/values")]
    for _ in range(60):
        offset, size = places[rng.integers(len(places))]
        data = bytearray(whole)
        data[offset + rng.integers(size)] ^= 1 << int(rng.integers(8))
        output.write_bytes(data)
        assert verify(output), offset


def test_verify_finds_a_flipped_bit_in_every_column(tmp_path):
    which = schema(12)
    _, output = made(tmp_path, which)
    whole = output.read_bytes()
    for column in which.columns:
        offset, size = chunks(output, column.path)[0]
        data = bytearray(whole)
        data[offset + size // 2] ^= 16
        output.write_bytes(data)
        assert verify(output), column.path


def test_verify_finds_a_wrong_value(tmp_path):
    which = schema(12)
    _, output = made(tmp_path, which)
    with h5py.File(output, "r+") as file:
        file["maps/gradcam@layer4/values"][5, 0, 0, 0] += 1
        file["outputs/scores"][7, 1] = 123
    assert verify(output) == ["row 5 is damaged", "row 7 is damaged"]
    assert verify(output, [5, 6]) == ["row 5 is damaged"]


def test_what_is_not_there_or_not_ours(tmp_path):
    with pytest.raises(RequestError, match="results not found"):
        open_results(tmp_path / "run.h5")
    (tmp_path / "run.h5.parts").mkdir()
    with pytest.raises(RequestError, match="unfinished; run the job again"):
        open_results(tmp_path / "run.h5")
    (tmp_path / "garbage.h5").write_bytes(b"garbage")
    with pytest.raises(RequestError, match="cannot be read as HDF5"):
        open_results(tmp_path / "garbage.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for read in (open_results, stored_identity, verify):
        with pytest.raises(RequestError, match="not a camsweep results file"):
            read(tmp_path / "other.h5")


def test_a_truncated_file_is_told_in_one_line(tmp_path):
    _, output = made(tmp_path, schema(12))
    output.write_bytes(output.read_bytes()[:-3000])
    with pytest.raises(RequestError, match="cannot be read as HDF5"):
        open_results(output)


def test_a_reader_is_no_obstacle_to_another(tmp_path):
    _, output = made(tmp_path, schema(4))
    with open_results(output) as one, open_results(output) as other, h5py.File(output, locking=False):
        assert one.ids == other.ids


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "key",
    [
        np.s_[3],
        np.s_[2:5, 1],
        np.s_[..., 3],
        np.s_[1, 0, 2:4],
        np.s_[1, ..., ::3],
        np.s_[:],
        np.s_[5, 1, 2, 3],
        np.s_[[1, 4]],
    ],
    ids=str,
)
def test_a_part_of_a_map_is_that_of_the_whole(tmp_path, dtype, key):
    _, output = made(tmp_path, schema(6, dtype=dtype))
    with open_results(output) as results, np.errstate(invalid="ignore", over="ignore"):
        view = results.maps["gradcam", "layer4"]
        assert view is results.maps["gradcam@layer4"]
        np.testing.assert_array_equal(view[key], view.read()[key])


def test_a_map_that_is_not_there_is_told_with_the_nearest(tmp_path):
    _, output = made(tmp_path, schema(3))
    with open_results(output) as results:
        assert "gradcam" not in results.maps
        for key in ("gradcam@layer3", ("gradcam", "layer3")):
            with pytest.raises(KeyError, match=r"gradcam@layer3.*Did you mean 'gradcam@layer4'"):
                results.maps[key]


def test_xarray_reads_it(tmp_path):
    columns, output = made(tmp_path, schema(3))
    with open_results(output) as results:
        frame = results.to_xarray("gradcam@layer4")
        assert list(frame.data_vars) == ["gradcam@layer4"]
        assert frame["gradcam@layer4"].values.tobytes() == columns["maps/gradcam@layer4/values"].tobytes()
        assert set(results.to_xarray().data_vars) == set(results.maps)
