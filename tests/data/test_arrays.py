import h5py
import numpy as np
import pytest

from camsweep.core.data import DataSection, open_dataset
from camsweep.core.errors import RequestError

X = np.random.default_rng(0).normal(size=(7, 2, 30)).astype(np.float32)
NAMES = np.array(["cat", "dog", "cat", "owl", "dog", "cat", "owl"])


def save(folder, kind, **arrays):
    path = folder / {"npz": "d.npz", "npz-compressed": "d.npz", "hdf5": "d.h5"}[kind]
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                text = array.dtype.kind == "U"
                file.create_dataset(
                    name, data=array.astype(object) if text else array, dtype=h5py.string_dtype() if text else None
                )
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
    return path


KINDS = pytest.mark.parametrize("kind", ["npz", "npz-compressed", "hdf5"])


@KINDS
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 3, 6], [5], []])
def test_rows_are_the_stored_ones(tmp_path, kind, rows):
    dataset = open_dataset(DataSection(path=save(tmp_path, kind, x=X), layout="NCT"))
    batch = dataset.read(rows)
    np.testing.assert_array_equal(batch.rows, rows)
    np.testing.assert_array_equal(batch.values, X[rows])
    assert batch.values.dtype == np.float32
    assert (dataset.shape, len(dataset), dataset.ids[3]) == ((2, 30), 7, "000003")


@KINDS
def test_names_are_mapped(tmp_path, kind):
    path = save(tmp_path, kind, x=X, y=NAMES, names=np.array(["owl", "cat", "dog"]), key=np.array(list("abcdefg")))
    dataset = open_dataset(DataSection(path=path, input="x", label="y", classes="names", id="key", layout="NCT"))
    np.testing.assert_array_equal(dataset.labels, [1, 2, 1, 0, 2, 1, 0])
    assert (tuple(dataset.classes), list(dataset.ids)) == (("owl", "cat", "dog"), list("abcdefg"))
    sorted_names = open_dataset(DataSection(path=path, label="y", input="x", layout="NCT"))
    assert tuple(sorted_names.classes) == ("cat", "dog", "owl")
    np.testing.assert_array_equal(sorted_names.labels, [0, 1, 0, 2, 1, 0, 2])


def test_missing_labels(tmp_path):
    y = np.array([0, 1, np.nan, 1, 0, np.nan, 1])
    dataset = open_dataset(DataSection(path=save(tmp_path, "npz", x=X, y=y), input="x", label="y", layout="NCT"))
    np.testing.assert_array_equal(dataset.labels, [0, 1, -1, 1, 0, -1, 1])
    assert dataset.labels.dtype == np.int64


@KINDS
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input": "xx"}, "Did you mean 'x'"),
        ({"label": "w"}, "w"),
        ({"label": "short"}, "6.*7"),
        ({"id": "twice"}, "'a'"),
        ({"label": "y", "classes": ["cat", "dog"]}, "owl"),
        ({"label": "big", "classes": ["a", "b"]}, "2"),
        ({"layout": None}, r"layout .*\(7, 2, 30\).*NCT"),
        ({"layout": "NCHW"}, r"4.*\(7, 2, 30\)"),
        ({"channels": ["one"]}, "1 .*2"),
        ({"fps": 3.0, "rate": 3.0}, "rate"),
        ({"spacing": [1.0]}, "spacing"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, kind, settings, words):
    more = {"twice": np.array(list("abcaefg")), "big": np.array([0, 1, 2, 0, 1, 2, 0]), "short": np.arange(6)}
    path = save(tmp_path, kind, x=X, y=NAMES, **more)
    with pytest.raises(RequestError, match=words) as error:
        open_dataset(DataSection(**({"path": path, "input": "x", "layout": "NCT"} | settings)))
    assert "\n" not in str(error.value)


def test_a_missing_layout_names_the_array(tmp_path):
    with pytest.raises(RequestError, match=r"x \(7, 2, 30\)"):
        open_dataset(DataSection(path=save(tmp_path, "npz", x=X)))


@pytest.mark.parametrize("settings", [{"manifest": "m.csv"}, {"mode": "rgb"}])
def test_keys_without_a_meaning_are_refused(tmp_path, settings):
    with pytest.raises(RequestError, match=next(iter(settings))):
        open_dataset(DataSection(path=save(tmp_path, "npz", x=X), input="x", layout="NCT", **settings))


@pytest.mark.parametrize("rows", [[0, 2, 1, 3], [0, 0, 2]])
@KINDS
def test_rows_in_any_order_are_the_ones_asked_for(tmp_path, kind, rows):
    dataset = open_dataset(DataSection(path=save(tmp_path, kind, x=X), layout="NCT"))
    np.testing.assert_array_equal(dataset.display(rows), X[rows])


def test_a_batch_keeps_the_order_asked_for(tmp_path):
    batch = open_dataset(DataSection(path=save(tmp_path, "npz", x=X), layout="NCT")).read([6, 1, 3])
    np.testing.assert_array_equal(batch.rows, [6, 1, 3])
    np.testing.assert_array_equal(batch.values, X[[6, 1, 3]])


def test_display_keeps_the_order_asked_for(tmp_path):
    dataset = open_dataset(DataSection(path=save(tmp_path, "npz", x=X), layout="NCT"))
    np.testing.assert_array_equal(dataset.display([6, 1, 3]), X[[6, 1, 3]])


