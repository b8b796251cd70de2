"""What is seen of a forward by intercepting its operators, whoever calls them: modules, functions or tensor methods.

Each is a `torch.overrides.TorchFunctionMode`; several can be active at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.backend import Rule

F = nn.functional

FINAL_ACTIVATIONS: dict[Any, str] = {
    torch.softmax: "softmax",
    Tensor.softmax: "softmax",
    F.softmax: "softmax",
    torch.log_softmax: "log-softmax",
    Tensor.log_softmax: "log-softmax",
    F.log_softmax: "log-softmax",
    torch.sigmoid: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    torch.special.expit: "sigmoid",
    torch.special.softmax: "softmax",
    torch.special.log_softmax: "log-softmax",
}
"""However a softmax or a sigmoid is called."""
RESHAPES = frozenset(
    {torch.squeeze, Tensor.squeeze, torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
)
"""What may follow the final activation without changing a value."""
RELUS = frozenset({torch.relu, Tensor.relu, F.relu})
RELUS_IN_PLACE = frozenset({torch.relu_, Tensor.relu_})


class LastActivation(TorchFunctionMode):
    """Remembers the softmax and sigmoid calls that ran last."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[str, Tensor, ref[Tensor]]] = []
        """Name, argument, and result as long as somebody else has a use for it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in FINAL_ACTIVATIONS:
            argument: Tensor = args[0] if args else kwargs["input"]
            name, axis = FINAL_ACTIVATIONS[func], args[1] if len(args) > 1 else kwargs.get("dim")
            if name == "sigmoid" or axis is None or axis % argument.ndim == 1:  # an attention's is over others
                self._seen = [each for each in self._seen if each[2]() is not None]
                self._seen.append((name, argument, ref(result)))
        elif func in RESHAPES and args:
            for name, argument, of in list(self._seen):
                if of() is args[0]:
                    self._seen.append((name, func(argument, *args[1:], **kwargs), ref(result)))
        return result

    def behind(self, output: Tensor) -> tuple[str | None, Tensor]:
        """The activation that made ``output`` and its argument; ``(None, output)`` where it was none of them."""
        return next(((name, argument) for name, argument, of in self._seen if of() is output), (None, output))


class NoActivation(nullcontext[None]):
    """In its place where a model is known to have none."""

    def behind(self, output: Tensor) -> tuple[None, Tensor]:
        """As `LastActivation.behind`."""
        return None, output


class Biases(TorchFunctionMode):
    """Keeps the output of every operator that adds a bias, and that bias."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: list[tuple[Tensor, Tensor, bool]] = []
        """Output, bias (channel,), and whether the channels come last."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        bias = bias_of(func, args, kwargs or {}) if func in BIASED else None
        if bias is None or not torch.is_grad_enabled():
            return result
        if not result.requires_grad:  # made of constants or of further inputs
            result = result.detach().requires_grad_()
        self.terms.append((result, bias, func in CHANNELS_LAST))
        return result.clone()  # what comes next may work in place


BIASED: dict[Any, int] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d, F.linear), 2),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), 2),
    F.layer_norm: 3,
    F.group_norm: 3,
    F.instance_norm: 4,
    F.batch_norm: 4,
}
"""The operators that add a bias, and its place among their arguments."""


def bias_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The bias (channel,) that a call adds; None where there is none, or one of another shape."""
    bias = args[BIASED[func]] if len(args) > BIASED[func] else kwargs.get("bias")
    if func is F.instance_norm and len(args) <= NORM.index("training"):
        kwargs = {**kwargs, "training": kwargs.get("use_input_stats", True)}
    if func in (F.batch_norm, F.instance_norm) and (norm := norm_in_evaluation(args, kwargs)):
        bias = norm[1]
    return bias if isinstance(bias, Tensor) and bias.ndim == 1 else None


def norm_in_evaluation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Scale gamma / sqrt(var + eps) and shift beta - mu scale of a batch norm, which in evaluation is an affine map."""
    given = {
        "running_mean": None,
        "weight": None,
        "bias": None,
        "eps": 1e-5,
        **dict(zip(NORM, args, strict=False)),
        **kwargs,
    }
    if given.get("training") or given["running_mean"] is None:
        return None
    scale = (given["running_var"] + given["eps"]).rsqrt()
    scale = scale if given["weight"] is None else scale * given["weight"]
    shift = -given["running_mean"] * scale
    return scale, shift if given["bias"] is None else shift + given["bias"]


NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
"""Arguments of a batch norm; an instance norm's are the same but for a name."""
CHANNELS_LAST = frozenset({F.linear, F.layer_norm})


