"""What was asked to be drawn, checked against the results file, and the scenes that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, SampleError, nearest
from .colour import Floats, Scale
from .lettering import number
from .look import PLAIN, Look
from .norm import OWN, Norm
from .scene import Scene

if TYPE_CHECKING:
    from ..results import Results

STATUS = ("to do", "ok", "zero map", "non-finite", "failed")
MOST = 12
"""Channels of a signal that are drawn when none are named."""
MOST_ROWS = 64
"""Channels of a map that has only a few numbers for each."""


@dataclass(frozen=True)
class Request:
    """A choice of maps, of targets (by number) and, for signals, of channels."""

    results: Results
    maps: list[str]
    targets: list[int]
    channels: Sequence[str | int] | None = None
    norm: Norm = OWN
    look: Look = PLAIN

    @classmethod
    def of(
        cls,
        results: Results,
        maps: Sequence[str] | None,
        targets: Sequence[str] | None,
        channels: Sequence[str | int] | None,
        norm: Norm = OWN,
        look: Look = PLAIN,
    ) -> Request:
        """Check every name; None is all of them. Raises RequestError with the nearest name."""
        if not 1 <= len(results.axes) <= 3:
            raise RequestError(f"pictures need 1 to 3 spatial axes, {results.path} has {len(results.axes)}")
        known = list(results.target_names)
        for choices, words, what in (
            (list(results.maps), maps, "map"),
            (known, targets, "target"),
            (list(results.channels or ()), [c for c in channels or () if isinstance(c, str)], "channel"),
        ):
            for word in words or ():
                if word not in choices:
                    raise RequestError(f"{results.path} has no {what} {word!r}. {nearest(word, choices)}")
        return cls(
            results,
            list(results.maps if maps is None else dict.fromkeys(maps)),
            [known.index(name) for name in (known if targets is None else dict.fromkeys(targets))],
            channels,
            norm,
            look,
        )

    def rows(self, rows: Sequence[int] | None) -> list[int]:
        """The rows asked for, all by default. Raises RequestError for one that is not there."""
        every = range(len(self.results.ids))
        for row in rows or ():
            if row not in every:
                raise RequestError(f"no row {row}: {self.results.path} has {len(every)} rows, counted from 0")
        return list(every if rows is None else dict.fromkeys(rows))

    def status(self, row: int) -> str:
        """How the sample fared, in words."""
        return STATUS[self.results.status[row]]

    def drawable(self, row: int) -> bool:
        """Whether the row has maps to draw."""
        return self.status(row) in ("ok", "zero map")

    def scenes(self, row: int, common: Mapping[tuple[str, int], Scale]) -> Iterator[tuple[str, int, Scene | str]]:
        """Map, target and scene of each picture of a row, or the reason why there is none.

        ``common`` has the scales that whole maps share; other pictures have their own.
        """
        reason = "" if self.drawable(row) else self.status(row)
        try:
            picture = self.results.inputs([row])[0] if not reason else np.zeros(0)
        except SampleError as error:
            reason = str(error)
        for name in self.maps:
            why = reason or self._undrawn(name)
            values = self._values(name, row) if not why else np.zeros(0)
            signals = self._signals(name, row) if not why else None
            for k, target in enumerate(self.targets):
                if why or not np.isfinite(values[k]).any():
                    yield name, target, why or f"{name}: no finite value"
                else:
                    scale = common.get((name, self._group(row, target))) or self._scale(
                        name, partial(list, values[k : k + 1])
                    )
                    scene = self._scene(row, name, target, picture, values[k], scale)
                    yield name, target, replace(scene, signals=signals)

    def _scene(self, row: int, name: str, target: int, picture: NDArray[Any], values: Floats, scale: Scale) -> Scene:
        view, (kept, note) = self.results.maps[name], self._kept(name, len(picture))
        names = self.results.channels or [f"channel {k}" for k in range(len(picture))]
        summed = "summed over channels" if view.per_channel and not self._by_channel(name) else ""
        return Scene(
            input=picture[kept] if len(self.results.axes) == 1 else picture,
            values=values,
            axes=tuple(self.results.axes),
            scale=scale,
            heading=tuple(
                filter(None, (*self._heading(row, name, target), note, summed, "" if values.any() else "zero map"))
            ),
            units=view.units,
            names=tuple(names[k] for k in kept),
            layout="concepts" if view.concepts else view.layout,
            own=view.axes or (),
            look=self.look,
        )

    def _undrawn(self, name: str) -> str:
        """Why a map is not drawn for any sample, if so."""
        view = self.results.maps[name]
        return f"{name} has no axis to draw; read it with camsweep.open_results" if view.axes == () else ""

    def common(self, rows: Sequence[int]) -> dict[tuple[str, int], Scale]:
        """The scales that pictures of ``rows`` share: of each map, and of each class that is explained if so wished."""
        if self.norm.group == "sample":
            return {}
        groups: dict[int, dict[int, list[int]]] = {}
        for row in filter(self.drawable, rows):
            for k, target in enumerate(self.targets):
                groups.setdefault(self._group(row, target), {}).setdefault(row, []).append(k)
        return {
            (name, group): self._scale(name, partial(self._each, name, members))
            for name in self.maps
            for group, members in groups.items()
            if not self._undrawn(name)
        }

    def _each(self, name: str, members: Mapping[int, list[int]]) -> Iterator[Floats]:
        yield from (self._values(name, row)[targets] for row, targets in members.items())

    def _scale(self, name: str, values: Callable[[], Iterable[Floats]]) -> Scale:
        return self.norm.scale(values, signed=self.results.maps[name].signed)

    def _group(self, row: int, target: int) -> int:
        """The class that a picture explains, where each has a scale of its own."""
        return int(self.results.target_index[row, target]) if self.norm.group == "class" else -1

    def _values(self, name: str, row: int) -> Floats:
        """Maps of a row, (target, *s); where channels are drawn one by one, (target, channel, *s)."""
        view = self.results.maps[name]
        values: Floats = view.read([row])[0][self.targets]
        if not view.per_channel:
            return values
        if self._by_channel(name):
            return values[:, self._kept(name, values.shape[1])[0]]
        summed: Floats = values.sum(1, dtype=np.float64)
        return summed

    def _signals(self, name: str, row: int) -> NDArray[Any] | None:
        """What a map's components are, (component, channel, *s), of one channel where the map has none."""
        found = self.results.maps[name].signals([row])
        if found is None:
            return None
        parts: NDArray[Any] = found[0] if found[0].ndim > 1 + len(self.results.axes) else found[0][:, None]
        return parts[:, self._kept(name, count)[0]] if (count := parts.shape[1]) > 1 else parts

    def _by_channel(self, name: str) -> bool:
        """Whether each channel's map is drawn, rather than their sum."""
        view = self.results.maps[name]
        alone = len(view.axes or ()) == 2 if view.layout == "image" else view.layout == ""
        return view.per_channel and (view.layout in ("lines", "bars") or (alone and len(self.results.axes) == 1))

    def _kept(self, name: str, count: int) -> tuple[list[int], str]:
        """Which of ``count`` channels are drawn, and a note where some are left out unasked."""
        view = self.results.maps[name]
        few = view.layout == "bars" and view.signals_shape is None
        most = MOST_ROWS if few else MOST
        told_apart = self._by_channel(name) or (len(self.results.axes) == 1 and view.layout != "bars")
        if not told_apart or (self.channels is None and count <= most):
            return list(range(count)), ""
        if self.channels is None:
            return list(range(most)), f"first {most} of {count} channels"
        names = list(self.results.channels or ())
        kept = [names.index(c) if isinstance(c, str) else c for c in self.channels]
        if wrong := [k for k in kept if k not in range(count)]:
            raise RequestError(f"no channel {wrong[0]}: {self.results.path} has channels 0 to {count - 1}")
        return kept, ""

    def _heading(self, row: int, name: str, target: int) -> Iterator[str]:
        """``pvc-17 · pred pvc (4.21) · label pvc · gradcam@stage3 · target predicted (4.21)``, part by part."""
        results = self.results
        yield results.ids[row]
        outputs, predicted, label = results.outputs[row], int(results.predicted[row]), int(results.labels[row])
        if len(outputs) == 1:
            yield f"output {number(outputs[0])}"
        elif predicted >= 0:
            sure = np.nan if results.confidence is None else results.confidence[row]
            said = f"{number(100 * sure)} %" if np.isfinite(sure) else number(outputs[predicted])
            yield f"pred {self._class(predicted)} ({said})"
        if label >= 0:
            yield f"label {self._class(label)}"
        yield name
        wanted, index = results.target_names[target], int(results.target_index[row, target])
        score, foil = number(results.target_score[row, target]), int(results.target_foil[row, target])
        if index >= 0 and foil >= 0:
            yield f"why {self._class(index)} rather than {self._class(foil)} ({score})"
            return
        shown = "" if wanted == "predicted" or index < 0 or not results.classes else f" = {self._class(index)}"
        yield f"target {wanted}{shown} ({score})"

    def caption(self, row: int) -> str:
        """What a small picture is of: the id, and what was predicted, with the label where that was wrong."""
        predicted, label = int(self.results.predicted[row]), int(self.results.labels[row])
        said = self._class(predicted) if predicted >= 0 else ""
        wrong = f" (label {self._class(label)})" if said and label >= 0 and label != predicted else ""
        return " · ".join(filter(None, (said + wrong, self.results.ids[row])))

    def _class(self, index: int) -> str:
        classes = self.results.classes or ()
        return classes[index] if index < len(classes) else str(index)
