"""TensorFlow running the model itself, against the same nets in torch; and what is refused.

Keras stays on what it first ran on, so all of it happens in a process of its own: this file, run as a script.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from .harness import CODE, needs_keras, needs_tensorflow, once

SAVING = "ignore::DeprecationWarning:keras.src.backend.tensorflow.core"
"""What Keras does with NumPy 2 when it writes a file."""
CASES = {}
"""Name to what checks it; it may give figures."""


def case(function):
    CASES[function.__name__] = function
    return function


def every(**choices):
    [(name, values)] = choices.items()

    def register(function):
        for value in values:
            CASES[f"{function.__name__}[{value}]"] = lambda value=value: function(**{name: value})
        return function

    return register


def group(name):
    """Cases of one process: those of all methods take as long as the others together."""
    return "maps" if name.startswith("maps[") else "rest"


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """What the script prints of a case, all of its group having run in one process, whichever test asks first."""

    def ask(name):
        names = [each for each in CASES if group(each) == group(name)]
        return json.loads(
            once(tmp_path_factory, f"native_{group(name)}", lambda: run(names, tmp_path_factory.mktemp("native")))
        )[name]

    return ask


def run(names, folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KERAS", "TF_"))}
    environment["TMPDIR"] = str(folder)
    module = "camsweep.tests.backends.tensorflow.test_native"
    command = [sys.executable, "-W", "error", "-W", SAVING, "-m", module, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


# -- Keras twins of `tests.support.Net`

EXTRA = (
    "gradcam:smooth=both",
    "grad+input",
    "grad+sign",
    "ig:steps=6,rule=trapezoid",
    "occlusion:window=3",
    "gradcam:fuse=mean",
)


def keras():
    from camsweep.backends.tensorflow.taped.framework import keras

    return keras()


def backend(model, dtype="float32", **settings):
    from camsweep.backends.tensorflow.taped import NativeBackend

    return NativeBackend(model, device=torch.device("cpu"), dtype=dtype, **settings)


def filled(find, net):
    """The torch net's weights in the Keras layers of the same names."""
    for name in ("first", "second", "head"):
        own = getattr(net, name)
        weight = own.weight.detach().numpy()
        weight = weight.T if name == "head" else np.moveaxis(weight, (0, 1), (-1, -2))
        find(name).set_weights([weight, own.bias.detach().numpy()])


def parts(rank, package=None):
    L = (package or keras()).layers
    conv, pad = getattr(L, f"Conv{rank}D"), getattr(L, f"ZeroPadding{rank}D")
    return L, conv, pad, getattr(L, f"GlobalAveragePooling{rank}D")


def trunk(rank, x, package=None):
    L, conv, pad, _ = parts(rank, package)
    x = L.ReLU()(conv(4, 3, strides=2, name="first")(pad(1)(x)))
    return conv(5, 3, activation="relu", name="second")(pad(1)(x))


def size(rank):
    from camsweep.tests.support import SHAPES

    return *SHAPES[rank][1:], SHAPES[rank][0]


def functional(rank, net, final=None, package=None):
    k = package or keras()
    L, *_, mean = parts(rank, package)
    given = k.Input(size(rank))
    model = k.Model(given, L.Dense(3, activation=final, name="head")(mean()(trunk(rank, given, package))))
    filled(model.get_layer, net)
    return model


def nested(net):
    k = keras()
    L, *_, mean = parts(2)
    inner, outer = k.Input(size(2)), k.Input(size(2))
    body = k.Model(inner, trunk(2, inner), name="body")
    model = k.Sequential([outer, body, mean(), k.Sequential([L.Dropout(0.5), L.Dense(3, name="head")], name="top")])
    filled(
        {"first": body.get_layer("first"), "second": body.get_layer("second"), "head": model.layers[-1].layers[-1]}.get,
        net,
    )
    return model