class Rectifiers(TorchFunctionMode):
    """Every ReLU, with a backward that can be switched to another `Rule`."""

    def __init__(self) -> None:
        super().__init__()
        self.rule: Rule = "plain"
        self.count = 0

    @contextmanager
    def switched(self, rule: Rule) -> Iterator[None]:
        """Backwards inside are by that rule."""
        self.rule = rule
        try:
            yield
        finally:
            self.rule = "plain"

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in RELUS | RELUS_IN_PLACE or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        self.count += 1
        in_place = func in RELUS_IN_PLACE or kwargs.get("inplace", False) or (func is F.relu and args[1:] == (True,))
        return _ReLU.apply(args[0] if args else kwargs["input"], self, in_place)  # type: ignore[no-untyped-call]


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, switch: Rectifiers, in_place: bool) -> Tensor:
        ctx.switch = switch
        ctx.save_for_backward(x > 0)
        if in_place:
            ctx.mark_dirty(x)
            return x.relu_()
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        [positive], [gradient] = ctx.saved_tensors, gradients
        match ctx.switch.rule:
            case "guided":  # where input and gradient are positive (Springenberg et al. 2015)
                gradient = (gradient * positive).relu()
            case "deconv":  # where the gradient is, whatever the input (Zeiler & Fergus 2014)
                gradient = gradient.relu()
            case _:
                gradient = gradient * positive
        return gradient, None, None


class Tape(TorchFunctionMode):
    """Records what runs behind the tapped layers, to run it again with another activation.

    Only operators that depend on a tapped activation are recorded; whatever else they need (weights, what skips past
    the layer) is kept as it was. So a replay of the same batch costs the tail alone, and no Python of the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []
        self._behind: dict[int, Tensor] = {}
        """What depends on a tapped activation, by id; held, so that no id is given out twice."""
        self.read = False
        """Whether Python was told a value of one, and may have gone one way and not the other."""

    def start(self, activation: Tensor) -> None:
        """From here on what depends on ``activation`` is recorded."""
        self._behind[id(activation)] = activation

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(id(each) in self._behind for each in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        if getattr(func, "__name__", "") in READS or "out" in kwargs or (_in_place(func, kwargs) and not args):
            self.read = True
            return func(*args, **kwargs)
        changes = _in_place(func, kwargs) and isinstance(args[0], Tensor)
        if changes and id(args[0]) not in self._behind:
            # Something that skipped past the layer is about to be written over: a replay starts from what it was.
            self._calls.append((torch.clone, (args[0].detach().clone(),), {}, args[0]))
            self._behind[id(args[0])] = args[0]
        result = func(*args, **kwargs)
        found = tensors_in(result)
        if found or changes:
            self._calls.append((func, args, kwargs, result))
            self._behind.update((id(each), each) for each in found)
        return result

    def replay(self, start: Tensor, activation: Tensor) -> Callable[[Any], Any]:
        """Run again what depends on ``start``, with ``activation`` in its place: a function from what was to what is.

        `LookupError` where something was written over that a replay from here cannot restore.
        """
        now: dict[int, Any] = {id(start): activation}

        def current(was: Any) -> Any:
            return _mapped(was, now)

        with torch.no_grad():
            for func, args, kwargs, result in self._calls:
                restores = func is torch.clone and result is not None and id(args[0]) not in self._behind
                if restores or any(id(each) in now for each in tensors_in((args, kwargs))):
                    if _in_place(func, kwargs) and id(args[0]) not in now:
                        raise LookupError(func)
                    _bind(result, func(*current(args), **current(kwargs)), now)
        return current


READS = frozenset(
    {"__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__",
     "item", "tolist", "numpy", "equal", "allclose", "is_nonzero"}
)  # fmt: skip
"""The operators by which values leave tensors."""


def _in_place(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__index__", "__int__", "__invert__"))
    return name.endswith("_") or bool(kwargs.get("inplace", False))


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors in a nest of tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [each for value in tree.values() for each in tensors_in(value)]
    if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
        return [each for value in tree for each in tensors_in(value)]
    return []


def _mapped(tree: Any, now: dict[int, Any]) -> Any:
    if isinstance(tree, Tensor):
        return now.get(id(tree), tree)
    if isinstance(tree, dict):
        return {key: _mapped(value, now) for key, value in tree.items()}
    if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
        values = [_mapped(value, now) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return tree


def _bind(was: Any, result: Any, now: dict[int, Any]) -> None:
    if isinstance(was, Tensor):
        now[id(was)] = result
    elif isinstance(was, dict):
        for key in was:
            _bind(was[key], result[key], now)
    elif isinstance(was, Sequence) and not isinstance(was, str | torch.Size):
        for before, after in zip(was, result, strict=True):
            _bind(before, after, now)
