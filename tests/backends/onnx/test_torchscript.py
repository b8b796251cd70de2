"""TorchScript archives and exported programs: the maps of the module that was saved, and nothing that runs unasked."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from camsweep.backends.checkpoints import kind_of
from camsweep.backends.onnx import exported, load, torchscript
from camsweep.backends.torch import TorchBackend
from camsweep.core.backend import Tapping
from camsweep.core.errors import RequestError
from camsweep.core.job import ModelSection
from camsweep.tests.backends.onnx.hostile import HOSTILE, SetState, TwoOutputs, Windowed, refusals
from camsweep.tests.backends.onnx.nets import net
from camsweep.tests.support import answers

LAYERS = {
    "resnet-1d": ("stages.2.1", "stages.2.1"),
    "resnet": ("stages.2.1", "stages.2.1"),
    "conv-3d": ("9", "9"),
    "lstm": ("rnn", "LSTM.layer"),
    "gru": ("rnn", "GRU.layer"),
    "vit-mean": ("norm", "norm"),
}
"""The layer that auto means in the module, and how the name begins or ends that it has behind an archive."""
EXPRESSIONS = ["grad", "lrp:eps=1e-3"]
QUICK = {("resnet-1d", "traced"), ("resnet", "scripted"), ("resnet", "frozen"), ("conv-3d", "traced"), ("lstm", "traced"), ("lstm", "scripted"), ("gru", "traced"), ("vit-mean", "traced")}  # fmt: skip
CASES = [
    pytest.param(name, way, marks=() if (name, way) in QUICK else pytest.mark.full)
    for name in LAYERS
    for way in ("traced", "scripted", "frozen")
    if (name, way) != ("vit-mean", "scripted")
]
"""torch's own attention is beyond the exporter when it is scripted, and runs as it is."""


