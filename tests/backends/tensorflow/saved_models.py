"""As a script, ``python saved_models.py FOLDER NAME ..`` writes SavedModels of the zoo, and hostile ones."""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf


def exported(folder, name):
    import zoo

    made, x = zoo.built(keras, name), zoo.samples(name)
    y, g = zoo.outputs_and_gradients(keras, made, x)
    np.savez(f"{folder}/{name}.npz", x=x, y=y, g=g)
    made.export(f"{folder}/{name}", verbose=False)


class Resource(tf.saved_model.experimental.TrackableResource):
    """Made anew whenever the model is loaded."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    def _create_resource(self):
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

    def _initialize(self):
        tf.io.write_file(self.target, "x")


HOSTILE = ("write", "save", "start", "two", "print", "other")


def hostile(folder, name):
    target = f"{folder}/written_{name}"
    module = tf.Module()
    module.w = tf.Variable(tf.ones((3, 2)))

    def function(sign):
        def call(x):
            if name == "write":
                tf.io.write_file(target, "x")
            if name == "print":
                tf.print(x, output_stream=f"file://{target}")
            if name == "save":
                tf.raw_ops.SaveV2(prefix=target, tensor_names=["a"], shape_and_slices=[""], tensors=[x])
            return {"y": tf.matmul(x, module.w) * sign}

        return tf.function(call, input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])

    module.one, module.two = function(1.0), function(-1.0)
    if name == "other":  # a function that is of no signature
        module.two = tf.function(lambda x: (tf.io.write_file(target, "x"), x)[1], input_signature=[tf.TensorSpec(())])
    if name == "start":
        module.resource = Resource(target)
        module.resource.resource_handle  # noqa: B018  (which makes it)
    tf.saved_model.save(
        module, f"{folder}/{name}", signatures={"one": module.one, "two": module.two} if name == "two" else module.one
    )


if __name__ == "__main__":
    for each in sys.argv[2:]:
        exported(sys.argv[1], each)
    for each in HOSTILE:
        hostile(sys.argv[1], each)
    for each in tf.io.gfile.glob(f"{sys.argv[1]}/written*"):  # that making them ran them is not the point
        tf.io.gfile.remove(each)
