"""Faults of checkpoints, data and outputs, one by one: `FAULTS` says of each where it is held, or why it is not here."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from camsweep.core.results import Status, open_results

from ..data.damaged import CRASHES
from .conftest import IMAGES, job_text, save_png
from .test_bad_input import (
    Prepare,
    Row,
    arrays,
    assert_refused,
    both,
    contents,
    cut,
    images,
    job,
    raw,
    replaced,
    text,
)

ROOT = Path(__file__).resolve().parents[2]

FAULTS: dict[int, tuple[str, str]] = {
    1: ("checkpoint path missing", "row: checkpoint missing; row: weights missing"),
    2: ("checkpoint is a folder, a SavedModel folder is empty", "row: an empty folder; row: weights are a folder"),
    3: ("checkpoint of 0 bytes", "row: 0 bytes as .pt; row: 0 bytes as .keras; row: 0 bytes as .h5; row: 0 bytes as .onnx"),
    4: ("truncated .pt", "row: weights cut short"),
    5: ("bit-flipped .pt", "row: a flipped bit in weights"),
    6: ("HTML page or LFS pointer saved as a checkpoint", "row: a pointer as .onnx; row: HTML as .keras; row: weights are HTML"),
    7: ("pickle bomb", "row: a pickle bomb; backends/test_torch_loading.py::test_a_pickle_is_not_run"),
    8: ("full pickled module", "row: a whole pickle; row: a whole pickle as a model"),
    9: ("wrapper keys", "backends/test_torch_loading.py::test_usual_wrappings"),
    10: ("wrong architecture", "row: weights of another shape; row: weights of other names"),
    11: ("class definition not importable", "row: a package that is not there"),
    12: ("user model code raises on import", "row: code raises"),
    13: ("model code prints, writes, exits", "row: code exits; cli/test_explain.py::test_a_model_that_prints_leaves_stdout_alone"),
    14: ("Keras Lambda layer", "row: a Lambda in .keras; row: a Lambda in .h5"),
    15: ("Keras custom layer", "backends/tensorflow/test_files.py::test_classes_that_are_not_in_the_file_are_named"),
    16: ("truncated or garbage .keras", "row: .keras cut short; row: .keras of noise"),
    17: ("graphs of TensorFlow 1, old Keras", "row: a frozen graph; row: Keras 1"),
    18: ("ONNX garbage, opset too new, custom operator", "row: ONNX cut short; row: an opset from the future; row: a custom operator"),
    19: ("ONNX external data missing or outside", "row: external data missing; row: external data outside"),
    20: ("gradient asked of what has none", "row: a gradient of what is not imported"),
    21: ("model in half precision", "test_weights_in_half_precision_are_taken_as_float32"),
    22: ("model outputs a tuple", "row: outputs are a tuple"),
    23: ("model in train mode", "test_dropout_is_off"),
    24: ("model returns NaN for a good input", "core/test_sweep.py::test_inputs_and_outputs_that_are_not_finite_are_marked"),
    25: ("unknown method name", "row: unknown method"),
    26: ("method not possible for this net", "row: a CAM without a convolution"),
    27: ("unknown layer name", "row: unknown layer"),
    28: ("layer without spatial dims", "row: layer without space"),
    29: ("layer used twice or never", "row: layer that runs twice; row: a layer that never runs"),
    30: ("class index beyond, negative", "row: class beyond; row: negative class"),
    31: ("class name not in labels", "row: unknown class; row: label of no class"),
    32: ("class names and outputs differ in number", "test_class_names_of_another_number_are_told"),
    33: ("labels missing for some", "cli/test_bad_input.py::test_one_sample_without_a_label"),
    34: ("binary model, one logit", "targets/test_class_scores.py"),
    35: ("empty dataset", "row: no images; row: an empty folder of images; row: no samples"),
    36: ("0-byte image, text as .png", "data/test_folder.py::test_one_bad_image_among_twenty"),
    37: ("truncated image", "data/test_folder.py::test_one_bad_image_among_twenty"),
    38: ("1 unreadable among 10,000", "test_one_bad_image_among_many"),
    39: ("too many failures", "not here: a run goes on to its end and says how many failed, but is refused where none can be read"),
    40: ("file vanishes between plan and run", "data/test_folder.py::test_one_bad_image_among_twenty"),
    41: ("data changed since", "row: data changed under a finished run"),
    42: ("0 x N image", "test_images_that_cannot_be_decoded"),
    43: ("decompression bomb", "test_images_that_cannot_be_decoded"),
    44: ("npz bomb", "row: an NPZ bomb; row: a header that promises more than its member holds"),
    45: ("object-dtype .npy", "row: objects in NPY"),
    46: ("truncated .npy", "row: NPY cut short"),
    47: ("greyscale into an RGB net", "row: grey images for a network of three channels"),
    48: ("RGBA, palette, CMYK, 1-bit", "data/test_folder.py::test_palette_cmyk_and_one_bit; data/test_folder.py::test_alpha_lies_over_white"),
    49: ("uint16 TIFF", "data/test_folder.py::test_deep_images_keep_their_depth; data/test_ranges.py::test_depths_are_not_mixed"),
    50: ("float TIFF", "data/test_folder.py::test_deep_images_keep_their_depth; data/test_ranges.py::test_depths_are_not_mixed"),
    51: ("several pages or frames", "data/test_folder.py::test_several_frames_are_refused"),
    52: ("EXIF orientation", "data/test_folder.py::test_the_camera_s_orientation_is_applied"),
    53: ("channels-last vs first", "row: channels last said to be first"),
    54: ("wrong H and W", "row: another size than a linear layer takes"),
    55: ("mixed sizes", "cli/test_bad_input.py::test_one_image_of_another_size"),
    56: ("float64 or uint8 tensors", "test_other_dtypes_are_cast"),
    57: ("un-normalised input", "data/test_ranges.py::test_what_is_said_of_a_batch; test_values_as_stored_are_told"),
    58: ("NaN and Inf in input", "cli/test_bad_input.py::test_one_sample_of_nan"),
    59: ("constant sample", "test_a_constant_sample_has_a_map_of_zeros"),
    60: ("too short for the stride", "row: signals too short"),
    61: ("wrong sampling rate", "not here: nothing can tell, the rate is stored with the results"),
    62: ("CSV: missing column, BOM, ;, CRLF, Latin-1", "data/test_folder.py::test_manifest_faults; row: a manifest of Latin-1; row: a manifest without a path"),
    63: ("duplicate names", "row: ids twice; row: a manifest with an image twice"),
    64: ("config typo", "row: unknown key in explain"),
    65: ("config: key twice, wrong type", "row: a key twice in TOML; row: wrong type"),
    66: ("option given twice", "row: an option twice, of which the last counts"),
    67: ("batch size out of range", "row: negative batch size; row: no batch size"),
    68: ("steps or samples = 0", "row: no steps; cli/test_bad_paths.py::test_one_line_says_what_is_wrong_and_a_dry_run_says_it_too"),
    69: ("output exists, finished", "row: output of another job"),
    70: ("output unfinished", "row: parts of another job"),
    71: ("resume with other settings", "row: output of other weights"),
    72: ("output is a folder, parent missing, ends in /", "row: output is a folder; row: output in no folder; row: output ends in a slash"),
    73: ("no write permission", "cli/test_bad_input.py::test_an_output_folder_without_permission; row: output on a file system that takes nothing"),
    74: ("output on another file system than temp", "crash/test_points.py::test_a_kill_at_every_point_loses_nothing"),
    75: ("disk full at start", "crash/test_full_disk.py::test_a_disk_full_from_the_start"),
    76: ("disk full or quota mid-run", "crash/test_full_disk.py::test_a_full_disk_ends_in_one_line_and_the_run_goes_on_once_there_is_room"),
    77: ("inode quota", "not here: no file system with so few is to be had in a test, it is the same error"),
    78: ("two runs, same output", "crash/test_stop.py::test_a_second_run_on_the_same_output_is_told_who_holds_it"),
    79: ("stale lock", "results/test_parts.py::test_a_second_holder_is_told_who_the_first_is_until_it_dies"),
    80: ("SIGTERM, SIGINT, SIGUSR1", "crash/test_stop.py::test_each_signal_stops_after_the_batch_in_hand_and_the_same_command_goes_on"),
    81: ("SIGKILL, power cut", "crash/test_kill.py::test_fifty_kills_lose_nothing"),
    82: ("SIGHUP", "crash/test_stop.py::test_under_nohup_a_hangup_is_ignored"),
    83: ("stdout closed", "cli/test_commands.py::test_a_reader_that_goes_away_is_no_fault"),
    84: ("out of memory", "core/test_sweep.py::test_batches_are_halved_when_memory_runs_out"),
    85: ("cgroup memory limit", "test_a_memory_limit_makes_batches_smaller_whatever_the_node_has"),
    86: ("GPU lost", "not here: needs a GPU"),
    87: ("no GPU but --device cuda", "row: device not there"),
    88: ("driver too old", "not here: needs a GPU"),
    89: ("worker process killed", "not here: there are no worker processes"),
    90: ("/dev/shm too small", "not here: no shared memory is used"),
    91: ("clock jumps", "not here: no decision depends on the clock"),
    92: ("locale without UTF-8", "test_a_locale_of_ascii"),
    93: ("undecodable file names", "test_names_of_any_bytes"),
    94: ("Unicode twins, emoji, right to left", "test_names_of_any_bytes"),
    95: ("names of 255 bytes", "render/test_filenames.py::test_slug_is_at_most_80_bytes"),
    96: ("path too long", "row: a path too long"),
    97: ("path traversal in sample names", "test_hostile_names_stay_in_their_folder"),
    98: ("case collisions, reserved names", "render/test_filenames.py::test_hostile_ids_give_safe_and_unique_names"),
    99: ("symlink loops, dangling links, output is a link", "row: data is a link in a circle; data/test_folder.py::test_symlink_loop; test_an_output_that_is_a_link"),
    100: ("FIFO, device, socket as data", "row: data is a device; row: checkpoint is a device; data/test_folder.py::test_one_bad_image_among_twenty"),
    101: ("stale NFS, EIO", "not here: needs such a server, a failing disk is simulated; crash/test_full_disk.py"),
    102: ("archives with ../, links, bombs", "not here: no archive is unpacked to disk; row: a checkpoint that is a bomb"),
    103: ("HDF5 input: wrong key, corrupt, hangs", "row: HDF5 cut short; row: HDF5 without the array; row: data on which HDF5 crashes; data/test_guard.py::test_a_file_on_which_hdf5_hangs"),
    104: ("part damaged after commit", "results/test_parts.py::test_a_damaged_part_is_set_aside_and_its_rows_done_again"),
    105: ("part from another manifest", "row: parts of another job"),
    106: ("merge while shards are missing", "cli/test_shards.py::test_what_is_missing_is_told_with_the_line_to_type"),
    107: ("final file open while merging", "results/test_reader.py::test_a_reader_is_no_obstacle_to_another"),
    108: ("a picture fails", "render/test_pictures.py::test_a_map_without_any_finite_value_is_skipped"),
    109: ("100,000 pictures asked for", "not here: --limit says how many, all are drawn where it is not given"),
    110: ("task numbers of schedulers", "test_task_numbers_that_are_none; scheduling/test_seats.py::test_the_shard_that_is_meant"),
    111: ("no HOME, read-only HOME", "test_without_a_home"),
    112: ("no terminal", "cli/test_explain.py::test_results_go_to_stdout_and_progress_to_stderr"),
    113: ("SIGSTOP", "not here: the kernel's own"),
    114: ("fork after CUDA", "data/test_guard.py::test_there_is_no_fork_beside_a_framework_or_threads"),
    115: ("threads oversubscribed", "scheduling/test_allocation.py::test_threads_are_set_where_the_user_has_not"),
    116: ("library versions differ between nodes", "cli/test_shards.py::test_other_versions_than_those_of_the_plan_are_told"),
    117: ("random numbers after a restart", "core/test_sweep.py::test_another_batch_size_may_finish_a_run"),
    118: ("--help with a broken torch", "test_help_with_a_broken_torch"),
}  # fmt: skip


# Checkpoints, written by hand: no framework is needed to say what is wrong with them.


def keras_file(name: str = "net.keras", *, layers: list[dict] | None = None, version: str = "3.12.0") -> Prepare:
    """A .keras file with a configuration, and weights without any."""

    def prepare(bench: Path) -> None:
        with zipfile.ZipFile(bench / name, "w") as archive:
            archive.writestr("config.json", json.dumps(sequential(layers or [])))
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
            archive.writestr("model.weights.h5", hdf5_bytes())

    return prepare


def keras_h5(*, layers: list[dict], version: str = "2.15.0") -> Prepare:
    def prepare(bench: Path) -> None:
        with h5py.File(bench / "net.h5", "w") as file:
            file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(sequential(layers)), version
            file.create_group("model_weights")

    return prepare


def sequential(layers: list[dict]) -> dict:
    entry = {"class_name": "InputLayer", "config": {"batch_shape": [None, 17, 2], "name": "in"}}
    return {"class_name": "Sequential", "config": {"name": "s", "layers": [entry, *layers]}}


LAMBDA = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wAAAA==", None, None]}}


@cache
def hdf5_bytes() -> bytes:
    with io.BytesIO() as memory:
        h5py.File(memory, "w").close()
        return memory.getvalue()


def onnx_file(
    bench: Path, *, kind: str = "Relu", domain: str = "", opset: int = 17, location: str | None = None
) -> None:
    """x (N, 2, 17) -> kind -> MatMul with a weight, which may lie beside the file."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, (17, 3), np.ones((17, 3), np.float32).tobytes(), raw=True)
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location
    nodes = [helper.make_node(kind, ["x"], ["h"], domain=domain), helper.make_node("MatMul", ["h", "w"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, s]) for n, s in (("x", 17), ("y", 3)))
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=imports, ir_version=8)
    (bench / "net.onnx").write_bytes(model.SerializeToString())


