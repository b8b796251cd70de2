"""Small Keras models of all kinds, with weights of no kind in particular.

Each builder takes the package, Keras 3 on whatever it runs on or ``tf_keras``, and gives a model. As a script, this
writes them to a folder with their outputs and gradients: ``python zoo.py keras|tf_keras FOLDER NAME ..``.
"""

from __future__ import annotations

import numpy as np

ZOO = {}
"""Name to (builder, shape of one sample as the model takes it)."""
KERAS_2 = (
    "signal",
    "image",
    "uneven",
    "volume",
    "lstm",
    "gru",
    "bidirectional",
    "attention",
    "nested",
    "unet",
    "tokens",
)
"""Those which ``tf_keras`` can build too."""


def model(*shape):
    def register(build):
        ZOO[build.__name__] = (build, shape)
        return build

    return register


def built(keras, name, seed=0):
    """The model, all its weights drawn anew."""
    build, _ = ZOO[name]
    keras.utils.set_random_seed(seed)
    made = build(keras)
    scattered(made, seed)
    return made


def scattered(made, seed=0):
    rng = np.random.default_rng(seed)
    drawn = []
    for variable in made.weights:
        name, shape = variable.name, tuple(variable.shape)
        if str(np.dtype(getattr(variable.dtype, "as_numpy_dtype", variable.dtype)))[:3] not in ("flo",):
            drawn.append(np.zeros(shape, "int64"))
        elif "variance" in name or "gamma" in name or "scale" in name:
            drawn.append(rng.uniform(0.5, 1.5, shape))
        elif len(shape) > 1:
            fan = np.prod(shape[:-1])
            drawn.append(rng.normal(size=shape) * (1.4 / np.sqrt(fan)))
        else:
            drawn.append(rng.normal(size=shape) * 0.1)
    made.set_weights(drawn)


def settled(made, x, seed=0):
    """Biases, scales and statistics drawn anew, the last about those of ``x``; so its outputs depend on its inputs."""
    rng = np.random.default_rng(seed)
    drawn = []
    for variable, value in zip(made.weights, made.get_weights(), strict=True):
        name = variable.name
        if "gamma" in name:
            drawn.append(rng.uniform(0.5, 1.5, value.shape))
        elif "beta" in name or "bias" in name:
            drawn.append(rng.normal(size=value.shape) * 0.1)
        else:
            drawn.append(value)
    made.set_weights(drawn)
    norms = [layer for layer in made._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    made(x, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
        layer.moving_mean.assign(mean + rng.normal(size=mean.shape) * 0.3 * np.sqrt(variance))
        layer.moving_variance.assign(variance * rng.uniform(0.5, 1.5, variance.shape) + 0.1 * variance.mean())


def samples(name, count=2, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *ZOO[name][1])).astype("float32")


@model(40, 3)
def signal(keras):
    L = keras.layers
    return keras.Sequential([
        keras.Input((40, 3)), L.Conv1D(8, 5, padding="causal"), L.BatchNormalization(), L.ReLU(),
        L.SeparableConv1D(12, 4, padding="same", depth_multiplier=2, activation="relu"), L.MaxPooling1D(3, 2, padding="same"),
        L.Conv1D(8, 4, dilation_rate=2, padding="same", activation="tanh"), L.AveragePooling1D(3, 1, padding="same"),
        L.Dropout(0.5), L.GlobalAveragePooling1D(), L.Dense(4, activation="softmax")])  # fmt: skip


@model(18, 15, 3)
def image(keras):
    L = keras.layers
    x = inputs = keras.Input((18, 15, 3))
    x = L.Conv2D(8, 3, 2, padding="same", use_bias=False)(x)
    x = y = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=1, activation="elu")(x)
    x = L.Conv2D(8, (3, 2), padding="same", groups=2)(x)
    x = L.LeakyReLU()(L.BatchNormalization(scale=False)(x))
    x = L.Add()([x, y])
    x = L.AveragePooling2D(3, 1, padding="same")(x)
    x = L.SeparableConv2D(10, 3, activation="gelu")(x)
    x = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x)])
    return keras.Model(inputs, L.Dense(3)(x))


