"""Pictures a second, on one core: overlays of 224 x 224 images, frames of a clip, and matplotlib beside them.

python tests/benchmarks/pictures.py [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from camsweep.core.data.axes import Axis
from camsweep.core.render import Look, clip, image
from camsweep.core.render.colour import Scale
from camsweep.core.render.saving import save_gif, save_png
from camsweep.core.render.scene import Scene
from camsweep.tests.benchmarks.race import Bench

PX = (Axis("height", "px"), Axis("width", "px"))


def scene(shape: tuple[int, ...], coarse: tuple[int, ...], axes: tuple[Axis, ...], look: Look) -> Scene:
    """Random colours under a random map."""
    rng = np.random.default_rng(0)
    values = rng.random(coarse, np.float32)
    picture = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    return Scene(picture, values, axes, Scale.of(values, signed=False), ("id",), "score", ("r", "g", "b"), look=look)


def a_second(draw: Callable[[], object], count: int, repeats: int = 5) -> float:
    """How many of ``count`` things that ``draw`` draws, for each second of a core; the best of several."""
    times = []
    for _ in range(repeats):
        started = process_time()
        draw()
        times.append(process_time() - started)
    return round(count / min(times), 1)


def matplotlib_overlay(one: Scene, path: Path) -> None:
    """As the scripts of this field do it: a figure for each image."""
    figure = Figure(figsize=(4, 4))
    axes = figure.add_subplot()
    axes.imshow(one.input.transpose(1, 2, 0))
    shown = axes.imshow(one.values, cmap="inferno", alpha=0.5, extent=(-0.5, 223.5, 223.5, -0.5))
    figure.colorbar(shown)
    FigureCanvasAgg(figure).print_png(str(path))


def matplotlib_frame(one: Scene, path: Path) -> None:
    """As signal-grad-cam draws a frame: 10 x 4 inches at 300 dots, input and map side by side."""
    figure = Figure(figsize=(10, 4), dpi=300)
    left, right = figure.subplots(1, 2)
    left.imshow(one.input[:, 0].transpose(1, 2, 0))
    figure.colorbar(right.imshow(one.values[0], cmap="inferno"))
    for axes in (left, right):
        axes.set_axis_off()
    FigureCanvasAgg(figure).print_png(str(path))


def smooth_video() -> Scene:
    """A bright spot that crosses a grey clip, as real ones have few colours."""
    t, y, x = np.mgrid[:12, :20, :28].astype(np.float32)
    values = np.exp(-((y - 10) ** 2 + (x - 2 * t - 2) ** 2) / 12)
    picture = (200 * values + 20).astype(np.uint8)[None]
    axes = (Axis("time", "s", 0.1), *PX)
    return Scene(picture, values, axes, Scale.of(values, signed=False), ("id",), "score", ("grey",))


def case_rates(bench: Bench) -> None:
    """Of one core; the best of five."""
    bare = scene((224, 224), (7, 7), PX, Look(kinds=("overlay",), bare=True))
    framed = scene((224, 224), (7, 7), PX, Look(kinds=("overlay",)))
    video = scene((12, 20, 28), (12, 5, 7), (Axis("time", "s", 0.1), *PX), Look())
    base = image.shade(bare.input, (0, 255))
    with tempfile.TemporaryDirectory() as folder:
        png, gif = Path(folder) / "a.png", Path(folder) / "a.gif"

        def write(one: Scene) -> None:
            for picture in image.pictures(one):
                save_png(picture, png, "mark")

        rates = {
            "overlays, pixels in memory": a_second(
                lambda: [image.layers(base, bare.values, bare.scale, (1, 1)) for _ in range(50)], 50
            ),
            "overlays, bare PNG files": a_second(lambda: [write(bare) for _ in range(20)], 20),
            "overlays with words and colour bar, PNG files": a_second(lambda: [write(framed) for _ in range(10)], 10),
            "overlays by matplotlib, a figure each, PNG files": a_second(
                lambda: [matplotlib_overlay(framed, png) for _ in range(5)], 5
            ),
            **{
                f"frames of a 12 x 20 x 28 clip of {what}, GIF files": a_second(
                    lambda one=one: save_gif(clip.frames(one), clip.durations(one.axes[0], 12), gif, "mark"), 12
                )
                for what, one in (("a moving spot", smooth_video()), ("noise in colours", video))
            },
            "frames of it by matplotlib, a figure each": a_second(
                lambda: [matplotlib_frame(video, png) for _ in range(2)], 2
            ),
        }
    for what, rate in rates.items():
        bench.add("pictures", what, rate, unit="/s")


if __name__ == "__main__":
    Bench("pictures", __doc__ or "", {"rates": case_rates}).run()
