"""Writing pictures so that each is there whole or not at all, and telling which are up to date."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import StorageError

_KEY = "camsweep"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there takes its name when the block ends well.

    Nothing is fsynced: a picture lost with the power is drawn again. Raises StorageError when the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.uname().nodename[:40]}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise StorageError(f"{path}: {what}; run the same command again, pictures that are there are kept") from error
    finally:
        with suppress(OSError):
            part.unlink()


def save_png(picture: Image.Image, path: Path, mark: str) -> None:
    """Write a PNG that carries ``mark``."""
    text = PngInfo()
    text.add_text(_KEY, mark)
    with replacing(path) as part:
        picture.save(part, "PNG", pnginfo=text, compress_level=4, compress_type=zlib.Z_RLE)  # a third faster, as small


def save_gif(frames: Iterable[Image.Image], durations: Sequence[int], path: Path, mark: str) -> None:
    """Write an endless GIF that carries ``mark``: frames in 256 colours each, milliseconds each."""
    first, *rest = map(palette, frames)
    with replacing(path) as part:
        first.save(
            part, "GIF", save_all=True, append_images=rest, duration=list(durations), loop=0, optimize=False,
            comment=mark.encode(),
        )  # fmt: skip


def palette(frame: Image.Image) -> Image.Image:
    """``frame`` in 256 colours of its own, the farthest apart, so that a small bright spot keeps its colour.

    Undithered: noise would look like structure.
    """
    return frame.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def mark_of(path: Path) -> str | None:
    """The mark of a picture on disk; None where there is no picture, or another program's, or a broken one."""
    try:
        with Image.open(path) as picture:
            mark = picture.info.get(_KEY, picture.info.get("comment"))
    except OSError:
        return None
    return mark.decode("ascii", "replace") if isinstance(mark, bytes) else mark
