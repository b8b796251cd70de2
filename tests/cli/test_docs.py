"""What the documents say is true: their commands run, and everything is named in them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import camsweep
from camsweep.cli.app import application
from camsweep.core.job import Job

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "sample_data" / "README.md"]
BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\s*\n(.*?)^```", re.M | re.S)


def commands(document: Path) -> list[str]:
    """The lines of a document's shell blocks that begin with ``camsweep``, comments taken off."""
    found = []
    for block in BLOCK.findall(document.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ").strip()
            if words.split(" ")[0] == "camsweep":
                found.append(words)
    return found


def test_commands_are_found(tmp_path):
    text = "```sh\ncamsweep info \\\n  x.h5   # note\nmake\n```\n```python\ncamsweep\n```\n```console\n$ camsweep a\nout\n```"
    (tmp_path / "x.md").write_text(text)
    assert [shlex.split(line, comments=True) for line in commands(tmp_path / "x.md")] == [
        ["camsweep", "info", "x.h5"],
        ["camsweep", "a"],
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_commands_of_a_document_run(document, call, tmp_path, monkeypatch):
    """One after the other, in a folder with the sample data; later ones may read what earlier ones made."""
    monkeypatch.setattr("camsweep.cli.demo.DRAWN", 1)
    folder = tmp_path / "work"
    shutil.copytree(ROOT / "sample_data", folder, ignore=shutil.ignore_patterns("__pycache__", "*.h5", "*.parts"))
    for path in folder.glob("*.toml"):  # a handful of samples tells as much, and their pictures take a while
        path.write_text(path.read_text("utf-8").replace("[data]\n", "[data]\nlimit = 6\n", 1), "utf-8")
    for line in commands(document):
        if any(sign in shlex.split(line, comments=True) for sign in ("|", ">", "&&", ";", "<")):
            path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            ended = subprocess.run(
                ["bash", "-c", line], cwd=folder, env={"PATH": path}, capture_output=True, text=True, check=False
            )
            code, err = ended.returncode, ended.stderr
        else:
            answer = call(*shlex.split(line, comments=True)[1:], cwd=folder)
            code, err = answer.code, answer.err
        assert (code, line) == (0, line), err


def test_the_readme_has_commands_to_run():
    assert len(commands(ROOT / "README.md")) >= 3


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    for command in application().registered_commands:
        assert re.search(rf"camsweep {command.callback.__name__}\b", text), command.callback.__name__


def test_every_metric_is_documented_with_its_direction():
    from camsweep.core.metrics import METRICS

    rows = [
        line.split("|")[1:3]
        for line in (ROOT / "docs" / "metrics.md").read_text("utf-8").splitlines()
        if line.startswith("| `")
    ]
    named = {name: better.strip() for names, better in rows for name in re.findall("`([^`]+)`", names)}
    assert {name: each.better for name, each in METRICS.items()}.items() <= named.items()


def test_every_method_and_factor_is_in_the_readme():
    from camsweep.core.methods.registry import FACTORS

    text = (ROOT / "README.md").read_text("utf-8")
    for name in [*(f"`{method.name}`" for method in camsweep.list_methods()), *(f"`+{name}`" for name in FACTORS)]:
        assert name in text, name


def test_every_domain_is_in_the_readme_and_has_a_section():
    from camsweep.core.domains import DOMAINS

    readme, text = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/domains.md"))
    for name, kind in DOMAINS.items():
        assert f"`{name}`" in readme, name
        assert f"`{name}`" in text, name
        assert name == "time" or f"\n### {name}\n" in text, name
        for key in kind.keys:
            assert re.search(rf"`{key}[`=]|[`,]{key}=", text), (name, key)


def test_every_method_and_factor_is_in_the_methods_document():
    from camsweep.core.methods.registry import FACTORS

    text = (ROOT / "docs/methods.md").read_text("utf-8")
    heads = re.split(r"[\s,]+", " ".join(re.findall(r"^### (.*)$", text, re.M)))
    for name in [*(method.name for method in camsweep.list_methods()), *(f"+{name}" for name in FACTORS)]:
        assert name in heads, name


def test_job_files_in_documents_are_valid(tmp_path):
    """A TOML block that is a whole job has no unknown key and no method, layer or target that cannot be read."""
    blocks = [
        block
        for document in DOCUMENTS
        for block in re.findall(r"^```toml\s*\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)
    ]
    whole = [block for block in blocks if "[model]" in block and "[data]" in block]
    assert whole
    for block in whole:
        (tmp_path / "job.toml").write_text(block, "utf-8")
        Job.load(tmp_path / "job.toml", {})


def test_links_lead_somewhere():
    for document in [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text("utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
    for picture in (ROOT / "docs").glob("*.png"):
        with Image.open(picture) as opened:
            opened.verify()


def test_one_version_everywhere():
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+\S*?)\]?(?:\s|$)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert versions[0] == PROJECT["version"] == camsweep.__version__


def test_ready_jobs_are_valid_and_run_where_their_files_are(call, tmp_path):
    jobs = sorted((ROOT / "configs").glob("*.toml"))
    assert jobs
    for path in jobs:
        job = Job.load(path, {})
        weights = job.model.weights is None or Path(job.model.weights).exists()
        source = (job.model.source or "").rpartition(":")[0]
        code = not source.endswith(".py") or Path(source).exists()
        if weights and code and job.data.path.exists():
            before = {each.name for each in path.parent.iterdir()}
            answer = call("explain", path, "--dry-run", "--json", "-o", "never.h5", cwd=tmp_path)
            assert (answer.code, path.name) == (0, path.name), answer.err
            assert answer.json["maps"]
            assert {each.name for each in path.parent.iterdir()} == before
            assert not list(tmp_path.iterdir())
