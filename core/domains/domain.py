"""A domain: other coordinates of the input in which its parts are attributed, and the registry of them.

With coefficients z = T x, x = J(z), an attribution along a path from o to x is, coefficient by coefficient,

    a_k = Re( (T x - T o)_k  conj(p)_k ),    p = mean over the path of d score / d z,

and their sum is f(x) - f(o), whatever the invertible T (Esin et al. 2025). Where T is linear the path is that of the
input, and p = J^H g of its mean gradient g there: one path serves all linear domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..data.axes import Axis
from ..errors import RequestError, nearest
from ..keys import Key, show, signature
from ..user_code import function

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

Drawing = Literal["", "lines", "image", "bars"]
REST = "rest"
"""Names what the parts of a domain leave over."""


@dataclass(frozen=True)
class Space:
    """What the samples are: (channel, *s), the first ``len(axes)`` spatial axes."""

    channels: int
    sizes: tuple[int, ...]
    axes: tuple[Axis, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """The spatial axes of a batch (n, channel, *s), from behind."""
        return tuple(range(-len(self.sizes), 0))

    def signal(self, name: str) -> Axis:
        """The one axis; `RequestError` where there are more."""
        if len(self.axes) != 1:
            raise RequestError(f"domain={name} is for signals, inputs with one axis; these have {len(self.axes)}")
        return self.axes[0]


class Domain:
    """The input's own places; and what other domains change of that.

    A domain is a class of a `Space`, its keyword-only arguments the keys a user may set. Its tensors are
    (n, channel, *s) on the input's side and (n, ..) on its own.
    """

    linear: bool = True
    per_channel: bool = True
    """Whether the channels are told apart."""
    layout: Drawing = ""
    axes: tuple[Axis, ...] | None = None
    """Of a map, behind the channels; None for the input's own."""
    shape: tuple[int, ...]
    """Of a map of one sample."""
    signals_shape: tuple[int, ...] | None = None
    """Of `signals` for one sample."""
    fitted_to_data = False
    """Whether it is fitted to the whole dataset, before the sweep."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.shape = (space.channels, *space.sizes)

    def fitted(self, x: Tensor, seeds: Sequence[tuple[int, ...]]) -> Domain:
        """The domain for the samples of a batch; a new one where it depends on them."""
        return self

    def given(self, mixing: NDArray[Any], mean: NDArray[Any]) -> Domain:
        """With what was fitted to the dataset."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The coefficients, real or complex."""
        return x

    def inverse(self, z: Tensor) -> Tensor:
        """The input of coefficients."""
        return z

    def adjoint(self, g: Tensor) -> Tensor:
        """J^H g, gradients at the input as gradients at the coefficients, of a linear domain."""
        import torch

        with torch.enable_grad():
            z = torch.zeros_like(self.forward(g)).requires_grad_()
            [found] = torch.autograd.grad((self.inverse(z) * g).sum(), [z])  # of a number, which loads no SymPy
        return found

    def summed(self, shares: Tensor) -> Tensor:
        """Of every coefficient's share, the map."""
        return shares

    def rows(self, i: Tensor) -> Domain:
        """The same for samples ``i`` of those it was fitted to; a new one where it depends on them."""
        return self

    def kept(self, x: Tensor, o: Tensor, keep: Tensor) -> Tensor:
        """``o`` with the part ``keep`` (n, *places), 0 to 1 or a mask, of what ``x`` has beyond it in each place."""
        z, start = self.forward(x), self.forward(o)
        keep = keep.unsqueeze(1) if self.per_channel else keep
        return self.inverse(
            start + keep.to(x.dtype) * (z - start) if keep.is_floating_point() else z.where(keep, start)
        )

    def signals(self, x: Tensor) -> Tensor:
        """What each part is, in the input's units, where ``signals_shape`` says that there are parts."""
        raise NotImplementedError

    def shares(self, dx: Tensor, g: Tensor) -> Tensor:
        """Of a linear domain: the map of the difference ``dx`` and the gradient ``g`` at the input."""
        return self.summed((self.forward(dx) * self.adjoint(g).conj()).real)


@dataclass(frozen=True)
class Kind:
    """A registered domain."""

    name: str
    formula: str
    source: str
    build: Callable[..., Domain]
    keys: Mapping[str, Key]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.build.__doc__ or "").partition("\n")[0]


DOMAINS: dict[str, Kind] = {}


def domain(name: str, *, formula: str, source: str = "") -> Callable[[type[Domain]], type[Domain]]:
    """Register a `Domain` under the name that ``domain=`` gives it."""

    def register(found: type[Domain]) -> type[Domain]:
        DOMAINS[name] = Kind(name, formula, source, found, signature(found.__init__)[1])
        return found

    return register


domain("time", formula="x")(Domain)


@dataclass(frozen=True)
class Choice:
    """A domain and its settings, as an expression gives them."""

    name: str
    settings: Mapping[str, Any]
    default: ClassVar[str] = "time"

    def __str__(self) -> str:
        keys = keys_of(self.name)
        shown = [f"{k}={show(v)}" for k, v in sorted(self.settings.items()) if v != keys[k].default]
        return ",".join([show(self.name), *shown])

    @property
    def key(self) -> str:
        """As the text, but with files in full: two of one name are two."""
        return ",".join([str(self.name), *(f"{k}={v!s}" for k, v in sorted(self.settings.items()))])

    @property
    def plain(self) -> bool:
        """Whether it is the input itself."""
        return self.name == self.default

    @property
    def files(self) -> list[Path]:
        """Those it names."""
        texts = [self.name, *self.settings.values()]
        return [path for text in texts if (path := getattr(text, "file", None)) is not None]

    def on(self, space: Space) -> Domain:
        """The domain for samples of a kind; `RequestError` where it does not fit them."""
        if self.name in DOMAINS:
            try:
                return DOMAINS[self.name].build(space, **self.settings)
            except ModuleNotFoundError as error:
                package = {"pywt": "PyWavelets", "sklearn": "scikit-learn", "scipy": "SciPy"}.get(
                    str(error.name), error.name
                )
                raise RequestError(f"domain={self.name} needs {package}: pip install 'camsweep[domains]'") from None
        from .own import Own

        return Own(space, function(self.name, "domain"))


def key_of(choice: Choice | None) -> str:
    """Tells domains apart; "" is the input itself."""
    return choice.key if choice else ""


def keys_of(name: str) -> Mapping[str, Key]:
    """The keys of a domain; the user's own has none. `RequestError` for one that is not there."""
    if ".py:" in name:
        return {}
    if name not in DOMAINS:
        raise RequestError(f"unknown domain {name!r}. {nearest(name, DOMAINS)} Your own is domain=FILE.py:CLASS.")
    return DOMAINS[name].keys


def owner(key: str) -> str | None:
    """The domain that has a key, for saying so."""
    return next((kind.name for kind in DOMAINS.values() if key in kind.keys), None)


def frequencies(axis: Axis, size: int, *, sided: bool, suffix: str = "") -> Axis:
    """The axis of a Fourier transform over ``size`` points, from 0 or, of both sides, in the order of fftshift."""
    step = 1 / (size * axis.step)
    unit = "Hz" if axis.unit == "s" else f"1/{axis.unit}" if axis.unit else ""
    return Axis(f"frequency{suffix}", unit, step, -(size // 2) * step if sided else 0.0)