@model(20, 13, 4)
def uneven(keras):
    """Averages over windows padded on one side only, which Keras gets wrong on torch."""
    L = keras.layers
    x = inputs = keras.Input((20, 13, 4))
    x = L.AveragePooling2D(3, 2, padding="same")(x)
    x = L.Conv2D(5, 2, padding="same", activation="relu")(x)
    x = L.Flatten()(L.AveragePooling2D((4, 2), (1, 3), padding="same")(x))
    return keras.Model(inputs, L.Dense(3)(x))


@model(8, 9, 7, 2)
def volume(keras):
    L = keras.layers
    x = inputs = keras.Input((8, 9, 7, 2))
    x = L.Conv3D(6, 3, padding="same", strides=(1, 2, 1))(x)
    x = L.PReLU(shared_axes=[1, 2, 3])(L.BatchNormalization()(x))
    x = L.MaxPooling3D(2, padding="same")(x)
    x = L.Conv3DTranspose(4, 3, strides=2, padding="same", activation="relu")(x)
    x = L.ZeroPadding3D((1, 0, 2))(x)
    x = L.Cropping3D(((0, 1), (1, 0), (1, 1)))(x)
    x = L.AveragePooling3D((2, 3, 1))(L.UpSampling3D((1, 2, 1))(x))
    return keras.Model(inputs, L.Dense(3, activation="sigmoid")(L.Flatten()(x)))


@model(12, 4)
def lstm(keras):
    L = keras.layers
    return keras.Sequential([keras.Input((12, 4)), L.LSTM(6, return_sequences=True), L.LSTM(5), L.Dense(3)])


@model(12, 4)
def gru(keras):
    L = keras.layers
    return keras.Sequential([
        keras.Input((12, 4)), L.GRU(6, return_sequences=True), L.GRU(5, return_sequences=True, reset_after=False),
        L.SimpleRNN(4, go_backwards=True, return_sequences=True), L.LSTM(4, use_bias=False, recurrent_activation="hard_sigmoid"),
        L.Dense(3)])  # fmt: skip


@model(10, 4)
def bidirectional(keras):
    L = keras.layers
    return keras.Sequential([
        keras.Input((10, 4)), L.Bidirectional(L.LSTM(5, return_sequences=True)), L.TimeDistributed(L.Dense(6, activation="relu")),
        L.Bidirectional(L.GRU(4), merge_mode="sum"), L.Dense(3)])  # fmt: skip


@model(10, 8)
def attention(keras):
    L = keras.layers
    x = inputs = keras.Input((10, 8))
    x = L.LayerNormalization()(
        x + L.MultiHeadAttention(2, 4)(x, x)
        if keras.__version__ > "3"
        else L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])
    )
    y = L.Dense(8)(L.Dense(16, activation="relu")(x))
    x = L.LayerNormalization(epsilon=1e-5)(L.Add()([x, y]))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


@model(12, 12, 4)
def nested(keras):
    L = keras.layers
    i = keras.Input((12, 12, 4))
    block = keras.Model(
        i, L.Add()([i, L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(i)))]), name="block"
    )
    head = keras.Sequential(
        [keras.Input((12, 12, 4)), L.Conv2D(6, 3, activation="relu"), L.GlobalAveragePooling2D()], name="head"
    )
    inputs = keras.Input((12, 12, 4))
    return keras.Model(inputs, L.Dense(3)(head(block(block(inputs)))))


@model(16, 16, 3)
def unet(keras):
    L = keras.layers
    inputs = keras.Input((16, 16, 3))
    a = L.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    b = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    b = L.Concatenate()([b, L.Conv2DTranspose(8, 3, 2, padding="same")(c)])
    b = L.Conv2D(8, 3, padding="same", activation="relu")(b)
    a = L.Concatenate()([a, L.UpSampling2D(interpolation="bilinear")(b)])
    a = L.Conv2D(6, 3, padding="same", activation="relu")(a)
    return keras.Model(inputs, L.Conv2D(3, 1, activation="softmax")(a))


