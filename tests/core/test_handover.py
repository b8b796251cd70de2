"""What crosses from a device: as many transfers for a batch of two samples as for one of twenty."""

import numpy as np
import pytest
import torch
from torch import Tensor

from camsweep.core.handover import Handover
from camsweep.core.stages import OFF

from ..support import Net, inputs
from .test_sweep import run

METHODS = ["gradcam", "gradcam++", "scorecam", "ablationcam", "grad+input", "ig:steps=4", "rise:n=8", "layercam"]


def crossings(folder, batch, monkeypatch):
    """How often a tensor was brought to the host, or its value asked for, in a run of one batch."""
    count = [0]

    def counted(plain):
        def call(self, *args, **kwargs):
            count[0] += 1
            return plain(self, *args, **kwargs)

        return call

    folder.mkdir()
    with monkeypatch.context() as patch:
        for name in ("cpu", "item", "tolist", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, name, counted(getattr(Tensor, name)))
        explain = {"batch_size": batch, "methods": METHODS, "layers": ["first"], "targets": ["predicted", "2nd"]}
        run(folder, Net(2), inputs(2, batch), explain=explain).close()
    return count[0]


def test_no_transfer_is_made_sample_by_sample(tmp_path, monkeypatch):
    two = crossings(tmp_path / "two", 2, monkeypatch)
    assert two > 0
    assert crossings(tmp_path / "twenty", 20, monkeypatch) == two


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_maps_are_stored_as_numpy_would(dtype):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 3, 4)) * 10.0 ** rng.integers(-9, 9, (5, 1, 1))
    maps = maps.astype(np.float64 if dtype == "float64" else np.float32)
    maps[1] = 0
    maps[2, 0, 0] = np.nan
    defined = np.array([True, True, True, False, True])
    columns = {
        "m/values": np.full((5, 1, 3, 4), 7, dtype),
        "m/range": np.zeros((5, 1, 2), maps.dtype),
        **({"m/scale": np.zeros((5, 1), np.float32)} if dtype == "float16" else {}),
    }
    handover = Handover(columns, OFF)
    handover.put_maps("m", torch.from_numpy(maps.copy()), torch.from_numpy(defined), 0)
    handover.wait()
    wanted = maps.copy()
    wanted[3] = np.nan
    low, high = wanted.min((1, 2)), wanted.max((1, 2))
    assert np.array_equal(columns["m/range"][:, 0], np.stack([low, high], 1), equal_nan=True)
    if dtype == "float16":
        scale = np.maximum(np.abs(low), np.abs(high))
        assert np.array_equal(columns["m/scale"][:, 0], scale, equal_nan=True)
        wanted = wanted / np.where(scale > 0, scale, 1)[:, None, None]
    with np.errstate(over="ignore"):  # of the map that is not finite
        assert np.array_equal(columns["m/values"][:, 0], wanted.astype(dtype), equal_nan=True)
