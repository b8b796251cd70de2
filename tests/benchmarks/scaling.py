"""Whether a run goes on as it began: rate and memory over samples, and what batches, readers, resuming and merging take.

    python tests/benchmarks/scaling.py [samples] [batches] [workers] [compression] [resume] [shards] [--quick]

A net that costs next to nothing, so that what is measured is all the rest; for pictures a ResNet-18 of half width. Memory is what the process holds of its own,
mapped files left out (RssAnon).
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import camsweep
from camsweep.cli.explain import load_backend
from camsweep.core.job import Job
from camsweep.core.run import run_job
from camsweep.tests.benchmarks import nets
from camsweep.tests.benchmarks.race import CLOCKS, OURS, Bench, take_turns

SOURCE = f"{nets.__file__}:Tiny"
BATCH = 64


def tables(folder: Path, name: str = "run", **explain: Any) -> dict[str, Any]:
    return {
        "model": {"source": SOURCE},
        "data": {"path": str(folder / "x.npy"), "layout": "NCT"},
        "explain": {"methods": ["gradcam"], "layers": ["layers.2"], "batch_size": BATCH, **explain},
        "output": {"path": str(folder / f"{name}.h5")},
    }


class Watch:
    """Notes when rows come to be on the disk, by the clock, and what memory is held then, in MB."""

    def __init__(self, clock: str) -> None:
        self.clock, self.rows, self.at, self.held = CLOCKS[clock], [0], [0.0], [0.0]

    def start(self, done: int, total: int) -> None:
        self.at[0] = self.clock()

    def advance(self, rows: int) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.rows.append(self.rows[-1] + rows)
        self.at.append(self.clock())
        self.held.append(int(status["RssAnon"].split()[0]) / 1e3)

    def note(self, message: str) -> None:
        """Nothing to say."""

    def rate(self, begin: int, end: int) -> float:
        """Samples a second between two counts of them."""
        a, b = (int(np.searchsorted(self.rows, each)) for each in (begin, end))
        return (self.rows[b] - self.rows[a]) / (self.at[b] - self.at[a])

    def memory(self, count: int) -> float:
        """At about so many samples: the median of nine readings."""
        at = int(np.searchsorted(self.rows, count))
        return statistics.median(self.held[max(at - 4, 1) : at + 5])


def case_samples(bench: Bench) -> None:
    """One run of a hundred thousand samples, each batch a commit: rate and memory along it."""
    total, case = (20_000 if bench.quick else 100_000), "a run of many samples, tiny net"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.save(folder / "x.npy", nets.noise(total, 2, 64))
        watch = Watch(bench.clock)
        given = tables(folder)
        given["output"]["commit_every"] = 0
        run_job(Job.load(None, given), load_backend, watch=watch)
    stops = [100, 1_000, 10_000, *([100_000] if total == 100_000 else [total])]
    for begin, end in zip([0, *stops], stops, strict=False):
        bench.add(case, f"samples a second, {begin} to {end}", watch.rate(begin, end), unit="/s")
    flat = watch.rate(10_000, total) / watch.rate(1_000, 10_000)
    bench.add(case, f"rate, 10000 to {total} / 1000 to 10000", flat, goal=">= 0.9")
    before = watch.rate(1_000, 10_000) / watch.rate(100, 1_000)
    bench.add(case, "rate, 1000 to 10000 / 100 to 1000", before, note="the first parts are yet to be put together")
    for each in stops[1:]:
        bench.add(case, f"memory at {each} samples", watch.memory(each), unit="MB")
    growth = watch.memory(total - 5 * BATCH) / watch.memory(1000)
    bench.add(case, f"memory at {total} / at 1000 samples", growth, goal="<= 1.02")


def case_batches(bench: Bench) -> None:
    """The same samples in batches of other sizes, and with one thread."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.save(folder / "x.npy", nets.noise(512 if bench.quick else 2048, 2, 64))
        for case, sizes in (("batch size, tiny net", (1, 8, 64, 256)),):
            parties = {
                f"batch {n}": lambda n=n: camsweep.explain(**tables(folder, batch_size=n), force=True) for n in sizes
            }
            times = bench.race(case, parties)
            for n in sizes[:-1]:
                bench.ratio(case, times, f"batch {n}", f"batch {sizes[-1]}")
        if bench.threads > 1:

            def threaded(count: int) -> None:
                torch.set_num_threads(count)
                camsweep.explain(**tables(folder), force=True)
                torch.set_num_threads(bench.threads)

            times = bench.race(
                "threads, tiny net", {f"threads: {n}": lambda n=n: threaded(n) for n in (1, bench.threads)}
            )
            bench.ratio("threads, tiny net", times, "threads: 1", f"threads: {bench.threads}")


def pictures(data: dict[str, Any], out: Path, workers: int = 1, compression: str = "auto") -> None:
    """Grad-CAM of 112 x 112, by the net of `frameworks`."""
    camsweep.explain(
        model={"source": f"{Path(__file__).with_name('frameworks.py')}:small"},
        data=data,
        explain={"methods": ["gradcam"], "layers": ["layer4"], "batch_size": 16, "workers": workers},
        output={"path": str(out), "compression": compression},
        force=True,
    )