def made(module, x=None, way="scripted"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is of yesterday
        script = torch.jit.script(module) if x is None or way == "scripted" else torch.jit.trace(module, torch.from_numpy(x[:1]))  # fmt: skip
        return torch.jit.freeze(script) if way == "frozen" else script


def saved(script, folder, name="model.pt"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script, folder / name)
    return folder / name


def loaded(path, *, dtype="float32", argument=None, trust=False, **more):
    model = ModelSection(weights=str(path), trust_checkpoint=trust, **more)
    return load(model, device="cpu", dtype=dtype, argument=argument)


def backend_of(name, way, folder):
    module, x = net(name)
    backend = loaded(saved(made(module, x, way), folder))
    backend.structure(x[:1])
    return backend, module, x


def off(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


def assert_alike(found, wanted):
    """Gradients to 1e-5 of the largest, relevance to 1e-3."""
    assert len(wanted) == len(EXPRESSIONS)
    for key, (values, _) in wanted.items():
        assert off(found[key][0], values) <= (1e-5 if key[0] == "grad" else 1e-3), key


@pytest.mark.parametrize(("name", "way"), CASES)
def test_maps_are_those_of_the_module(name, way, tmp_path):
    backend, module, x = backend_of(name, way, tmp_path)
    assert not backend.notes
    with torch.no_grad():
        assert off(backend.module(torch.from_numpy(x)), module(torch.from_numpy(x))) <= 1e-5
    found, wanted = (answers(each, x, EXPRESSIONS, (), 1) for each in (backend.module, module))
    assert_alike(found, wanted)


@pytest.mark.parametrize(("name", "way"), [each for each in CASES if "frozen" not in each.values])
def test_maps_at_layers_are_those_of_the_module(name, way, tmp_path):
    theirs, ours = LAYERS[name]
    module, x = net(name)
    backend = loaded(saved(made(module, x, way), tmp_path))
    auto = backend.structure(x[:1]).auto
    assert auto.startswith(ours) or auto.endswith(ours)
    found = answers(backend.module, x, ["gradcam"], (auto,), 1)["gradcam", auto][0]
    wanted = answers(module, x, ["gradcam"], (theirs,), 1)["gradcam", theirs][0]
    assert off(found, wanted) <= 1e-4


FOLDED = {"conv": "norm", "stages.1.0.conv1": "stages.1.0.norm1", "stages.2.1.conv2": "stages.2.1.norm2"}
"""Convolutions, and the norms that the exporter folds into them."""


@pytest.mark.parametrize(
    ("name", "way", "layers"),
    [
        ("resnet", "scripted", FOLDED),
        ("vit-mean", "traced", {each: each for each in ("patches", "blocks.0.norm1", "blocks.2.norm2")}),
    ],
)
def test_a_layer_keeps_its_name_and_its_maps(name, way, layers, tmp_path):
    backend, module, x = backend_of(name, way, tmp_path)
    for ours, theirs in layers.items():
        found = answers(backend.module, x, ["gradcam"], (ours,), 1)["gradcam", ours][0]
        wanted = answers(module, x, ["gradcam"], (theirs,), 1)["gradcam", theirs][0]
        assert off(found, wanted) <= 1e-4, ours


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_sample_at_a_time_gives_what_all_give(dtype, tmp_path):
    module, x = net("resnet-1d")
    backend = loaded(saved(made(module, x, "traced"), tmp_path), dtype=dtype)
    backend.structure(x[:1])
    eight = np.concatenate([x, x[::-1] * 0.5, x[:2] + 1])
    with backend.tapped(Tapping((), 1, frozenset("g"))) as session:

        def gradient(values):
            run = session(session.tensor(values))
            return run.pullback({"": torch.ones_like(run.outputs.scores)})[""]

        together, alone = gradient(eight), torch.cat([gradient(row[None]) for row in eight])
    assert together.dtype == getattr(torch, dtype)
    assert off(together, alone) <= (1e-5 if dtype == "float32" else 1e-12)


def test_a_module_saved_in_training_is_evaluated(tmp_path):
    module, x = net("resnet")
    script = made(module, x, "scripted").train()
    backend = loaded(saved(script, tmp_path))
    backend.structure(x[:1])
    assert not backend.notes
    with torch.no_grad():
        assert off(backend.module(torch.from_numpy(x)), module.eval()(torch.from_numpy(x))) <= 1e-5


@pytest.mark.parametrize("way", ["scripted", "frozen"])
def test_outputs_and_inputs_by_name(way, tmp_path):
    module = TwoOutputs().eval()
    x, mask = (torch.randn(3, 2, 9, generator=torch.Generator().manual_seed(i)) for i in range(2))
    path = saved(made(module, way=way), tmp_path)
    example, extra = x[:1].numpy(), {"mask": mask[:1].numpy()}
    backend = loaded(path, output="logits", argument="x")
    found = backend.structure(example, extra)
    assert not backend.notes
    assert found.keys == ("logits",)
    with torch.no_grad():
        assert off(backend.module(x=x, mask=mask)["logits"], module(x, mask)["logits"]) <= 1e-5
    assert loaded(path).structure(example, extra).keys == ("features", "logits")
    with pytest.raises(RequestError, match="no output 'logit'"):
        loaded(path, output="logit").structure(example, extra)
    with pytest.raises(RequestError, match="cannot take a sample"):
        loaded(path).structure(example)


def test_a_sample_that_it_cannot_take_is_told(tmp_path):
    module, x = net("resnet")
    backend = loaded(saved(made(module, x, "traced"), tmp_path))
    with pytest.raises(RequestError, match=r"cannot take a sample of shape \(2, 5, 5\)") as caught:
        backend.structure(np.zeros((1, 2, 5, 5), "float32"))
    assert "\n" not in str(caught.value)
    assert backend.structure(x[:1]).outputs == 5
    assert backend.structure(x[:1, :, :18]).outputs == 5  # another size, exported anew
    assert not backend.notes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_cannot_be_exported_runs_as_it_is(dtype, tmp_path, capfd):
    module, x = net("vit-mean")
    backend = loaded(saved(made(module, x, "scripted"), tmp_path), dtype=dtype)
    found = backend.structure(x[:1])
    assert capfd.readouterr() == ("", "")
    assert (found.outputs, found.layers) == (5, ())
    assert len(backend.notes) == 1
    assert "cannot be imported: Exporting the operator" in backend.notes[0]
    assert backend.answers == frozenset("xgopTNtfYy")
    told = r"layer 'head' cannot be watched: model\.pt \(TorchScript\) runs as it is"
    with pytest.raises(RequestError, match=told), backend.tapped(Tapping(("head",), 2, frozenset("A"))):
        pass
    with pytest.raises(RequestError, match=r"lrp cannot follow the model: model\.pt"):
        backend.unruled(x[:1])
    plain = TorchBackend(module, device=torch.device("cpu"), dtype=dtype)
    plain.structure(x[:1])
    gradients = []
    for each in (backend, plain):
        with each.tapped(Tapping((), 2, frozenset("g"))) as session:
            run = session(session.tensor(x))
            gradients.append(run.pullback({"": torch.ones_like(run.outputs.scores)})[""])
    assert off(*gradients) <= (1e-5 if dtype == "float32" else 1e-12)


def test_a_choice_by_values_is_not_settled_by_the_first_sample(tmp_path):
    script = made(Windowed())
    backend = loaded(saved(script, tmp_path))
    backend.structure(np.ones((1, 2, 9), "float32"))
    x = torch.tensor([1.0, -1.0])[:, None, None] * torch.arange(18.0).reshape(2, 9)
    for row in x:
        assert torch.equal(backend.module(row[None]), script(row[None]))
    assert "If" in backend.notes[0]


def test_other_values_than_those_of_the_module_are_not_used(tmp_path):
    module, x = net("resnet-1d")
    other = torchscript.load_script(saved(made(module, x, "traced"), tmp_path, "other.pt"), trust=False)
    for parameter in other.parameters():
        parameter.requires_grad_(False).mul_(1.01)
    backend = loaded(saved(made(module, x, "traced"), tmp_path))
    backend._export = partial(torchscript.exported, other)
    backend.structure(x[:1])
    assert "exported, it computes other values: they differ by" in backend.notes[0]
    with torch.no_grad():
        assert off(backend.module(torch.from_numpy(x)), module(torch.from_numpy(x))) <= 1e-6


def test_nothing_global_is_left_changed(tmp_path):
    optimized, log = torch._C._get_graph_executor_optimize(), torch._C._jit_is_onnx_log_enabled()
    state, shown = torch.get_rng_state(), torch._C._jit_onnx_log
    backend_of("vit-mean", "traced", tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch._C._get_graph_executor_optimize(), torch._C._jit_is_onnx_log_enabled()) == (optimized, log)
    assert torch._C._jit_onnx_log is shown
    assert not torch.onnx.is_in_onnx_export()


# What must not run


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_more_than_compute_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(made(HOSTILE[name]()), tmp_path)
    assert kind_of(path) == "torchscript"
    marker = tmp_path / "marker"
    marker.unlink(missing_ok=True)
    with pytest.raises(RequestError, match=refusals[name]) as caught:
        loaded(path).structure(np.ones((1, 3, 4), "float32"))
    assert "\n" not in str(caught.value)
    assert "--trust-checkpoint" in str(caught.value)
    assert not marker.exists()
    backend = loaded(path, trust=True)
    backend.structure(np.ones((1, 3, 4), "float32"))
    assert marker.exists()  # it would have


def test_a_script_that_loads_by_its_own_code_is_refused_in_whatever_case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = saved(made(SetState()), tmp_path)
    rewritten(whole, tmp_path / "upper.pt", lambda name, data: (name.replace("code/__torch__.py", "CODE/__TORCH__.PY"), data))  # fmt: skip
    with pytest.raises(RequestError, match="__setstate__"):
        torchscript.load_script(tmp_path / "upper.pt", trust=False)
    assert not (tmp_path / "marker").exists()


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("marker",))


def rewritten(path, to, change):
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as anew:
        for record in archive.infolist():
            anew.writestr(*change(record.filename, archive.read(record)))
    return to


@pytest.mark.parametrize("record", ["constants.pkl", "data.pkl"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_in_an_archive_is_not_run(record, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, x = net("resnet-1d")
    whole = saved(made(module, x, "traced"), tmp_path)
    bomb = pickle.dumps((Bomb(),), protocol)
    path = rewritten(whole, tmp_path / "b.pt", lambda n, d: (n, bomb if n.endswith(f"/{record}") else d))
    for trust in (False, True):
        with pytest.raises(RequestError, match="cannot be loaded as TorchScript") as caught:
            loaded(path, trust=trust)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


def test_objects_of_classes_in_c_are_refused(tmp_path):
    module, x = net("resnet-1d")
    whole = saved(made(module, x, "traced"), tmp_path)
    for text in (b"c__torch__.torch.classes.cuda\nStream\n.", b"c__torch__.torch\nclasses.cuda.Stream\n."):
        path = rewritten(whole, tmp_path / "c.pt", lambda n, d, text=text: (n, text if n.endswith("constants.pkl") else d))  # fmt: skip
        with pytest.raises(RequestError, match=r"classes written in C\+\+"):
            torchscript.load_script(path, trust=False)


def test_damaged_archives(tmp_path):
    module, x = net("resnet-1d")
    whole = saved(made(module, x, "traced"), tmp_path)
    data = whole.read_bytes()
    cut, flipped, empty = (tmp_path / name for name in ("cut.pt", "flipped.pt", "empty.pt"))
    cut.write_bytes(data[: len(data) // 2])
    empty.write_bytes(b"")
    with zipfile.ZipFile(whole) as archive:
        largest = max(archive.infolist(), key=lambda each: each.file_size)
    changed = bytearray(data)
    changed[largest.header_offset + 200] ^= 1
    flipped.write_bytes(changed)
    for path in (cut, flipped, empty):
        with pytest.raises(RequestError, match="damaged or cut short") as caught:
            torchscript.load_script(path, trust=False)
        assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=r"model not found: .* Did you mean 'model\.pt'"):
        torchscript.load_script(tmp_path / "modl.pt", trust=False)
    unknown = rewritten(whole, tmp_path / "u.pt", lambda n, d: (n, d.replace(b"torch.relu", b"ops.nosuch.relu")))
    with pytest.raises(RequestError, match="cannot be loaded as TorchScript: Unknown builtin op: nosuch::relu"):
        torchscript.load_script(unknown, trust=False)


# Exported programs


def program(module, x, path, *, fixed=False):
    shapes = None if fixed else ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.from_numpy(x[:2]),), dynamic_shapes=shapes), path)
    return path


def test_an_exported_program_is_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, x = net("resnet-1d")
    whole = program(module, x, tmp_path / "whole.pt2")
    assert kind_of(whole) == "exported"
    file = io.BytesIO()
    torch.save((((Bomb(),), {})), file)
    path = rewritten(whole, tmp_path / "b.pt2", lambda n, d: (n, file.getvalue() if "sample_inputs" in n else d))
    with pytest.raises(RequestError, match=r"export the model to ONNX instead, or give --trust-checkpoint") as caught:
        loaded(path)
    assert "\n" not in str(caught.value)
    assert not Path("marker").exists()
    with suppress(RequestError):
        loaded(path, trust=True)
    assert Path("marker").exists()  # it would have


@pytest.mark.parametrize(("name", "fixed"), [("resnet", False), ("lstm", False), ("conv-3d", True)])
def test_maps_of_an_exported_program(name, fixed, tmp_path, capfd):
    pytest.importorskip("onnxscript")
    module, x = net(name)
    backend = loaded(program(module, x, tmp_path / "model.pt2", fixed=fixed), trust=True)
    found = backend.structure(x[:1])
    assert capfd.readouterr() == ("", "")
    assert not backend.notes
    names = {"resnet": "stages.2.1.relu", "lstm": "rnn", "conv-3d": "9"}
    assert found.auto.startswith(names[name])
    with torch.no_grad():
        assert off(backend.module(torch.from_numpy(x)), module(torch.from_numpy(x))) <= 1e-5
    if fixed:
        x = x[:2]
    ours, theirs = (answers(each, x, EXPRESSIONS, (), 1) for each in (backend.module, module))
    assert_alike(ours, theirs)


def test_an_exported_program_without_its_exporter_runs_as_it_is(tmp_path, monkeypatch):
    module, x = net("resnet-1d")
    path = program(module, x, tmp_path / "model.pt2")
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)
    backend = loaded(path, trust=True)
    assert backend.structure(x[:1]).outputs == 5
    assert "pip install onnxscript" in backend.notes[0]
    with backend.tapped(Tapping((), 1, frozenset("g"))) as session:
        run = session(session.tensor(x))
        found = run.pullback({"": torch.ones_like(run.outputs.scores)})[""]
    inputs = torch.from_numpy(x).requires_grad_()
    [wanted] = torch.autograd.grad(module(inputs).sum(), inputs)
    assert off(found, wanted) <= 1e-5


def test_a_damaged_program(tmp_path):
    module, x = net("resnet-1d")
    data = program(module, x, tmp_path / "model.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(data[: len(data) // 2])
    with pytest.raises(RequestError, match="cannot be loaded as an exported program") as caught:
        exported.load_program(tmp_path / "cut.pt2")
    assert "\n" not in str(caught.value)
