"""The registry of methods and factors.

A method is a function of the letters it asks for, in the notation of the papers; its keyword-only arguments are the
keys a user may set. The letters are the questions put to a batch's trace:

====== ======================================================= ==========================
letter question                                                shape
====== ======================================================= ==========================
``A``  activation of the tapped layer                          (batch, channel, *s)
``G``  gradient of the target's score at that activation       (batch, channel, *s)
``H``  Hessian of the target's score at A, times A             (batch, channel, *s)
``D``  score with each channel of A taken away                 (batch, channel)
``S``  score with the input masked by each channel of A        (batch, channel)
``R``  random numbers in [-1, 1], of the sample's own seed     (batch, channel)
``C``  concepts fitted to the layer over the dataset           (concept, channel), offset
``x``  the model's input                                       (batch, channel, *s)
``g``  gradient of the target's score at the input             (batch, channel, *s)
``u``  the same by guided backpropagation                      (batch, channel, *s)
``d``  the same by a deconvnet                                 (batch, channel, *s)
``b``  bias times gradient of every operator that has a bias   list of (batch, channel, *s)
``y``  score of the target                                     (batch,)
``o``  where a path begins, or what takes the place of x       (batch, channel, *s)
``p``  mean gradient on the path from o to x, in the domain    (batch, ..)
``T``  the domain of the shares                                `core.domains.Domain`
``N``  mean and variance of the gradient under noise           two of (batch, channel, *s)
``t``  what the input's sign is taken against                  broadcasts with x
``f``  scores of changed inputs (k, batch, channel, *s)        gives (target, k, batch)
``Y``  scores of all targets                                   (target, batch)
``r``  relevance of the target's score at the input            (batch, channel, *s)
====== ======================================================= ==========================

A method that asks for ``f`` gives the maps of all targets, (target, ..): they cost no more than that of one.

From the signature follow the command line's keys, the help, the cost, the checks and the tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import RequestError, nearest
from ..keys import Key, signature

if TYPE_CHECKING:
    from torch import Tensor

Formula = Callable[..., "Tensor"]
Family = Literal["cam", "gradient", "relevance", "perturbation"]

QUESTIONS: Mapping[str, str] = {
    "A": "activation of the layer",
    "G": "gradient at the layer",
    "H": "curvature at the layer",
    "D": "scores without each channel",
    "S": "scores of masked inputs",
    "R": "random numbers",
    "C": "concepts of the dataset",
    "x": "input",
    "g": "gradient at the input",
    "u": "guided gradient at the input",
    "d": "deconvnet gradient at the input",
    "b": "bias terms",
    "y": "score",
    "o": "baseline",
    "p": "mean gradient on a path",
    "T": "domain",
    "N": "gradients under noise",
    "t": "threshold",
    "f": "scores of changed inputs",
    "Y": "scores of all targets",
    "r": "relevance at the input",
}
AT_LAYER = frozenset("AGHDSRC")
OF_TARGET = frozenset("GHgudbDSypNfYr")
"""What depends on the target."""


@dataclass(frozen=True)
class Method:
    """A registered method: a formula, what it asks of the trace, and what its map looks like."""

    name: str
    family: Family
    formula: str
    source: str
    function: Formula = field(repr=False)
    asks: tuple[str, ...]
    keys: Mapping[str, Key]
    units: str
    signed: bool = True
    aim: Callable[..., Any] | None = field(default=None, repr=False)
    """Turns a class into another score, which the letters are then asked about: (`Resolved`, **keys) -> `Resolved`."""
    concepts: bool = False
    """Whether the map has an axis of concepts."""
    summands: bool = False
    """Whether the function gives w_k A_k, which are still to be summed over the channels."""
    complete: bool = False
    """Whether the map sums to the difference of the scores at the input and at the baseline, or should."""
    short: str | None = None
    """Of a factor: the key whose value stands right behind the name, ``+sign=0.5``."""

    @property
    def joint(self) -> bool:
        """Whether the function gives the maps of all targets at once."""
        return "f" in self.asks

    @property
    def per_channel(self) -> bool:
        """Whether the map is one of (channel, *s), where no domain says otherwise."""
        return self.family in ("gradient", "relevance")

    @property
    def layered(self) -> bool:
        """Whether it is taken at a layer."""
        return bool(AT_LAYER & set(self.asks))

    @property
    def cost(self) -> str:
        """Passes through the model for a batch, the batch's one forward aside."""
        costs = {
            "G": "1 backward for each target",
            "g": "1 backward for each target",
            "b": "1 backward for each target",
            "u": "1 guided backward for each target",
            "d": "1 deconvnet backward for each target",
            "H": "1 second-order one for each layer",
            "D": "1 pass behind the layer for each channel",
            "S": "1 forward for each channel of each sample",
            "C": "1 forward of the dataset before",
            "p": "1 forward for each step, 1 backward for each step and target",
            "N": "1 forward for each draw, 1 backward for each draw and target",
            "f": "1 forward for each window or mask",
            "r": "1 backward for each target and set of rules, input rules share it",
        }
        found = list(dict.fromkeys(costs[letter] for letter in self.asks if letter in costs))
        return ", ".join(found) or "nothing more"

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