def case_workers(bench: Bench) -> None:
    """A folder of JPEG files, read and resized by one thread and by several beside the model."""
    from PIL import Image

    case, count = "reading workers, JPEG of 375 x 500 to 112 x 112", 32 if bench.quick else 192
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "images"
        folder.mkdir()
        coarse = np.random.default_rng(0).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8)
        for i, each in enumerate(coarse):
            Image.fromarray(each).resize((500, 375)).save(folder / f"{i:04}.jpg", quality=90)
        data = {"path": str(folder), "transforms": [{"resize": [112, 112]}]}
        parties = {f"{OURS}, workers: {n}": lambda n=n: pictures(data, Path(made) / "run.h5", n) for n in (1, 2, 4)}
        times = bench.race(case, parties)
        for n in (2, 4):
            bench.ratio(case, times, f"{OURS}, workers: {n}", f"{OURS}, workers: 1")


def case_compression(bench: Bench) -> None:
    """The same maps compressed in other ways: time of the whole run, and size of the file."""
    case, count = "compression, maps of 112 x 112", 32 if bench.quick else 256
    methods = ("none", "auto", "lzf", "gzip:1", "gzip:9")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.save(folder / "x.npy", nets.noise(count, 3, 112, 112))
        data = {"path": str(folder / "x.npy"), "layout": "NCHW"}
        parties = {
            f"{OURS}, {method}": lambda method=method: pictures(data, folder / f"{method}.h5", compression=method)
            for method in methods
        }
        times = bench.race(case, parties)
        sizes = {method: (folder / f"{method}.h5").stat().st_size / 1e6 for method in methods}
        for method in methods[1:]:
            note = f"{sizes[method]:.1f} MB, of {sizes['none']:.1f}"
            bench.ratio(case, times, f"{OURS}, {method}", f"{OURS}, none", note=note)


def case_resume(bench: Bench) -> None:
    """The same command again: where nothing is left to do, and where half is."""
    case, count = "resuming, tiny net", 4_000 if bench.quick else 20_000
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        np.save(folder / "x.npy", nets.noise(count, 2, 64))

        def whole() -> None:
            camsweep.explain(**tables(folder), force=True)

        def again() -> None:
            camsweep.explain(**tables(folder))

        def halves() -> None:
            job = Job.load(None, tables(folder, "halves"))
            (folder / "halves.h5").unlink(missing_ok=True)
            watch = Stopping(count // 2)
            try:
                run_job(job, load_backend, watch=watch)
            except InterruptedError:
                run_job(job, load_backend, watch=Watch(bench.clock))

        times = bench.race(case, {OURS: whole, "nothing left to do": again, "stopped half way, and resumed": halves})
        bench.ratio(case, times, "nothing left to do", OURS)
        bench.ratio(case, times, "stopped half way, and resumed", OURS)


class Stopping(Watch):
    """Breaks a run off when so many rows are on the disk."""

    def __init__(self, rows: int) -> None:
        super().__init__("wall")
        self.most = rows

    def advance(self, rows: int) -> None:
        super().advance(rows)
        if self.rows[-1] >= self.most:
            raise InterruptedError


def case_shards(bench: Bench) -> None:
    """The merge of what 64 shards have done, beside that of one."""
    from camsweep.core.results import Parts, merge
    from camsweep.tests.results.synthetic import info, schema

    rows, case = 1024 if bench.quick else 8192, "merge of 64 shards, maps of 64 x 64"
    which = schema(rows, shape=(1, 64, 64), maps=[info(shape=(64, 64))], targets=["predicted"])
    with tempfile.TemporaryDirectory() as made:

        def parts(shards: int) -> Any:
            folder = Path(made) / f"{shards}"
            folder.mkdir()
            output = folder / "run.h5"
            Parts.folder_of(output).mkdir()
            given = Parts.create(Parts.folder_of(output), which)
            for shard in range(shards):
                mine = np.arange(shard, rows, shards)
                for part in np.array_split(mine, max(1, len(mine) // 32)):
                    columns = which.blank(len(part))
                    columns["maps/gradcam@layer4/values"][:] = np.cumsum(nets.noise(len(part), 1, 64, 64), 3)
                    given.commit(part, columns)
            return given, output

        made_of = {shards: parts(shards) for shards in (1, 64)}

        def merging(shards: int) -> None:
            merge(*made_of[shards], finished="now", keep=True)

        times = take_turns({f"of {n}": lambda n=n: merging(n) for n in made_of}, bench.turns, bench.clock)
        bench.ratio(case, times, "of 64", "of 1")
        rate = rows * 64 * 64 * 4 / 1e6 / statistics.median(times.seconds["of 64"])
        bench.add(case, "merge of 64", rate, unit="MB/s", note="of maps, uncompressed")


CASES = {
    each.__name__[5:]: each
    for each in (case_samples, case_batches, case_workers, case_compression, case_resume, case_shards)
}

if __name__ == "__main__":
    Bench("scaling", __doc__ or "", CASES).run()
