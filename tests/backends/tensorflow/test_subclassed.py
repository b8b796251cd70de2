"""Models and layers that are somebody's own code, on modules of torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from camsweep.core.errors import RequestError

from ...support import maps
from . import zoo
from .harness import agrees, keras, loaded, needs_keras, quiet, turned

pytestmark = needs_keras
CODE = Path(__file__).with_name("own_net.py").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subclassed")
    (folder / "net.py").write_text(CODE)
    keras()
    spec = importlib.util.spec_from_file_location("net_of_a_test", folder / "net.py")
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    x = np.random.default_rng(0).normal(size=(2, 12, 10, 2)).astype("float32")
    found = {}
    for name, build in (("net", code.build), ("functional", code.functional)):
        with quiet():
            model = build()
            model(torch.zeros(1, 12, 10, 2))
            zoo.scattered(model)
            model.save(folder / f"{name}.keras")
            model.save_weights(folder / f"{name}.weights.h5")
            found[name] = x, *zoo.outputs_and_gradients(keras(), model, x)
    with quiet():
        model.save(folder / "functional.h5")
    return folder, code, found


@pytest.mark.parametrize(("name", "file", "source"), [
    ("net", "net.keras", "Net"), ("net", "net.weights.h5", "build"), ("functional", "functional.keras", "Gate"), ("functional", "functional.h5", "Gate"), ("functional", "functional.weights.h5", "functional"),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forward_and_gradient(place, name, file, source, dtype):
    folder, _, found = place
    backend = loaded(folder / file, source=f"{folder / 'net.py'}:{source}", dtype=dtype)
    agrees(backend.module, *found[name])
    double = backend.module.double()(torch.from_numpy(turned(found[name][0])).double())
    assert double.dtype == torch.float64
    np.testing.assert_allclose(double.detach().numpy(), found[name][1], atol=1e-4)


def test_its_layers_can_be_watched(place):
    folder, _, found = place
    structure = loaded(folder / "net.keras", source=f"{folder / 'net.py'}:Net").structure(turned(found["net"][0])[:1])
    names = [layer.name for layer in structure.layers]
    assert names == [
        "first",
        "norm",
        "block0.conv",
        "block0.relu",
        "block0",
        "block1.conv",
        "block1.relu",
        "block1",
        "gate.inner.linear",
        "gate.inner.sigmoid",
        "gate.inner",
        "gate",
        "pool",
        "head",
    ]
    assert structure.parameters == sum(np.prod(each.shape) for each in structure_weights(folder))


def structure_weights(folder):
    module = loaded(folder / "net.keras", source=f"{folder / 'net.py'}:Net").module
    return list(module.parameters())


def test_relevance_is_that_of_the_graph_of_the_same_layers(place):
    from camsweep.backends.tensorflow.conversion import imported

    _, code, found = place
    x = turned(found["net"][0])
    with quiet():
        net = code.Plain()
        net.build((None, 12, 10, 2))
        net(torch.zeros(1, 12, 10, 2))
        zoo.scattered(net)
        graph = imported(code.twin(net), None)
    expected = maps(graph, x, ["lrp:eps=1e-6"], layers=(), target=1)
    with quiet():
        own = imported(net, None)
    [a], [b] = expected.values(), maps(own, x, ["lrp:eps=1e-6"], layers=(), target=1).values()
    torch.testing.assert_close(b, a)


def test_a_class_is_asked_for(place):
    folder, *_ = place
    with pytest.raises(RequestError, match=r"of a class of somebody's own, Gate, .*--model FILE.py:Gate"):
        loaded(folder / "functional.h5")
    with pytest.raises(RequestError, match="of a class of somebody's own"):
        loaded(folder / "functional.keras")
