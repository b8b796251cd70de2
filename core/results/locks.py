"""Who is at work on an output: a whole run, or one process for each shard.

One lock file for all: a whole run holds all of it, shard k a stretch of its own, and who plans holds the first stretch.
The kernel lets go of what a process held, however it ended, on other machines too; where a file system knows no locks,
runs go on without: parts do not change and have names of their own, so at worst the same is done twice.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

from ..errors import OutputError, Stopped
from . import durable

STRETCH = 128
"""Bytes of the lock file for each shard; what they say is only for people."""
PLAN = -1
"""In the place of a shard: who writes the plan. It comes first, where a whole run has its name too."""
BEYOND = 1 << 40
"""No shard has this number, so only a whole run is in the way there."""
HELD = (errno.EACCES, errno.EAGAIN)
TRIES = 3
"""One who only looks (`at_work`) is in the way for a moment."""
NAMELESS = 8
"""So many where the holder has not written down its name yet."""


@contextmanager
def held(folder: Path, shard: int | None = None) -> Iterator[None]:
    """Hold an output, or one shard of it, against a second run, which would only do the same work twice.

    `Stopped` says who holds it. Not to be nested in one process: letting go of one lets go of all.
    """
    with _opened(folder) as lock:
        who = ""
        for tried in range(1, NAMELESS + 1):
            if _take(lock, shard):
                break
            if (tried >= TRIES and (who := _who(lock, shard))) or tried == NAMELESS:
                raise Stopped(f"another run is at work on this output ({who}); wait for it")
            sleep(0.05)
        with _named(lock, shard):
            yield


@contextmanager
def planning(folder: Path, stop: threading.Event, *, every: float = 0.1) -> Iterator[None]:
    """Hold the right to write the plan, waiting for whoever has it; `Stopped` where ``stop`` is set meanwhile."""
    with _opened(folder) as lock:
        while not _take(lock, PLAN):
            if _busy(lock, BEYOND):
                raise Stopped(f"another run is at work on this output ({_who(lock, PLAN)}); wait for it")
            if stop.wait(every):
                raise Stopped(f"stopped while waiting for the plan ({_who(lock, PLAN)}); the same command goes on")
        with _named(lock, PLAN):
            yield


def at_work(folder: Path) -> dict[int | None, str]:
    """Who holds what: shards by number, None for a whole run or one who plans."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return {}
    try:
        places = range(PLAN, os.fstat(lock).st_size // STRETCH)
        return {None if place == PLAN else place: _name(lock, place) for place in places if _busy(lock, place)}
    finally:
        os.close(lock)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno in durable.FULL:
            with durable.told(folder):
                raise
        raise OutputError(f"cannot write beside {folder.parent}: {os.strerror(error.errno or 0).lower()}") from None
    try:
        yield lock
    finally:
        os.close(lock)


@contextmanager
def _named(lock: int, shard: int | None) -> Iterator[None]:
    """Write down who holds it. The lock holds without a name, on a full disk too."""
    name = f"{os.uname().nodename} pid {os.getpid()}"
    with suppress(OSError):
        if shard is None:
            os.ftruncate(lock, 0)
            os.pwrite(lock, name.encode(), 0)
        else:
            os.pwrite(lock, name.encode()[:STRETCH].ljust(STRETCH), _start(shard))
    yield


def _take(lock: int, shard: int | None, kind: int = fcntl.LOCK_EX) -> bool:
    length, start = (0, 0) if shard is None else (STRETCH, _start(shard))
    try:
        fcntl.lockf(lock, kind | fcntl.LOCK_NB, length, start)
    except OSError as error:
        return error.errno not in HELD
    return True


def _busy(lock: int, shard: int) -> bool:
    """Whether another process holds it; nothing is held afterwards."""
    if not _take(lock, shard, fcntl.LOCK_SH):
        return True
    with suppress(OSError):
        fcntl.lockf(lock, fcntl.LOCK_UN, STRETCH, _start(shard))
    return False


def _who(lock: int, shard: int | None) -> str:
    """The name of who is in the way: of shard k itself, or of a whole run, which leaves no other name than its own."""
    if shard is None:
        places = range(PLAN, os.fstat(lock).st_size // STRETCH)
        busy = [(place, _name(lock, place)) for place in places if _busy(lock, place)]
        shards = [f"shard {place}: {name}" for place, name in busy if place != PLAN]
        return ", ".join(shards[:3]) or _name(lock, PLAN)
    return _name(lock, shard) or _name(lock, PLAN)


def _name(lock: int, shard: int) -> str:
    with suppress(OSError):
        return os.pread(lock, STRETCH, _start(shard)).decode("utf-8", "replace").strip(" \0")
    return ""


def _start(shard: int) -> int:
    return (shard + 1) * STRETCH
