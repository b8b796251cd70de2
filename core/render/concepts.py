"""Maps of concepts: for each concept, where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..data.axes import Axis
from ..grid import resize
from .clip import panels, place
from .colour import Pixels
from .image import factors, layers, levels, panel, shade
from .scene import Scene
from .signal import Strip, drawn, plain, span

ACROSS = 4
"""Pictures beside one another."""


def each(scene: Scene) -> list[tuple[str, Scene]]:
    """The concepts, counted from 1 as their names are, on one scale."""
    return [(f"concept {k + 1}", replace(scene, values=values, layout="")) for k, values in enumerate(scene.values)]


def strips(scene: Scene) -> list[Strip]:
    """Of a signal: a line for each concept."""
    curves = [resize(values, scene.input.shape[-1:]) for values in scene.values]
    return [Strip(name, v, v, *span(v, zero=True), zero=True) for (name, _), v in zip(each(scene), curves, strict=True)]


def pictures(scene: Scene) -> list[tuple[Pixels, str, Sequence[Axis], tuple[int, ...]]]:
    """Of an image: each concept over it; of a clip, over its strongest slice. Pixels, words, axes, sizes."""
    found: list[tuple[Pixels, str, Sequence[Axis], tuple[int, ...]]] = []
    axes, shape = scene.axes[-2:], scene.input.shape[-2:]
    for name, one in each(scene):
        if len(scene.axes) == 2:
            base = shade(one.input, levels(one.input))
            over, _ = layers(base, one.values, one.scale, factors(shape, axes), one.look.alpha)
            found.append((over, name, axes, shape))
        else:
            at = strongest(one)
            sliced, _ = next(panels(one, at=[at]))
            where = place(one.axes[0], at, one.input.shape[1])
            found.append((sliced.pixels, f"{name} · {where}", axes, shape))
    return found


def sheets(scene: Scene) -> Iterator[Image.Image]:
    """One sheet: a signal above a line for each concept; an image, or the strongest slice of a clip, for each."""
    if len(scene.axes) == 1:
        above = [replace(each, below=None) for each in plain(scene, 84)]
        yield scene.sheet([[each] for each in [*above, *drawn(scene.axes[0], scene.scale, strips(scene), 64)]])
        return
    shown = [panel(pixels, axes, shape, name) for pixels, name, axes, shape in pictures(scene)]
    yield scene.sheet([shown[k : k + ACROSS] for k in range(0, len(shown), ACROSS)])


def strongest(scene: Scene) -> int:
    """The point of a clip's first axis where the map is."""
    course = resize(np.nan_to_num(np.abs(scene.values)).max((1, 2)), scene.input.shape[1:2])
    return int(course.argmax())
