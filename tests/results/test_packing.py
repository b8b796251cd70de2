"""Compression: values come back to the bit, HDF5 agrees with the checksum, and rows that do not shrink are left alone."""

import h5py
import numpy as np
import pytest

from camsweep.core.errors import RequestError
from camsweep.core.job import COMPRESSIONS, Job
from camsweep.core.results import open_results, verify
from camsweep.core.results.packing import Packing, fletcher32

from ..core.test_sweep import Stopping, everything, run
from ..support import Net

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("size", [2, 3, 255, 512, 513, 20000, 602112])
@pytest.mark.parametrize("fill", ["random", "zero", "ones", "sparse"])
def test_the_checksum_is_that_of_hdf5(size, fill):
    raw = {
        "random": RNG.integers(0, 256, size, dtype=np.uint8),
        "zero": np.zeros(size, np.uint8),
        "ones": np.full(size, 255, np.uint8),
        "sparse": (RNG.random(size) < 0.01).astype(np.uint8),
    }[fill]
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("v", data=raw, chunks=raw.shape, fletcher32=True)
        file.flush()
        _, stored = dataset.id.read_direct_chunk((0,))
    assert stored[-4:] == fletcher32(raw.tobytes())


def written(packing, values):
    """The values back, and the size and the mask of each row's chunk."""
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        shape = values.shape
        dataset = file.create_dataset("v", shape, values.dtype, chunks=(1, *shape[1:]), **packing.filters)
        packing.write(dataset, values)
        file.flush()
        chunks = [dataset.id.read_direct_chunk((row, *[0] * (values.ndim - 1))) for row in range(len(values))]
        return dataset[...], [len(data) for _, data in chunks], [mask for mask, _ in chunks]


@pytest.mark.parametrize("text", COMPRESSIONS)
def test_values_come_back_to_the_bit(text):
    smooth = np.cumsum(RNG.integers(0, 2, (5, 2, 4096)), 2).astype(np.float32)
    noise = RNG.integers(0, 2**32, (5, 2, 4096), dtype=np.uint32).view(np.float32)
    for values in (smooth, noise):
        back, sizes, masks = written(Packing.parse(text), values)
        assert np.array_equal(back.view(np.uint32), values.view(np.uint32))
        plain = text == "auto" and values is noise
        skips = text == "lzf" and values is noise  # HDF5's own LZF goes past what it cannot shrink
        assert set(masks) == ({0b011} if plain else {0b010} if skips else {0})
        if plain or text == "none":
            assert set(sizes) == {values[0].nbytes + 4}


class Large(Net):
    """For inputs that make rows of chunks of their own."""


@pytest.mark.parametrize("text", ["auto", "none", "gzip:4", "lzf"])
def test_results_are_the_same_however_they_are_packed(text, tmp_path):
    x = RNG.normal(size=(9, 2, 64, 70)).astype(np.float32)
    settings = {"explain": {"batch_size": 4, "methods": ["grad+input", "gradcam"], "layers": ["first"]}}
    with run(tmp_path, Large(2), x, **settings) as results:
        plain = everything(results)
    with run(tmp_path, Large(2), x, name="run2.h5", output={"compression": text}, **settings) as results:
        for name, values in everything(results).items():
            assert np.array_equal(plain[name], values), name
    assert verify(tmp_path / "run2.h5") == []
    with h5py.File(tmp_path / "run2.h5") as file:
        values = file["maps/grad+input/values"]
        assert values.compression == {"auto": "gzip", "none": None, "gzip:4": "gzip", "lzf": "lzf"}[text]
        assert values.compression_opts == {"auto": 1, "gzip:4": 4}.get(text)
        assert values.fletcher32
        masks = {values.id.read_direct_chunk((row, 0, 0, 0, 0))[0] for row in range(9)}
        assert masks <= ({0b011} if text == "auto" else {0, 0b010} if text == "lzf" else {0})
        assert file["maps/gradcam@first/values"].id.read_direct_chunk((0, 0, 0, 0))[0] == 0, "a CAM shrinks well"


def test_an_unfinished_run_goes_on_as_it_was_packed(tmp_path):
    import threading

    from camsweep.core.errors import Stopped

    x, stop = RNG.normal(size=(30, 2, 64, 70)).astype(np.float32), threading.Event()
    settings = {"batch_size": 2, "methods": ["grad"]}
    with pytest.raises(Stopped):
        run(tmp_path, Large(2), x, stop=stop, watch=Stopping(stop), explain=settings, output={"compression": "lzf"})
    run(tmp_path, Large(2), x, explain=settings, output={"compression": "none"}).close()
    with open_results(tmp_path / "run.h5") as results:
        assert np.isfinite(results.map("grad").read()).all()
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["maps/grad/values"].compression == "lzf"


def test_what_is_no_compression_is_told():
    job = {"model": {"source": "a:b"}, "data": {"path": "x"}, "output": {"compression": "gzip:0"}}
    with pytest.raises(
        RequestError, match=r"output.compression: 'gzip:0' given; .*auto, none, lzf or gzip:1 to gzip:9"
    ):
        Job.load(None, job)