def subclassed(net):
    k = keras()
    L, conv, pad, mean = parts(2)

    class Own(k.Model):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.pad = pad(1)
            self.first, self.second = conv(4, 3, strides=2, name="first"), conv(5, 3, name="second")
            self.mean, self.head = mean(), L.Dense(3, name="head")

        def call(self, x):
            x = k.ops.relu(self.second(self.pad(k.ops.relu(self.first(self.pad(x))))))
            return k.ops.softmax(self.head(self.mean(x)))

    model = Own()
    model(np.zeros((1, *size(2)), "float32"))
    filled(lambda name: getattr(model, name), net)
    return model


def asked():
    """All methods that TensorFlow answers, with fewer masks, and some of their keys."""
    from camsweep.backends.tensorflow.taped import NativeBackend
    from camsweep.core.methods import METHODS, parse_expression

    known = NativeBackend.answers - {"C"}  # concepts are fitted before
    answered = [name for name in METHODS if parse_expression(name).asks <= known]
    return [*("rise:n=40" if name == "rise" else name for name in answered), *EXTRA]


def compared(model, net, x, expressions, dtype, layers=("first", "second"), names=None):
    """The largest relative difference of the maps of both, each a map of something."""
    from camsweep.tests import support

    own = support.TorchBackend
    net = ReluSecond(net)
    expected = support.maps(net, x, expressions, layers=layers, dtype=dtype)
    support.TorchBackend = lambda module, device, dtype: backend(module, dtype)
    try:
        given = support.maps(model, x, expressions, layers=names or layers, dtype=dtype)
    finally:
        support.TorchBackend = own
    worst, blank = 0.0, 0
    for (key, values), (other, result) in zip(expected.items(), given.items(), strict=True):
        assert key[0] == other[0]
        assert result.shape == values.shape, key
        size = values.abs().max()
        difference = (result - values).abs().max()
        assert size > 0 or difference == 0, key
        worst, blank = max(worst, float(difference / size) if size else 0.0), blank + (size == 0)
    assert blank <= 1 + len(expected) // 8  # some cut all of a map away, as they do in torch
    return worst


def ReluSecond(net):  # noqa: N802
    """A `Net` whose second layer ends in its ReLU, as that of Keras does."""
    from camsweep.tests.support import Net

    class Rectified(Net):
        def tail(self, activation):
            return self.head(self.second(self.act(activation)).flatten(2).mean(2))

    net.__class__ = Rectified
    net.second = torch.nn.Sequential(net.second, torch.nn.ReLU())
    return net


# -- cases


@every(
    of=["1 float64 softmax", "1 float32", "2 float64", "2 float32 softmax", "3 float64 softmax", "3 float32 sigmoid"]
)
def maps(of):
    """Of every method at two layers, also behind a final activation."""
    from camsweep.backends.tensorflow.taped.precision import doubled
    from camsweep.tests.support import Net, inputs

    rank, dtype, *final = of.split()
    net = Net(int(rank))
    model = functional(int(rank), net, *final)
    model = doubled(model) if dtype == "float64" else model
    worst = compared(model, net, inputs(int(rank)), asked(), dtype)
    assert worst < (1e-10 if dtype == "float64" else 1e-4), worst
    return worst


CAMS = ["gradcam", "layercam", "ablationcam", "scorecam", "eigencam", "grad", "smoothgrad:n=4", "guided"]


@case
def maps_nested():
    from camsweep.tests.support import Net, inputs

    net = Net(2)
    names = ("body.first", "body.second")
    worst = compared(nested(net), net, inputs(2), CAMS, "float32", names=names)
    assert worst < 1e-4, worst
    return worst


@case
def maps_subclassed():
    """In float64 too, a final softmax that the user's code calls being stepped behind."""
    from camsweep.tests.support import Net, inputs

    net = Net(2)
    worst = compared(subclassed(net), net, inputs(2), CAMS, "float32", layers=("first",))
    assert worst < 1e-4, worst
    return worst


