"""One net in PyTorch, ONNX and Keras: Grad-CAM over a dataset, end to end, against each framework's own forward.

    python tests/benchmarks/frameworks.py [formats] [forward] [--quick]

The weights are the same and so are the maps. Keras models run in torch, into which they are brought, and with ``--native``
in TensorFlow. The bare forwards are those of onnxruntime and of TensorFlow (`tf.function`) on batches in memory; tf-keras-vis
gets a loop as in `endtoend`. Parties that need TensorFlow have a process of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

import camsweep
from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.endtoend import ONE, behind
from camsweep.tests.benchmarks.inmemory import alike
from camsweep.tests.benchmarks.peers import TKV, peer
from camsweep.tests.benchmarks.race import OURS, Bench, Elsewhere, Missing, Run

SHAPE, BATCH = (3, 112, 112), 16
HERE, IN_TENSORFLOW = "camsweep.tests.benchmarks.frameworks:", {"KERAS_BACKEND": "tensorflow"}


def small() -> nn.Module:
    """(N, 3, 112, 112) -> (N, 10), a ResNet-18 of half width."""
    return nets.ResNet18(width=32, classes=10)


def keras_twin(folder: str) -> Run:
    """The same net with the same weights, saved as net.keras; layer4 is `last`."""
    import keras
    from keras import layers

    state = torch.load(f"{folder}/weights.pt")

    def filled(layer: Any, x: Any, weights: list[np.ndarray]) -> Any:
        y = layer(x)
        layer.set_weights(weights)
        return y

    def norm(x: Any, name: str) -> Any:
        values = [state[f"{name}.{key}"].numpy() for key in ("weight", "bias", "running_mean", "running_var")]
        return filled(layers.BatchNormalization(epsilon=1e-5), x, values)

    def conv(x: Any, name: str, stride: int) -> Any:
        kernel = state[f"{name}.weight"].numpy().transpose(2, 3, 1, 0)
        size = kernel.shape[0]
        x = layers.ZeroPadding2D(size // 2)(x) if size > 1 else x
        return filled(layers.Conv2D(kernel.shape[-1], size, stride, use_bias=False), x, [kernel])

    entry = layers.Input((*SHAPE[1:], SHAPE[0]))
    x = layers.ReLU()(norm(conv(entry, "stem.0", 2), "stem.1"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # behind a ReLU, 0 is the least
    for at in (f"layer{i}.{j}" for i in range(1, 5) for j in range(2)):
        stride = 2 if f"{at}.down.0.weight" in state else 1
        y = layers.ReLU()(norm(conv(x, f"{at}.conv1", stride), f"{at}.bn1"))
        y = norm(conv(y, f"{at}.conv2", 1), f"{at}.bn2")
        x = norm(conv(x, f"{at}.down.0", 2), f"{at}.down.1") if stride == 2 else x
        x = layers.ReLU(name="last" if at == "layer4.1" else None)(layers.Add()([y, x]))
    head = [state["head.weight"].numpy().T, state["head.bias"].numpy()]
    model = keras.Model(entry, filled(layers.Dense(10), layers.GlobalAveragePooling2D()(x), head))
    model.save(f"{folder}/net.keras")
    return lambda: None


def explain(model: dict[str, Any], data: str, layout: str, layer: str, out: str, limit: int | None = None) -> None:
    camsweep.explain(
        model=model,
        data={"path": data, "layout": layout, "limit": limit},
        explain={"methods": ["gradcam"], "layers": [layer], "batch_size": BATCH},
        output={"path": out},
        force=True,
    )


def ours(model: dict[str, Any], data: str, layout: str, layer: str, out: str, threads: int) -> Run:
    """In a process of its own, where the model needs TensorFlow."""
    torch.set_num_threads(threads)
    return lambda: explain(model, data, layout, layer, out)


def tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def keras_forward(folder: str, threads: int) -> Run:
    tf = tensorflow(threads)
    import keras

    model = keras.models.load_model(f"{folder}/net.keras")
    call = tf.function(lambda x: model(x, training=False))
    batches = [
        tf.constant(each)
        for each in np.split(np.load(f"{folder}/last.npy"), len(np.load(f"{folder}/last.npy")) // BATCH)
    ]

    def run() -> None:
        for batch in batches:
            call(batch).numpy()

    return run


def keras_vis(folder: str, threads: int) -> Run:
    """Its loop: a batch at a time, told the predicted classes, which it does not find itself."""
    tensorflow(threads)
    import keras

    package = peer(TKV)
    scores = __import__("tf_keras_vis.utils.scores", fromlist=["CategoricalScore"])
    model = keras.models.load_model(f"{folder}/net.keras")
    cam, x = package.Gradcam(model, clone=False), np.load(f"{folder}/last.npy", mmap_mode="r")

    def run() -> None:
        with h5py.File(f"{folder}/theirs.h5", "w") as file:
            stored = file.create_dataset("maps", x.shape[:3], "float32")
            for start in range(0, len(x), BATCH):
                batch = np.array(x[start : start + BATCH])
                classes = np.asarray(model(batch, training=False)).argmax(1)
                stored[start : start + BATCH] = cam(
                    scores.CategoricalScore(classes.tolist()), batch, penultimate_layer="last", normalize_cam=False
                )

    return run


def onnx_forward(folder: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "net.onnx", options, providers=["CPUExecutionProvider"])
    x, name = np.load(folder / "x.npy"), session.get_inputs()[0].name
    return lambda: [session.run(None, {name: x[i : i + BATCH]}) for i in range(0, len(x), BATCH)]


def torch_forward(module: nn.Module, x: np.ndarray) -> Run:
    batches = torch.from_numpy(x).contiguous(memory_format=torch.channels_last).split(BATCH)
    module = module.to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                module(batch)

    return run


def maps_of(path: Path) -> np.ndarray:
    with camsweep.open_results(path) as results:
        [name] = results.maps
        return np.maximum(results.map(name).read(range(len(results.ids)))[:, 0], 0)


def made(folder: Path, count: int) -> nn.Module:
    """The data in both layouts, and the net as weights.pt and net.onnx."""
    x = nets.noise(count, *SHAPE)
    np.save(folder / "x.npy", x)
    np.save(folder / "last.npy", np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    module = nets.settled(small(), x[:BATCH])
    torch.save(module.state_dict(), folder / "weights.pt")
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        module, (torch.from_numpy(x[:2]),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
    )
    program.save(folder / "net.onnx")
    return module


def case_formats(bench: Bench) -> None:
    """Grad-CAM end to end of the same net in each format."""
    count = 32 if bench.quick else 256
    case = f"Grad-CAM, ResNet-18 of half width, {count} x {' x '.join(map(str, SHAPE))}, batch {BATCH}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = made(folder, count)
        source = {"source": f"{__file__}:small", "weights": f"{folder}/weights.pt"}
        maker = Elsewhere.start(f"{HERE}keras_twin", IN_TENSORFLOW, folder=name)
        common: dict[str, Any] = {"data": f"{folder}/last.npy", "layout": "NHWC", "threads": bench.threads}
        keras = {"weights": f"{folder}/net.keras"}

        def keras_party(label: str, make: str, environment: dict[str, str] | None = None, **given: Any) -> Any:
            return maker if isinstance(maker, Missing) else Elsewhere.start(f"{HERE}{make}", environment, **given)

        def kept(model: dict[str, Any], label: str, layer: str) -> dict[str, Any]:
            return {"model": model, "layer": layer, "out": f"{folder}/{label}.h5", **common}

        parties: dict[str, Run | Missing] = {
            OURS: lambda: explain(source, f"{folder}/x.npy", "NCHW", "layer4", f"{folder}/torch.h5"),
            ONE: lambda: explain(source, f"{folder}/x.npy", "NCHW", "layer4", f"{folder}/one.h5", BATCH),
            f"{OURS}, ONNX": lambda: explain(
                {"weights": f"{folder}/net.onnx"}, f"{folder}/x.npy", "NCHW", "auto", f"{folder}/onnx.h5"
            ),
            f"{OURS}, Keras": keras_party("keras", "ours", **kept(keras, "keras", "last")),
            f"{OURS}, Keras --native": keras_party(
                "native", "ours", IN_TENSORFLOW, **kept({**keras, "native": True}, "native", "last")
            ),
            "bare forward": torch_forward(module, np.load(folder / "x.npy")),
            "bare forward, onnxruntime": onnx_forward(folder, bench.threads),
            "bare forward, TensorFlow": keras_party(
                "", "keras_forward", IN_TENSORFLOW, folder=name, threads=bench.threads
            ),
            TKV: keras_party("", "keras_vis", IN_TENSORFLOW, folder=name, threads=bench.threads),
        }
        times = bench.race(case, parties)
        bench.ratio(case, times, OURS, "bare forward", "<= 1.1")
        behind(bench, case, times, "bare forward", count // BATCH)
        reference = maps_of(folder / "torch.h5")
        for label, forward in (("ONNX", "onnxruntime"), ("Keras", "TensorFlow"), ("Keras --native", "TensorFlow")):
            party, file = f"{OURS}, {label}", {"ONNX": "onnx", "Keras": "keras"}.get(label, "native")
            note = alike(reference, maps_of(folder / f"{file}.h5")) if party in times.seconds else ""
            bench.ratio(case, times, party, f"bare forward, {forward}", note=note)
            bench.ratio(case, times, party, OURS)
        for label in ("Keras", "Keras --native"):
            bench.ratio(case, times, TKV, f"{OURS}, {label}", ">= 1")


def case_forward(bench: Bench) -> None:
    """RISE of an ONNX graph: in onnxruntime itself, and brought into torch, against as many forwards by onnxruntime."""
    masks = 128 if bench.quick else 512
    case = f"rise:n={masks}, ONNX, ResNet-18 of half width, samples: 2, batch {BATCH}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder, 2)

        def rise(*, native: bool) -> None:
            camsweep.explain(
                model={"weights": f"{folder}/net.onnx", "native": native},
                data={"path": f"{folder}/x.npy", "layout": "NCHW"},
                explain={"methods": [f"rise:n={masks}"], "batch_size": BATCH},
                output={"path": f"{folder}/run.h5"}, force=True,
            )  # fmt: skip

        many = Path(name) / "many"
        many.mkdir()
        np.save(many / "x.npy", nets.noise(2 * masks, *SHAPE))
        (many / "net.onnx").symlink_to(folder / "net.onnx")
        ours = f"{OURS} --native"
        bare = "bare forwards, onnxruntime"
        times = bench.race(
            case,
            {
                ours: lambda: rise(native=True),
                OURS: lambda: rise(native=False),
                bare: onnx_forward(many, bench.threads),
            },
        )
        bench.against(case, times, ours, goal="")


if __name__ == "__main__":
    Bench("frameworks", __doc__ or "", {"formats": case_formats, "forward": case_forward}).run()
