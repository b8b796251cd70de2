"""What is said when something is wrong: one short line that names it, the right exit code, and nothing written."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from camsweep.core.results import Status, open_results

from .conftest import IMAGES, job_text, load_models, save_png

LONGEST = 300
"""Characters."""
SOON = 3.0
"""Seconds of the processor, behind what `camsweep --help` takes: no framework is loaded in so short a time."""

Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """A fault: how it comes about, what is typed, and what is to be said of it."""

    name: str
    pattern: str
    prepare: Prepare = lambda bench: None
    words: str = "explain job.toml"
    code: int = 2


# How faults come about. Each is a function of the bench's folder.


def text(name: str, contents: str) -> Prepare:
    return lambda bench: (bench / name).write_text(contents)


def raw(name: str, contents: bytes) -> Prepare:
    return lambda bench: (bench / name).write_bytes(contents)


def job(**changes: str) -> Prepare:
    return text("job.toml", job_text(**changes))


def replaced(old: str, new: str) -> Prepare:
    assert old in job_text()
    return text("job.toml", job_text().replace(old, new))


def cut(name: str, keep: float) -> Prepare:
    return lambda bench: (bench / name).write_bytes((data := (bench / name).read_bytes())[: int(len(data) * keep)])


def arrays(save=np.savez, **changes: object) -> Prepare:
    """The bench's signals with some arrays changed."""

    def prepare(bench: Path) -> None:
        with np.load(bench / "signals.npz") as file:
            stored = dict(file)
        save(bench / "signals.npz", **stored | {name: np.asarray(value) for name, value in changes.items()})

    return prepare


def both(*steps: Prepare) -> Prepare:
    return lambda bench: [step(bench) for step in steps]


def npy(array: object) -> Prepare:
    """A file signals.npy in the place of signals.npz."""

    def prepare(bench: Path) -> None:
        np.save(bench / "signals.npy", array, allow_pickle=True)
        lines = 'label = "y"\nid = "id"\nclasses = "classes"\n'
        changed = job_text().replace("signals.npz", "signals.npy").replace(lines, "").replace('input = "x"\n', "")
        (bench / "job.toml").write_text(changed)

    return prepare


def flipped(bench: Path) -> None:
    """A compressed archive with damage in the middle of the signals."""
    arrays(np.savez_compressed)(bench)
    data = bytearray((bench / "signals.npz").read_bytes())
    data[300:340] = bytes(40)
    (bench / "signals.npz").write_bytes(data)


def pickled(bench: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), bench / "weights.pt")


def weights(**args: int) -> Prepare:
    """Weights of a network of another size."""

    def prepare(bench: Path) -> None:
        torch.save(load_models(bench / "models.py").Net(**args).state_dict(), bench / "weights.pt")

    return prepare


def images(bench: Path) -> None:
    (bench / "job.toml").write_text(IMAGES)


def without_images(bench: Path) -> None:
    images(bench)
    for path in (bench / "images").rglob("*.png"):
        path.rename(path.with_suffix(".txt"))


def other_results(bench: Path) -> None:
    """The results of another job, finished, where this one's would go."""
    from camsweep import explain

    explain(bench / "job.toml", explain={"methods": ["grad"], "targets": ["label"]})


def unfinished(bench: Path) -> None:
    """The parts of another job."""
    other_results(bench)
    from camsweep.core.results import Parts

    folder = bench / "run.h5.parts"
    folder.mkdir()
    Parts.create(folder, _schema(bench))
    (bench / "run.h5").unlink()


def _schema(bench: Path):
    from camsweep.cli.explain import load_backend
    from camsweep.core.job import Job
    from camsweep.core.run import plan_job

    flags = {"explain": {"methods": ["grad"]}}
    return plan_job(Job.load(bench / "job.toml", flags), load_backend).schema


LONG = "[" + ", ".join(str(i) for i in range(500)) + "]"

