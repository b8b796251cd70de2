"""Somebody's own code: what a user would name with ``--model own_net.py:NAME``."""

import keras
from keras import layers as L
from keras import ops


class Gate(L.Layer):
    """With a weight of its own, and a layer inside."""

    def __init__(self, units, **settings):
        super().__init__(**settings)
        self.units = units
        self.dense = L.Dense(units, activation="sigmoid", name="inner")

    def build(self, shape):
        self.strength = self.add_weight(shape=(shape[-1],), name="strength", initializer="ones")
        self.dense.build((None, shape[-1]))
        self.built = True

    def call(self, x):
        return x * self.strength * self.dense(ops.mean(x, axis=(1, 2)))[:, None, None, :]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Net(keras.Model):
    def __init__(self, width=6, **settings):
        super().__init__(**settings)
        self.width = width
        self.first = L.Conv2D(width, 3, padding="same", name="first")
        self.norm = L.BatchNormalization(name="norm")
        self.blocks = [L.Conv2D(width, 3, 2, padding="same", activation="relu", name=f"block{i}") for i in range(2)]
        self.gate = Gate(width, name="gate")
        self.pool = L.GlobalAveragePooling2D(name="pool")
        self.head = L.Dense(3, name="head")

    def call(self, x, training=False):
        x = ops.relu(self.norm(self.first(x), training=training))
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(self.gate(x) + x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def build(width=6):
    net = Net(width)
    net.build((None, 12, 10, 2))
    return net


def functional():
    inputs = keras.Input((12, 10, 2))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(Gate(6, name="gate")(L.Conv2D(6, 3, activation="relu")(inputs)))))


def twin(net):
    """The same layers as a graph that Keras knows."""
    inputs = keras.Input((12, 10, 2))
    x = L.ReLU()(net.norm(net.first(inputs)))
    for block in net.blocks:
        x = block(x)
    return keras.Model(inputs, net.head(net.pool(x)))


class Plain(Net):
    def call(self, x, training=False):
        x = ops.relu(self.norm(self.first(x), training=training))
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(x))