@case
def maps_of_keras_2():
    from camsweep.backends.tensorflow.taped.framework import legacy_keras
    from camsweep.tests.support import Net, inputs

    if importlib.util.find_spec("tf_keras") is None:
        return "skipped"
    net = Net(1)
    worst = compared(functional(1, net, "softmax", legacy_keras()), net, inputs(1), CAMS, "float32")
    assert worst < 1e-4, worst
    return worst


FILES = {"signal": "max_pooling1d", "image": "add", "lstm": "lstm", "attention": "dense_1", "nested": "head.conv2d_1", "own_net": "block1"}  # fmt: skip
"""Models of the zoo, and where a CAM of theirs is taken; those of the second kind are written as SavedModels too."""
EXPORTED = ("image",)
SHARED = ("gradcam", "layercam", "ig:steps=8", "grad+sign", "grad", "occlusion:window=3")


@case
def maps_of_files():
    """A folder of files with the maps of them in TensorFlow; see `test_maps_are_those_of_the_imported_model`."""
    sys.path.insert(0, str(Path(__file__).parent))  # as for those that write the zoo
    from . import zoo

    folder = Path(tempfile.mkdtemp(prefix="maps_of_files"))
    for name, layer in FILES.items():
        keras().backend.clear_session()
        model = zoo.built(keras(), name)
        model.save(folder / f"{name}.keras")
        if name in EXPORTED:
            model.export(folder / name, verbose=False)
        x = np.ascontiguousarray(np.moveaxis(zoo.samples(name), -1, 1))
        own = loaded(folder / f"{name}.keras", **CODE.get(name, {}))
        found = maps_of(own, x, SHARED, [layer])
        np.savez(folder / f"{name}.npz", x=x, **{key: values.numpy() for (key, _), values in found.items()})
    return str(folder)


def maps_of(own, x, expressions, layers, dtype="float32"):
    """As `support.maps`, of a backend."""
    from camsweep.tests import support

    real, support.TorchBackend = support.TorchBackend, lambda *_, **__: own
    try:
        return support.maps(None, x, expressions, layers=layers, dtype=dtype, target=1)
    finally:
        support.TorchBackend = real


@every(end=["softmax", "sigmoid", "log_softmax", "layer", "operator", "reshaped", "tanh", "none", "transposed"])
def final(end):
    """However a softmax is called, the scores are those before it, and their gradient does not vanish."""
    k = keras()
    L = k.layers
    x = given = k.Input((7, 2))
    x = L.GlobalAveragePooling1D()(L.Conv1D(4, 3)(x))
    scale = L.Rescaling(400.0)
    fused = end if end in ("softmax", "sigmoid", "log_softmax", "tanh") else None
    x = scale(L.Dense(4)(x)) if fused is None else L.Dense(4, activation=fused)(scale(x))
    match end:
        case "layer":
            x = L.Softmax()(x)
        case "operator":
            x = k.ops.sigmoid(x)
        case "reshaped":
            x = L.Dropout(0.1)(L.Reshape((4,))(L.Activation("softmax")(L.Reshape((1, 4))(x))))
        case "transposed":
            x = k.ops.transpose(k.ops.softmax(k.ops.transpose(x), axis=0))
    model = k.Model(given, x)
    own = backend(model)
    values = np.random.default_rng(0).normal(size=(3, 2, 7)).astype("float32")
    structure = own.structure(values[:1])
    names = {"layer": "softmax", "operator": "sigmoid", "reshaped": "softmax", "transposed": "softmax",
             "log_softmax": "log-softmax", "tanh": None, "none": None}  # fmt: skip
    assert structure.final == names.get(end, end), structure.final
    run = passed(own, values, [structure.auto], "AG")
    scores = run.outputs.scores
    expected = {"softmax": scores.softmax(1), "sigmoid": scores.sigmoid(), "log-softmax": scores.log_softmax(1)}
    torch.testing.assert_close(run.raw, expected.get(structure.final, scores))
    gradient = run.pullback({"": torch.eye(4)[[0, 1, 2]]})[structure.auto]
    assert end == "tanh" or gradient.flatten(1).any(1).all()
    as_a_graph(run)


