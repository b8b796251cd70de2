"""A program of its own: one signature of a SavedModel becomes an ONNX file.

TensorFlow stays in its own process: it takes half a gigabyte, and what a hostile graph could do there ends with it.
No object of the model's is revived, and nothing of it is run but what restores its variables and what it computes,
after a look at what that is made of. ``python -m camsweep.backends.tensorflow.freezing FOLDER SIGNATURE OUT TRUST``
writes ``OUT/model.onnx``, and ``OUT/sample.npz`` with inputs and what TensorFlow makes of them; an error is one line on
stdout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import first_line
from .absence import NEEDLESS, without
from .scanning import Refused, nodes_of, parsed, scanned

SERVING = "serving_default"
REFUSED, FAILED = 2, 3


def main(folder: str, signature: str, out: str, trust: str) -> None:
    """Convert ``folder``; what it holds is looked through where ``trust`` is ""."""
    path = Path(folder)
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
    with without(NEEDLESS - {"tensorflow"}):
        import tensorflow as tf
    saved = parsed(path)
    if not trust:
        scanned(saved, path)
    meta = next((each for each in saved.meta_graphs if "serve" in each.meta_info_def.tags), None)
    if meta is None:
        raise Refused(f"{path} has no graph for serving")
    chosen = chosen_signature(meta, signature, path)
    inputs = {key: each.name for key, each in sorted(chosen.inputs.items())}
    outputs = {key: each.name for key, each in sorted(chosen.outputs.items())}
    graph, sample = frozen(tf, meta, path, chosen, inputs, outputs)
    np.savez(Path(out) / "sample.npz", **sample)
    (Path(out) / "model.onnx").write_bytes(exported(graph, inputs, outputs))


def chosen_signature(meta: Any, wanted: str, path: Path) -> Any:
    """The one that is named, the one for serving, or the only one."""
    names = [name for name in meta.signature_def if not name.startswith("__")]
    name = wanted or (SERVING if SERVING in names else names[0] if len(names) == 1 else "")
    if name not in names:
        raise Refused(f"{path} has the signatures {', '.join(names) or 'none'}; name one: --model-arg signature=NAME")
    return meta.signature_def[name]


def frozen(
    tf: Any, meta: Any, path: Path, signature: Any, inputs: dict[str, str], outputs: dict[str, str]
) -> tuple[Any, dict[str, Any]]:
    """The graph with its variables as constants; a sample, where the sizes of its inputs are known."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.import_meta_graph(meta, clear_devices=True)
        if (variables := path / "variables" / "variables.index").exists():
            saver.restore(session, str(variables.with_suffix("")))
        rng, sample = np.random.default_rng(0), {}
        shapes = {key: [size.size for size in each.tensor_shape.dim] for key, each in signature.inputs.items()}
        kinds = {key: tf.as_dtype(each.dtype) for key, each in signature.inputs.items()}
        if all(shape and min(shape[1:], default=1) > 0 and kinds[key].is_floating for key, shape in shapes.items()):
            for key, shape in shapes.items():
                size = [max(shape[0], 2) if shape[0] < 0 else shape[0], *shape[1:]]
                sample[f"in:{key}"] = rng.normal(size=size).astype(kinds[key].as_numpy_dtype)
            given = {name: sample[f"in:{key}"] for key, name in inputs.items()}
            sample |= {f"out:{key}": session.run(name, given) for key, name in outputs.items()}
        ends = [name.partition(":")[0] for name in outputs.values()]
        whole = inlined(tf, session.graph, [*inputs.values(), *outputs.values()])
        return convert_variables_to_constants_from_session_graph(session, whole, ends), sample


def inlined(tf: Any, graph: Any, ends: Sequence[str]) -> Any:
    """The graph that is run for ``ends``, what its functions do written out."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    definition = graph.as_graph_def()
    for function in definition.library.function:
        for key in KEEPING:
            function.attr.pop(key, None)
    for _, node in nodes_of(definition):
        for key in KEEPING:
            node.attr.pop(key, None)
    meta = tf.compat.v1.train.export_meta_graph(graph_def=definition, graph=graph, clear_extraneous_savers=True)
    meta.collection_def.clear()
    meta.collection_def["train_op"].CopyFrom(meta_graph_pb2.CollectionDef())  # how it is told what to keep
    meta.collection_def["train_op"].node_list.value.extend(ends)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    found = tf_optimizer.OptimizeGraph(config, meta)
    for node in found.node:  # what only has to come before, as a count of random numbers, is not for the outputs
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    return tf.compat.v1.graph_util.extract_sub_graph(found, [name.partition(":")[0] for name in ends])


KEEPING = ("api_implements", "_XlaMustCompile", "_noinline")
"""Attributes that keep a function from being written out: for another device's sake."""


def exported(graph: Any, inputs: dict[str, str], outputs: dict[str, str]) -> bytes:
    """As ONNX, its inputs and outputs by the names that the signature has for them."""
    from tf2onnx.convert import from_graph_def

    model, _ = from_graph_def(graph, input_names=list(inputs.values()), output_names=list(outputs.values()), opset=17)
    names = {name: key for key, name in (*inputs.items(), *outputs.items())}
    if len(set(names.values())) == len(names):
        for each in (*model.graph.input, *model.graph.output):
            each.name = names.get(each.name, each.name)
        for node in model.graph.node:
            _renamed(node.input, names)
            _renamed(node.output, names)
    for node in model.graph.node:
        if "/" not in node.name and "/" in node.output[0]:  # one that was made anew, in the place of another
            node.name = node.output[0].partition(":")[0]
    content: bytes = model.SerializeToString()
    return content


def _renamed(sequence: Any, names: dict[str, str]) -> None:
    for i, name in enumerate(sequence):
        sequence[i] = names.get(name, name)


def run(arguments: Sequence[str]) -> int:
    """0, or with one line that says why: `REFUSED`, or `FAILED` where TensorFlow itself might do what this cannot."""
    try:
        main(*arguments)
    except Refused as refusal:
        sys.stdout.write(f"{refusal}\n")  # this is how it answers
        return REFUSED
    except Exception as error:
        line = first_line(error, 300)
        sys.stdout.write(f"{arguments[0]} cannot be converted: {type(error).__name__}: {line}\n")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
