"""What can go wrong for a user, each with its exit code, and how names are told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import ClassVar


class CamsweepError(Exception):
    """A fault told to the user in one line: what was given, what was expected, what to type."""

    exit_code: ClassVar[int] = 1


class RequestError(CamsweepError):
    """Bad request or bad input, found before anything was computed; nothing was written."""

    exit_code = 2


class NotImportedError(RequestError):
    """A model that is as it should be, but has a part which cannot be brought into torch."""

    def __init__(self, message: str, *, native: bool = False) -> None:
        super().__init__(message)
        self.native = native
        """Whether TensorFlow itself may run it."""


class OutputError(CamsweepError):
    """The output cannot be created: it exists from another job, or there is no permission."""

    exit_code = 73


class StorageError(CamsweepError):
    """Reading or writing failed while running (disk full, quota, I/O error); finished rows are kept."""

    exit_code = 74


class Stopped(CamsweepError):  # noqa: N818  (stopping when asked is not an error)
    """Stopped on purpose, or another run holds the output; finished rows are kept, the same command goes on."""

    exit_code = 75


class SampleError(Exception):
    """One sample cannot be read or explained. Its row is marked; the others are done."""


SAMPLES_FAILED = 3
"""Exit code of a run that is complete but in which some samples failed."""


DIFFERENT = 4
"""Exit code of a comparison in which something differs by more than it may."""


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says, without the lines below; "" where it says nothing."""
    return (str(error).strip().splitlines() or [""])[0][:most]


def counted(names: Mapping[str, int]) -> str:
    """Names and how often each is there, in a line."""
    return ", ".join(f"{name} ({count}x)" for name, count in names.items())


def nearest(word: str, choices: Iterable[str]) -> str:
    """A sentence that names the closest of ``choices``, or all of them when none is close and they are few."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    if not names:
        return "There are none."
    return f"Choose from: {', '.join(names[:12])}{', ..' if len(names) > 12 else ''}."


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error that has no kind of its own for it says so: torch's on the CPU is a plain RuntimeError."""
    said = str(error).lower()
    words = ("not enough memory", "out of memory", "can't allocate memory", "could not create a memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(each in said for each in words)