def passed(own, values, layers, letters, **extra):
    from camsweep.core.backend import Tapping

    extra = {name: torch.from_numpy(each) for name, each in extra.items()}
    with own.tapped(Tapping(layers, values.ndim - 2, frozenset(letters))) as session:
        return session(session.tensor(values), extra)


def as_a_graph(run, repeats=3):
    """Forwards that nothing taps run as a graph, and give the same scores, and each time the same gradients of the input."""
    slopes, gradients = {run.outputs.selected: torch.linspace(1, 2, run.outputs.scores.numel())}, []
    for _ in range(repeats):
        found = run.session.forward(run.inputs, run.outputs.rows)
        torch.testing.assert_close(found.scores, run.outputs.scores)
        bare = run.session.bare(run.inputs, run.outputs.rows)
        assert bare.read.final == run.read.final
        torch.testing.assert_close(bare.raw, run.raw)
        [slope] = slopes.values()
        gradients.append(bare.pullback({run.outputs.selected: slope.reshape(found.scores.shape)})[""])
    assert gradients[0].any()
    for each in gradients[1:]:
        torch.testing.assert_close(each, gradients[0])


@case
def places():
    """A model of places ends in a convolution with its softmax: ``auto`` is what stands before."""
    k = keras()
    L = k.layers
    given = k.Input((8, 6, 2))
    x = L.Conv2D(5, 3, padding="same", name="body")(given)
    own = backend(k.Model(given, L.Conv2D(3, 1, activation="softmax", name="end")(L.ReLU(name="relu")(x))))
    values = np.random.default_rng(0).normal(size=(2, 2, 8, 6)).astype("float32")
    structure = own.structure(values[:1])
    assert (structure.final, structure.places, structure.outputs, structure.auto) == ("softmax", (8, 6), 3, "relu")
    assert [each.name for each in structure.layers] == ["body", "relu", "end"]
    assert [each.shape for each in structure.layers] == [(5, 8, 6), (5, 8, 6), (3, 8, 6)]
    run = passed(own, values, ["body", "end"], "AGg")
    torch.testing.assert_close(run.raw, run.outputs.scores.softmax(1))
    torch.testing.assert_close(run.activations["end"], run.raw)
    assert run.raw.shape == (2, 3, 8, 6)
    start = torch.zeros(2, 3, 8, 6)
    start[:, 1, 2, 3] = 1
    found = run.pullback({"": start})
    assert not found["end"].any()  # the scores do not come from it
    assert found["body"].flatten(2).any(2).sum() > 0
    assert found[""].shape == values.shape
    assert not found["body"][:, :, 4].any()


@case
def tails():
    """A tail is what the whole net gives for another activation; what comes before is not run."""
    from camsweep.tests.support import Net, inputs

    net = Net(2)
    x = inputs(2)
    for model, name in ((functional(2, net), "first"), (nested(net), "body.first"), (subclassed(net), "first")):
        own = backend(model)
        own.structure(x[:1])
        run = passed(own, x, [name], "D")
        other = torch.from_numpy(np.random.default_rng(2).normal(size=run.activations[name].shape).astype("float32"))
        before = run.activations[name].clone()
        ran = []
        layers = run.session._layers
        conv = layers[name]
        own_call = conv.call
        vars(conv)["call"] = lambda *a, ran=ran, own_call=own_call: (ran.append(1), own_call(*a))[1]
        expected = net.tail(other).detach()
        torch.testing.assert_close(run.tail(name, other).scores, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.activations[name], before)  # memory that both frameworks see is as it was
        del vars(conv)["call"]
        assert run.session.passes == {"forward": 1, "tail": 1}