@model(24)
def tokens(keras):
    L = keras.layers
    x = inputs = keras.Input((24,))
    x = L.Reshape((6, 4))(x)
    x = L.Permute((2, 1))(x)
    x = L.Multiply()([x, L.RepeatVector(4)(L.Dense(6, activation="hard_sigmoid")(L.Flatten()(x)))])
    x = L.Maximum()(
        [L.Subtract()([x, L.Conv1D(6, 1)(x)]), L.Average()([x, L.Minimum()([x, L.Activation("swish")(x)])])]
    )
    x = L.Dot(axes=2)([x, L.Dense(6)(x)])
    return keras.Model(inputs, L.Softmax()(L.Dense(3)(L.Flatten()(x))))


@model(14, 14, 3)
def norms(keras):
    L = keras.layers
    inputs = keras.Input((14, 14, 3))
    x = L.Rescaling([0.5, 2.0, 1.0], offset=[0.1, 0.2, -0.3])(inputs)
    x = L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 0.5, 2.0])(x)
    x = L.RandomRotation(0.1)(L.RandomFlip()(x))
    x = L.CenterCrop(10, 11)(L.Resizing(12, 13)(x))
    x = L.GroupNormalization(2)(L.Conv2D(8, 3, activation="silu")(x))
    x = L.LayerNormalization()(L.Conv2D(8, 1, activation="mish")(x))
    x = L.RMSNormalization()(x)
    x = L.UnitNormalization()(L.SpatialDropout2D(0.2)(x))
    x = L.GlobalAveragePooling2D(keepdims=True)(L.GaussianNoise(0.1)(x))
    x = L.Flatten()(L.PReLU()(x))
    return keras.Model(inputs, L.Dense(4, activation="log_softmax")(x))


@model(9, 9, 4)
def operations(keras):
    L, ops = keras.layers, keras.ops
    inputs = keras.Input((9, 9, 4))
    x = ops.relu(L.Conv2D(6, 3)(inputs)) * 2.0 - 0.5
    gate = ops.sigmoid(L.Conv2D(6, 1)(ops.mean(x, axis=(1, 2), keepdims=True)))
    x = ops.gelu(ops.add(x * gate, ops.square(x)))
    y = ops.reshape(x, (-1, 49, 6))
    y = ops.softmax(ops.matmul(y, ops.transpose(y, (0, 2, 1))) / 9.0, axis=-1) @ y
    x = ops.concatenate([x[:, ::2, 1:, :], ops.expand_dims(y[:, :4], 1)[:, :, :1] + x[:, ::2, 1:, :]], axis=-1)
    return keras.Model(inputs, L.Dense(3)(ops.max(ops.stack([x, -x], axis=1), axis=(1, 2, 3))))


@model(3, 12, 10)
def first(keras):
    L = keras.layers
    x = inputs = keras.Input((3, 12, 10))
    f = {"data_format": "channels_first"}
    x = L.BatchNormalization(axis=1)(L.Conv2D(6, 3, padding="same", **f)(x))
    x = L.MaxPooling2D(**f)(L.ReLU()(x))
    x = L.Concatenate(axis=1)([x, L.DepthwiseConv2D(3, padding="same", **f)(x)])
    x = L.UpSampling2D(**f)(x)
    return keras.Model(inputs, L.Dense(3)(L.Flatten(**f)(L.ZeroPadding2D(1, **f)(x))))


@model(11, 5)
def places(keras):
    """A score for each point."""
    L = keras.layers
    x = inputs = keras.Input((11, 5))
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(L.Conv1D(6, 3, padding="same", activation="relu")(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x))


