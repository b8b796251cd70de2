"""Layer-wise relevance in TensorFlow itself, in double precision: an independent second way to the same maps.

As a script: ``python oracle.py OUT NAME ..`` builds models of the zoo or of ``keras.applications``, writes them as
``.keras`` and ``.npz`` files with inputs and the relevance of class 1 by LRP-epsilon.
"""

from __future__ import annotations

import os
import sys

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}

import keras
import numpy as np
import tensorflow as tf
import zoo
from keras import layers as L

EPSILON = 1e-6
TINY = np.finfo("float64").eps
LINEAR = (L.Conv1D, L.Conv2D, L.DepthwiseConv2D, L.Conv2DTranspose, L.Dense, L.SeparableConv1D, L.SeparableConv2D)
SHARED = (L.BatchNormalization, L.AveragePooling1D, L.AveragePooling2D, L.GlobalAveragePooling1D,
          L.GlobalAveragePooling2D, L.UpSampling2D)  # fmt: skip
PASSING = (L.Activation, L.ReLU, L.ELU, L.LeakyReLU, L.Softmax)


def divided(R, z, epsilon):
    """R / (z + epsilon s(z)), never by less than the rounding of the largest."""
    size = tf.reduce_max(tf.abs(z), tuple(range(1, len(z.shape))), keepdims=True) * TINY
    return R / (z + tf.maximum(size, epsilon) * tf.where(z >= 0, tf.ones_like(z), -tf.ones_like(z)))


def share(function, epsilon):
    """Of a linear function: x (J^T R / z)."""

    @tf.custom_gradient
    def run(*xs):
        def back(R, variables=None):
            with tf.GradientTape() as tape:
                tape.watch(xs)
                z = function(*xs)
            found = [x * g for x, g in zip(xs, tape.gradient(z, xs, divided(R, z, epsilon)), strict=True)]
            return (found, [None] * len(variables)) if variables else found

        return function(*xs), back

    return run


def passing(function):
    @tf.custom_gradient
    def run(x):
        return function(x), lambda R, variables=None: (R, [None] * len(variables)) if variables else R

    return run


def linear_part(layer, x):
    """Without the activation."""
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return layer(x)
    finally:
        layer.activation = activation


def of_layer(layer, x):
    if isinstance(layer, (L.SeparableConv1D, L.SeparableConv2D)):  # two layers
        one = isinstance(layer, L.SeparableConv1D)
        depthwise = keras.ops.depthwise_conv
        step = layer.strides if not one else layer.strides[0]
        x = share(
            lambda v: depthwise(v, layer.depthwise_kernel, step, layer.padding, dilation_rate=layer.dilation_rate),
            EPSILON,
        )(x)
        z = share(lambda v: keras.ops.conv(v, layer.pointwise_kernel, padding="valid") + layer.bias, EPSILON)(x)
    else:
        z = share(lambda v: linear_part(layer, v), EPSILON)(x)
    name = layer.activation.__name__
    return z if name in ("linear", "softmax") else passing(layer.activation)(z)  # the score is the logit


def relevance(model, x, target):
    """Of one class at the input."""
    joined = {}

    def run(model, xs):
        values = {id(t): v for t, v in zip(model.inputs, xs, strict=True)}
        uses = {}
        for nodes in model._nodes_by_depth.values():
            for node in nodes:
                for t in node.input_tensors:
                    uses.setdefault(id(t), []).append(node)
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                layer = node.operation
                given = [values[id(t)] for t in node.input_tensors]
                if isinstance(layer, keras.Model):
                    inner = getattr(layer, "_functional", None) or layer
                    found = run(inner, given)
                elif isinstance(layer, LINEAR):
                    after = uses.get(id(node.outputs[0]), [])
                    norm = after[0].operation if len(after) == 1 else None
                    plain = layer.activation.__name__ == "linear" and "Separable" not in type(layer).__name__
                    if plain and isinstance(norm, L.BatchNormalization):  # both are one
                        found = share(lambda v, a=layer, b=norm: b(a(v), training=False), EPSILON)(given[0])
                        joined[id(after[0])] = True
                    else:
                        found = of_layer(layer, given[0])
                elif id(node) in joined:
                    found = given[0]
                elif isinstance(layer, SHARED):
                    found = share(
                        lambda v, a=layer: a(v, training=False) if isinstance(a, L.BatchNormalization) else a(v), 0.0
                    )(given[0])
                elif isinstance(layer, L.Add) or type(layer).__name__ == "Add":
                    found = share(tf.add, 0.0)(*given)
                elif isinstance(layer, PASSING) or type(layer).__name__ in ("Relu", "Relu6"):
                    found = passing(lambda v, a=layer: a(v))(given[0])
                else:  # moves values, or chooses among them
                    args, kwargs = node.arguments.fill_in(
                        {id(t): v for t, v in zip(node.input_tensors, given, strict=True)}
                    )
                    found = layer(*args, **{k: v for k, v in kwargs.items() if k != "mask"})
                values.update({id(node.outputs[0]): found})
        return values[id(model.outputs[0])]

    model = getattr(model, "_functional", None) or model
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = run(model, [x])
        scores = tf.reduce_sum(scores, tuple(range(1, len(scores.shape) - 1))) if len(scores.shape) > 2 else scores
        score = scores[:, target]
    return tape.gradient(score, x, score).numpy()


def main(out, names):
    for name in names:
        zoo.precise(keras, "float32")
        stored = zoo.built(keras, name) if name in zoo.ZOO else zoo.applied(keras, name)
        stored.save(f"{out}/{name}.keras")
        zoo.precise(keras, "float64")
        double = zoo.built(keras, name) if name in zoo.ZOO else zoo.applied(keras, name)
        double.set_weights(stored.get_weights())
        x = zoo.samples(name) if name in zoo.ZOO else zoo.images(name)
        np.savez(f"{out}/{name}.npz", x=x, R=relevance(double, x.astype("float64"), 1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