@case
def tails_skip():
    """What had finished before the layer is taken from the first forward, where a layer runs once."""
    k = keras()
    L = k.layers
    ran = []

    class Noted(L.Layer):
        def call(self, x):
            ran.append(self.name)
            return x * 1.5

    given = k.Input((9, 3))
    shared = L.Conv1D(3, 3, padding="same", activation="tanh", name="shared")
    a = Noted(name="early")(shared(given))
    block = k.Sequential([k.Input((9, 3)), L.Conv1D(3, 3, padding="same"), Noted(name="inner")], name="block")
    b = L.Conv1D(3, 3, padding="same", activation="relu", name="tapped")(block(a))
    c = L.Add()([shared(b), a, Noted(name="late")(b)])
    own = backend(k.Model(given, L.Dense(2)(L.GlobalAveragePooling1D()(c))))
    values = np.random.default_rng(0).normal(size=(2, 3, 9)).astype("float32")
    structure = {each.name: each for each in own.structure(values[:1]).layers}
    assert structure["shared"].calls == 2
    assert not structure["shared"].tappable
    run = passed(own, values, ["tapped"], "D")
    other = run.activations["tapped"].flip(1) * 2
    ran.clear()
    scores = run.tail("tapped", other).scores
    assert ran == ["late"]
    run.finished._at["tapped"] = {}
    torch.testing.assert_close(scores, run.tail("tapped", other).scores)
    assert ran == ["late", "early", "inner", "late"]
    assert (scores - run.outputs.scores).abs().max() > 0.01
    refused(lambda: passed(own, values, ["shared"], "A"), "runs more than once")
    refused(lambda: passed(own, values, ["tappd"], "A"), "Did you mean 'tapped'?")


def refused(act, *texts):
    from camsweep.core.errors import RequestError

    try:
        act()
    except RequestError as error:
        message = str(error)
        assert all(text in message for text in texts), message
        assert "\n" not in message
        return
    raise AssertionError(f"nothing refused, expected {texts}")


@case
def nothing_left():
    """The layers, TensorFlow's callbacks and gradients, Keras' settings and the environment are as before."""
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops

    from camsweep.tests.support import Net, inputs

    k = keras()
    model = nested(Net(2))

    def state():
        layers = [model, *model._flatten_layers()]
        return (
            [sorted(vars(each)) for each in layers],
            [each.tobytes() for each in model.get_weights()],
            len(context.context().op_callbacks),
            ops.gradient_registry._registry["Relu"]["type"],
            k.config.floatx(),
            k.config.dtype_policy().name,
            {name: each for name, each in os.environ.items() if name.startswith(("KERAS", "TF"))},
        )

    before = state()
    own = backend(model)
    own.structure(inputs(2)[:1])
    run = passed(own, inputs(2), ["body.first"], "AGDgu")
    run.pullback({"": torch.ones(3, 3)})
    run.pullback({"": torch.ones(3, 3)}, rule="guided")
    run.tail("body.first", run.activations["body.first"])
    assert state() == before
    refused(lambda: own.structure(np.zeros((1, 5, 3), "float32")), "cannot take a sample of shape (5, 3)")
    assert state() == before


@case
def refusals():
    from camsweep.tests.support import Net, inputs

    k = keras()
    own = backend(functional(2, Net(2)))
    run = passed(own, inputs(2), [], "g")
    refused(lambda: run.curved(None), "curvature", "--native")
    refused(lambda: run.relevance({}, None), "relevance", "--native")
    assert {"r", "H", "b"}.isdisjoint(own.answers)
    linear = backend(k.Sequential([k.Input((5, 2)), k.layers.Flatten(), k.layers.Dense(2)]))
    values = np.zeros((2, 2, 5), "float32")
    refused(lambda: passed(linear, values, [], "u").pullback({"": torch.ones(2, 2)}, rule="guided"), "runs none")
    end = backend(k.Sequential([k.Input((5, 2)), k.layers.Conv1D(2, 3, name="c"), k.layers.Softmax(name="s")]))
    refused(lambda: passed(end, values, ["s"], "G").pullback({"": torch.ones(2, 2, 3)}), "do not depend on 's'")
    several = backend(k.Model(i := k.Input((4,)), {"a": k.layers.Dense(2)(i), "b": k.layers.Dense(3)(i)}))
    refused(lambda: several.structure(np.zeros((1, 4), "float32")), "a (1, 2), b (1, 3)", "--output KEY")
    import tensorflow as tf

    assert own.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"))
    assert not own.is_out_of_memory(ValueError())


