"""What durability costs: milliseconds for a commit and its share of a run, and how fast parts are put together.

TMPDIR=DIR python tests/benchmarks/durability.py [--quick]

Batches of 8 maps of 224 x 224 float32, one target, on the disk of DIR. A commit is: compress, seal, write, fsync, rename,
fsync of the folder. "price" is what the same bytes cost over a plain write without fsync, which is what safety adds.
"""

from __future__ import annotations

import statistics
import tempfile
import zlib
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from camsweep.core.results import Parts, durable, merge
from camsweep.core.results.reader import verify
from camsweep.tests.benchmarks.race import Bench
from camsweep.tests.results.synthetic import info, schema

BATCH, SIZE = 8, 224
EXPLAINED = 80.0
"""Milliseconds that a model takes for a batch at the least, for the share of a run."""


def seconds(call, *arguments) -> float:
    began = perf_counter()
    call(*arguments)
    return perf_counter() - began


def plain(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def measured(folder: Path, batches: int) -> dict[str, float]:
    which = schema(BATCH * batches, shape=(3, SIZE, SIZE), maps=[info(shape=(SIZE, SIZE))], targets=["predicted"])
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(BATCH, 1, SIZE, SIZE)), 2), 3).astype(np.float32)  # as maps are
    columns = which.blank(BATCH)
    columns["maps/gradcam@layer4/values"][:] = smooth
    output = folder / "run.h5"
    Parts.folder_of(output).mkdir()
    parts = Parts.create(Parts.folder_of(output), which)
    commits = [seconds(parts.commit, np.arange(i, i + BATCH), columns) for i in range(0, BATCH * batches, BATCH)]
    image = parts.files()[0].read_bytes()
    durably = [seconds(durable.write, folder / "x", image) for _ in range(60)]
    buffered = [seconds(plain, folder / "x", image) for _ in range(60)]
    sealing = statistics.median(seconds(durable.sealed, image) for _ in range(60))
    raw = len(which) * sum(column.row_bytes for column in which.columns)
    size = parts.size()
    resuming = seconds(parts.owners)
    compacting = seconds(parts.compact)
    busy = process_time()
    merging = seconds(lambda: merge(parts, output, finished="now"))
    busy = process_time() - busy
    price = 1000 * (statistics.median(durably) - statistics.median(buffered) + sealing)
    return {
        "part, MB": len(image) / 1e6,
        "commit with compression, ms": 1000 * statistics.median(commits),
        "of that seal, write, fsync, rename, fsync, ms": 1000 * (statistics.median(durably) + sealing),
        "plain write, ms": 1000 * statistics.median(buffered),
        "price of durability, ms a commit": price,
        f"share of a batch of {EXPLAINED:.0f} ms, %": 100 * price / EXPLAINED,
        "parts checked before going on, MB/s": size / 1e6 / resuming,
        "compaction, raw MB/s": raw / 1e6 / compacting,
        "merge, raw MB/s": raw / 1e6 / merging,
        "merge, raw MB in a second of the processor": raw / 1e6 / busy,
        "merge, compressed MB/s": size / 1e6 / merging,
        "crc32, MB/s": len(image) / 1e6 / seconds(zlib.crc32, image),
        "verify every row, raw MB/s": raw / 1e6 / seconds(verify, output),
    }


def case_commits(bench: Bench) -> None:
    """Where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="camsweep-durability-") as made:
        for what, value in measured(Path(made), 30 if bench.quick else 150).items():
            name, _, unit = what.rpartition(", ")
            bench.add(f"commits of {BATCH} maps of {SIZE} x {SIZE}", name or what, value, unit=unit if name else "MB/s")


if __name__ == "__main__":
    Bench("durability", __doc__ or "", {"commits": case_commits}).run()
