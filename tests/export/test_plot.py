"""What viewers of NeXus (h5web, silx, NeXpy) do on opening a results file: they follow ``@default`` to a plot."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from camsweep.core.data import Axis
from camsweep.core.results import verify

from ..results.synthetic import info, of_a_signal, own

TIME = [Axis("time", "s", 0.01, 0.5)]
SIGNALS = of_a_signal()
LINE = {"shape": (2, 40), "axes": TIME}
FILES = {
    "signal": LINE | {"maps": [info(shape=(40,))]},
    "signal by channel": LINE | {"maps": [info("grad", None, (2, 40), per_channel=True)]},
    "picture": {},
    "picture by channel": {"maps": [info("grad", None, (2, 9, 14), per_channel=True)]},
    "volume": {"shape": (1, 4, 5, 6)},
    "layer": {"maps": [info(shape=(3, 4))]},
    "float16": {"dtype": "float16"},
    "no axis": LINE | {"maps": [own("total", (2,), (), "bars")]},
    **{each.name: {**SIGNALS, "maps": [each]} for each in SIGNALS["maps"]},
}


def default(file):
    """The NXdata that ``@default`` leads to, and a dataset or None for each axis of its signal."""
    node = file
    assert node.attrs["NX_class"] == "NXroot"
    while node.attrs["NX_class"] != "NXdata":
        node = node[node.attrs["default"]]
    signal = node[node.attrs["signal"]]
    assert signal.dtype.kind == "f"
    names = [name.decode() if isinstance(name, bytes) else name for name in node.attrs["axes"]]
    assert len(names) == signal.ndim
    assert len({*names} - {"."}) == len([name for name in names if name != "."])
    assert not {*names} & {node.attrs["signal"]}
    axes = [None if name == "." else node[name] for name in names]
    for axis, size in zip(axes, signal.shape, strict=True):
        assert axis is None or (axis.shape == (size,) and axis.dtype.kind in "if")
    return node, signal, axes


@pytest.mark.parametrize("which", FILES)
def test_a_map_is_found_with_its_axes(make, which):
    made = make(ids=["a", "b", "c", "d", "e"], **FILES[which])
    first = made.schema.maps[0]
    with h5py.File(made.path) as file:
        node, signal, axes = default(file)
        assert signal == file[f"{first.group}/values"]  # a link, not a copy
        assert signal[()].tobytes() == made.values(first.name).tobytes()
        assert node.attrs["title"] == first.name
        places = first.axes if first.axes is not None else made.schema.axes if which != "layer" else []
        assert axes[: signal.ndim - len(places)] == [None] * (signal.ndim - len(places))
        for axis, found in zip(places, axes[signal.ndim - len(places) :], strict=True):
            if axis.labels:
                assert found is None  # viewers refuse an axis of names
            else:
                np.testing.assert_array_equal(found[:], axis.coordinates(len(found)))
                assert found.attrs["units"] == axis.unit


@pytest.mark.parametrize("which", FILES)
def test_lines_are_drawn_as_lines_and_pictures_as_pictures(make, which):
    made = make(ids=["a", "b", "c", "d", "e"], **FILES[which])
    first = made.schema.maps[0]
    with h5py.File(made.path) as file:
        _, signal, _ = default(file)
        assert signal.attrs["interpretation"] == ("image" if len(first.spatial) > 1 else "spectrum")
        assert signal.attrs["long_name"] == first.name
        assert signal.attrs.get("units") == (None if which == "float16" else "score")
    assert verify(made.path) == []
