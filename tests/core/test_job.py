"""Jobs: a file and flags, validated into one model."""

from pathlib import Path

import pytest

from camsweep.core.errors import RequestError
from camsweep.core.job import Job, differences

FILE = """
model = { source = "net.py:Net", weights = "w.pt", args = { width = 3 } }
[data]
path = "x.npz"
layout = "NCT"
transforms = [{ python = "mine.py:f" }, { scale = 2 }]
[explain]
methods = ["gradcam", "gradcam:relu=on", "grad"]
[output]
path = "out/run.h5"
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "job.toml"
    path.write_text(FILE)
    return path


def test_paths_of_the_file_are_relative_to_it_and_those_of_flags_to_the_working_folder(file, tmp_path):
    job = Job.load(file, {"output": {"path": "b.h5"}}, tmp_path)
    assert job.model.source == f"{file.parent}/net.py:Net"
    assert job.model.weights == str(file.parent / "w.pt")
    assert job.data.path == file.parent / "x.npz"
    assert job.data.transforms[0]["python"] == f"{file.parent}/mine.py:f"
    assert job.output.path == tmp_path / "b.h5"
    assert Job.load(file, {}, tmp_path).output.path == file.parent / "out/run.h5"


def test_flags_override_key_by_key(file):
    job = Job.load(file, {"model": {"weights": "/other.pt"}, "explain": {"batch_size": 5}})
    assert job.model.weights == "/other.pt"
    assert job.model.args == {"width": 3}
    assert job.explain.batch_size == 5
    assert [str(e) for e in job.explain.expressions] == ["gradcam", "grad"]  # one meaning, once


def test_what_is_printed_reads_back(file, tmp_path):
    job = Job.load(file, {})
    (tmp_path / "again.toml").write_text(job.toml())
    assert Job.load(tmp_path / "again.toml", {}) == job


def test_short_models(tmp_path):
    data = {"path": "x.npy"}
    assert Job.load(None, {"model": "net.py:Net", "data": data}, tmp_path).model.source == f"{tmp_path}/net.py:Net"
    assert Job.load(None, {"model": "net.pt", "data": data}, tmp_path).model.weights == str(tmp_path / "net.pt")
    assert Job.load(None, {"model": "pack.age:make", "data": data}, tmp_path).model.source == "pack.age:make"


def test_identity_is_what_the_numbers_depend_on(file):
    job = Job.load(file, {})
    same = Job.load(
        file, {"explain": {"batch_size": 3, "device": "cpu"}, "output": {"path": "else.h5", "render": True}}
    )
    assert differences(job.identity, same.identity) == []
    other = Job.load(file, {"explain": {"targets": ["label"]}, "data": {"layout": "NTC"}})
    assert differences(job.identity, other.identity) == ["data", "explain.targets"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[modle]\nsource='a.py:B'\n[data]\npath='x.npy'", "unknown key modle. Did you mean 'model'"),
        ("[model]\nsourc='a.py:B'\n[data]\npath='x.npy'", "unknown key model.sourc. Did you mean 'source'"),
        (
            "model='a.py:B'\n[data]\npath='x.npy'\n[explain]\nbacth_size=3",
            "explain.bacth_size. Did you mean 'batch_size'",
        ),
        (
            "model='a.py:B'\n[data]\npath='x.npy'\n[explain]\nbatch_size=0",
            "explain.batch_size: 0 given; input should be",
        ),
        ("model='a.py:B'\n[data]\npath='x.npy'\n[output]\ndtype='f4'", "output.dtype: 'f4' given; input should be"),
        ("model='a.py:B'", "data.path is missing"),
        ("[data]\npath='x.npy'", "no model given"),
        ("model='a.py:B'\n[data]\npath='x.npy'\n[explain]\nmethods=['gradcan']", "Did you mean 'gradcam'"),
        ("model='a.py:B'\n[data]\npath='x.npy'\n[explain]\ntargets=['foo']", "unknown target 'foo'"),
        ("model='a.py:B'\n[data]\npath='x.npy'\n[explain]\nmethods=[]", "explain.methods"),
        ("a = [", "is not TOML"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, says):
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(RequestError) as caught:
        Job.load(tmp_path / "job.toml", {})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "job.toml").write_text("")
    with pytest.raises(RequestError, match=r"job file not found: .*jbo\.toml\. Did you mean 'job\.toml'"):
        Job.load(Path(tmp_path / "jbo.toml"), {})