ROWS = [
    # the job file
    Row("job missing", r"job file not found: jbo\.toml\. Did you mean 'job\.toml'\?", words="explain jbo.toml"),
    Row("job is a folder", r"job file images cannot be read: Is a directory", words="explain images"),
    Row("job not TOML", r"job\.toml is not TOML: .*line 2", text("job.toml", "[model]\nsource = models.py\n")),
    Row("job not text", r"job\.toml is not TOML", raw("job.toml", b"\x89HDF\r\n\x1a\n\xff\xfe")),
    Row("job empty", r"data\.path is missing: .*--data PATH", text("job.toml", "")),
    Row("nothing at all", r"data\.path is missing: .*--data PATH", words="explain"),
    Row("no model", r"no model given: write --model FILE\.py:CLASS", words="explain --data signals.npz"),
    Row("unknown section", r"unknown key modle\. Did you mean 'model'\?", job(output="[modle]\nsource = 1")),
    Row("unknown key in model", r"unknown key model\.wieghts\. Did you mean 'weights'\?", job(model="wieghts = 'w'")),
    Row("unknown key in data", r"unknown key data\.layuot\. Did you mean 'layout'\?", job(data="layuot = 'NCT'")),
    Row(
        "unknown key in explain", r"unknown key explain\.bacth_size\. Did you mean 'batch_size'\?",
        job(explain="bacth_size = 4"),
    ),
    Row("unknown key in output", r"unknown key output\.dtpye\. Did you mean 'dtype'\?", job(output="dtpye = 'f'")),
    Row("wrong type", r"explain\.methods: 'grad' given; .*list", replaced('["hirescam"]', '"grad"')),
    Row("wrong type, long", r"explain\.batch_size: \[0, 1, 2", replaced("batch_size = 4", f"batch_size = {LONG}")),
    Row("a value for a section", r"explain: 3 given", text("job.toml", "explain = 3"), "explain job.toml --data x.npz"),
    Row(
        "a value for a section that flags go into", r"data: 'signals\.npz' given",
        text("job.toml", 'data = "signals.npz"'), "explain job.toml --layout NCT",
    ),
    Row("negative batch size", r"explain\.batch_size: -4 given; .*greater", replaced("= 4", "= -4")),
    Row("batch size in words", r"explain\.batch_size: '.*' given; .*whole number greater than 0, or auto", words="explain job.toml -b four"),
    Row("unknown dtype", r"output\.dtype: 'float8' given; .*'float16'", words="explain job.toml --dtype float8"),
    Row("unknown resolution", r"output\.resolution: 'high' given; .*'layer'", words="explain job.toml --resolution high"),
    Row("unknown option", r"--bacth-size", words="explain job.toml --bacth-size 4"),
    Row("unknown command", r"exlpain", words="exlpain job.toml"),
    Row("limit of none", r"--limit", words="explain job.toml --limit 0"),
    Row("model argument without value", r"--model-arg 'width' given, expected KEY=VALUE",
        words="explain job.toml --model-arg width"),
    # the model
    Row("code missing", r"model code not found: .*modles\.py\. Did you mean 'models\.py'\?", replaced("models.py", "modles.py")),
    Row("class missing", r"models\.py has no 'Nett'\. Did you mean 'Net'\?", replaced("py:Net", "py:Nett")),
    Row("no class", r"model source .*'models\.py:' given, expected FILE\.py:CLASS|models\.py:", replaced("py:Net", "py:")),
    Row("code raises", r"models\.py:Net fails: ZeroDivisionError: division by zero at models\.py:1",
        text("models.py", "1 / 0\nNet = 3\n")),
    Row("code exits", r"models\.py:Net fails: SystemExit: 3 at models\.py:2", text("models.py", "import sys\nsys.exit(3)\nNet = 3\n")),
    Row("code is no Python", r"models\.py is no Python: .*never closed at line 1", text("models.py", "class Net(\n")),
    Row("factory raises", r"models\.py:raises fails: ValueError: no such", replaced("py:Net", "py:raises")),
    Row("factory gives a number", r"models\.py:number gave a int, expected a torch\.nn\.Module",
        replaced("py:Net", "py:number")),
    Row("unknown argument", r"models\.py:Net: .*'widht'; its arguments are \(rank=1", job(model="args = { widht = 3 }")),
    Row("weights missing", r"weights not found: .*weigths\.pt\. Did you mean 'weights\.pt'\?",
        replaced("weights.pt", "weigths.pt")),
    Row("weights are a folder", r"weights .*images is not a file", replaced("weights.pt", "images")),
    Row("weights of 0 bytes", r"weights\.pt is empty \(0 bytes\)", raw("weights.pt", b"")),
    Row("weights cut short", r"weights\.pt is damaged or cut short", cut("weights.pt", 0.6)),
    Row("weights are HTML", r"weights\.pt is an HTML page", raw("weights.pt", b"<!DOCTYPE html><html></html>")),
    Row("weights are a pointer", r"weights\.pt is a Git LFS pointer .*git lfs pull",
        raw("weights.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")),
    Row("weights are anything", r"weights\.pt cannot be read as a checkpoint|weights\.pt holds more than weights",
        raw("weights.pt", bytes(range(256)) * 4)),
    Row("weights of another shape", r"weights\.pt is for another network: head\.weight is \(5, 2\), the model wants \(3, 2\)",
        weights(classes=5)),
    Row("weights of other names", r"weights\.pt is for another network: 2 names missing.*head",
        lambda bench: torch.save({"first.weight": torch.zeros(3, 2, 3), "first.bias": torch.zeros(3),
                                  "second.weight": torch.zeros(2, 3, 3), "second.bias": torch.zeros(2)},
                                 bench / "weights.pt")),
    Row("weights without tensors", r"weights\.pt holds no tensors by name",
        lambda bench: torch.save({"epoch": 3}, bench / "weights.pt")),
    Row("a whole pickle", r"weights\.pt holds more than weights .*--trust-checkpoint", pickled),
    Row("weights alone", r"weights\.pt holds weights only; name the code", words="explain --weights weights.pt "
        "--data signals.npz --input x --layout NCT -o run.h5"),
    Row("a model of no known kind", r"model\.xyz is no checkpoint that is known: expected one of",
        raw("model.xyz", b"x"), "explain --model model.xyz --data signals.npz --input x --layout NCT -o run.h5"),
    Row("unknown backend", r"unknown backend 'jax'", job(model='backend = "jax"')),
    Row("device not there", r"device 'cuda:63' is not here; choose auto or one of: cpu", replaced('"cpu"', '"cuda:63"')),
    Row("no device", r"device 'gpu' is not here", words="explain job.toml --device gpu"),
    Row("outputs are a tuple", r"the model gives 0 \(1, 3\), 1 \(1, 2, 17\) .*choose one with --output KEY", replaced("py:Net", "py:Pair")),
    Row("model of another width", r"the model cannot take a sample of shape \(2, 17\): RuntimeError: .*4 channels", both(job(model="args = { channels = 4 }"),
        weights(channels=4))),
    Row("a model that raises", r"the model cannot take a sample of shape \(2, 17\): ValueError: loud", replaced("py:Net", "py:Loud")),
    Row("a model that is not differentiable", r"the outputs do not depend on 'first' by a gradient",
        replaced("py:Net", "py:Detached")),
    Row("a model whose code raises behind the first sample", r"every sample of a batch fails with ZeroDivisionError",
        replaced("py:Net", "py:Once")),
    Row("model of another rank", r"the model cannot take a sample of shape \(2, 17\): RuntimeError: ", both(job(model="args = { rank = 2 }"), weights(rank=2))),
    # the data
    Row("data missing", r"data not found: .*singals\.npz\. Did you mean 'signals\.npz'\?",
        replaced("signals.npz", "singals.npz")),
    Row("data of no known kind", r"models\.py: no reader for \.py files", replaced("signals.npz", "models.py")),
    Row("unknown kind", r"unknown data\.kind 'nzp'\. Did you mean 'npz'\?", job(data='kind = "nzp"')),
    Row("wrong array", r"no array 'xx' in .*signals\.npz\. Did you mean 'x'\?", replaced('"x"', '"xx"')),
    Row("wrong label array", r"data\.label: no array 'yy' in .*signals\.npz\. Did you mean 'y'\?", replaced('"y"', '"yy"')),
    Row("no array named", r"signals\.npz holds several arrays \(a, b\); name one with data\.input",
        both(lambda bench: np.savez(bench / "signals.npz", a=np.zeros((3, 2, 17)), b=np.zeros((3, 2, 17)))),
        "explain --model models.py:Net --data signals.npz --layout NCT -o run.h5"),
    Row("no layout", r"data\.layout is not given for x \(10, 2, 17\);.*--layout", replaced('layout = "NCT"', "")),
    Row("wrong layout letter", r"layout 'NCQ': 'Q' is no axis; use N, C and T", replaced("NCT", "NCQ")),
    Row("layout with an axis twice", r"layout 'NTT' has an axis twice", replaced("NCT", "NTT")),
    Row("layout of another rank", r"layout NCHW has 4 axes, the stored array is \(10, 2, 17\)", replaced("NCT", "NCHW")),
    Row("layout without space", r"layout 'NC' has no spatial axis", replaced("NCT", "NC")),
    Row("rate without time", r"data\.rate is given, but the layout has no axis T",
        both(arrays(x=np.zeros((10, 2, 8, 10), np.float32)), text("job.toml", job_text(data="rate = 10.0").replace("NCT", "NCHW")))),
    Row("rate of 0", r"data\.rate: 0.* given; .*greater than 0", job(data="rate = 0.0")),
    Row("objects in NPY", r"signals\.npy cannot be read as NPY: .*[Oo]bject|signals\.npy cannot be read as NPY: .*pickle",
        npy(np.array([None, "a"], object))),
    Row("NPY cut short", r"signals\.npy cannot be read as NPY", both(npy(np.zeros((10, 2, 17), np.float32)), cut("signals.npy", 0.5))),
    Row("NPY of 0 bytes", r"signals\.npy is empty \(0 bytes\)", both(npy(np.zeros(1)), raw("signals.npy", b""))),
    Row("NPY with labels", r"signals\.npy", both(npy(np.zeros((10, 2, 17), np.float32))), "explain job.toml --label y"),
    Row("NPZ cut short", r"signals\.npz cannot be read as NPZ", cut("signals.npz", 0.5)),
    Row("NPZ damaged", r"signals\.npz cannot be read as NPZ", flipped),
    Row("NPZ is HTML", r"signals\.npz is an HTML page, not data; download it again", raw("signals.npz", b"<html></html>")),
    Row("objects in NPZ", r"signals\.npz cannot be read as NPZ: .*(pickle|object)", arrays(x=np.array([None, "a"], object))),
    Row("words in NPZ", r"x in .*signals\.npz holds <U1, expected numbers", arrays(x=np.full((10, 2, 17), "a"))),
    Row("HDF5 cut short", r"signals\.h5 cannot be read as HDF5",
        both(raw("signals.h5", b"\x89HDF\r\n\x1a\n" + bytes(20)), replaced("signals.npz", "signals.h5"))),
    Row("no samples", r"x in .*signals\.npz holds no samples", arrays(x=np.zeros((0, 2, 17), np.float32))),
    Row("no channels", r"the model cannot take a sample of shape \(0, 17\)|x in .*\(10, 0, 17\)", arrays(x=np.zeros((10, 0, 17), np.float32))),
    Row("labels of another length", r"data\.label has 9 entries, there are 10 samples", arrays(y=np.zeros(9, int))),
    Row("ids of another length", r"data\.id has 9 entries, there are 10 samples", arrays(id=np.arange(9).astype(str))),
    Row("label beyond classes", r"a label is 7, but there are 3 classes, 0\.\.2", arrays(y=[0, 1, 2, 7, 1, 2, 0, 1, 2, 0])),
    Row("label below", r"a label is -2; expected class numbers from 0", arrays(y=[0, 1, 2, -2, 1, 2, 0, 1, 2, 0])),
    Row("labels are fractions", r"labels are fractions \(0\.5", arrays(y=np.full(10, 0.5))),
    Row("label of no class", r"label 'sinsu' is no class\. Did you mean 'sinus'\?",
        arrays(y=["sinus"] * 9 + ["sinsu"])),
    Row("ids twice", r"samples 0 and 4 have the same id 'b'", arrays(id=list("bcdfbghjkl"))),
    Row("channels of another number", r"data\.channels names 3 channels, the data have 2",
        job(data='channels = ["I", "II", "V1"]')),
    Row("no images", r"no images in .*images: 6 files, none of them .*\.png", without_images),
    Row("a layout for images", r"layout NCHW given, but images are always read as NHWC",
        both(images, lambda bench: text("job.toml", IMAGES.replace("[data]", '[data]\nlayout = "NCHW"'))(bench))),
    Row("an array of images", r"data\.input has no meaning for data of kind folder",
        text("job.toml", IMAGES.replace("[data]", '[data]\ninput = "x"'))),
    Row("no manifest", r"manifest .*list\.csv cannot be read: No such file",
        text("job.toml", IMAGES.replace("[data]", '[data]\nmanifest = "list.csv"'))),
    Row("unknown transform", r"unknown transform 'sacle'\. Did you mean 'scale'\?",
        job(data="transforms = [{ sacle = 2.0 }]")),
    Row("bad value of a transform", r"transform scale\.factor: 'two' given", job(data='transforms = [{ scale = "two" }]')),
    Row("a transform that is no table", r"data\.transforms\.0: 'scale' given", job(data='transforms = ["scale"]')),
    Row("std of 0", r"transform normalize\.std: \[0\.0\] given; .*above 0",
        job(data="transforms = [{ normalize = { mean = 0.0, std = [0.0] } }]")),
    Row("unknown key of a transform", r"transform normalize\.sdt",
        job(data="transforms = [{ normalize = { mean = 0.0, std = 1.0, sdt = 2.0 } }]")),
    Row("resize of another rank", r"transform resize: 2 sizes given, the data have 1 spatial axes",
        job(data="transforms = [{ resize = [8, 8] }]")),
    Row("two transforms in one", r"transform 1: .* given, expected one key",
        job(data="transforms = [{ scale = 2.0, resize = 8 }]")),
    Row("a transform that raises", r"transform python .*steps\.py:halve fails: ZeroDivisionError",
        both(text("steps.py", "def halve(x):\n    return 1 / 0\n"), job(data='transforms = [{ python = "steps.py:halve" }]'))),
    Row("a transform that is not there", r"steps\.py has no 'hlave'\. Did you mean 'halve'\?",
        both(text("steps.py", "def halve(x):\n    return x\n"), job(data='transforms = [{ python = "steps.py:hlave" }]'))),
    Row("a transform whose file raises", r"steps\.py", both(text("steps.py", "1 / 0\n"), job(data='transforms = [{ python = "steps.py:f" }]'))),
    Row("every sample NaN", r"none of the samples can be read and is finite", arrays(x=np.full((10, 2, 17), np.nan, np.float32))),
    # methods
    Row("unknown method", r"unknown method 'gradcma'\. Did you mean 'gradcam'\?", words="explain job.toml -m gradcma"),
    Row("unknown method in a file", r"unknown method 'gradcma'\. Did you mean 'gradcam'\?", replaced("hirescam", "gradcma")),
    Row("unknown key of a method", r"gradcam has no key 'rleu'\. Did you mean 'relu'\?",
        words="explain job.toml -m gradcam:rleu=off"),
    Row("bad value of a method", r"gradcam: relu='no' given, expected on or off", words="explain job.toml -m gradcam:relu=no"),
    Row("a colon and nothing", r"'gradcam:' ends in a colon", words="explain job.toml -m gradcam:"),
    Row("a key twice", r"'gradcam:relu=on,relu=off' sets a key twice", words="explain job.toml -m gradcam:relu=on,relu=off"),
    Row("unknown factor", r"unknown factor 'inptu'\. Did you mean 'input'\?", words="explain job.toml -m grad+inptu"),
    Row("a factor on a CAM", r"'gradcam\+input': factors multiply an input attribution", words="explain job.toml -m gradcam+input"),
    Row("a method of no name", r"unknown method ''", words="explain job.toml --method="),
    # targets
    Row("unknown target", r"unknown target 'perdicted'\. Did you mean 'predicted'\?", words="explain job.toml -t perdicted"),
    Row("class beyond", r"target class:3: the model has outputs 0\.\.2", words="explain job.toml -t class:3"),
    Row("output beyond", r"target output:9: the model has outputs 0\.\.2", words="explain job.toml -t output:9"),
    Row("unknown class", r"target class:fluter: no such class\. Did you mean 'flutter'\?", words="explain job.toml -t class:fluter"),
    Row("class without names", r"target class:noise: the data name no classes", replaced('classes = "classes"', ""),
        "explain job.toml -t class:noise"),
    Row("negative class", r"target class:-1: no such class", words="explain job.toml -t class:-1"),
    Row("negative output", r"target 'output:-1': '-1' is not a whole number from 0", words="explain job.toml -t output:-1"),
    Row("top of none", r"target 'top:0' explains nothing", words="explain job.toml -t top:0"),
    Row("top of too many", r"target top:99: the model has 3 outputs; write top:3 or less", words="explain job.toml -t top:99"),
    Row("top without number", r"target 'top' given, expected top:3", words="explain job.toml -t top"),
    Row("predicted with number", r"target 'predicted:2' given, expected predicted", words="explain job.toml -t predicted:2"),
    Row("label without labels", r"target label: the data have no labels; name them with data\.label", replaced('label = "y"', ""),
        "explain job.toml -t label"),
    Row("a target twice", r"target class:noise is asked for twice", words="explain job.toml -t all -t class:noise"),
    # layers
    Row("unknown layer", r"no layer 'frist' runs in the model\. Did you mean 'first'\?", replaced('"first"', '"frist"')),
    Row("layer without space", r"layer 'head' has no spatial axes, its output is \(3,\); the last layer with them is 'act'",
        words="explain job.toml -l head"),
    Row("layer that runs twice", r"layer 'act' runs 2 times in a forward", replaced("py:Net", "py:Twice"),
        "explain job.toml -l act"),
    # the output
    Row("output in no folder", r"output folder .*nowhere does not exist.*--out", words="explain job.toml -o nowhere/run.h5", code=73),
    Row("output is a folder", r"output .*images is a folder; give a file name with --out", words="explain job.toml -o images", code=73),
    Row("output of another job", r"output .*run\.h5 exists from another job \(explain\.methods, explain\.targets differ\);.*--force",
        other_results, code=73),
    Row("parts of another job", r"run\.h5\.parts is from another job \(explain\.methods differs\);.*--force", unfinished, code=73),
    Row("output of other weights", r"output .*run\.h5 exists from another job \(model\.weights differs\)",
        lambda bench: (job()(bench), __import__("camsweep").explain(bench / "job.toml"), weights()(bench)), code=73),
    Row("output is not ours", r"output .*run\.h5 exists and is no results file of ours", raw("run.h5", b"my thesis"), code=73),
    Row("output is the data", r"output .*signals\.npz exists and is no results file of ours", words="explain job.toml -o signals.npz",
        code=73),
    Row("output is HDF5 of others", r"output .*run\.h5 exists and is no results file of ours",
        lambda bench: h5py.File(bench / "run.h5", "w").close(), code=73),
    # the other commands
    Row("inspect without shape", r"give --shape 3,224,224, or --data", words="inspect models.py:Net"),
    Row("inspect with odd shape", r"--shape '3,x' given, expected whole numbers", words="inspect models.py:Net --shape 3,x"),
    Row("inspect with empty shape", r"--shape '2,0'|the model cannot take a sample of shape \(2, 0\)", words="inspect models.py:Net --shape 2,0"),
    Row("inspect with channels only", r"--shape '2'|the model cannot take a sample of shape \(2,\)", words="inspect models.py:Net --shape 2"),
    Row("inspect with other channels", r"the model cannot take a sample of shape \(5, 17\): RuntimeError: .*2 channels", words="inspect models.py:Net --shape 5,17"),
    Row("inspect nothing", r"weights not found: .*no\.pt", words="inspect no.pt --shape 2,17"),
    Row("unknown method to explain", r"unknown method 'gradcamm'\. Did you mean 'gradcam'\?", words="methods gradcamm"),
    Row("info on nothing", r"results not found: run\.h5", words="info run.h5"),
    Row("info on no HDF5", r"signals\.npz cannot be read as HDF5", words="info signals.npz"),
    Row("info on a folder", r"images cannot be read as HDF5", words="info images"),
    Row("info on other HDF5", r"other\.h5 is HDF5, but not a camsweep results file",
        lambda bench: h5py.File(bench / "other.h5", "w").close(), "info other.h5"),
    Row("info without a file", r"Missing argument '(?i:results)'\. `camsweep", words="info"),
    Row("info on half a file", r"run\.h5 cannot be read as HDF5", both(other_results, cut("run.h5", 0.5)), "info run.h5"),
    Row("render into a file", r"job\.toml", other_results, "render run.h5 -o job.toml", code=73),
    Row("demo into a file", r"job\.toml", words="demo job.toml", code=73),
    Row("render on nothing", r"results not found: run\.h5", words="render run.h5"),
    Row("render on an unfinished run", r"results not found: run\.h5\. its run is unfinished", unfinished, "render run.h5"),
]  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder, and what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def assert_one_line(answer, pattern: str) -> None:
    assert answer.err.startswith("error: ")
    assert answer.err.endswith("\n")
    assert answer.err.count("\n") == 1
    assert len(answer.err) <= LONGEST + 1, len(answer.err)
    assert "Traceback" not in answer.err
    assert re.search(pattern, answer.err), answer.err
    assert answer.out == ""


