"""A model as a graph of TensorFlow's: several times as fast as layer by layer, for forwards that nothing watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .framework import tensorflow
from .watching import FINAL_ACTIVATIONS, RESHAPES


class Compiled:
    """``call`` traced once for all sizes of a batch, or with ``xla`` compiled for each."""

    def __init__(self, call: Callable[[Any], Any], *, xla: bool) -> None:
        self._call = call
        self._run = tensorflow().function(self._traced, jit_compile=xla or None, reduce_retracing=not xla)
        self._finals: Sequence[str | None] = ()

    def _traced(self, x: Any) -> Any:
        given = self._call(x)
        found = [_behind(each) for each in tensorflow().nest.flatten(given)]
        self._finals = [name for name, _ in found]
        return given, [argument for _, argument in found]

    def __call__(self, x: Any) -> tuple[Any, FoundActivation]:
        """What the model gives, and the final activation of each output."""
        given, arguments = self._run(x)
        outputs = tensorflow().nest.flatten(given)
        found = zip(outputs, self._finals, arguments, strict=True)
        return given, FoundActivation({id(output): (name, made) for output, name, made in found if name})


class FoundActivation:
    """The final activations, by the outputs that they made."""

    def __init__(self, found: Mapping[int, tuple[str, Any]]) -> None:
        self._found = found

    def behind(self, output: Any) -> tuple[str | None, Any]:
        """As `watching.LastActivation.behind`."""
        return self._found.get(id(output), (None, output))


def _behind(output: Any) -> tuple[str | None, Any]:
    """The activation that made a tensor of a graph, and its argument in the tensor's shape."""
    tf = tensorflow()
    op, reshapes = output.op, []
    while op.type in RESHAPES:
        reshapes.append(op)
        op = op.inputs[0].op
    if op.type not in FINAL_ACTIVATIONS:
        return None, output
    argument = op.inputs[0]
    for each in reversed(reshapes):
        turned = each.type == "Transpose"
        argument = tf.transpose(argument, each.inputs[1]) if turned else tf.reshape(argument, tf.shape(each.outputs[0]))
    return FINAL_ACTIVATIONS[op.type], argument