METHODS: dict[str, Method] = {}
FACTORS: dict[str, Method] = {}


def cam(
    name: str,
    *,
    formula: str,
    source: str,
    relu: bool | None,
    summands: bool = True,
    aim: Callable[..., Any] | None = None,
    concepts: bool = False,
    units: str = "score",
) -> Callable[[Formula], Formula]:
    """Register a class activation map, a formula of the letters of one layer.

    The formula gives the summands w_k A_k of the map, (batch, channel, *s), or, with ``summands=False``, the map
    itself, (batch, *s). Every CAM takes the key ``relu``: whether what speaks against the target is cut off. ``relu``
    here is its default, the paper's own, or None for a map that is never below 0. The formula itself is written
    without it. ``smooth`` and ``fuse`` come with every CAM that they make sense for.
    """

    def register(function: Formula) -> Formula:
        asks, own = signature(function)
        layered = bool(AT_LAYER & set(asks)) and not concepts
        smooth = ("off", "aug", "eigen", "both") if summands else ("off", "aug")
        keys = {
            **({} if relu is None else {"relu": Key(relu, bool)}),
            **({"smooth": Key("off", str, smooth)} if not concepts else {}),
            **({"fuse": Key("off", str, ("off", "mean", "max", "product"))} if layered and "fuse" not in own else {}),
            **own,
        }
        _add(
            METHODS,
            Method(
                name,
                "cam",
                formula,
                source,
                function,
                asks,
                keys,
                units,
                signed=relu is not None,
                aim=aim,
                concepts=concepts,
                summands=summands,
            ),
        )
        return function

    return register


def gradient(
    name: str, *, formula: str, source: str, units: str, signed: bool = True, complete: bool = False
) -> Callable[[Formula], Formula]:
    """Register an input attribution, a formula giving (batch, channel, *s) from the letters of the input.

    ``complete``: its maps sum to the difference of the scores at the input and at the baseline.
    """

    def register(function: Formula) -> Formula:
        asks, keys = signature(function)
        found = Method(name, "gradient", formula, source, function, asks, keys, units, signed, complete=complete)
        _add(METHODS, found)
        return function

    return register


def relevance(name: str, *, formula: str, source: str, units: str) -> Callable[[Formula], Formula]:
    """Register a way to hand the score down, a formula giving (batch, channel, *s); see `core.relevance`.

    Its keys ``rules`` and ``first`` are written ``name:RULES@FIRST``.
    """

    def register(function: Formula) -> Formula:
        asks, keys = signature(function)
        _add(METHODS, Method(name, "relevance", formula, source, function, asks, keys, units, complete=True))
        return function

    return register


def perturbation(name: str, *, formula: str, source: str, units: str) -> Callable[[Formula], Formula]:
    """Register a map from the scores of changed inputs: a formula giving (target, batch, [channel,] *s)."""

    def register(function: Formula) -> Formula:
        asks, keys = signature(function)
        _add(METHODS, Method(name, "perturbation", formula, source, function, asks, keys, units))
        return function

    return register


def factor(name: str, *, formula: str, units: str, short: str | None = None) -> Callable[[Formula], Formula]:
    """Register a factor, written ``+name`` behind a method: a function of the finished map ``m`` and of letters.

    ``short`` is the key whose value stands right behind the name, ``+name=value``; no ``units`` are the map's own.
    """

    def register(function: Formula) -> Formula:
        asks, keys = signature(function)
        asks = tuple(letter for letter in asks if letter != "m")
        _add(FACTORS, Method(name, "gradient", formula, "", function, asks, keys, units, short=short))
        return function

    return register


def find(table: Mapping[str, Method], name: str, what: str) -> Method:
    """The entry called ``name``, or a `RequestError` with the nearest one."""
    if name not in table:
        raise RequestError(f"unknown {what} {name!r}. {nearest(name, table)} `camsweep methods` lists them.")
    return table[name]


def _add(table: dict[str, Method], method: Method) -> None:
    if method.name in table:
        raise ValueError(f"{method.name} is registered twice")
    table[method.name] = method
