"""Checkpoints as they are found in the wild, and what is said of those that cannot be loaded."""

import zipfile

import pytest
import torch
from torch import nn

from camsweep.backends.torch.loading import load_module, settle_device
from camsweep.core.errors import RequestError
from camsweep.core.job import ModelSection

CODE = """
from dataclasses import dataclass
import torch
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self, width=WIDTH, classes=2):
        super().__init__()
        self.conv = nn.Conv1d(1, width, 3)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.conv(x).mean(-1))

@dataclass
class Config:
    width: int = 4

def factory(width):
    print("hello")
    return Net(width)

def leaves():
    raise SystemExit("bye")

def breaks():
    raise ValueError("two\\nlines")

def number():
    return 3

ready = Net(4)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    return tmp_path


def section(folder, name="Net", weights=None, **args):
    trust = args.pop("trust", False)
    source = None if name is None else f"{folder}/net.py:{name}"
    return ModelSection(source=source, weights=weights and str(weights), args=args, trust_checkpoint=trust)


def net(folder, **args):
    return load_module(section(folder, **args))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
    ],
)
def test_usual_wrappings(folder, wrap):
    model = net(folder)
    torch.save(wrap(model.state_dict()), folder / "w.pt")
    loaded = load_module(section(folder, weights=folder / "w.pt"))
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_safetensors(folder):
    from safetensors.torch import save_file

    model = net(folder)
    save_file(model.state_dict(), folder / "w.safetensors")
    loaded = load_module(section(folder, weights=folder / "w.safetensors"))
    assert torch.equal(loaded.conv.weight, model.conv.weight)
    (folder / "w.safetensors").write_bytes((folder / "w.safetensors").read_bytes()[:40])
    with pytest.raises(RequestError, match="not a whole safetensors file"):
        load_module(section(folder, weights=folder / "w.safetensors"))


def test_the_old_format_and_storages_of_another_device(folder):
    model = net(folder)
    torch.save(model.state_dict(), folder / "w.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_module(section(folder, weights=folder / "w.pth")).conv.weight, model.conv.weight)


def test_factories_arguments_and_ready_modules(folder, capsys):
    assert load_module(section(folder, "factory", width=7)).conv.out_channels == 7
    assert capsys.readouterr().out == ""  # stdout is for results
    assert load_module(section(folder, "ready")).conv.out_channels == 4
    assert (
        load_module(ModelSection(source="torch.nn:Linear", args={"in_features": 2, "out_features": 3})).out_features
        == 3
    )


def test_pickled_modules_are_refused_unless_trusted(folder):
    torch.save(nn.Sequential(nn.Linear(2, 2)), folder / "whole.pt")
    with pytest.raises(RequestError, match="--trust-checkpoint"):
        load_module(section(folder, None, weights=folder / "whole.pt"))
    loaded = load_module(section(folder, None, weights=folder / "whole.pt", trust=True))
    assert isinstance(loaded, nn.Sequential)


def test_a_pickle_is_not_run(folder):
    class Bomb:
        def __reduce__(self):
            return (open, (str(folder / "pwned"), "w"))

    torch.save({"state_dict": Bomb()}, folder / "bomb.pt")
    with pytest.raises(RequestError, match="pickled code"):
        load_module(section(folder, weights=folder / "bomb.pt"))
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nett", "Did you mean 'Net'"),
        ("leaves", "SystemExit: bye at net.py"),
        ("breaks", "ValueError: two at net.py:28"),
        ("number", "gave a int, expected a torch.nn.Module"),
        ("factory", "missing a required argument: 'width'"),
    ],
)
def test_code_that_gives_no_model(folder, name, says):
    with pytest.raises(RequestError, match=says) as caught:
        load_module(section(folder, name))
    assert "\n" not in str(caught.value)


def test_code_that_is_not_there(folder):
    with pytest.raises(RequestError, match=r"model code not found: .*nett\.py\. Did you mean 'net\.py'"):
        load_module(ModelSection(source=f"{folder}/nett.py:Net"))
    with pytest.raises(RequestError, match="ModuleNotFoundError"):
        load_module(ModelSection(source="no_such_package:Net"))
    with pytest.raises(RequestError, match=r"expected FILE\.py:CLASS"):
        load_module(ModelSection(source="net.py"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"PK\x03\x04 cut short", "damaged or cut short"),
        (b"\x80\x02 nothing", "cannot be read as a checkpoint|pickled code"),
    ],
)
def test_files_that_are_no_checkpoint(folder, data, says):
    (folder / "w.pt").write_bytes(data)
    with pytest.raises(RequestError, match=says) as caught:
        load_module(section(folder, weights=folder / "w.pt"))
    assert len(str(caught.value)) < 300 + len(str(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(folder):
    (folder / "best.pt").write_bytes(b"")
    with pytest.raises(RequestError, match=r"weights not found: .* Did you mean 'best\.pt'"):
        load_module(section(folder, weights=folder / "bst.pt"))


def test_a_truncated_and_a_flipped_checkpoint(folder):
    torch.save(net(folder).state_dict(), folder / "w.pt")
    whole = (folder / "w.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="damaged or cut short"):
        load_module(section(folder, weights=folder / "cut.pt"))
    with zipfile.ZipFile(folder / "w.pt") as archive:
        place = next(info for info in archive.infolist() if "data/0" in info.filename)
    flipped = bytearray(whole)
    flipped[place.header_offset + 30 + len(place.filename) + 60] ^= 1
    start = whole.index(place.filename.encode()) + len(place.filename)
    pad = int.from_bytes(whole[place.header_offset + 28 : place.header_offset + 30], "little")
    flipped = bytearray(whole)
    flipped[start + pad] ^= 1
    (folder / "flip.pt").write_bytes(flipped)
    with pytest.raises(RequestError, match=r"checksum of .*data/0 is wrong"):
        load_module(section(folder, weights=folder / "flip.pt"))


def test_weights_of_another_network(folder):
    torch.save(net(folder).state_dict(), folder / "w.pt")
    with pytest.raises(RequestError, match=r"conv.weight is \(4, 1, 3\), the model wants \(9, 1, 3\)"):
        load_module(section(folder, weights=folder / "w.pt", width=9))
    torch.save(nn.Linear(2, 2).state_dict(), folder / "other.pt")
    with pytest.raises(RequestError, match=r"another network: 4 names missing \(first: conv.bias\), 2 unexpected"):
        load_module(section(folder, weights=folder / "other.pt"))
    torch.save({"lr": 0.1}, folder / "none.pt")
    with pytest.raises(RequestError, match="holds no tensors by name"):
        load_module(section(folder, weights=folder / "none.pt"))


def test_devices():
    assert settle_device("cpu") == torch.device("cpu")
    assert settle_device("auto").type in ("cpu", "cuda")
    for name in ("cuda:99", "tpu"):
        with pytest.raises(RequestError, match=f"device '{name}' is not here"):
            settle_device(name)
