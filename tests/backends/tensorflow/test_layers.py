"""Layers one by one, over their settings, held against Keras."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camsweep.core.errors import RequestError

from . import zoo
from .harness import imported, keras, made, needs_keras, quiet, same

pytestmark = needs_keras


def drawn(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def layers():
    return keras().layers


SIZES = {1: (13,), 2: (11, 8), 3: (6, 7, 5)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("settings", [
    {"kernel_size": 3}, {"kernel_size": 3, "padding": "same"}, {"kernel_size": 2, "padding": "same"},
    {"kernel_size": 4, "strides": 2, "padding": "same"}, {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "strides": 3, "padding": "same", "use_bias": False}, {"kernel_size": 1, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same"}, {"kernel_size": 2, "dilation_rate": 2, "padding": "valid", "groups": 2},
], ids=str)  # fmt: skip
def test_convolution(rank, settings):
    layer = getattr(layers(), f"Conv{rank}D")(6, activation="relu", **settings)
    same(made([layer], (*SIZES[rank], 4)), drawn(*SIZES[rank], 4))


@pytest.mark.parametrize("dilation", [1, 3])
def test_causal_convolution(dilation):
    same(made([layers().Conv1D(5, 3, padding="causal", dilation_rate=dilation)], (13, 4)), drawn(13, 4))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    "settings", [{"padding": "same"}, {"strides": 2, "padding": "same"}, {"depth_multiplier": 3}], ids=str
)
@pytest.mark.parametrize("kind", ["DepthwiseConv", "SeparableConv"])
def test_depthwise_convolution(kind, rank, settings):
    given = (5, 3) if kind == "SeparableConv" else (3,)
    same(made([getattr(layers(), f"{kind}{rank}D")(*given, **settings)], (*SIZES[rank], 4)), drawn(*SIZES[rank], 4))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 2), (3, 2), (4, 2), (5, 3), (1, 2), (2, 3)])
def test_transposed_convolution(rank, padding, kernel, stride):
    layer = getattr(layers(), f"Conv{rank}DTranspose")(3, kernel, strides=stride, padding=padding)
    same(made([layer], (*SIZES[rank], 4)), drawn(*SIZES[rank], 4))


@pytest.mark.parametrize(
    ("settings"),
    [
        {"dilation_rate": 2},
        {"strides": 2, "output_padding": 1},
        {"strides": 3, "output_padding": 1, "padding": "same"},
        {"strides": 2, "output_padding": 0, "padding": "same"},
    ],
    ids=str,
)
def test_transposed_convolution_with_more_settings(settings):
    same(made([layers().Conv2DTranspose(3, 3, **settings)], (7, 5, 2)), drawn(7, 5, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_pooling(kind, rank, size, stride, padding):
    if kind == "Average" and padding == "same" and (size, stride) != (3, 1):
        pytest.skip("Keras pads these wrongly on torch; test_tensorflow holds them against TensorFlow")
    layer = getattr(layers(), f"{kind}Pooling{rank}D")(size, stride, padding=padding)
    same(made([layer], (*SIZES[rank], 4)), drawn(*SIZES[rank], 4))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_global_pooling(kind, rank, keeps):
    layer = getattr(layers(), f"Global{kind}Pooling{rank}D")(keepdims=keeps)
    same(made([layer], (*SIZES[rank], 4)), drawn(*SIZES[rank], 4))


@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_adaptive_pooling(kind):
    if not hasattr(layers(), f"Adaptive{kind}Pooling2D"):
        pytest.skip("not in this Keras")
    same(made([getattr(layers(), f"Adaptive{kind}Pooling2D")((4, 3))], (11, 8, 4)), drawn(11, 8, 4))


ACTIVATIONS = ["celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
               "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
               "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh",
               "tanh_shrink", "glu", "threshold"]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("place", ["dense", "conv", "layer"])
def test_activation(name, place):
    name = None if name == "threshold" else getattr(keras().activations, name)
    layer = {"dense": lambda: layers().Dense(6, activation=name), "conv": lambda: layers().Conv2D(6, 2, activation=name),
             "layer": lambda: layers().Activation(name)}[place]  # fmt: skip
    same(made([layer()], (5, 7, 4)), drawn(5, 7, 4))


def test_activation_layers():
    k = layers()
    for layer in (k.ReLU(), k.ReLU(max_value=6), k.ReLU(max_value=2.5), k.ReLU(negative_slope=0.2), k.ReLU(threshold=0.5, negative_slope=0.1, max_value=3.0),
                  k.LeakyReLU(0.15), k.ELU(0.7), k.PReLU(), k.PReLU(shared_axes=[1, 2]), k.Softmax(), k.Softmax(axis=1), k.Dense(4, activation=k.LeakyReLU(0.4))):  # fmt: skip
        same(made([layer], (5, 7, 4)), drawn(5, 7, 4))


@pytest.mark.parametrize("shape", [(6,), (9, 6), (7, 5, 6), (4, 5, 3, 6)], ids=str)
def test_normalization(shape):
    k = layers()
    kinds = [lambda: k.BatchNormalization(), lambda: k.BatchNormalization(scale=False, epsilon=0.1), lambda: k.BatchNormalization(center=False),
              lambda: k.LayerNormalization(), lambda: k.LayerNormalization(epsilon=0.1, center=False), lambda: k.UnitNormalization(), lambda: k.RMSNormalization()]  # fmt: skip
    if len(shape) > 1:
        kinds += [
            lambda: k.GroupNormalization(3),
            lambda: k.GroupNormalization(-1, scale=False),
            lambda: k.LayerNormalization(axis=[-2, -1]),
        ]
    for layer in kinds:
        same(made([layer()], shape), drawn(*shape))


def test_preprocessing():
    k = layers()
    for layer in (k.Rescaling(1 / 255), k.Rescaling(2.0, offset=-1), k.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, -1.0]),
                  k.Normalization(mean=[1.0, 2.0, 3.0], variance=[0.5, 2.0, 1.0]), k.Normalization(mean=0.5, variance=2.0), k.Normalization(mean=[1.0, 2.0, 3.0], variance=[0.5, 2.0, 1.0], invert=True),
                  k.Resizing(7, 9), k.Resizing(20, 5, interpolation="nearest"), k.CenterCrop(6, 5), k.CenterCrop(30, 20),
                  k.RandomFlip(), k.RandomRotation(0.2), k.RandomZoom(0.2), k.RandomContrast(0.2), k.RandomTranslation(0.1, 0.1)):  # fmt: skip
        same(made([layer], (12, 10, 3)), drawn(12, 10, 3))


def test_adapted_normalization():
    with quiet():
        layer = layers().Normalization()
        layer.adapt(drawn(12, 10, 3))
        model = keras().Sequential([keras().Input((12, 10, 3)), layer])
    same(model, drawn(12, 10, 3))


def test_shaping():
    k = layers()
    for layer in (k.ZeroPadding2D(2), k.ZeroPadding2D(((1, 0), (2, 3))), k.Cropping2D(((1, 0), (2, 1))), k.UpSampling2D((2, 3)), k.UpSampling2D(2, interpolation="bilinear"),
                  k.Flatten(), k.Reshape((-1, 4)), k.Reshape((2, 5, 16)), k.Permute((3, 1, 2)), k.Dropout(0.5), k.SpatialDropout2D(0.5), k.GaussianNoise(0.5),
                  k.AlphaDropout(0.5), k.ActivityRegularization(0.1), k.Identity()):  # fmt: skip
        same(made([layer], (10, 4, 4)), drawn(10, 4, 4))
    for layer in (
        k.ZeroPadding1D((1, 2)),
        k.Cropping1D((1, 2)),
        k.UpSampling1D(3),
        k.SpatialDropout1D(0.5),
        k.GaussianDropout(0.5),
    ):
        same(made([layer], (10, 4)), drawn(10, 4))
    for layer in (k.ZeroPadding3D(1), k.Cropping3D(1), k.UpSampling3D(2)):
        same(made([layer], (4, 5, 3, 2)), drawn(4, 5, 3, 2))
    same(made([k.RepeatVector(3)], (5,)), drawn(5))


@pytest.mark.parametrize(
    "name", ["Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract", "Concatenate", "first", "ranks", "dot"]
)
def test_merging(name):
    k = layers()
    with quiet():
        i = keras().Input((6, 5, 4))
        a, b = k.Conv2D(4, 1)(i), k.Conv2D(4, 1)(i)
        if name == "first":
            x = k.Concatenate(axis=1)([a, b])
        elif name == "ranks":
            x = k.Multiply()([a, k.GlobalAveragePooling2D()(b)])
        elif name == "dot":
            x = k.Dot(axes=(1, 2), normalize=True)([k.Reshape((6, 20))(a), k.Reshape((20, 6))(b)])
        else:
            x = getattr(k, name)()([a, b])
        model = keras().Model(i, x)
        zoo.scattered(model)
    same(model, drawn(6, 5, 4))


RECURRENT = [
    {},
    {"return_sequences": True},
    {"go_backwards": True},
    {"use_bias": False},
    {"activation": "relu"},
    {"return_sequences": True, "go_backwards": True},
]


@pytest.mark.parametrize("settings", RECURRENT, ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent(kind, settings):
    same(made([getattr(layers(), kind)(5, **settings)], (9, 4)), drawn(9, 4))


@pytest.mark.parametrize("mode", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional(mode, sequences):
    k = layers()
    same(made([k.Bidirectional(k.LSTM(5, return_sequences=sequences), merge_mode=mode)], (9, 4)), drawn(9, 4))


def test_more_recurrent():
    k = layers()
    for layer in (k.GRU(4, reset_after=False), k.LSTM(4, recurrent_activation="hard_sigmoid"), k.RNN([k.LSTMCell(4), k.GRUCell(3)]), k.RNN(k.SimpleRNNCell(4), return_sequences=True),
                  k.TimeDistributed(k.Dense(3, activation="softmax")), k.Bidirectional(k.GRU(3), backward_layer=k.GRU(3, go_backwards=True, activation="relu"))):  # fmt: skip
        same(made([layer], (9, 4)), drawn(9, 4))
    same(
        made(
            [
                k.TimeDistributed(k.Conv2D(3, 3, activation="relu")),
                k.TimeDistributed(k.GlobalMaxPooling2D()),
                k.LSTM(3),
            ],
            (4, 8, 7, 2),
        ),
        drawn(4, 8, 7, 2),
    )


def test_states_go_from_one_layer_to_another():
    k = layers()
    with quiet():
        i = keras().Input((9, 4))
        y, h, c = k.LSTM(5, return_state=True, return_sequences=True)(i)
        z = k.LSTM(5)(y, initial_state=[h, c])
        a, b, s = k.Bidirectional(k.GRU(3, return_state=True), name="both")(i)
        model = keras().Model(i, k.Concatenate()([z, h, c, a, b + s]))
        zoo.scattered(model)
    same(model, drawn(9, 4))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "Bidirectional"])
def test_masked_steps_are_passed_over(kind, sequences):
    k = layers()
    layer = (
        k.Bidirectional(k.LSTM(5, return_sequences=sequences))
        if kind == "Bidirectional"
        else getattr(k, kind)(5, return_sequences=sequences)
    )
    x = drawn(9, 4)
    x[0, 6:] = x[1, :2] = 0
    parts = [k.Masking(), k.Dropout(0.2), layer, *([k.GlobalAveragePooling1D()] if sequences else [])]
    same(made(parts, (9, 4)), x)


def test_masks_that_are_not_supported_are_refused():
    k = layers()
    with quiet():
        i = keras().Input((9, 4))
        m = k.Masking()(i)
        model = keras().Model(i, k.MultiHeadAttention(2, 3)(m, m))
    with pytest.raises(RequestError, match=r"layer 'multi_head_attention.*' \(MultiHeadAttention\) is given a mask"):
        imported(model)


@pytest.mark.parametrize(
    "settings", [{}, {"value_dim": 5, "use_bias": False}, {"output_shape": 7}, {"attention_axes": (2,)}], ids=str
)
def test_multi_head_attention(settings):
    shape = (5, 6, 4) if "attention_axes" in settings else (6, 4)
    with quiet():
        i = keras().Input(shape)
        model = keras().Model(i, layers().MultiHeadAttention(2, 3, **settings)(i, i))
        zoo.scattered(model)
    same(model, drawn(*shape))


def test_attention_with_scores_causality_and_other_keys():
    k = layers()
    with quiet():
        i = keras().Input((6, 4))
        other = k.Dense(4)(i)
        a, s = k.MultiHeadAttention(2, 3)(i, other, return_attention_scores=True)
        b = k.MultiHeadAttention(2, 3)(i, other, i, use_causal_mask=True)
        c = k.Attention(use_scale=True)([i, other], use_causal_mask=True) + k.Attention(
            score_mode="concat", use_scale=True
        )([i, other, i])
        d = k.AdditiveAttention()([i, other])
        model = keras().Model(i, k.Concatenate()([a, b, c, d, k.Reshape((6, 12))(s)]))
        zoo.scattered(model)
    same(model, drawn(6, 4))


@pytest.mark.parametrize(
    ("equation", "shape", "bias"),
    [
        ("abc,cd->abd", (None, 6), "d"),
        ("abc,cde->abde", (None, 2, 3), "de"),
        ("abc,bcd->ad", (6,), "d"),
        ("abc,bcd->abd", (5, 6), "bd"),
        ("...x,xy->...y", (5, 6), None),
    ],
)
def test_einsum_dense(equation, shape, bias):
    same(made([layers().EinsumDense(equation, shape, bias_axes=bias)], (5, 4)), drawn(5, 4))


def test_operations():
    ops = keras().ops
    for function in (
        lambda x: ops.mean(x, axis=(1, 2)), lambda x: ops.max(x, axis=-1), lambda x: x / 3.0 - 1.0, lambda x: -x * x, lambda x: ops.clip(x, -1.0, 1.0), lambda x: ops.abs(x) ** 1.5,
        lambda x: ops.softmax(x, axis=-1), lambda x: ops.softmax(x, axis=1), lambda x: ops.leaky_relu(x, 0.3), lambda x: ops.elu(x), lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
        lambda x: ops.split(x, 2, axis=-1)[1], lambda x: x[:, 1:, ::2], lambda x: ops.concatenate([x, x + 1.0], axis=1), lambda x: ops.where(x > 0, x, 0.1 * x), lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0))),
        lambda x: ops.max_pool(x, 2), lambda x: ops.normalize(x), lambda x: ops.image.resize(x, (9, 9)), lambda x: ops.einsum("abcd,aecd->abe", x, x), lambda x: ops.transpose(x, (0, 3, 1, 2)), lambda x: ops.stack([x, x * 2.0], axis=-1),
    ):  # fmt: skip
        with quiet():
            i = keras().Input((6, 8, 4))
            model = keras().Model(i, function(keras().layers.Conv2D(4, 1)(i)))
            zoo.scattered(model)
        same(model, drawn(6, 8, 4))


def test_embedding_takes_numbers_as_floats():
    k = layers()
    model = made([k.Embedding(9, 4), k.GlobalAveragePooling1D(), k.Dense(2)], (7,), dtype="int32")
    x = np.random.default_rng(0).integers(0, 9, (2, 7))
    with quiet(), torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(imported(model)(torch.from_numpy(x).float()).numpy(), expected, atol=1e-6)


def test_shared_layers_are_one_module():
    k = layers()
    with quiet():
        i = keras().Input((6, 5, 4))
        conv = k.Conv2D(4, 3, padding="same", name="conv")
        model = keras().Model(i, k.Add()([conv(i), conv(conv(i))]))
        zoo.scattered(model)
    module = same(model, drawn(6, 5, 4))
    assert [name for name, _ in module.named_modules()] == ["", "conv", *[n for n, _ in module.named_modules()][2:]]
    assert sum(parameter.numel() for parameter in module.parameters()) == 3 * 3 * 4 * 4 + 4


def test_layers_whose_names_torch_would_not_take():
    k = layers()
    with quiet():
        i = keras().Input((6, 5, 4))
        model = keras().Model(
            i, k.Conv2D(2, 1, name="training")(k.ReLU(name="forward")(k.Conv2D(4, 1, name="double")(i)))
        )
        zoo.scattered(model)
    assert [name for name, _ in same(model, drawn(6, 5, 4)).named_children()] == ["double_", "forward_", "training_"]


def test_several_inputs_and_outputs():
    k = layers()
    with quiet():
        a, b = keras().Input((6, 5, 4), name="image"), keras().Input((3,), name="age")
        x = k.Concatenate()([k.GlobalAveragePooling2D()(k.Conv2D(4, 3)(a)), b])
        model = keras().Model([a, b], [k.Dense(2, name="one")(x), k.Conv2D(3, 1, name="two")(a)])
        zoo.scattered(model)
        x, age = torch.from_numpy(drawn(6, 5, 4)), torch.from_numpy(drawn(3))
        one, two = model([x, age])
    module = imported(model)
    for found in (
        module(x.movedim(-1, 1), age=age),
        module(image=x.movedim(-1, 1), age=age),
        module(x.movedim(-1, 1), age),
    ):
        torch.testing.assert_close(found["one"], one)
        torch.testing.assert_close(found["two"].movedim(1, -1), two)
    from camsweep.backends.tensorflow.conversion import imported as convert

    with pytest.raises(RequestError, match="no input 'sex' in the model; its inputs are image, age"):
        convert(model, "sex")


def test_an_axis_for_the_channel_may_be_missing_in_the_model():
    k = layers()
    model = made([k.Flatten(), k.Dense(3)], (8, 7))
    x = drawn(8, 7)
    with quiet(), torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(imported(model)(torch.from_numpy(x)[:, None]).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("layer", "shape", "told"), [
    (lambda k: k.ConvLSTM2D(2, 3), (4, 8, 8, 2), "is not supported"),
    (lambda k: k.UpSampling2D(2, interpolation="bicubic"), (8, 8, 2), "interpolates bicubic"),
    (lambda k: k.Resizing(4, 4, crop_to_aspect_ratio=True), (8, 8, 2), "keeps the aspect ratio"),
    (lambda k: k.BatchNormalization(axis=1), (8, 8, 2), None),
    (lambda k: k.BatchNormalization(axis=2), (8, 8, 2), "is over axis 2"),
    (lambda k: k.Discretization(bin_boundaries=[0.0, 1.0]), (8,), "is not supported"),
], ids=["convlstm", "bicubic", "aspect", "axis 1", "axis 2", "discretization"])  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(layer, shape, told):
    model = made([layer(layers())], shape)
    if told is None:
        return
    with pytest.raises(RequestError, match=told) as caught:
        imported(model)
    assert model.layers[-1].name in str(caught.value)
    assert "\n" not in str(caught.value)