def onnx(**settings: object) -> Prepare:
    return lambda bench: onnx_file(bench, **settings)


def flipped_weights(bench: Path) -> None:
    data = bytearray((bench / "weights.pt").read_bytes())
    with zipfile.ZipFile(bench / "weights.pt") as archive:
        info = next(each for each in archive.infolist() if each.filename.endswith("data/2"))
    start = (
        info.header_offset + 30 + sum(data[info.header_offset + at] << 8 * (at % 2) for at in range(26, 30) if at < 28)
    )
    start += int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
    data[start] ^= 4
    (bench / "weights.pt").write_bytes(data)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("MARKER"),)


def zip_bomb(name: str, member: str) -> Prepare:
    """300 MB of zeros in 300 kB."""

    def prepare(bench: Path) -> None:
        with (
            zipfile.ZipFile(bench / name, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(member, "w", force_zip64=True) as file,
        ):
            for _ in range(300):
                file.write(bytes(1 << 20))

    return prepare


def npz_bomb(bench: Path) -> None:
    """A header of 4 TB in a member that says it has them, and has 100 bytes."""
    shape = (10**9, 2, 500)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(bench / "signals.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
        archive.infolist()[0].file_size = len(header.getvalue()) + 4 * np.prod(shape, dtype=int).item()


def npz_of_promises(bench: Path) -> None:
    """A header of 4 TB in a member of a few bytes."""
    whole = io.BytesIO()
    np.lib.format.write_array_header_1_0(whole, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 2, 500)})
    with zipfile.ZipFile(bench / "signals.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", whole.getvalue() + bytes(100))


