"""Writing pictures so that each is there whole or not at all, and telling which are up to date."""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import OutputError, RequestError, StorageError

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_KEY = "camsweep"
_MARK = re.compile(rb"camsweep [0-9a-f]{8}")
_HEAD = 4096
"""Bytes that a PNG's text and a GIF's comment stand among, at the front: asking a decoder takes ten times as long."""
_MANY = 4096
"""More colours than these are thinned out before 256 are chosen, which takes the square of their number."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there takes its name when the block ends well.

    Nothing is fsynced: a picture lost with the power is drawn again. Raises StorageError when the disk refuses, and
    OutputError where nothing may be written at all.
    """
    part = path.with_name(f".{path.name}.{os.uname().nodename[:40]}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        if error.errno in DENIED:
            raise OutputError(f"{path} cannot be written: {what}; choose another with --out") from error
        raise StorageError(f"{path}: {what}; run the same command again, files that are there are kept") from error
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
    """Write an endless GIF that carries ``mark``: 256 colours, each frame shown for so many milliseconds."""
    first, *rest = in_few_colours(frames)
    with replacing(path) as part:
        first.save(
            part, "GIF", save_all=True, append_images=rest, duration=list(durations), loop=0, optimize=False,
            comment=mark.encode(),
        )  # fmt: skip


def in_few_colours(frames: Iterable[Image.Image]) -> list[Image.Image]:
    """``frames`` in 256 colours that they share, the farthest apart, so that a small bright spot keeps its colour.

    Undithered: noise would look like structure. Colours that differ in their last two bits only share one of theirs.
    """
    one = np.zeros(1 << 18, "<u4")
    cells = []
    for frame in frames:
        pixels = np.asarray(frame.convert("RGBX")).view("<u4")[..., 0]
        cell = pixels >> 2 & 0x3F | pixels >> 4 & 0xFC0 | pixels >> 6 & 0x3F000  # six bits of each colour
        one[cell] = pixels
        cells.append(cell)
    used = np.flatnonzero(one)  # the fourth byte never is zero
    kinds = used if len(used) <= _MANY else used[np.unique(used & 0b111100_111100_111100, return_index=True)[1]]
    few = _colours(one[kinds]).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    index = np.zeros(len(one), np.uint8)
    palette = np.reshape(few.getpalette() or [], (-1, 3)).astype(np.float32)
    mine = np.asarray(_colours(one[used]), np.float32)[0]
    index[used] = ((palette**2).sum(1) - 2 * mine @ palette.T).argmin(1)  # the nearest
    found = [Image.fromarray(index[cell]) for cell in cells]
    for picture in found:
        picture.putpalette(few.getpalette() or b"")
    return found


def _colours(words: NDArray[np.uint32]) -> Image.Image:
    """An image of one row."""
    return Image.fromarray(words[None].view(np.uint8).reshape(1, -1, 4)[..., :3].copy())


def save_video(frames: Iterable[Image.Image], seconds: float, path: Path, mark: str) -> None:
    """Write an MP4 (H.264) that carries ``mark``, each frame shown for so long."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise RequestError("MP4 needs imageio-ffmpeg: pip install 'camsweep[video]'") from None
    first, *rest = frames
    size = (first.width + first.width % 2, first.height + first.height % 2)  # as the format wants it
    with replacing(path) as part:
        writer = imageio_ffmpeg.write_frames(
            str(part), size, fps=1 / seconds, codec="libx264", macro_block_size=2, quality=8,
            output_params=["-f", "mp4", "-metadata", f"comment={mark}", "-movflags", "+faststart"],
        )  # fmt: skip
        writer.send(None)
        for frame in (first, *rest):
            whole = Image.new("RGB", size, "white")
            whole.paste(frame)
            writer.send(whole.tobytes())
        writer.close()


def mark_of(path: Path) -> str | None:
    """The mark of a picture on disk; None where there is no picture, or another program's, or one broken off early."""
    try:
        with path.open("rb") as file:
            found = _MARK.search(file.read(_HEAD if path.suffix in (".png", ".gif") else -1))
    except OSError:
        return None
    return found and found[0].decode()
