import os

from camsweep.core.user_code import function


def test_a_file_that_changed_within_a_second_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path = tmp_path / "own.py"
    for text, value in (("f = lambda: 1", 1), ("f = lambda: 2", 2)):
        path.write_text(text)
        os.utime(path, ns=(10**18, 10**18 + value))  # Python's own cache looks at whole seconds and the length
        assert function(f"{path}:f", "it")() == value
    assert [each.name for each in tmp_path.iterdir()] == ["own.py"]