def linked(name: str, to: str) -> Prepare:
    def prepare(bench: Path) -> None:
        (bench / name).unlink()
        (bench / name).symlink_to(to)

    return prepare


def grey_images(bench: Path) -> None:
    images(bench)
    for path in (bench / "images").rglob("*.png"):
        Image.open(path).convert("L").save(path)


def manifest(text: bytes) -> Prepare:
    def prepare(bench: Path) -> None:
        (bench / "list.csv").write_bytes(text)
        (bench / "job.toml").write_text(IMAGES.replace("[data]", '[data]\nmanifest = "list.csv"'))

    return prepare


def other_data(bench: Path) -> None:
    """A finished run, and other data since."""
    from camsweep import explain

    explain(bench / "job.toml")
    arrays(x=np.ones((10, 2, 17), np.float32))(bench)


def hdf5_data(bench: Path) -> None:
    with h5py.File(bench / "signals.h5", "w") as file:
        file["x"] = np.zeros((10, 2, 17), np.float32)
    changed = job_text().replace("signals.npz", "signals.h5").replace('"x"', '"group/x"')
    (bench / "job.toml").write_text(changed)


MODELS = """
import torch
from torch import nn
class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.never, self.head = nn.Conv1d(2, 3, 3), nn.Linear(2 * 17, 3)
    def forward(self, x):
        return self.head(x.flatten(1))
class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv1d(2, 3, 3), nn.Linear(3 * 30, 3)
    def forward(self, x):
        return self.head(self.first(x).flatten(1))
class Long(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv1d(2, 3, 64), nn.Linear(3, 3)
    def forward(self, x):
        return self.head(self.first(x).mean(-1))
"""