@case
def inputs_and_outputs():
    """Further inputs by name, one of several outputs, a signal without an axis for its channel."""
    k = keras()
    L = k.layers
    a, b = k.Input((9, 2), name="wave"), k.Input((3,), name="age")
    x = L.Concatenate()([L.GlobalAveragePooling1D()(L.Conv1D(4, 3, activation="relu")(a)), b])
    model = k.Model([b, a], {"class": L.Dense(4, activation="softmax")(x), "size": L.Dense(1)(x)})
    rng = np.random.default_rng(0)
    values, age = (rng.normal(size=shape).astype("float32") for shape in ((2, 2, 9), (2, 3)))
    own = backend(model, argument="wave", output="class")
    structure = own.structure(values[:1], {"age": age[:1]})
    assert (structure.final, structure.outputs, set(structure.keys)) == ("softmax", 4, {"class", "size"})
    run = passed(own, values, [], "g", age=age)
    expected = model({"wave": np.moveaxis(values, 1, -1), "age": age})["class"].numpy()
    np.testing.assert_allclose(run.raw.numpy(), expected, rtol=1e-5)
    both = run.pullback({"class": torch.ones(2, 4), "size": torch.ones(2, 1)})[""]
    parts = [run.pullback({key: torch.ones(2, n)})[""] for key, n in (("class", 4), ("size", 1))]
    torch.testing.assert_close(both, parts[0] + parts[1])
    refused(lambda: backend(model, argument="wav", output="class").structure(values[:1]), "wave")
    bare = backend(k.Sequential([k.Input((9,)), L.Dense(3)]))
    assert bare.structure(values[:1, :1]).outputs == 3
    run = passed(bare, values[:, :1], [], "g")
    found = run.pullback({"": torch.ones(2, 3)})[""]
    kernel = bare.model.layers[-1].kernel.numpy()
    np.testing.assert_allclose(found[0, 0].numpy(), kernel.sum(1), rtol=1e-5)


@case
def tokens():
    """A head that reads the class token leaves the last patches no gradient; ``auto`` is where they have one."""
    k = keras()
    L, ops = k.layers, k.ops

    class Token(L.Layer):
        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="ones")

        def call(self, x):
            return ops.concatenate([ops.tile(self.token, (ops.shape(x)[0], 1, 1)), x], 1)

    x = given = k.Input((12, 8, 3))
    x = Token()(L.Reshape((24, 8))(L.Conv2D(8, 2, 2, name="patches")(x)))
    for i in range(2):
        y = L.LayerNormalization(name=f"norm{i}")(x)
        x = L.Add(name=f"add{i}")([x, L.MultiHeadAttention(2, 4, name=f"attention{i}")(y, y)])
    own = backend(k.Model(given, L.Dense(3, activation="softmax")(L.LayerNormalization(name="last")(x)[:, 0])))
    values = np.random.default_rng(0).normal(size=(2, 3, 12, 8)).astype("float32")
    structure = own.structure(values[:1])
    layers = {each.name: each for each in structure.layers}
    assert layers["patches"].shape == layers["add1"].shape == (8, 6, 4)
    assert layers["last"].grid == "prefix=1,grid=6x4"
    assert structure.auto == "norm1", structure.auto
    run = passed(own, values, ["norm1"], "AGD")
    assert run.activations["norm1"].shape == (2, 8, 6, 4)
    assert run.pullback({"": torch.eye(3)[:2]})["norm1"].any()
    same = run.tail("norm1", run.activations["norm1"]).scores
    torch.testing.assert_close(same, run.outputs.scores)


# -- files


def section(**settings):
    from camsweep.core.job import ModelSection

    return ModelSection(**settings)


def loaded(path, dtype="float32", **settings):
    from camsweep.backends.tensorflow.taped import load_native

    return load_native(path, section(weights=str(path), **settings), "auto", dtype)


