"""TorchScript archives, what ``torch.jit.save`` writes: looked through, then exported as ONNX."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from onnx import ModelProto
from torch import Tensor, nn

from ...core.errors import RequestError
from ..torch.loading import settle_device
from ..torch.structured import named_tensors
from .archives import TRUST, checked
from .exporting import ExportingBackend
from .symbolics import OPSET, known

if TYPE_CHECKING:
    from ...core.job import ModelSection

JIT: Any = torch.jit
C: Any = torch._C
"""Without the types that they do not have."""
NAMESPACES = frozenset(
    {"aten", "prim", "quantized", "_quantized", "prepacked", "mkldnn_prepacked", "torchvision", "profiler"}
)
"""Whose operators compute, and do nothing else, ... """
REFUSED = frozenset(
    {"aten::save", "aten::from_file", "prim::PythonOp", "prim::IgnoredPythonOp", "prim::CallFunction"}
    | {"prim::CallMethod", "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote"}
)
"""... but for these: they reach files, Python or another machine, or call what is found out only then."""
INNER = "inner"


def load(model: ModelSection, *, device: str, dtype: str, argument: str | None = None) -> ExportingBackend:
    """The backend of an archive; ``argument`` names the argument of its ``forward`` that gets the data."""
    path = Path(model.weights or "")
    script = load_script(path, trust=model.trust_checkpoint)
    return ExportingBackend(
        script,
        partial(exported, script),
        _arguments(script)[0],
        title=f"{path.name} (TorchScript)",
        placed=lambda place: load_script(path, trust=model.trust_checkpoint, device=place),
        device=settle_device(device),
        dtype=dtype,
        output=model.output,
        tokens=model.tokens,
        argument=argument,
    )


def load_script(path: Path, *, trust: bool, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """The module of an archive, none of it having run; `RequestError` where it would do more than compute."""
    archive = checked(path, trust=trust)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is of yesterday
            script: torch.jit.ScriptModule = JIT.load(archive, map_location=device)
    except Exception as error:
        line = next((each for each in str(error).splitlines() if each.strip()), type(error).__name__)
        raise RequestError(f"{path} cannot be loaded as TorchScript: {line.strip()[:200]}") from None
    if not trust and (refused := next(iter(_refused(script)), None)):
        raise RequestError(
            f"{path} holds TorchScript that does more than compute ({refused}), which running it would do; "
            f"save it without, {TRUST}"
        )
    script.eval()
    if not hasattr(script, "forward"):
        raise RequestError(f"{path} holds TorchScript without a forward; save the whole module")
    return script


def exported(script: torch.jit.ScriptModule, tensors: Mapping[str, Tensor], _module: nn.Module) -> ModelProto:
    """The ONNX of a script that takes ``tensors``, for batches of any size; it computes them once."""
    rows = len(next(iter(tensors.values())))
    given = script(**tensors)
    outputs = dict(_places(given, "found"))
    if list(outputs) != list(named_tensors(given, rows)):
        raise RequestError("it gives lists of detections, whose lengths differ from sample to sample")
    whole = _calling(script, list(tensors), list(outputs.values()))
    names = [key or "output" for key in outputs]
    axes = {name: {0: "batch"} for name, each in tensors.items() if each.ndim and len(each) == rows}
    file: Any = io.BytesIO()
    with _quiet(), known():
        torch.onnx.export(
            whole,
            tuple(tensors.values()),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(tensors),
            output_names=names,
            dynamic_axes=axes,
        )
    model: ModelProto = ModelProto.FromString(file.getvalue())
    for node in model.graph.node:
        node.name = node.name.replace(f"/{INNER}/", "/", 1)
    return model


def _calling(script: torch.jit.ScriptModule, names: Sequence[str], outputs: Sequence[str]) -> Any:
    """A script that calls another by the names of its arguments, and gives a tuple whatever that one gives."""
    whole = C.ScriptModule("__torch__.Calling", C.CompilationUnit(), True)
    whole._register_attribute("training", C.BoolType.get(), False)
    whole._register_attribute(INNER, script._c._type(), script._c)
    module: Any = JIT._recursive.wrap_cpp_module(whole)
    call = f"self.{INNER}({', '.join(f'{name}={name}' for name in names)})"
    module.define(f"def forward(self, {', '.join(names)}):\n    found = {call}\n    return {', '.join(outputs)}\n")
    return module


def _places(given: Any, place: str, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys as by `named_tensors`, and where in an output TorchScript finds the tensor."""
    if isinstance(given, Tensor):
        yield key, place
    elif isinstance(given, Mapping):
        for name, value in given.items():
            if isinstance(name, str) and re.fullmatch(r"[\w .:/-]+", name):
                yield from _places(value, f"{place}[{json.dumps(name)}]", f"{key}.{name}".lstrip("."))
    elif isinstance(given, Sequence) and not isinstance(given, str):
        names = getattr(given, "_fields", range(len(given)))
        for i, (name, value) in enumerate(zip(names, given, strict=True)):
            yield from _places(value, f"{place}[{i}]", f"{key}.{name}".lstrip("."))


def _refused(script: torch.jit.ScriptModule) -> Iterator[str]:
    """The operators that do more than compute, in all methods of all modules, and in their hooks."""
    for module in script.modules():
        inside: Any = module._c
        methods = [inside._get_method(name) for name in inside._method_names()]
        for each in [*methods, *inside._get_forward_hooks(), *inside._get_forward_pre_hooks()]:
            yield from _in_graph(each.graph)


def _in_graph(graph: Any) -> Iterator[str]:
    graph = graph.copy()
    C._jit_pass_inline(graph)  # so that what a function or another module's method does is seen too
    yield from _in_block(graph)


def _in_block(block: Any) -> Iterator[str]:
    for node in block.nodes():
        kind = node.kind()
        if kind in REFUSED or kind.partition("::")[0] not in NAMESPACES:
            yield kind
        for inner in node.blocks():
            yield from _in_block(inner)
        for name in node.attributeNames():
            kind = node.kindOf(name)  # what is forked is a graph of its own
            for each in [node.g(name)] if kind == "g" else node.gs(name) if kind == "gs" else []:
                yield from _in_graph(each)


def _arguments(script: torch.jit.ScriptModule) -> list[str]:
    method: Any = script.forward
    return [each.name for each in method.schema.arguments[1:]] or ["x"]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns that it is old, and prints the whole graph where it fails."""
    log = C._jit_is_onnx_log_enabled()
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        patch.object(C, "_jit_onnx_log", lambda *_: None),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            C._jit_set_onnx_log_enabled(log)
