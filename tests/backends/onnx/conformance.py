"""The ONNX project's own tests of its operators, put to the importer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from camsweep.backends.onnx.importing import network
from camsweep.core.errors import RequestError

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
TYPES = FLOATS | {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
OUTSIDE = re.compile(
    "^(Random|Bernoulli|Multinomial|Sequence|Split.*Sequence|Optional|String|Regex|Tfidf|LabelEncoder|Unique|Compress|"
    "ArrayFeature|Binarizer|TreeEns|Quantize|Dequantize|DynamicQuant|QLinear|ConvInteger|MatMulInteger|ImageDecoder|"
    "NonMax|Adam|Adagrad|Momentum|Gradient|If|Loop|Scan|Softmax.*Loss|NegativeLog|BitShift|MelWeight|DFT|STFT|Hann|"
    "Hamming|Blackman|TensorScatter|Bitwise|BitCast|ConcatFromSequence|MaxUnpool|ReverseSequence|MaxRoi)"
)
"""Operators of preprocessing, training, sequences, strings, chance, control flow and quantised numbers."""
SMALL = 3000
"""Elements of an input whose gradient is tried."""


@dataclass
class Case:
    """A model with inputs, and what it must give."""

    name: str
    kind: str
    model: onnx.ModelProto
    sets: list[tuple[list[np.ndarray], list[np.ndarray]]]
    rtol: float
    atol: float

    @property
    def in_scope(self) -> bool:
        """Whether it computes floating point numbers from such, with plain operators."""
        graph = self.model.graph
        types = [[_type(value) for value in values] for values in (graph.input, graph.output)]
        return (
            all(each.domain in ("", "ai.onnx") for each in self.model.opset_import)
            and not any(OUTSIDE.match(node.op_type) for node in graph.node)
            and all(kind in TYPES for kinds in types for kind in kinds)
            and all(FLOATS & set(kinds) for kinds in types)
        )

    def with_constants(self) -> Case | None:
        """It with all inputs but one as constants, as weights are in a file; None where there is but one."""
        graph, [arrays, wanted] = self.model.graph, self.sets[0] if self.sets else ([], [])
        if len(graph.input) < 2 or len(arrays) != len(graph.input) or graph.node[0].op_type == "CastLike":
            return None
        kept = next(i for i, value in enumerate(graph.input) if _type(value) in FLOATS)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.input[:]
        model.graph.input.append(graph.input[kept])
        for i, (value, array) in enumerate(zip(graph.input, arrays, strict=True)):
            if i != kept and value.name:
                model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        return Case(f"{self.name}[constants]", self.kind, model, [([arrays[kept]], wanted)], self.rtol, self.atol)


@dataclass
class Tally:
    """What came of the cases."""

    passed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return len(self.passed) / max(1, len(self.passed) + len(self.refused) + len(self.wrong))

    def __str__(self) -> str:
        return f"{len(self.passed)} pass ({self.share:.1%}), {len(self.refused)} refused, {len(self.wrong)} wrong"


def cases(*kinds: str) -> Iterator[Case]:
    """All that are in scope."""
    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load_model_tests(kind=kind)
        for each in found:
            case = Case(each.name, kind, *_content(each), max(each.rtol, 1e-3), max(each.atol, 1e-6))
            if case.in_scope:
                yield case


def tried(case: Case) -> tuple[str, str]:
    """What came of it, and why."""
    try:
        module = network(case.model)
    except RequestError as error:
        return "refused", str(error)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    for entry in module.entries:
        entry.channels_last = False
    try:
        for inputs, outputs in case.sets:
            with torch.no_grad():
                found = module(**_fed(case, module, inputs))
            found = list(found.values()) if isinstance(found, dict) else [found]
            for tensor, wanted in zip(found, outputs, strict=True):
                wanted = np.asarray(wanted)
                assert tensor.numpy().dtype == wanted.dtype, f"dtype {tensor.dtype}, wanted {wanted.dtype}"
                assert tensor.shape == wanted.shape, f"shape {tuple(tensor.shape)}, wanted {wanted.shape}"
                np.testing.assert_allclose(tensor.numpy(), wanted, rtol=case.rtol, atol=case.atol)
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "passed", ""


def gradient(case: Case) -> str:
    """``ok``, ``none`` where there is none, or what is wrong with the gradient of the first input in float64."""
    inputs = case.sets[0][0]
    module = network(case.model).double()
    for entry in module.entries:
        entry.channels_last = False
    fed = _fed(case, module, inputs)
    first = next((name for name, each in fed.items() if each.is_floating_point()), None)
    if first is None or not 0 < fed[first].numel() <= SMALL or not torch.isfinite(fed[first]).all():
        return "none"
    fed = {name: each.double() if each.is_floating_point() else each for name, each in fed.items()}

    def run(x: torch.Tensor) -> torch.Tensor:
        found = module(**{**fed, first: x})
        found = list(found.values()) if isinstance(found, dict) else [found]
        return next(each for each in found if each.is_floating_point())

    noise = torch.randn(fed[first].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (fed[first] * 0.97 + 0.013 + 1e-3 * noise).requires_grad_()  # where no two are alike
    if not run(x).requires_grad or not run(x).numel():
        return "none"
    if not torch.isfinite(run(x)).all() or run(x).abs().max() > 1e15:
        return "none"  # outside the function's domain, or where differences are lost
    try:
        torch.autograd.gradcheck(run, (x,), fast_mode=True, eps=1e-6, atol=1e-4, rtol=1e-3)
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return "ok"


def _fed(case: Case, module, inputs) -> dict[str, torch.Tensor]:
    names = [value.name for value in case.model.graph.input]
    wanted = {entry.name for entry in module.entries}
    initial = {tensor.name for tensor in case.model.graph.initializer}
    if len(inputs) != len(names):
        names = [name for name in names if name not in initial]
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in zip(names, inputs, strict=True)}
    return {name: tensor for name, tensor in tensors.items() if name in wanted}


def _type(value) -> int:
    return value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else -1


def _content(test):
    if test.model is not None:
        return test.model, [tuple([_array(v) for v in side] for side in each[:2]) for each in test.data_sets or []]
    folder = Path(test.model_dir)
    sets = []
    for data in sorted(folder.glob("test_data_set*")):
        sides = [
            sorted(data.glob(f"{side}_*.pb"), key=lambda p: int(p.stem.rpartition("_")[2]))
            for side in ("input", "output")
        ]
        try:
            sets.append(tuple([_array(onnx.TensorProto.FromString(p.read_bytes())) for p in side] for side in sides))
        except Exception:  # a sequence, or an optional value: out of scope
            return onnx.load(folder / "model.onnx"), []
    return onnx.load(folder / "model.onnx"), sets


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