NEEDS_THE_MODEL = {
    "code raises", "code exits", "factory raises", "factory gives a number", "unknown argument", "weights are anything",
    "weights of another shape", "weights of other names", "weights without tensors", "a whole pickle", "weights alone",
    "device not there", "no device", "outputs are a tuple", "model of another width", "a model that raises",
    "a model that is not differentiable", "a model whose code raises behind the first sample", "model of another rank",
    "no channels", "every sample NaN", "class beyond", "output beyond", "unknown class", "class without names",
    "negative class", "top of too many", "a target twice", "unknown layer", "layer without space",
    "layer that runs twice", "inspect without shape", "inspect with empty shape", "inspect with channels only",
    "inspect with other channels",
}  # fmt: skip
"""Rows that can only be told when the model is there; all others must be told before a framework is imported."""


def assert_refused(row, call, apart, bench, *, needs_model):
    """One line, the right exit code, nothing written; and soon, in a process where no framework was imported for it."""
    before = contents(bench)
    words = [*row.words.split(), *(["--quiet"] if row.words.split()[0] in ("explain", "render", "demo") else [])]
    answer = call(*words, cwd=bench) if needs_model else apart(*words, cwd=bench)
    assert (answer.code, answer.err) == (row.code, answer.err)
    assert_one_line(answer, row.pattern)
    assert contents(bench) == before
    if not needs_model:
        assert answer.frameworks == []
        assert answer.seconds < SOON


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_one_line_says_what_is_wrong(bench, call, apart, row):
    row.prepare(bench)
    assert_refused(row, call, apart, bench, needs_model=row.name in NEEDS_THE_MODEL)


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 40
    assert {row.name for row in ROWS} >= NEEDS_THE_MODEL