def memory(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array


@pytest.mark.parametrize("fortran", [False, True])
def test_what_is_stored_plainly_is_mapped(tmp_path, fortran):
    x = np.asfortranarray(X) if fortran else X
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", before=np.arange(3), x=x)
    for name in ("x.npy", "x.npz"):
        dataset = open_dataset(DataSection(path=tmp_path / name, layout="NCT"))
        [sample] = dataset._reader.read([4])
        assert memory(sample) is not None
        np.testing.assert_array_equal(sample, X[4])


def test_pickled_objects_are_refused(tmp_path):
    objects = np.array([[{}], [1]], dtype=object)
    np.save(tmp_path / "o.npy", objects)
    np.savez(tmp_path / "o.npz", x=objects)
    np.savez_compressed(tmp_path / "p.npz", x=objects)
    for name in ("o.npy", "o.npz", "p.npz"):
        with pytest.raises(RequestError, match=r"(?i)object") as error:
            open_dataset(DataSection(path=tmp_path / name, layout="NT"))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed", "hdf5"])
@pytest.mark.parametrize("keep", [0, 60, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, keep):
    if kind == "npy":
        np.save(path := tmp_path / "x.npy", X)
    else:
        path = save(tmp_path, kind, x=X)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(RequestError) as error:
        open_dataset(DataSection(path=path, layout="NCT"))
    assert "\n" not in str(error.value)


def test_a_header_that_promises_too_much_is_refused_before_allocation(tmp_path):
    np.savez(path := tmp_path / "x.npz", x=X)
    path.write_bytes(path.read_bytes().replace(b"(7, 2, 30)", b"(7, 9, 99)"))
    with pytest.raises(RequestError):
        open_dataset(DataSection(path=path, layout="NCT"))


def test_a_member_does_not_reach_into_its_neighbour(tmp_path):
    np.savez(path := tmp_path / "x.npz", x=X, z=np.zeros(100_000))
    path.write_bytes(path.read_bytes().replace(b"(7, 2, 30)", b"(7, 9, 99)"))
    with pytest.raises(RequestError, match="truncated"):
        open_dataset(DataSection(path=path, input="x", layout="NCT"))


def test_groups_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["group/x"], file["group/y"] = X, np.arange(7)
    dataset = open_dataset(DataSection(path=tmp_path / "d.h5", input="group/x", label="group/y", layout="NCT"))
    np.testing.assert_array_equal(dataset.read([3]).values, X[3:4])
    np.testing.assert_array_equal(dataset.labels, range(7))


def test_nearest_sibling(tmp_path):
    save(tmp_path, "npz", x=X)
    with pytest.raises(RequestError, match=r"data not found: .*Did you mean 'd.npz'"):
        open_dataset(DataSection(path=tmp_path / "dd.npz"))


def test_nonfinite_inputs_are_told_apart(tmp_path):
    x = X.copy()
    x[2, 0, :3] = np.nan
    x[5, 1, 7] = np.inf
    batch = open_dataset(DataSection(path=save(tmp_path, "npz", x=x), layout="NCT")).read(range(7))
    np.testing.assert_array_equal(batch.rows, [0, 1, 3, 4, 6])
    assert batch.failed == {}
    assert batch.nonfinite == {2: "input has 3 NaN or infinite values", 5: "input has 1 NaN or infinite values"}


def test_float64_beyond_float32_is_nonfinite_without_a_warning(tmp_path):
    x = X.astype(np.float64)
    x[1, 0, 0] = 1e300
    batch = open_dataset(DataSection(path=save(tmp_path, "npz", x=x), layout="NCT")).read(range(7))
    assert batch.nonfinite == {1: "input has 1 NaN or infinite values"}


def test_fingerprint_is_of_the_contents(tmp_path):
    first = open_dataset(DataSection(path=save(tmp_path, "npz", x=X), layout="NCT")).fingerprint
    again = open_dataset(DataSection(path=save(tmp_path, "npz", x=X), layout="NCT")).fingerprint
    other = open_dataset(DataSection(path=save(tmp_path, "npz", x=X + 1), layout="NCT")).fingerprint
    assert first == again != other
    assert len(first) == 64


def test_limit(tmp_path):
    dataset = open_dataset(
        DataSection(path=save(tmp_path, "npz", x=X, y=NAMES), input="x", label="y", layout="NCT", limit=3)
    )
    assert (len(dataset), len(dataset.labels), list(dataset.ids)) == (3, 3, ["000000", "000001", "000002"])


@pytest.mark.parametrize(
    ("layout", "settings", "expected"),
    [
        ("NCT", {"rate": 250.0}, [("time", "s", 0.004)]),
        ("NCT", {}, [("time", "sample", 1)]),
        ("NTHW", {}, [("time", "frame", 1), ("height", "px", 1), ("width", "px", 1)]),
        ("NTHW", {"fps": 25.0}, [("time", "s", 0.04), ("height", "px", 1), ("width", "px", 1)]),
        ("NDHW", {"spacing": [3.0, 0.5, 0.7]}, [("depth", "mm", 3), ("height", "mm", 0.5), ("width", "mm", 0.7)]),
    ],
)
def test_axes(tmp_path, layout, settings, expected):
    np.save(tmp_path / "x.npy", np.ones([2, 5, 6, 7][: len(layout)]))
    dataset = open_dataset(DataSection(path=tmp_path / "x.npy", layout=layout, **settings))
    assert [(axis.name, axis.unit, axis.step) for axis in dataset.axes] == expected