@model(16, 12)
def heads(keras):
    L = keras.layers
    x = inputs = keras.Input((16, 12))
    x = (
        L.GroupQueryAttention(4, 4, 2)(x, x)
        if hasattr(L, "GroupQueryAttention")
        else L.GroupedQueryAttention(4, 4, 2)(x, x)
    )
    x = x + L.Attention()([x, L.Dense(12)(x)])
    x = x + L.AdditiveAttention()([x, L.Dense(12)(x)])
    x = L.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d", activation="relu")(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalMaxPooling1D()(x)))


@model(12, 10, 2)
def own_net(keras):
    """Of somebody's own classes, which Keras knows no graph of."""
    import own_net

    made = own_net.Net()
    made(keras.ops.zeros((1, 12, 10, 2)))
    return made


def outputs_and_gradients(keras, made, x):
    """Of the model itself: its outputs, and the gradient of their weighted sum."""
    backend = keras.backend.backend() if hasattr(keras.backend, "backend") else "tensorflow"
    if backend == "torch":
        import torch

        given = torch.from_numpy(x).requires_grad_()
        y = made(given, training=False)
        (y * weights(y.shape, torch.from_numpy)).sum().backward()
        return y.detach().numpy(), given.grad.numpy()
    import tensorflow as tf

    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = made(given, training=False)
        total = tf.reduce_sum(y * tf.cast(weights(y.shape, tf.constant), y.dtype))
    return y.numpy(), tape.gradient(total, given).numpy()


def weights(shape, convert):
    return convert(np.random.default_rng(5).normal(size=tuple(shape)).astype("float32"))


RAW = ("Efficient", "MobileNetV3", "ConvNeXt")
"""Beginnings of the names of those that scale images of 0 .. 255 themselves."""
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "VGG16": 32}
"""Of images; of those it is the smallest that they take."""


def applied(keras, name):
    """A well-known architecture for small images."""
    side = SIDES.get(name, 64)
    keras.utils.set_random_seed(0)
    made = getattr(keras.applications, name)(
        weights=None, input_shape=(side, side, 3), classes=5, classifier_activation=None
    )
    for layer in made._flatten_layers():
        for setting in ("scale", "offset", "input_mean", "input_variance"):
            value = vars(layer).get(setting)
            if value is not None:  # Keras on TensorFlow has them in single precision, whatever the model is in
                setattr(layer, setting, np.asarray(value, "float32").astype("float64").tolist())
        if vars(layer).get("input_mean") is not None:
            layer.finalize_state()
    settled(made, images(name, 4, 2))
    return made


def images(name, count=2, seed=1):
    side = SIDES.get(name, 64)
    drawn = np.random.default_rng(seed).normal(size=(count, side, side, 3)).astype("float32")
    return drawn * 50 + 128 if name.startswith(RAW) else drawn


def precise(keras, dtype):
    keras.backend.set_floatx(dtype)
    policy = getattr(keras, "config", keras.mixed_precision)
    getattr(policy, "set_dtype_policy", getattr(policy, "set_global_policy", None))(dtype)


def write(package, folder, names):
    """Models of the zoo, with what they give; or of ``keras.applications``, with what they give in double precision."""
    keras = __import__(package)
    for name in names:
        if name in ZOO:
            made, x = built(keras, name), samples(name)
            y, g = outputs_and_gradients(keras, made, x)
        else:
            made, x = applied(keras, name), images(name)
            precise(keras, "float64")
            double = applied(keras, name)
            double.set_weights(made.get_weights())
            y, g = outputs_and_gradients(keras, double, x.astype("float64"))
            precise(keras, "float32")
        np.savez(f"{folder}/{name}.npz", x=x, y=y, g=g)
        made.save(f"{folder}/{name}.keras")
        if hasattr(made, "_nodes_by_depth") or hasattr(made, "_functional"):  # the other ending is for graphs only
            made.save(f"{folder}/{name}.h5")


if __name__ == "__main__":
    import sys

    write(sys.argv[1], sys.argv[2], sys.argv[3:])
