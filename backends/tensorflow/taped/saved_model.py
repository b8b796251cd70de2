"""A SavedModel's function: looked through before anything of it is loaded, since loading can run what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ....core.errors import RequestError, nearest
from ..freezing import SERVING
from ..scanning import Refused, parsed, scanned
from .calling import Signature
from .framework import tensorflow


def load_signature(path: Path, *, name: str | None, trust: bool) -> Signature:
    """The function called ``name``, or the one for serving, or the only one."""
    tf = tensorflow()
    if not trust:
        _look_through(path)
    with _optimizers_of_keras_2():
        loaded = tf.saved_model.load(str(path))
    functions = dict(loaded.signatures)
    wanted = name or (SERVING if SERVING in functions or len(functions) != 1 else next(iter(functions)))
    if wanted not in functions:
        raise RequestError(f"{path} has no signature {wanted!r}. {nearest(wanted, functions)}")
    function = functions[wanted]
    variables = (*getattr(loaded, "variables", ()), *function.variables)
    return Signature(
        _opened(function), function.structured_input_signature[1], tuple({id(v): v for v in variables}.values()), loaded
    )


FINAL = {"Softmax": "softmax", "Sigmoid": "sigmoid"}


def _opened(function: Any) -> Callable[..., Mapping[str, Any]]:
    """The function with a softmax or sigmoid at its end taken off and run after it, where it is seen.

    Left as it is where it ends in neither, or where its variables cannot be made constants (loops).
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf = tensorflow()
    try:
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
        ends = {key: _behind(frozen.outputs[i]) for i, key in enumerate(sorted(function.structured_outputs))}
        if not any(name for _, name in ends.values()):
            return function  # type: ignore[no-any-return]
        definition = frozen.graph.as_graph_def()
        bodies = [definition.node, *(each.node_def for each in definition.library.function)]
        for node in (each for body in bodies for each in body):
            node.attr.pop("_gradient_op_type", None)  # of a gradient that is told in Python, and is gone
        given = sorted(function.structured_input_signature[1].items())

        def inner(*tensors: Any) -> Any:
            names = [each.name for each in frozen.inputs]
            wanted = [tensor.name for tensor, _ in ends.values()]
            return tf.graph_util.import_graph_def(
                definition, input_map=dict(zip(names, tensors, strict=True)), return_elements=wanted, name=""
            )

        opened = tf.compat.v1.wrap_function(inner, [tf.TensorSpec(spec.shape, spec.dtype) for _, spec in given])
    except Exception:
        return function  # type: ignore[no-any-return]

    def call(**tensors: Any) -> Mapping[str, Any]:
        found = opened(*(tensors[name] for name, _ in given))
        return {
            key: getattr(tf.nn, name)(each) if name else each
            for (key, (_, name)), each in zip(ends.items(), found, strict=True)
        }

    return call


def _behind(tensor: Any) -> tuple[Any, str | None]:
    """What an output's final activation is given, and its name; itself and None where it has none."""
    end = tensor
    while end.op.type == "Identity":
        end = end.op.inputs[0]
    return (end.op.inputs[0], FINAL[end.op.type]) if end.op.type in FINAL else (tensor, None)


def _look_through(path: Path) -> None:
    try:
        scanned(parsed(path), path)
    except Refused as refusal:
        raise RequestError(str(refusal)) from None


@contextmanager
def _optimizers_of_keras_2() -> Iterator[None]:
    """Models saved with one load inside, without Keras 2: nothing but the weights is of any use here."""
    from tensorflow.python.saved_model import revived_types

    tf = tensorflow()
    known = revived_types._REVIVED_TYPE_REGISTRY
    names = [name for name in ("optimizer", "tf_keras_optimizer") if name not in known]

    class Optimizer(tf.Module):  # type: ignore[name-defined,misc]
        def add_slot(self, var: Any, slot_name: str) -> Any:
            """A moment of a weight."""
            name = f"{slot_name} of {id(var)}"
            if name not in self.__dict__:
                self.__dict__[name] = tf.Variable(tf.zeros(var.shape, var.dtype), trainable=False)
            return self.__dict__[name]

        def _create_or_restore_slot_variable(self, slot_variable_position: Any, slot_name: str, variable: Any) -> None:
            slot_variable_position.restore(self.add_slot(variable, slot_name))

    for name in names:
        version = revived_types.VersionedTypeRegistration(
            object_factory=lambda _: Optimizer(),
            version=2,
            min_producer_version=1,
            min_consumer_version=1,
            setter=setattr,
        )
        version.identifier = name
        known[name] = (lambda _: False, [version])  # not registered as others are, which could not be undone
    try:
        yield
    finally:
        for name in names:
            del known[name]