LATE = ("a model that is not differentiable", "a model whose code raises behind the first sample")
"""Faults that no plan can foresee."""

EARLY = [row for row in ROWS if row.code == 2 and row.words == "explain job.toml" and row.name not in LATE]


@pytest.mark.parametrize("row", EARLY[::6], ids=lambda row: row.name)
def test_json_and_dry_run_fail_alike(bench, call, row):
    row.prepare(bench)
    before = contents(bench)
    for words in (["--json"], ["--dry-run"], ["--dry-run", "--json"]):
        answer = call("explain", "job.toml", *words, cwd=bench)
        assert answer.code == 2
        assert_one_line(answer, row.pattern)
    assert contents(bench) == before


@pytest.mark.parametrize("prepare", [other_results, unfinished])
def test_what_is_there_is_not_touched_by_force_that_fails(bench, call, prepare):
    prepare(bench)
    before = contents(bench)
    assert call("explain", "job.toml", "-q", "--force", "-l", "head", cwd=bench).code == 2
    assert contents(bench) == before
    assert call("explain", "job.toml", "-q", "--force", cwd=bench).code == 0
    assert not (bench / "run.h5.parts").exists()
    with open_results(bench / "run.h5") as results:
        assert list(results.maps) == ["hirescam@first"]


def test_a_request_put_right_runs(bench, call):
    """What was refused late leaves nothing that the next request would stumble over."""
    replaced("py:Net", "py:Detached")(bench)
    assert call("explain", "job.toml", "-q", cwd=bench).code == 2
    assert call("explain", "job.toml", "-q", "-m", "eigencam", cwd=bench).code == 0


