"""What is seen of a forward by watching TensorFlow's operators, whoever calls them; and a ReLU's other backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import ref

from ....core.backend import Rule
from ....core.errors import RequestError
from .framework import tensorflow

FINAL_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid"}
RESHAPES = frozenset({"Reshape", "Squeeze", "Transpose", "Identity"})
"""What may follow the final activation without changing a value."""


class LastActivation:
    """Remembers the softmax and sigmoid operators that ran last; of an eager forward only."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, Any, ref[Any]]] = []
        """Name, argument, and result as long as somebody else has a use for it."""
        self._busy = False

    def __enter__(self) -> LastActivation:
        from tensorflow.python.framework import op_callbacks

        op_callbacks.add_op_callback(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        from tensorflow.python.framework import op_callbacks

        op_callbacks.remove_op_callback(self._watch)

    def _watch(self, kind: Any, inputs: Any, _attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        """As TensorFlow calls it. What it does itself is watched too, and recorded by a tape."""
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if graph is not None or op_name is not None or self._busy:  # of a graph that is only being made
            return
        if kind in FINAL_ACTIVATIONS:
            self._seen = [each for each in self._seen if each[2]() is not None]
            self._seen.append((FINAL_ACTIVATIONS[kind], inputs[0], ref(outputs[0])))
        elif kind in RESHAPES:
            for name, argument, of in list(self._seen):
                if of() is inputs[0]:
                    self._seen.append((name, self._same(kind, argument, inputs, outputs[0]), ref(outputs[0])))

    def _same(self, kind: str, argument: Any, inputs: Any, result: Any) -> Any:
        """What was done to a result, done to the argument."""
        tf = tensorflow()
        self._busy = True
        try:
            return tf.transpose(argument, inputs[1]) if kind == "Transpose" else tf.reshape(argument, result.shape)
        finally:
            self._busy = False

    def behind(self, output: Any) -> tuple[str | None, Any]:
        """The activation that made ``output`` and its argument; ``(None, output)`` where it was none of them."""
        return next(((name, argument) for name, argument, of in self._seen if of() is output), (None, output))


class NoActivation(nullcontext[None]):
    """In its place where a model is known to have none."""

    def behind(self, output: Any) -> tuple[None, Any]:
        """As `LastActivation.behind`."""
        return None, output


@contextmanager
def rectified(rule: Rule) -> Iterator[None]:
    """The backwards inside take every ReLU by ``rule``; `RequestError` where they meet none."""
    if rule == "plain":
        yield
        return
    from tensorflow.python.framework import ops

    tf = tensorflow()
    entry = ops.gradient_registry._registry["Relu"]
    own, count = entry["type"], 0

    def gradient(op: Any, slope: Any) -> Any:
        nonlocal count
        count += 1
        slope = tf.nn.relu(slope)
        return own(op, slope) if rule == "guided" else slope

    entry["type"] = gradient
    try:
        yield
    finally:
        entry["type"] = own
    if not count:
        raise RequestError(
            f"{rule} backpropagation changes ReLUs, and the model runs none: it would be the plain gradient"
        )
