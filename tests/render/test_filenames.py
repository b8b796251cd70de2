"""Names that every file system takes, and an index that stays true."""

import csv

import pytest

from camsweep.core.render.filenames import Entry, folders, slug, stem, write_index

HOSTILE = [
    "../../x", "a/b", "a\\b", "CON", "nul.txt", "x" * 300, "🫀", "é" * 200, "Ab", "aB", "", "..", ".", "a:b*c?",
    "line\nbreak", "nul\0byte", " lead", "trail ", "-rf", "\u202eevil", "bad\udcff", "Straße", "心电图",
]  # fmt: skip


def test_hostile_ids_give_safe_and_unique_names():
    names = [stem(row, sample, (row % 3, sample)) for row, sample in enumerate(HOSTILE)]
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    for name in names:
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>| \0')
        assert ".." not in name
        assert name[0].isdigit()
        assert len(name) < 140


@pytest.mark.parametrize("sample", HOSTILE)
def test_slug_is_at_most_80_bytes(sample):
    assert len(slug(sample).encode()) <= 80


def test_stem_reads_well():
    assert stem(12, "patient 7/rec.3") == "000012-patient_7_rec_3"
    assert stem(12, "a", (1, "class:3")) == "000012-a.t1-class_3"
    assert stem(3, "🫀") == "000003"


def test_folders_of_maps_are_safe_and_distinct():
    names = [
        "gradcam@layer4",
        "GradCAM@Layer4",
        "lrp:eps=0.25std@sign=0",
        "cam@/net/a",
        "cam@_net_a",
        "../..",
        "grad+input",
    ]
    found = folders(names)
    assert len({folder.casefold() for folder in found.values()}) == len(names)
    assert all("/" not in folder and ".." not in folder and folder for folder in found.values())
    assert found["grad+input"] == "grad+input"
    assert found == dict(reversed(folders(reversed(names)).items()))


def test_index_keeps_what_is_still_there(tmp_path):
    def lines():
        with (tmp_path / "index.csv").open(newline="") as file:
            return [line[-1] for line in csv.reader(file)]

    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    write_index(tmp_path, [Entry(1, 'b,"x"\n', "ok", "m", "t", "b.png"), Entry(2, "c", "failed", "m", "t", "")])
    write_index(tmp_path, [Entry(0, "a", "ok", "m", "t", "a.png")])
    assert lines() == ["file", "a.png", "b.png", ""]
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").touch()
    write_index(tmp_path, [Entry(2, "c", "ok", "m", "t", "c.png")])
    assert lines() == ["file", "a.png", "c.png"]
    assert (tmp_path / "index.csv").read_text().startswith("row,id,status,map,target,file\n".replace("\n", ""))