ANOTHER_USER = """
import os, sys
from camsweep.cli.app import main

def run(*words):
    sys.argv = ["camsweep", "explain", "job.toml", "-q", "-o", *words]
    try:
        main()
    except SystemExit as ended:
        return ended.code

assert run("mine.h5") == 0  # all that is imported has been
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(run("out/run.h5"))
"""


def test_an_output_folder_without_permission(workbench):
    """As a user who may read the job and not write beside it: root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "out").mkdir()
        for file in ("models.py", "weights.pt", "signals.npz", "job.toml"):
            (folder / file).write_bytes((workbench / file).read_bytes())
            (folder / file).chmod(0o644)
        (folder / "out").chmod(0o555)
        ended = subprocess.run(
            [sys.executable, "-B", "-c", ANOTHER_USER], cwd=folder, capture_output=True, text=True, check=False
        )
        (folder / "out").chmod(0o755)
        assert ended.returncode == 73, ended.stderr
        assert re.fullmatch(r"error: .*/out.*permission denied.*\n", ended.stderr)
        assert ended.stdout == f"{folder}/mine.h5: 10 samples, 10 ok\n"
        assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_traceback_is_shown_on_request(bench, call, monkeypatch, way):
    if way == "environment":
        monkeypatch.setenv("CAMSWEEP_TRACEBACK", "1")
    asked = ["--debug"] if way == "option" else []
    answer = call(*asked, "explain", "job.toml", "-m", "nothing", cwd=bench)
    assert answer.code == 2
    assert answer.err.startswith("Traceback")
    assert answer.err.splitlines()[-1].startswith("error: unknown method 'nothing'")
    monkeypatch.delenv("CAMSWEEP_TRACEBACK", raising=False)
    assert call("explain", "job.toml", "-m", "nothing", cwd=bench).err.count("\n") == 1  # and not from then on


# Faults of single samples: the row says so, everything else is right, exit code 3.


def explained(call, bench, *words):
    """A run in which some samples fail, its results."""
    answer = call("explain", *words, "-q", "--json", cwd=bench)
    assert answer.err == ""
    return answer


def rows_with(results, status):
    return list(np.flatnonzero(results.status == status))


def test_one_corrupt_image_among_two_hundred(bench, call):
    rng = np.random.default_rng(1)
    folder = bench / "many"
    for i in range(200):
        save_png(folder / f"{i:03d}.png", rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    job = IMAGES.replace('"images"', '"many"').replace('"label"', '"predicted"').replace("images.h5", "many.h5")
    (bench / "job.toml").write_text(job)
    whole = explained(call, bench, "job.toml", "-o", "whole.h5")
    assert (whole.code, whole.json["samples"]) == (0, 200)
    data = (folder / "117.png").read_bytes()
    (folder / "117.png").write_bytes(data[: len(data) // 2])
    answer = explained(call, bench, "job.toml")
    assert answer.code == 3
    assert answer.json["status"]["failed"] == 1
    with open_results(bench / "many.h5") as results, open_results(bench / "whole.h5") as good:
        assert rows_with(results, Status.FAILED) == [117]
        assert results.messages[117].startswith("cannot read image: ")
        rest = [row for row in range(200) if row != 117]
        assert set(results.status[rest]) == {Status.OK}
        assert not any(results.messages[row] for row in rest)
        maps = results.map("hirescam@first").read()
        assert np.isnan(maps[117]).all()
        assert results.predicted[117] == -1
        expected = good.map("hirescam@first").read()
        np.testing.assert_allclose(maps[rest], expected[rest], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(results.predicted[rest], good.predicted[rest])
        full = [row for row in rest if row // 32 != 117 // 32]  # batches that are the same in both
        np.testing.assert_array_equal(maps[full], expected[full])
    shown = call("explain", "job.toml", cwd=bench)
    assert shown.code == 3  # the same said again of a run that is complete
    assert "1 could not be explained; `camsweep info" in shown.out
    assert call("render", "many.h5", "--limit", 1, "--sample", "117.png", "--json", "-q", cwd=bench).json["files"] == 0


def test_one_sample_of_nan(bench, call, signals):
    good = explained(call, bench, "job.toml", "-b", 1, "-o", "good.h5")
    assert good.code == 0
    x = signals["x"].copy()
    x[6, 1, 2:4] = np.nan, np.inf
    np.savez(bench / "signals.npz", **(signals | {"x": x}))
    answer = explained(call, bench, "job.toml", "-b", 1)
    assert answer.code == 3
    assert answer.json["status"] == {"ok": 9, "non finite": 1}
    with open_results(bench / "run.h5") as results, open_results(bench / "good.h5") as good:
        assert rows_with(results, Status.NON_FINITE) == [6]
        assert results.messages[6] == "input has 2 NaN or infinite values"
        rest = [row for row in range(10) if row != 6]
        np.testing.assert_array_equal(
            results.map("hirescam@first").read(rest), good.map("hirescam@first").read(rest)
        )  # fmt: skip
        np.testing.assert_array_equal(results.outputs[rest], good.outputs[rest])


def test_one_sample_without_a_label(bench, call, signals):
    y = signals["y"].copy()
    y[2] = -1
    np.savez(bench / "signals.npz", **(signals | {"y": y}))
    answer = explained(call, bench, "job.toml", "-t", "label", "-t", "predicted")
    assert answer.code == 3
    assert answer.json["status"] == {"ok": 9, "failed": 1}
    alone = explained(call, bench, "job.toml", "-t", "predicted", "-o", "alone.h5")
    assert alone.code == 0
    with open_results(bench / "run.h5") as results, open_results(bench / "alone.h5") as other:
        assert rows_with(results, Status.FAILED) == [2]
        assert results.messages[2] == "no target label: the sample has no label"
        assert list(results.target_index[:, 0]) == [-1 if row == 2 else y[row] for row in range(10)]
        maps = results.map("hirescam@first").read()
        assert np.isnan(maps[2, 0]).all()
        np.testing.assert_array_equal(maps[:, 1], other.map("hirescam@first").read()[:, 0])  # the sample's own too
        assert np.isfinite(maps[2, 1]).all()
        assert np.isnan(results.target_score[2, 0])


def test_a_label_the_model_has_no_output_for(bench, call, signals):
    names = np.array(["sinus", "flutter", "noise", "other"])
    y = signals["y"].copy()
    y[5] = 3
    np.savez(bench / "signals.npz", **(signals | {"y": y, "classes": names}))
    answer = explained(call, bench, "job.toml", "-t", "label")
    assert answer.code == 3
    with open_results(bench / "run.h5") as results:
        assert rows_with(results, Status.FAILED) == [5]
        assert "label" in results.messages[5]


def test_one_image_of_another_size(bench, call):
    (bench / "job.toml").write_text(IMAGES)
    good = explained(call, bench, "job.toml", "-b", 1, "-o", "good.h5")
    assert good.code == 0
    save_png(bench / "images/cat/3.png", np.zeros((9, 10, 3), np.uint8))
    answer = explained(call, bench, "job.toml", "-b", 1)
    assert answer.code == 3
    with open_results(bench / "images.h5") as results, open_results(bench / "good.h5") as good:
        row = results.ids.index("cat/3.png")
        assert rows_with(results, Status.FAILED) == [row]
        assert results.messages[row] == "shape (3, 9, 10), expected (3, 8, 10); add the transform { resize = [8, 10] }"
        rest = [i for i in range(6) if i != row]
        np.testing.assert_array_equal(
            results.map("hirescam@first").read(rest), good.map("hirescam@first").read(rest)
        )  # fmt: skip
    # what the message says to do is right
    (bench / "job.toml").write_text(IMAGES.replace("[{ scale", "[{ resize = [8, 10] }, { scale"))
    assert explained(call, bench, "job.toml", "-o", "resized.h5").code == 0


def test_one_grey_image_among_coloured_ones(bench, call):
    (bench / "job.toml").write_text(IMAGES)
    save_png(bench / "images/cat/3.png", np.arange(80, dtype=np.uint8).reshape(8, 10))
    answer = explained(call, bench, "job.toml")
    assert answer.code == 3
    with open_results(bench / "images.h5") as results:
        [row] = rows_with(results, Status.FAILED)
        assert 'set mode = "rgb"' in results.messages[row]
    (bench / "job.toml").write_text(IMAGES.replace("[data]", '[data]\nmode = "rgb"'))
    assert explained(call, bench, "job.toml", "-o", "rgb.h5").code == 0


def test_the_first_sample_may_be_the_bad_one(bench, call, signals):
    x = signals["x"].copy()
    x[0] = np.nan
    np.savez(bench / "signals.npz", **(signals | {"x": x}))
    answer = explained(call, bench, "job.toml")
    assert answer.code == 3
    assert answer.json["status"] == {"ok": 9, "non finite": 1}


def test_several_faults_in_one_run(bench, call, signals):
    x, y = signals["x"].copy(), signals["y"].copy()
    x[1], x[8, 0, 0], y[1], y[4] = np.inf, np.nan, -1, -1
    np.savez(bench / "signals.npz", **(signals | {"x": x, "y": y}))
    answer = explained(call, bench, "job.toml", "-t", "label", "-t", "all")
    assert answer.code == 3
    with open_results(bench / "run.h5") as results:
        assert rows_with(results, Status.NON_FINITE) == [1, 8]
        assert rows_with(results, Status.FAILED) == [4]
        assert np.isfinite(results.map("hirescam@first").read()[4, 1:]).all()


def test_a_model_that_fails_on_one_sample(bench, call, signals):
    source = (bench / "models.py").read_text()
    (bench / "models.py").write_text(
        source.replace(
            "        hidden = self.act(self.second(torch.tanh(self.first(x))))\n        scores",
            "        if x.max() > 50:\n            raise ValueError('too loud\\n or so')\n"
            "        hidden = self.act(self.second(torch.tanh(self.first(x))))\n        scores",
        )
    )
    good = explained(call, bench, "job.toml", "-b", 1, "-o", "good.h5")
    assert good.code == 0
    x = signals["x"].copy()
    x[7] = 99
    np.savez(bench / "signals.npz", **(signals | {"x": x}))
    answer = explained(call, bench, "job.toml")
    assert answer.code == 3
    with open_results(bench / "run.h5") as results, open_results(bench / "good.h5") as good:
        assert rows_with(results, Status.FAILED) == [7]
        assert results.messages[7] == "ValueError: too loud"
        rest = [row for row in range(10) if row != 7]
        np.testing.assert_allclose(
            results.map("hirescam@first").read(rest), good.map("hirescam@first").read(rest), rtol=1e-5, atol=1e-6
        )  # fmt: skip
