"""Kill a run of parts, compactions and the merge at every single thing it asks of the disk, and once more half-way
through every write: random kills all but never hit the moments between two system calls.

    python tests/crash/points.py [--every N]

Of the many small writes that HDF5 makes only every N-th is a point (1: all of them). Prints the number of points, and
exits 1 where one of them loses anything.

Each point is a child process that ends by SIGKILL; the parent then does what the same command would.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import h5py
import numpy as np

from camsweep.core.results import Parts, merge, verify
from camsweep.core.results import parts as parts_module
from camsweep.core.results.durable import SafeFile
from camsweep.tests.results.synthetic import commit, contents, finish, schema, unlike

ROWS, STEP = 14, 2
SCHEMA = schema(ROWS, shape=(1, 48, 48))
COLUMNS = contents(SCHEMA)
WATCHED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


class Countdown:
    """Ends the process when it has been asked ``left`` times."""

    def __init__(self, left: int, every: int) -> None:
        self.left, self.every = left, every
        self.writes = 0

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Be asked before whatever changes the disk."""
        fsync, write, path_open = os.fsync, SafeFile.write, Path.open

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in WATCHED or (event == "open" and _writes(arguments)):
                self()

        def counted_fsync(handle: int) -> None:
            self()
            fsync(handle)

        def torn_write(file: SafeFile, data: object) -> int:
            view = memoryview(data).cast("B")  # type: ignore[arg-type]
            self.writes += 1
            if self.writes % self.every == 0:
                self()
                self.half(view, lambda part: write(file, part))
            return write(file, view)

        def opened(path: Path, mode: str = "r", *more: object, **options: object) -> object:
            return Torn(path, self) if mode == "wb" else path_open(path, mode, *more, **options)

        os.fsync, SafeFile.write, Path.open = counted_fsync, torn_write, opened
        sys.addaudithook(hook)

    def half(self, view: memoryview, write: Callable[[memoryview], object]) -> None:
        """Where this is the last thing asked, write half before the end."""
        if self.left == 1:
            write(view[: len(view) // 2])
        self()


class Torn(FileIO):
    """A file written in one call that may be cut short."""

    def __init__(self, path: Path, countdown: Countdown) -> None:
        super().__init__(path, "w")
        self.countdown = countdown

    def write(self, data: object) -> int:
        self.countdown()
        self.countdown.half(memoryview(data), super().write)
        return super().write(data)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def run(output: Path, told: int) -> None:
    """What a run does with its parts; each row is told to ``told`` once it is done."""
    parts = _opened(output)
    for start in range(0, ROWS, STEP):
        commit(parts, COLUMNS, range(start, start + STEP))
        os.write(told, bytes(range(start, start + STEP)))
        parts.compact()
    merge(parts, output, finished="now")


def _opened(output: Path) -> Parts:
    folder = Parts.folder_of(output)
    folder.mkdir(exist_ok=True)
    parts = Parts.open(folder) or Parts.create(folder, SCHEMA)
    parts.clean()
    return parts


def point(folder: Path, number: int, every: int) -> tuple[bool, list[str]]:
    """Kill a run at its ``number``-th point, then run it again: whether it was killed, and what was wrong."""
    output = folder / "run.h5"
    reading, telling = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            Countdown(number, every).watch()
            run(output, telling)
            code = 0
        finally:
            os._exit(code)
    os.close(telling)
    with os.fdopen(reading, "rb") as told:
        done = set(told.read())
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        return True, ["the run ends in an error"]
    killed = os.WIFSIGNALED(status)
    wrong = []
    if output.exists():  # it appears whole or not at all
        wrong += _checked(output)
    else:
        parts = _opened(output)
        if lost := done - {int(row) for row in np.flatnonzero(parts.owners() >= 0)}:
            wrong.append(f"{len(lost)} rows lost")
        if list(parts.folder.glob("*.bad")):
            wrong.append("a part that cannot be read")
        finish(parts, COLUMNS, output, STEP)
        wrong += _checked(output)
        if left := [path.name for path in folder.iterdir() if path != output]:
            wrong.append(f"left behind: {left}")
    return killed, wrong


def _checked(output: Path) -> list[str]:
    with h5py.File(output, "r", locking=False) as file:
        return [*verify(output), *(f"{path} is wrong" for path in unlike(file, SCHEMA, COLUMNS))]


def every_point(every: int) -> tuple[int, list[str]]:
    """All points until a run comes through: their number, and what was wrong at which."""
    parts_module.COMPACT_FROM = 3
    wrong: list[str] = []
    number, killed = 0, True
    while killed:
        number += 1
        folder = Path(tempfile.mkdtemp(prefix="camsweep-points-"))
        killed, found = point(folder, number, every)
        wrong += [f"point {number}: {each}" for each in found]
        shutil.rmtree(folder)
    return number - 1, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    points, wrong = every_point(parser.parse_args().every)
    print(f"{points} points, {len(wrong)} violations")
    print("\n".join(wrong), file=sys.stderr, end="")
    sys.exit(bool(wrong))
