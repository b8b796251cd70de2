"""Results without a model: schemas of every kind, and rows that hold every kind of value."""

from dataclasses import replace

import numpy as np

from camsweep.core.data import Axis
from camsweep.core.results import MapInfo, Parts, Provenance, Schema, merge
from camsweep.core.results.schema import CHECKSUM

IDS = [
    "plain",
    "",
    "größe/☃.png",
    "a b\tc",
    "x" * 300,
    "é" * 150,
    b"caf\xe9-\xff.png".decode("utf-8", "surrogateescape"),
]


def info(expression="gradcam", layer="layer4", shape=(9, 14), *, per_channel=False, relu=None):
    return MapInfo(
        expression=expression,
        layer=layer,
        method=expression.partition("+")[0],
        shape=shape,
        per_channel=per_channel,
        signed=per_channel,
        relu=relu,
        units="score",
        formula="relu(sum_k mean(G_k) A_k)",
        source="a paper",
    )


LEVELS = Axis("level", "", labels=("A2 0-12.5 Hz", "größer ☃", "rest"))


def own(expression, shape, axes, layout, *, per_channel=True, signals=None, **more):
    """A map on axes of its own."""
    made = info(expression, None, shape, per_channel=per_channel)
    more = {"axes": axes, "layout": layout, "signals": signals, "domain": "fourier", "residual": True, **more}
    return replace(made, **more)


def of_a_signal(channels=2, points=40):
    """One map of each layout, of signals (channel, time) of 100 Hz."""
    time, hertz = Axis("time", "s", 0.01, 0.5), Axis("frequency", "Hz", 100 / points)
    frames = Axis("time", "s", 0.04, 0.5)
    components = Axis("component", "", labels=("1", "2", "rest"))
    maps = [
        own("spectrum", (channels, points // 2 + 1), (hertz,), "lines"),
        own("cepstrum", (channels, points), (Axis("quefrency", "s", 0.01),), "lines"),
        own("stft", (channels, 5, 11), (Axis("frequency", "Hz", 12.5), frames), "image"),
        own("wavelet", (channels, 3, points), (LEVELS, time), "image"),
        own("levels", (channels, 3), (LEVELS,), "bars"),
        own("ica", (3,), (components,), "bars", per_channel=False, signals=(3, points)),
        own("parts", (channels, 3), (components,), "bars", signals=(3, channels, points), residual=False),
    ]
    return {"shape": (channels, points), "axes": [time], "maps": maps}


def provenance(**more):
    given = {
        "identity": {"explain.methods": ["gradcam"], "model.weights": "abc", "nested": {"a": [1, None]}},
        "job": "[model]\nsource = 'x.py:Ü'\n",
        "argv": ["camsweep", "explain"],
        "versions": {"python": "3"},
        "git": "",
        "model_sha256": "abc",
        "data_fingerprint": "def",
        "device": "cpu",
        "seed": 0,
        "batch_size": 4,
        "started": "2025-01-01T00:00:00+00:00",
    }
    return Provenance(**(given | more))


def schema(rows=20, *, shape=(2, 9, 14), maps=None, ids=None, **more):
    axes = [Axis(name, "mm", 0.5, 0.25) for name in ("time", "height", "width")[-len(shape[1:]) :]]
    given = {
        "ids": ids or [f"{i}-{IDS[i % 6]}" for i in range(rows)],
        "labels": [i % 3 - 1 for i in range(rows)],
        "classes": ["null", "één", "二"],
        "channels": None,
        "axes": axes,
        "input_shape": shape,
        "outputs": 3,
        "final": "softmax",
        "score": "logit, behind the final softmax",
        "targets": ["predicted", "label"],
        "maps": maps or [info("grad+input", None, shape, per_channel=True), info(shape=shape[1:])],
        "dtype": "float32",
        "provenance": provenance(),
    }
    return Schema(**(given | more))


def contents(schema, seed=0):
    """All columns, with NaN, infinities, -0.0, denormals and strings in several scripts among their values."""
    rng = np.random.default_rng(seed)
    columns = {}
    for column in schema.columns:
        kind, shape = np.dtype(column.dtype).kind, (len(schema), *column.shape)
        if kind == "f":
            values = rng.normal(size=shape).astype(column.dtype)
            flat = values.reshape(-1)
            odd = np.array([np.nan, np.inf, -np.inf, -0.0, np.finfo(column.dtype).smallest_subnormal], column.dtype)
            flat[rng.choice(len(flat), min(len(flat), 5), replace=False)] = odd[: len(flat)]
        elif kind == "S":
            texts = ["", "gradcam@layer4 is zero everywhere", "größer als ☃", "x" * 240]
            values = np.array([texts[i % len(texts)].encode() for i in range(len(schema))], column.dtype)
        else:
            limits = np.iinfo(column.dtype)
            values = rng.integers(limits.min, limits.max, shape, column.dtype, endpoint=True)
        columns[column.path] = values
    columns["samples/status"] = rng.integers(1, 5, len(schema)).astype(np.uint8)
    return columns


def begun(tmp_path, schema, name="run.h5"):
    """Parts with a manifest and no rows, and the output they belong to."""
    output = tmp_path / name
    folder = Parts.folder_of(output)
    folder.mkdir()
    return Parts.create(folder, schema), output


def commit(parts, columns, rows):
    rows = np.asarray(rows, np.int64)
    parts.commit(rows, {path: values[rows] for path, values in columns.items()})


def finish(parts, columns, output, step=4):
    """Commit what is to do, as a run does, and merge."""
    todo = np.flatnonzero(parts.owners() < 0)
    for start in range(0, len(todo), step):
        commit(parts, columns, todo[start : start + step])
    merge(parts, output, finished="2025-01-02T00:00:00+00:00")


def unlike(file, schema, columns):
    """The columns of an open results file that are not, bit by bit, ``columns``; no time, no order can excuse one."""
    expected = {**columns, CHECKSUM.path: schema.checksums(columns)}
    found = []
    for column in (*schema.columns, CHECKSUM):
        values = file[column.path][()]
        wanted = expected[column.path]
        if values.dtype.str != wanted.dtype.str or values.shape != wanted.shape or values.tobytes() != wanted.tobytes():
            found.append(column.path)
    return found


class Moment:
    """What a `threading.Event` says that is set when it is asked for the ``n``-th time."""

    def __init__(self, n):
        self.n, self.asked = n, 0

    def is_set(self):
        self.asked += 1
        return self.asked > self.n
