"""What in a TorchScript archive would run on loading."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from ...core.errors import RequestError, nearest

TRUST = "or give --trust-checkpoint if you trust where it came from"
_CUSTOM_CLASS = re.compile(rb"torch[.\n]classes[.\n]")
"""In a pickle. Module and class are two lines there, and a reader joins them by a dot wherever they were parted."""


def checked(path: Path, *, trust: bool) -> io.BytesIO:
    """A TorchScript archive written anew in memory, every checksum compared.

    Two readers of zip files may see two archives in one file; so what is loaded is what was looked at. Loading runs
    ``__setstate__`` of the archive's classes, and that of classes written in C++: without ``trust`` it may have none.
    """
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as anew:
            for record in archive.infolist():
                data = archive.read(record)
                if not trust:
                    _refuse(path, record.filename, data)
                anew.writestr(record.filename, data)
    except RequestError:
        raise
    except FileNotFoundError:
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise RequestError(f"model not found: {path}. {nearest(path.name, beside) if beside else ''}".strip()) from None
    except Exception as error:  # a wrong checksum, a directory that is not there, a compression that nobody knows
        raise RequestError(f"{path} is no whole TorchScript archive, damaged or cut short: {error}") from None
    copy.seek(0)
    return copy


def _refuse(path: Path, name: str, data: bytes) -> None:
    kind = Path(name.lower()).suffix
    if kind == ".py" and b"__setstate__" in data:
        raise RequestError(
            f"{path} holds TorchScript that runs while it is loaded (__setstate__ in {name}); save it without, {TRUST}"
        )
    if kind == ".pkl" and _CUSTOM_CLASS.search(data):
        raise RequestError(
            f"{path} holds objects of classes written in C++ (torch.classes in {name}), which loading would make; "
            f"save it without, {TRUST}"
        )
