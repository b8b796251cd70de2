"""The commit that a run was made by, told without touching the checkout."""

import os
import subprocess

from camsweep.core.plan import git_state


def git(folder, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit_and_whether_files_were_changed(tmp_path):
    assert git_state(tmp_path) == ""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    os.utime(tmp_path / "file", (1, 1))  # git would note in its index that nothing else has changed
    index = (tmp_path / ".git" / "index").read_bytes()
    (tmp_path / "beside").touch()
    assert git_state(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == f"{commit}-dirty"
    assert (tmp_path / ".git" / "index").read_bytes() == index
    git(tmp_path, "tag", "-a", "v1", "-m", "")
    assert git_state(tmp_path) == "v1-dirty"
