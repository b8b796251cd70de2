"""Sessions of onnxruntime: one for each part of a graph that is asked for, with weights that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from ....core.errors import RequestError
from ..runtime import started
from .parts import Whole

Values = Mapping[str, NDArray[Any]]
SMALL = 2**12
"""Constants of up to so many bytes are a part of each session."""
LENT = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
    | {TensorProto.INT32, TensorProto.INT64}
)


class Sessions:
    """Computes values of a graph from others."""

    def __init__(self, whole: Whole, weights: Values, device: torch.device) -> None:
        import onnxruntime

        self.whole, self.device = whole, device
        self.types = {
            name: f"tensor({TensorProto.DataType.Name(each.type.tensor_type.elem_type).lower()})"
            for name, each in whole.inputs.items()
        }
        """Of the values that have been asked for once, as onnxruntime says them."""
        self.started = 0
        self._weights = weights
        self._lent = {name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in weights.items()}
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[Any, list[str], list[str]]] = {}
        # Nodes that quantise are joined with others where they can be, and then round in another way.
        self._node_by_node = any("Quantize" in node.op_type for node in whole.nodes)

    def __call__(self, given: Values, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Values by their names; ``given`` are all inputs, or what `Whole.crossing` lists."""
        session, made, read = self._session(tuple(given), tuple(wanted))
        found = dict(zip(made, session.run(made, {name: given[name] for name in read}), strict=True)) if made else {}
        return {name: given[name] if name in given else found[name] for name in wanted}

    def prepared(self, wanted: Sequence[str]) -> None:
        """Know the types of ``wanted``; raises what onnxruntime does where it cannot run what they need."""
        self._session(tuple(self.whole.inputs), tuple(wanted))

    def forget(self, given: Iterable[str], wanted: Sequence[str]) -> None:
        """Give up a session that was needed only to look."""
        self._known.pop((tuple(given), tuple(wanted)), None)

    def element(self, name: str) -> int:
        """The element type of a value, 0 where it is no tensor."""
        told = self.types.get(name, "")
        return TensorProto.DataType.Value(told[7:-1].upper()) if told.startswith("tensor(") else 0

    def dtype(self, name: str) -> np.dtype[Any]:
        """The same as NumPy says it."""
        return onnx.helper.tensor_dtype_to_np_dtype(self.element(name))

    def _session(self, given: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[Any, list[str], list[str]]:
        if (given, wanted) not in self._known:
            made = [name for name in dict.fromkeys(wanted) if name not in given]
            session, read = None, []
            if made:
                inner = {name: self.element(name) for name in given if name not in self.whole.inputs}
                model = self.whole.part(inner, made)
                own = {each.name for each in model.graph.initializer}
                lent = {name: each for name, each in self._lent.items() if name in own}
                session = started(model, device=self.device, node_by_node=self._node_by_node, lent=lent)
                self.started += 1
                self.types |= {each.name: each.type for each in (*session.get_inputs(), *session.get_outputs())}
                read = [each.name for each in session.get_inputs()]
            self._known[given, wanted] = session, made, read
        return self._known[given, wanted]


def lightened(model: ModelProto) -> tuple[ModelProto, dict[str, NDArray[Any]]]:
    """A model whose large constants are held apart, and these.

    Many sessions need not hold them each, and a model of any size can be handed to onnxruntime.
    """
    old = model.graph
    graph = GraphProto(
        name=old.name, node=old.node, input=old.input, output=old.output, sparse_initializer=old.sparse_initializer
    )
    weights = {}
    for each in old.initializer:
        size = len(each.raw_data) or each.ByteSize()
        if size <= SMALL or each.data_type not in LENT:
            graph.initializer.append(each)
            continue
        weights[each.name] = np.ascontiguousarray(numpy_helper.to_array(each))
        stand_in = TensorProto(name=each.name, dims=each.dims, data_type=each.data_type)
        stand_in.data_location = TensorProto.EXTERNAL
        stand_in.external_data.add(key="location", value="memory")
        graph.initializer.append(stand_in)
    return ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    ), weights


def settled(device: str) -> torch.device:
    """As for torch, but only what onnxruntime can compute on too."""
    import onnxruntime

    from ...torch.loading import settle_device

    able = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    found = settle_device(device)
    if found.type == "cpu" or (found.type == "cuda" and able):
        return found
    if device == "auto":
        return torch.device("cpu")
    raise RequestError(
        f"device {device}: the onnxruntime installed here computes on the CPU only; take --device cpu"
        + (", or pip install onnxruntime-gpu" if found.type == "cuda" else "")
    )