@case
def files():
    """What is loaded gives what was saved; float64 is that of the same weights, or refused."""
    from camsweep.tests.support import Net, inputs

    model, x = functional(2, Net(2), "softmax"), inputs(2)
    expected = model(np.moveaxis(x, 1, -1)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.keras", "a.h5"):
            model.save(path := Path(folder) / name)
            run = passed(loaded(path), x, ["first"], "AG")
            np.testing.assert_allclose(run.raw.numpy(), expected, rtol=1e-6)
            wide = passed(loaded(path, "float64"), x, ["first"], "AG")
            assert wide.raw.dtype == wide.activations["first"].dtype == torch.float64
            assert 0 < (wide.raw - run.raw).abs().max() < 1e-6
        path.write_bytes(path.read_bytes()[:2000])
        refused(lambda: loaded(path), "damaged")
        refused(lambda: loaded(Path(folder) / "b.keras"), "a.keras")
        model.save_weights(weights := Path(folder) / "a.weights.h5")
        refused(lambda: loaded(weights), "weights only")


@case
def code_in_files():
    """Nothing runs that was not asked for."""
    k = keras()
    L = k.layers
    model = k.Sequential([k.Input((5, 2)), L.Lambda(lambda x: x * 2.0, name="twice"), L.Flatten(), L.Dense(2)])
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.keras", "a.h5"):
            model.save(path := Path(folder) / name)
            refused(lambda path=path: loaded(path), "'twice' is a Lambda", "--trust-checkpoint")
        own = loaded(path.with_name("a.keras"), trust_checkpoint=True)
        assert own.structure(np.zeros((1, 2, 5), "float32")).outputs == 2


@case
def code_within_layers():
    """Nor code that lies deeper: in wrappers, in activations, in the formats of either Keras, or in a pickle."""
    from camsweep.tests.backends.tensorflow import hostile

    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "ran"
        for path in hostile.written(Path(folder), marker, keras()):
            refused(lambda path=path: loaded(path), str(path))
            assert not marker.exists(), path


@case
def operators_that_reach_out():
    """Of SavedModels, whichever function they are in; a look is enough, and nothing of them is run."""
    from . import saved_models

    with tempfile.TemporaryDirectory() as folder:
        for name in saved_models.HOSTILE:
            saved_models.hostile(folder, name)
            for each in Path(folder).glob("written*"):
                each.unlink()
            if name != "two":
                told = "SaveV2 in what it computes" if name == "save" else "which reaches out of the graph"
                refused(lambda name=name: loaded(Path(folder) / name), told, "--trust-checkpoint")
            assert not list(Path(folder).glob("written*")), name
        own = loaded(Path(folder) / "two", args={"signature": "two"})
        assert own.structure(np.ones((1, 3), "float32")).outputs == 2


@case
def own_classes():
    """The user's code names the classes in a file, or builds the model; float64 goes through both."""
    from camsweep.backends.tensorflow.taped import load_native
    from camsweep.core.user_code import function

    text = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2.0

class Own(keras.Model):
    def __init__(self, width=3, **settings):
        super().__init__(**settings)
        self.conv, self.twice, self.mean = keras.layers.Conv1D(width, 3, activation="relu"), Twice(), keras.layers.GlobalAveragePooling1D()
        self.width = width

    def call(self, x, training=False):
        return self.mean(self.twice(self.conv(x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}

def built(width):
    model = Own(width)
    model(keras.ops.zeros((1, 9, 2)))
    return model
"""
    values = np.random.default_rng(0).normal(size=(2, 2, 9)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "mine.py"
        source.write_text(text)
        model = function(f"{source}:built", "model")(4)
        expected = model(np.moveaxis(values, 1, -1)).numpy()
        model.save(whole := Path(folder) / "a.keras")
        model.save_weights(weights := Path(folder) / "a.weights.h5")
        for path, named in (
            (whole, {"source": f"{source}:Own"}),
            (weights, {"source": f"{source}:built", "args": {"width": 4}}),
        ):
            for dtype in ("float32", "float64"):
                own = load_native(path, section(weights=str(path), **named), "cpu", dtype)
                structure = own.structure(values[:1])
                assert [each.kind for each in structure.layers][:2] == ["Conv1D", "Twice"]
                run = passed(own, values, [structure.auto], "AGD")
                assert run.raw.dtype == getattr(torch, dtype)
                np.testing.assert_allclose(run.raw.numpy(), expected, rtol=1e-5)
        refused(lambda: loaded(whole), "Own")


@case
def saved_models():
    """The input's gradient, behind the final softmax; operators that reach beyond the model are refused."""
    import tensorflow as tf

    from camsweep.tests.support import Net, inputs

    net, x = Net(2), inputs(2)
    model = functional(2, net, "softmax")
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/a", verbose=False)
        own = loaded(Path(folder) / "a")
        structure = own.structure(x[:1])
        assert (structure.final, structure.layers, structure.auto) == ("softmax", (), None)
        run = passed(own, x, [], "g")
        given = torch.from_numpy(x).requires_grad_()
        scores = net(given)
        start = torch.eye(3)
        [expected] = torch.autograd.grad((scores * start).sum(), [given])
        torch.testing.assert_close(run.outputs.scores, scores.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.raw, scores.detach().softmax(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(run.pullback({"": start})[""], expected, rtol=1e-4, atol=1e-6)
        as_a_graph(run)
        refused(lambda: loaded(Path(folder) / "a", "float64"), "float32 only")
        refused(lambda: loaded(Path(folder) / "a", args={"signature": "serve_default"}), "no signature 'serve_default'")
        refused(lambda: passed(own, x, ["first"], "A"), "no layer 'first'", "There are none")

        class Writer(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, 4), "float32")])
            def run(self, x):
                tf.io.write_file(f"{folder}/marker", "written")
                return {"y": x}

        writer = Writer()
        tf.saved_model.save(writer, f"{folder}/b", signatures={"serving_default": writer.run})
        Path(f"{folder}/marker").unlink(missing_ok=True)
        refused(lambda: loaded(Path(folder) / "b"), "WriteFile", "--trust-checkpoint")
        assert not Path(f"{folder}/marker").exists()
        (Path(folder) / "a" / "saved_model.pb").write_bytes(b"\xff" * 40)
        refused(lambda: loaded(Path(folder) / "a"), "damaged")


@needs_tensorflow
@pytest.mark.parametrize("name", CASES)
def test_native(found, name):
    error = found(name)["error"]
    assert error is None, error


@needs_keras
@needs_tensorflow
@pytest.mark.parametrize("name", [*FILES, *(f"{name}/saved" for name in EXPORTED)])
def test_maps_are_those_of_the_imported_model(found, name):
    from camsweep.backends.tensorflow import load

    name, _, saved = name.partition("/")
    folder = Path(found("maps_of_files")["figures"])
    path = folder / (name if saved else f"{name}.keras")
    own = load(section(weights=str(path), **CODE.get(name, {})), device="cpu", dtype="float32")
    with np.load(folder / f"{name}.npz") as stored:
        assert own.input_shape == stored["x"].shape[1:]
        known = {layer.name for layer in own.structure(stored["x"][:1]).layers}
        assert saved or FILES[name] in known, known
        expressions = [each for each in SHARED if not (saved and "cam" in each)]
        for (key, _), values in maps_of(own, stored["x"], expressions, [] if saved else [FILES[name]]).items():
            expected = stored[key]
            assert np.abs(expected).max() > 0, key
            np.testing.assert_allclose(values.numpy(), expected, atol=1e-4 * np.abs(expected).max(), err_msg=key)


def main(names):
    results = {}
    for name in names or CASES:
        try:
            results[name] = {"error": None, "figures": CASES[name]()}
        except Exception:
            results[name] = {"error": traceback.format_exc()[-3000:]}
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
