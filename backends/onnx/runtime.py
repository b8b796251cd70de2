"""onnxruntime, so that it computes what a file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from onnx import ModelProto

PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def started(
    model: ModelProto,
    *,
    device: torch.device | None = None,
    node_by_node: bool = False,
    lent: Mapping[str, Any] | None = None,
) -> Any:
    """An ``InferenceSession``; raises what onnxruntime does, or `ImportError`.

    ``node_by_node``: no nodes are joined, so values do not depend on which of them are asked for. ``lent``: constants
    that several sessions share, as ``OrtValue``s.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch's threads want the cores in turn
    if node_by_node:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if lent:
        options.add_external_initializers(list(lent), list(lent.values()))
    providers: list[Any] = ["CPUExecutionProvider"]
    if device is not None and device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": "0"}))
    # One of its optimizations puts a padding by zeros into a pooling that pads by -inf.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=providers, disabled_optimizers=["Pad_Fusion"]
    )


def told(error: BaseException) -> str:
    """What onnxruntime complains of, in a line."""
    return PREFIX.sub("", (str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