def own(name: str, layer: str = "first", method: str = "hirescam") -> Prepare:
    """Another network, without weights."""
    changed = job_text().replace("models.py:Net", f"own.py:{name}").replace('weights = "weights.pt"', "")
    changed = changed.replace('["first"]', f'["{layer}"]').replace("hirescam", method)
    return both(text("own.py", MODELS), text("job.toml", changed))


def explain(model: str, *more: str) -> str:
    return " ".join(
        ["explain --model", model, "--data signals.npz --input x --layout NCT -o run.h5 --device cpu", *more]
    )


ROWS = [
    # checkpoints
    Row("checkpoint missing", r"weights not found: .*nte\.keras\. Did you mean 'net\.keras'\?", keras_file(), explain("nte.keras")),
    Row("an empty folder", r"empty is a folder without a saved_model\.pb", lambda b: (b / "empty").mkdir(), explain("empty")),
    Row("0 bytes as .pt", r"net\.pt is empty \(0 bytes\)", raw("net.pt", b""), explain("net.pt")),
    Row("0 bytes as .keras", r"net\.keras is empty \(0 bytes\)", raw("net.keras", b""), explain("net.keras")),
    Row("0 bytes as .h5", r"net\.h5 is empty \(0 bytes\)", raw("net.h5", b""), explain("net.h5")),
    Row("0 bytes as .onnx", r"net\.onnx is empty \(0 bytes\)", raw("net.onnx", b""), explain("net.onnx")),
    Row("a flipped bit in weights", r"weights\.pt is damaged: the checksum of .*data/2 is wrong; copy or download it again", flipped_weights),
    Row("a pointer as .onnx", r"net\.onnx is a Git LFS pointer \(\d+ bytes\), not a checkpoint; run git lfs pull",
        raw("net.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), explain("net.onnx")),
    Row("HTML as .keras", r"net\.keras is an HTML page, not a checkpoint; download it again", raw("net.keras", b"\n<html><body>404</body>"), explain("net.keras")),
    Row("an error of a cloud as .h5", r"net\.h5 is an XML or HTML page", raw("net.h5", b'<?xml version="1.0"?><Error><Code>AccessDenied'), explain("net.h5")),
    Row("a checkpoint that is a bomb", r"net\.pt says that its \d+ bytes unpack to 314572800; that is no checkpoint", zip_bomb("net.pt", "net/data.pkl"), explain("net.pt")),
    Row("weights that are a bomb", r"weights\.pt says that its \d+ bytes unpack to 314572800", zip_bomb("weights.pt", "w/data/0")),
    Row("a package that is not there", r"model source no_such\.nets:Net fails: ModuleNotFoundError: No module named 'no_such'", replaced("models.py:Net", "no_such.nets:Net")),
    Row("a pickle bomb", r"weights\.pt holds more than weights .*--trust-checkpoint", lambda b: torch.save({"state_dict": Bomb()}, b / "weights.pt")),
    Row("a pickle bomb as a model", r"net\.pt holds more than weights .*--trust-checkpoint", lambda b: torch.save(Bomb(), b / "net.pt"), explain("net.pt")),
    Row("a whole pickle as a model", r"net\.pt holds more than weights .*Linear.*--trust-checkpoint", lambda b: torch.save(torch.nn.Linear(2, 3), b / "net.pt"), explain("net.pt")),
    Row("a Lambda in .keras", r"net\.keras holds Python code \(layer 'evil' is a Lambda\).*--trust-checkpoint", keras_file(layers=[LAMBDA]), explain("net.keras")),
    Row("a Lambda in .h5", r"net\.h5 holds Python code \(layer 'evil' is a Lambda\).*--trust-checkpoint", keras_h5(layers=[LAMBDA]), explain("net.h5")),
    Row("words from any file", r"net\.keras takes the words of layer 'evil' from another file, '/etc/passwd'.*--trust-checkpoint",
        keras_file(layers=[{"class_name": "StringLookup", "config": {"name": "evil", "vocabulary": "/etc/passwd"}}]), explain("net.keras")),
    Row("a model on which HDF5 crashes", r"net\.h5: it is damaged, reading it crashes \(signal 11\)", raw("net.h5", CRASHES), explain("net.h5")),
    Row("data on which HDF5 crashes", r"signals\.h5 cannot be read as HDF5: it is damaged, reading it crashes \(signal 11\)",
        both(raw("signals.h5", CRASHES), replaced("signals.npz", "signals.h5"))),
    Row(".keras cut short", r"net\.keras is damaged or cut short", both(keras_file(), cut("net.keras", 0.6)), explain("net.keras")),
    Row(".keras of noise", r"net\.keras is neither a Keras model|net\.keras is no checkpoint", raw("net.keras", bytes(range(128, 256))), explain("net.keras")),
    Row("a frozen graph", r"net\.pb is a graph of TensorFlow 1, expected a SavedModel folder, or convert it", raw("net.pb", b"\x0a\x05input"), explain("net.pb")),
    Row("Keras 1", r"net\.h5 is of Keras 1\.2\.2, which is too old; re-save it", keras_h5(layers=[], version="1.2.2"), explain("net.h5")),
    Row("ONNX cut short", r"net\.onnx is no whole ONNX file, damaged or cut short", both(onnx(), cut("net.onnx", 0.5)), explain("net.onnx")),
    Row("an opset from the future", r"net\.onnx has opset 99, the onnx installed here .* knows up to \d+: pip install -U onnx", onnx(opset=99), explain("net.onnx")),
    Row("a custom operator", r"NoSuch", onnx(kind="NoSuch", domain="mine"), explain("net.onnx")),
    Row("external data missing", r"net\.onnx: the weights lie in 'net\.bin', which is not beside it; copy both", onnx(location="net.bin"), explain("net.onnx")),
    Row("external data outside", r"net\.onnx: weights of 'w' are said to lie in '\.\./\.\./etc/passwd', outside the model's folder", onnx(location="../../etc/passwd"), explain("net.onnx")),
    Row("a gradient of what is not imported", r"grad asks for the .*gradient.*, which the .* backend cannot give.*not imported: RandomUniformLike", onnx(kind="Bernoulli"), explain("net.onnx", "-m grad -t pixel:0@0")),
    Row("a CAM without a convolution", r"layer auto: no layer keeps the input's spatial axes", own("Dense", "auto")),
    Row("a layer that never runs", r"no layer 'never' runs in the model", own("Dense", "never")),
    Row("checkpoint is a device", r"weights /dev/zero is not a file", words=explain("models.py:Net", "--weights /dev/zero")),
    # data
    Row("an empty folder of images", r"no images in .*none: 0 files, none of them", both(lambda b: (b / "none").mkdir(), text("job.toml", IMAGES.replace('"images"', '"none"')))),
    Row("data changed under a finished run", r"run\.h5 exists from another job \(data\.contents differs\)", other_data, code=73),
    Row("an NPZ bomb", r"signals\.npz: x says that its \d+ bytes are \(1000000000, 2, 500\) float32, 4000000000000 bytes", npz_bomb),
    Row("a header that promises more than its member holds", r"signals\.npz cannot be read as NPZ: x is truncated", npz_of_promises),
    Row("NPZ is a pointer", r"signals\.npz is a Git LFS pointer", raw("signals.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")),
    Row("NPZ of 0 bytes", r"signals\.npz is empty \(0 bytes\)", raw("signals.npz", b"")),
    Row("a flipped bit in NPZ", r"signals\.npz is damaged: the checksum of x\.npy is wrong", lambda b: flip_npz(b)),
    Row("HDF5 without the array", r"no array 'group/x' in .*signals\.h5", hdf5_data),
    Row("grey images for a network of three channels", r"the model cannot take a sample of shape \(1, 8, 10\): .*; it was read with data\.mode = \"keep\" and 2 transforms", grey_images),
    Row("channels last said to be first", r"the model cannot take a sample of shape \(17, 2\): .*; it was read with data\.layout = NCT and no transforms", arrays(x=np.zeros((10, 17, 2), np.float32))),
    Row("another size than a linear layer takes", r"the model cannot take a sample of shape \(2, 17\): RuntimeError: mat1 and mat2", own("Fixed")),
    Row("signals too short", r"the model cannot take a sample of shape \(2, 17\): RuntimeError: .*[Kk]ernel size", own("Long")),
    Row("a manifest of Latin-1", r"manifest .*list\.csv is not UTF-8; save it as such", manifest("path\nkätzchen.png\n".encode("latin-1"))),
    Row("a manifest without a path", r"manifest .*list\.csv, line 3: no path", manifest(b"path,label\ncat/0.png,a\n,b\n")),
    Row("a manifest with an image twice", r"samples 0 and 1 have the same id 'cat/0\.png'", manifest(b"path\ncat/0.png\ncat/0.png\n")),
    Row("data is a link in a circle", r"signals\.npz", linked("signals.npz", "signals.npz")),
    Row("data is a link to nothing", r"data not found: .*signals\.npz", linked("signals.npz", "nowhere.npz")),
    Row("data is a device", r"data /dev/zero is not a file", words="explain job.toml --data /dev/zero"),
    # the job
    Row("a key twice in TOML", r"job\.toml is not TOML: Cannot overwrite a value .*line \d+", job(data='layout = "NCT"')),
    Row("an option twice, of which the last counts", r"output folder .*nowhere does not exist", words="explain job.toml -o run.h5 -o nowhere/run.h5", code=73),
    Row("no batch size", r"explain\.batch_size: 0 given; .*greater", words="explain job.toml -b 0"),
    Row("no steps", r"ig: steps='0' given, expected a whole number from 1", words="explain job.toml -m ig:steps=0"),
    # the output
    Row("output ends in a slash", r"output nowhere/ is a folder; give a file name with --out", words="explain job.toml -o nowhere/", code=73),
    Row("output on a file system that takes nothing", r"/proc", words="explain job.toml -o /proc/run.h5", code=73),
    Row("a path too long", r"(?i)too long", words=f"explain job.toml -o {'x' * 300}.h5", code=73),
    Row("data of a path too long", r"(?i)too long", words=f"explain job.toml --data {'x' * 300}.npz"),
    # the other commands
    Row("report on nothing", r"results not found: run\.h5", words="report run.h5"),
    Row("export of nothing", r"results not found: run\.h5", words="export run.h5 --to npz"),
    Row("export to no format", r"'--to'.*'xml'", words="export run.h5 --to xml"),
    Row("info on a pointer", r"run\.h5 (is a Git LFS pointer|cannot be read as HDF5)", raw("run.h5", b"version https://git-lfs.github.com/spec/v1\n"), "info run.h5"),
    Row("inspect an empty file", r"net\.pt is empty", raw("net.pt", b""), "inspect net.pt --shape 2,17"),
    Row("inspect a Lambda", r"net\.keras holds Python code", keras_file(layers=[LAMBDA]), "inspect net.keras"),
]  # fmt: skip

NEEDS_THE_MODEL = {
    "a package that is not there", "a pickle bomb", "a pickle bomb as a model", "a whole pickle as a model",
    "ONNX cut short", "an opset from the future", "a custom operator", "external data missing",
    "external data outside", "a gradient of what is not imported", "a CAM without a convolution",
    "a layer that never runs",
    "grey images for a network of three channels", "channels last said to be first",
    "another size than a linear layer takes", "signals too short",
}  # fmt: skip


def flip_npz(bench: Path) -> None:
    """One bit of a stored member, which is mapped and not read through the archive."""
    data = bytearray((bench / "signals.npz").read_bytes())
    data[700] ^= 1
    (bench / "signals.npz").write_bytes(data)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_one_line_says_what_is_wrong(bench, call, apart, row):
    row.prepare(bench)
    assert_refused(row, call, apart, bench, needs_model=row.name in NEEDS_THE_MODEL)


def test_every_fault_is_held_somewhere():
    """Rows and tests that `FAULTS` names are there."""
    rows = {row.name for module in ("test_bad_input", "test_bad_faults") for row in _rows(module)}
    assert list(FAULTS) == list(range(1, 119))
    for number, (_, where) in FAULTS.items():
        for place in where.split("; "):
            kind, _, name = place.partition(": ")
            if kind == "row":
                assert name in rows, number
            elif kind != "not here":
                path, _, test = (place if "/" in place else f"cli/test_bad_faults.py::{place}").partition("::")
                source = (ROOT / "tests" / path).read_text("utf-8")
                assert not test or re.search(rf"^def {test}\(", source, re.M), (number, place)
    assert {row.name for row in ROWS} >= NEEDS_THE_MODEL
    assert len({row.name for row in ROWS}) == len(ROWS)


def _rows(module: str):
    from . import test_bad_faults, test_bad_input

    return {"test_bad_input": test_bad_input, "test_bad_faults": test_bad_faults}[module].ROWS


# Runs that come to an end, with whatever was odd in them told or marked.


def ran(call, bench, *words, code: int = 0):
    """The results of a run; what it said on stderr."""
    answer = call("explain", "job.toml", *words, cwd=bench)
    assert answer.code == code, answer.err
    return answer.err


def test_weights_in_half_precision_are_taken_as_float32(bench, call, net):
    rounded = {name: value.half() for name, value in net.state_dict().items()}
    torch.save(rounded, bench / "weights.pt")
    ran(call, bench, "-q")
    net.load_state_dict({name: value.float() for name, value in rounded.items()})
    with open_results(bench / "run.h5") as results, np.load(bench / "signals.npz") as stored, torch.no_grad():
        expected = net(torch.from_numpy(stored["x"])).numpy()
        np.testing.assert_allclose(results.outputs, expected, rtol=1e-5, atol=1e-6)


def test_dropout_is_off(bench, call, net):
    source = (bench / "models.py").read_text()
    (bench / "models.py").write_text(
        source.replace(
            "torch.tanh(self.first(x))", "nn.functional.dropout(torch.tanh(self.first(x)), 0.5, self.training)"
        )
    )
    ran(call, bench, "-q")
    with open_results(bench / "run.h5") as results, np.load(bench / "signals.npz") as stored, torch.no_grad():
        np.testing.assert_allclose(results.outputs, net(torch.from_numpy(stored["x"])).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "int16", "uint8"])
def test_other_dtypes_are_cast(bench, call, net, signals, dtype):
    x = (signals["x"] * 20).clip(0, 30).astype(dtype)
    arrays(x=x)(bench)
    ran(call, bench, "-q")
    with open_results(bench / "run.h5") as results, torch.no_grad():
        np.testing.assert_allclose(
            results.outputs, net(torch.from_numpy(x.astype(np.float32))).numpy(), rtol=1e-5, atol=1e-5
        )


def test_values_as_stored_are_told(bench, call):
    (bench / "job.toml").write_text("\n".join(line for line in IMAGES.splitlines() if "transforms" not in line))
    said = ran(call, bench).splitlines()[0]
    assert re.fullmatch(
        r"warning: the model gets uint8 as stored \(min 0, max 255, mean 12\d\.\d+\): no transform scales it; add "
        r"\{ scale = 0\.00392156863 \} if it learnt from 0\.\.1, or \{ scale = 1 \} if it is right so", said
    )  # fmt: skip
    (bench / "job.toml").write_text(IMAGES)
    assert "warning" not in ran(call, bench, "--force")


def test_class_names_of_another_number_are_told(bench, call):
    arrays(classes=["a", "b", "c", "d"])(bench)
    assert "warning: the data name 4 classes, the model has 3 outputs" in ran(call, bench)


def test_a_constant_sample_has_a_map_of_zeros(bench, call, signals):
    x = signals["x"].copy()
    x[4] = 0
    arrays(x=x)(bench)
    assert "warning" not in ran(call, bench, "-m", "grad+input")
    with open_results(bench / "run.h5") as results:
        assert list(np.flatnonzero(results.status == Status.ZERO_MAP)) == [4]
        assert not results.map("grad+input").read([4]).any()


def png(width: int, height: int) -> bytes:
    """A PNG that says it has these sizes, and has one byte of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


UNREADABLE = {
    "wide.png": (png(0, 8), "cannot identify image file"),
    "bomb.png": (png(60_000, 60_000), "3600000000 pixels"),
    "page.png": (b"<!DOCTYPE html><html>", "it is an HTML page, not an image; download it again"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "it is a Git LFS pointer (55 bytes), not an image; run git lfs pull"),
    "empty.png": (b"", "it is empty (0 bytes)"),
    "text.png": (b"hello", "cannot identify image file"),
}  # fmt: skip


def test_images_that_cannot_be_decoded(bench, call):
    images(bench)
    for name, (data, _) in UNREADABLE.items():
        (bench / "images" / "cat" / name).write_bytes(data)
    assert "could not be explained" not in ran(call, bench, "-q", code=3)
    with open_results(bench / "images.h5") as results:
        assert int((results.status == Status.OK).sum()) == 6
        for name, (_, said) in UNREADABLE.items():
            message = results.messages[results.ids.index(f"cat/{name}")]
            assert message.startswith("cannot read image: ")
            assert said in message, (name, message)
            assert str(bench) not in message.replace("cannot identify image file", "") or "identify" in message


def many_images(bench: Path, count: int, bad: int) -> None:
    images(bench)
    changed = IMAGES.replace('"images"', '"many"').replace('"label"', '"predicted"').replace("images.h5", "many.h5")
    (bench / "job.toml").write_text(changed)
    pixels = np.random.default_rng(2).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    for row in range(count):
        save_png(bench / "many" / f"{row // 1000:02d}" / f"{row:05d}.png", np.roll(pixels, row, 1))
    path = bench / "many" / f"{bad // 1000:02d}" / f"{bad:05d}.png"
    path.write_bytes(path.read_bytes()[:70])


PEAK = """
import resource, sys
from camsweep.cli.app import main
sys.argv = ["camsweep", "explain", "job.toml", "-q"]
try:
    main()
except SystemExit as ended:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
    sys.exit(ended.code)
"""


def peak(bench: Path) -> int:
    """Kilobytes that a run took, in a process of its own; one sample of it fails."""
    ended = subprocess.run([sys.executable, "-c", PEAK], cwd=bench, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    return int(ended.stderr.split()[-1])


def assert_one_of(count: int, bad: int, path: Path) -> None:
    with open_results(path) as results:
        assert len(results) == count
        assert list(np.flatnonzero(results.status != Status.OK)) == [bad]
        assert results.messages[bad].startswith("cannot read image: ")
        assert np.isnan(results.map("hirescam@first").read([bad])).all()
        finite = np.isfinite(results.map("hirescam@first").range()).all((1, 2))
        assert list(np.flatnonzero(~finite)) == [bad]


def test_one_bad_image_among_many(bench, call):
    many_images(bench, 300, 217)
    ran(call, bench, "-q", code=3)
    assert_one_of(300, 217, bench / "many.h5")


@pytest.mark.full
def test_one_bad_image_among_ten_thousand_and_memory_stays(bench):
    many_images(bench, 100, 17)
    few = peak(bench)
    shutil.rmtree(bench / "many")
    (bench / "many.h5").unlink()
    many_images(bench, 10_000, 7_217)
    assert peak(bench) < 1.1 * few
    assert_one_of(10_000, 7_217, bench / "many.h5")


# Names, and surroundings.

HOSTILE = ["../../escaped", "/tmp/escaped", "C:\\escaped", "a/../../../escaped", "-rf", "con", "x" * 255, "\x1b[31mred", "<script>", "caf\u00e9"]  # fmt: skip


def test_hostile_names_stay_in_their_folder(bench, call):
    arrays(id=np.array(HOSTILE))(bench)
    ran(call, bench, "-q")
    (bench / "run").mkdir()
    (bench / "victim").write_text("mine")
    before = contents(bench.parent)
    for words in (
        "render run.h5 -q -o run/pictures", "export run.h5 --to npz -q -o run/maps.npz", "export run.h5 --to csv -q -o run/csv",
        "export run.h5 --to zarr -q -o run/maps.zarr", "report run.h5 -q -o run/page.html",
    ):  # fmt: skip
        answer = call(*words.split(), cwd=bench)
        assert answer.code == 0, answer.err
        assert "\x1b" not in answer.out + answer.err
    after = contents(bench.parent)
    assert {name: each for name, each in after.items() if not name.startswith("bench/run/")} == before
    assert not any("escaped" in Path(name).parts for name in after)
    assert not list(Path("/tmp").glob("escaped*"))
    assert "<script>" not in re.sub(
        r"<script[ >].*?</script>", "", (bench / "run" / "page.html").read_text(), flags=re.S
    )
    assert "\x1b" not in call("info", "run.h5", cwd=bench).out


def test_a_results_file_runs_nothing(bench, call):
    """It names the function that the samples went through; whoever sent it may have sent that too."""
    (bench / "steps.py").write_text("def double(x):\n    return x * 2\n")
    job(data='transforms = [{ python = "steps.py:double" }]')(bench)
    ran(call, bench, "-q")
    (bench / "steps.py").write_text("open('MARKER', 'w')\ndef double(x):\n    open('MARKER', 'w')\n    return x * 2\n")
    for words in ("info", "render -q --limit 1", "report -q", "export --to csv -q"):
        command, *more = words.split()
        assert call(command, "run.h5", *more, cwd=bench).code == 0
    assert not list(bench.rglob("MARKER"))
    with open_results(bench / "run.h5") as results, np.load(bench / "signals.npz") as stored:
        np.testing.assert_array_equal(results.inputs([3]), stored["x"][3:4])


def test_a_picture_does_not_follow_a_link_that_lies_in_its_place(bench, call):
    ran(call, bench, "-q")
    call("render", "run.h5", "-q", "--limit", 1, cwd=bench)
    [picture] = (bench / "run").rglob("000000*.png")
    (bench / "victim").write_text("mine")
    picture.unlink()
    picture.symlink_to(bench / "victim")
    assert call("render", "run.h5", "-q", "--limit", 1, cwd=bench).code == 0
    assert (bench / "victim").read_text() == "mine"
    assert not picture.is_symlink()


def test_an_output_that_is_a_link(bench, call):
    """What it points to is left alone; the results take the link's place."""
    (bench / "run.h5").symlink_to(bench / "elsewhere.h5")
    ran(call, bench, "-q")
    assert not (bench / "elsewhere.h5").exists()
    assert not (bench / "run.h5").is_symlink()


def test_names_of_any_bytes(bench, call):
    images(bench)
    names = [
        b"\xff.png",
        "caf\u00e9.png".encode(),
        "cafe\u0301.png".encode(),
        "\U0001fac0.png".encode(),
        "\u202egnp.png".encode(),
    ]
    for i, name in enumerate(names):
        save_png(
            bench / "images" / "cat" / "new.png",
            np.full((8, 10, 3), 40 * i, np.uint8) + np.arange(10, dtype=np.uint8)[:, None],
        )
        (bench / "images" / "cat" / "new.png").rename(bench / "images" / "cat" / os.fsdecode(name))
    ran(call, bench, "-q")
    with open_results(bench / "images.h5") as results:
        assert len(set(results.ids)) == 11
        assert set(results.status) <= {Status.OK, Status.ZERO_MAP}
        assert "cat/\\xff.png" in results.ids
        assert {"cat/caf\u00e9.png", "cat/cafe\u0301.png"} <= set(results.ids)
    assert call("render", "images.h5", "-q", "--kind", "map", "--json", cwd=bench).json["files"] == 11


def shell(bench: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """In a new process that has nothing of our environment but this."""
    command = [sys.executable, "-c", "from camsweep.cli.app import main; main()", *words]
    return subprocess.run(command, cwd=bench, env=env, capture_output=True, text=True, check=False, encoding="latin-1")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", "größe \\u5fc3"), ("ascii", "größe 心".encode().decode("latin-1"))]
)
def test_a_locale_of_ascii(bench, call, signals, encoding, shown):
    """Of ASCII, which nobody means, typer makes UTF-8."""
    x = signals["x"].copy()
    x[3] = np.nan
    arrays(x=x, id=np.array(["größe \u5fc3", *map(str, range(9))]), classes=["a", "b", "ü"])(bench)
    x[0], x[3] = np.nan, 1
    arrays(x=x)(bench)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    ended = shell(bench, "explain", "job.toml", "-t", "all", "-q", **plain)
    assert (ended.returncode, ended.stderr) == (3, "")
    ended = shell(bench, "info", "run.h5", **plain)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert shown in ended.stdout
    ended = shell(bench, "explain", "größe.toml", **plain)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: job file not found: gr")


def test_without_a_home(bench):
    ended = shell(
        bench,
        "explain",
        "job.toml",
        "-q",
        HOME="/proc/nowhere",
        XDG_CACHE_HOME="/proc/nowhere",
        MPLCONFIGDIR="/proc/nowhere",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert shell(bench, "info", "run.h5").returncode == 0
    drawn = shell(bench, "render", "run.h5", "-q", "--limit", "1", HOME="/proc/nowhere")
    assert drawn.returncode == 0, drawn.stderr


def test_help_with_a_broken_torch(bench):
    for name in ("torch", "tensorflow", "keras", "onnx", "onnxruntime"):
        (bench / "broken").mkdir(exist_ok=True)
        (bench / "broken" / f"{name}.py").write_text("raise OSError('libcudart.so: cannot open')\n")
    for words in (["--help"], ["--version"], ["explain", "--help"], ["methods"], ["methods", "gradcam"]):
        ended = shell(bench, *words, PYTHONPATH=str(bench / "broken"))
        assert (ended.returncode, ended.stderr) == (0, ""), words
    ended = shell(bench, "explain", "job.toml", "-q", PYTHONPATH=str(bench / "broken"))
    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1
    assert "libcudart" in ended.stderr


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ("auto/4", {"SGE_TASK_ID": "undefined"}, "this is no task of an array"),
        ("auto/4", {"SGE_TASK_ID": "5"}, "SGE_TASK_ID=5 is shard 4, expected"),
        ("auto/4", {"SLURM_ARRAY_TASK_ID": "9"}, "from 0 to 3"),
        ("auto/4", {"PBS_ARRAY_INDEX": "4"}, "from 0 to 3"),
        ("auto", {"LSB_JOBINDEX": "2"}, "auto/N"),
        ("4/4", {}, "from 0 to 3"),
    ],
)
def test_task_numbers_that_are_none(bench, call, monkeypatch, words, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = call("explain", "job.toml", "--shard", words, cwd=bench)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer.err
    assert message in answer.err
    assert not list(bench.glob("run.h5*"))


LIMITED = """
import re, resource, sys
from pathlib import Path
import camsweep.backends.torch, camsweep.core.run
import torch
torch.set_num_threads(1)
size = int(re.search(r"VmSize:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (600 << 20),) * 2)
sys.argv[1:] = ["explain", "wide.toml"]
from camsweep.cli.app import main
main()
"""
WIDE = """
from torch import nn


def wide():
    return nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="told by /proc")
def test_a_memory_limit_makes_batches_smaller_whatever_the_node_has(tmp_path):
    """48 samples at once would take 800 MB after the first layer alone, and 600 MB are to be had."""
    (tmp_path / "wide.py").write_text(WIDE)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(48, 1, 256, 256)).astype(np.float32))
    (tmp_path / "wide.toml").write_text(
        '[model]\nsource = "wide.py:wide"\n[data]\npath = "x.npz"\ninput = "x"\nlayout = "NCHW"\n'
        '[explain]\nmethods = ["gradcam"]\nlayers = ["1"]\nbatch_size = 48\ndevice = "cpu"\n[output]\npath = "run.h5"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out of memory: batches of " in done.stderr
    with open_results(tmp_path / "run.h5") as results:
        assert results.counts() == {"ok": 48}
