"""Grad-CAM over a dataset, end to end: read, explained and written, against the bare forward and the peers.

    python tests/benchmarks/endtoend.py [resnet18] [resnet50] [ecg] [volume] [--quick]

camsweep runs its whole job, `camsweep.explain` of a .npy file: the model built and loaded, batches read, maps brought to the
input's size, compressed, sealed, written with fsync, and merged into one results file. The bare forward is the limit:
`torch.inference_mode()` on the same batches, in memory already, in the faster of the two memory layouts. A peer gets the
loop that its users write, and no more: the same batches read from the same mapped file, its maps brought to the input's
size where it leaves them on the layer's grid, and stored uncompressed in one HDF5 dataset, without fsync; over a part of the
batches, its time multiplied, as it starts at once and takes as long for each.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import nn

import camsweep
from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.peers import CAPTUM, PGC, SIGNAL, TORCHCAM, peer
from camsweep.tests.benchmarks.race import OURS, Bench, Elsewhere, Missing, Run, Times

MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}
BARE, LAST = "bare forward", "bare forward, channels-last"
ONE, BEHIND, REST = "camsweep, one batch", "camsweep, behind its first batch", "bare forward of these"
GOAL = "<= 1.1"


class Subject(NamedTuple):
    """A net, its layer, the shape of a sample, and how many there are in a batch and in the file."""

    net: str
    make: Callable[[], nn.Module]
    layer: str
    shape: tuple[int, ...]
    batch: int
    count: int

    @property
    def layout(self) -> str:
        return "NC" + "DHW"[-(len(self.shape) - 1) :] if len(self.shape) > 2 else "NCT"


SUBJECTS = {
    "resnet18": Subject("ResNet18", nets.ResNet18, "layer4", (3, 224, 224), 16, 512),
    "resnet50": Subject("ResNet50", nets.ResNet50, "layer4", (3, 224, 224), 8, 256),
    "ecg": Subject("ecg_net", nets.ecg_net, "layer4", (12, 5000), 16, 512),
    "volume": Subject("VolumeNet", nets.VolumeNet, "layers.11", (1, 32, 64, 64), 8, 256),
}


def loaded(name: str, folder: str) -> tuple[nn.Module, np.ndarray]:
    """The net and the mapped file, as all parties have them."""
    module = SUBJECTS[name].make()
    module.load_state_dict(torch.load(f"{folder}/weights.pt"))
    return module.eval(), np.load(f"{folder}/x.npy", mmap_mode="r")


def bare(module: nn.Module, batches: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            module(batch)


def captum_maps(package: Any, module: nn.Module, layer: str) -> Callable[[torch.Tensor], torch.Tensor]:
    cam = package.LayerGradCam(module, module.get_submodule(layer))

    def maps(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            classes = module(x).argmax(1)
        found = cam.attribute(x, classes, relu_attributions=True)
        return package.LayerAttribution.interpolate(found, tuple(x.shape[2:]), MODE[x.ndim - 2]).detach()[:, 0]

    return maps


def pgc_maps(package: Any, module: nn.Module, layer: str) -> Callable[[torch.Tensor], np.ndarray]:
    cam = package.GradCAM(model=module, target_layers=[module.get_submodule(layer)])
    return lambda x: cam(input_tensor=x, targets=None)


def torchcam_maps(package: Any, module: nn.Module, layer: str) -> Callable[[torch.Tensor], torch.Tensor]:
    cam = package.GradCAM(module, layer)

    def maps(x: torch.Tensor) -> torch.Tensor:
        scores = module(x)
        [found] = cam(scores.argmax(1).tolist(), scores)
        return nn.functional.interpolate(found[:, None], tuple(x.shape[2:]), mode=MODE[x.ndim - 2])[:, 0]

    return maps


def signal_maps(package: Any, module: nn.Module, _: str) -> Callable[[torch.Tensor], np.ndarray]:
    """Of its raw maps alone: what draws them, without which it gives none, fails from NumPy 2.4 on."""
    with contextlib.redirect_stdout(io.StringIO()):
        builder = package.TorchCamBuilder(module, class_names=[str(i) for i in range(1000)])
    torch.use_deterministic_algorithms(False)
    place = [each for each in module.modules() if isinstance(each, tuple(nets.CONV.values()))][-1]  # it takes no others

    def maps(x: torch.Tensor) -> np.ndarray:
        given = builder._create_raw_batched_cams(list(x), 0, place, softmax_final=False, explainer_type="Grad-CAM")
        found = torch.from_numpy(np.stack(given[0]))[:, None]
        return nn.functional.interpolate(found, tuple(x.shape[2:]), mode=MODE[x.ndim - 2])[:, 0].numpy()

    return maps


PARTIES = {PGC: pgc_maps, CAPTUM: captum_maps, TORCHCAM: torchcam_maps, SIGNAL: signal_maps}
BATCHES = {PGC: 2, CAPTUM: 2, TORCHCAM: 2, SIGNAL: 1}
"""Their loops, which start at once, get so many, and their time is multiplied: they take long."""


def looped(party: str, name: str, folder: str, threads: int) -> Run:
    """The loop that a user of a peer writes."""
    torch.set_num_threads(threads)
    module, x = loaded(name, folder)
    maps, size = PARTIES[party](peer(party), module, SUBJECTS[name].layer), SUBJECTS[name].batch
    x = x[: size * BATCHES[party]]

    def run() -> None:
        with h5py.File(f"{folder}/{party}.h5", "w") as file:
            stored = file.create_dataset("maps", (len(x), *x.shape[2:]), "float32")
            for start in range(0, len(x), size):
                stored[start : start + size] = maps(torch.from_numpy(np.array(x[start : start + size])))

    return run


def compare(bench: Bench, case: str, folder: Path, layer: str, peers: list[str]) -> None:
    """Whether the same was computed: maps of both scaled to 0..1, of the sample that is least alike."""
    with camsweep.open_results(folder / "run.h5") as results:
        every = results.map(f"gradcam@{layer}").read(range(len(results.ids)))[:, 0]
    for party in peers:
        with h5py.File(folder / f"{party}.h5") as file:
            theirs = np.maximum(file["maps"][:].reshape(len(file["maps"]), -1), 0)
        mine = np.maximum(every[: len(theirs)].reshape(len(theirs), -1), 0)
        shaped = (mine.std(1) > 0) & (theirs.std(1) > 0)
        r = min((np.corrcoef(a, b)[0, 1] for a, b in zip(mine[shaped], theirs[shaped], strict=True)), default=np.nan)
        bench.add(case, f"{party}: least correlation with ours", float(r), unit="")


def dataset(name: str, folder: Path, quick: bool) -> Subject:
    """The files of a case."""
    subject = SUBJECTS[name]
    subject = subject._replace(count=subject.count // 4) if quick else subject
    x = nets.noise(subject.count, *subject.shape)
    np.save(folder / "x.npy", x)
    torch.save(nets.settled(subject.make(), x[: subject.batch]).state_dict(), folder / "weights.pt")
    return subject


def explain(subject: Subject, folder: Path, limit: int | None = None) -> None:
    camsweep.explain(
        model={"source": f"{nets.__file__}:{subject.net}", "weights": str(folder / "weights.pt")},
        data={"path": str(folder / "x.npy"), "layout": subject.layout, **({"limit": limit} if limit else {})},
        explain={"methods": ["gradcam"], "layers": [subject.layer], "batch_size": subject.batch},
        output={"path": str(folder / f"run{limit or ''}.h5")},
        force=True,
    )


def behind(bench: Bench, case: str, times: Times, limit: str, batches: int) -> float:
    """The row of what each further batch costs over its bare forward; gives their share of all."""
    others = 1 - 1 / batches
    times.seconds[BEHIND] = [a - b for a, b in zip(times.seconds[OURS], times.seconds[ONE], strict=True)]
    times.seconds[REST] = [seconds * others for seconds in times.seconds[limit]]
    note = f"a run of one batch, {np.median(times.seconds[ONE]):.2f} s, taken off"
    bench.ratio(case, times, BEHIND, REST, GOAL, note)
    return others


def raced(bench: Bench, name: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subject = dataset(name, folder, bench.quick)
        module, x = loaded(name, made)
        batches = list(torch.from_numpy(np.array(x)).split(subject.batch))
        kind = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
        parties: dict[str, Run | Missing] = {
            OURS: lambda: explain(subject, folder),
            ONE: lambda: explain(subject, folder, subject.batch),
            BARE: lambda: bare(module, batches),
        }
        if kind:
            other = loaded(name, made)[0].to(memory_format=kind)
            moved = [batch.contiguous(memory_format=kind) for batch in batches]
            parties[LAST] = lambda: bare(other, moved)
        for party in PARTIES:
            make = "camsweep.tests.benchmarks.endtoend:looped"
            parties[party] = Elsewhere.start(make, party=party, name=name, folder=made, threads=bench.threads)
        many = subject.count // subject.batch
        case = f"{subject.net}, {subject.count} x {' x '.join(map(str, subject.shape))}, batch {subject.batch}"
        times = bench.race(case, parties)
        for party in BATCHES.keys() & times.seconds.keys():
            times.seconds[party] = [seconds * many / BATCHES[party] for seconds in times.seconds[party]]
        limit = times.fastest([BARE, LAST])
        bench.ratio(case, times, OURS, limit, GOAL)
        others = behind(bench, case, times, limit, many)
        for party in PARTIES:
            note = f"batches: {BATCHES[party]}, times {many // BATCHES[party]}"
            bench.ratio(case, times, party, OURS, ">= 1", note)
            if party in times.seconds:
                times.seconds[f"{party}, as many"] = [seconds * others for seconds in times.seconds[party]]
                bench.ratio(case, times, f"{party}, as many", BEHIND, ">= 1")
        there = [each for each in PARTIES if each in times.seconds and each != SIGNAL]
        compare(bench, case, folder, subject.layer, there)


def case(name: str) -> Callable[[Bench], None]:
    return lambda bench: raced(bench, name)


CASES = {name: case(name) for name in SUBJECTS}

if __name__ == "__main__":
    Bench("endtoend", __doc__ or "", CASES).run()
