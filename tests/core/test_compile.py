"""Forwards for outputs alone through the framework's compiler: the same maps, or a line that says why not."""

from functools import partial

import numpy as np
import pytest
import torch

from camsweep.core.errors import RequestError

from ..support import Net, inputs
from .test_sweep import run

CHANGING = ["rise:n=12", "occlusion", "scorecam", "ablationcam", "ig:steps=4", "gradcam"]
ASKED = {"methods": CHANGING, "layers": ["first"], "batch_size": 4, "targets": ["top:2"]}


@pytest.fixture
def compiler(monkeypatch):
    """Graphs that it was given; it hands them back as they are, which takes no minute."""
    graphs = []

    def kept(graph, _example):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=kept))
    yield graphs
    torch._dynamo.reset()


def compared(folder, net, x):
    with run(folder, net, x, explain=ASKED) as results:
        plain = {name: view.read(slice(None)) for name, view in results.maps.items()}
    with run(folder, net, x, name="compiled.h5", explain={**ASKED, "compile": True}) as results:
        for name, expected in plain.items():
            atol = 2e-5 * np.abs(expected).max()
            np.testing.assert_allclose(results.map(name).read(slice(None)), expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maps_are_the_same(rank, compiler, tmp_path):
    """The last batch is smaller, and is no other graph."""
    compared(tmp_path, Net(rank), inputs(rank, 6))
    assert len(compiler) == 1


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # the compiler's own
def test_maps_are_the_same_by_the_compiler_that_users_have(tmp_path):
    compared(tmp_path, Net(2), inputs(2, 6))


def test_a_model_that_it_cannot_take_is_told_in_a_line(monkeypatch, tmp_path):
    def failing(_graph, _example):
        raise ValueError("no such operator\nand much more")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=failing))
    with pytest.raises(RequestError, match=r"^the model cannot be compiled: .*; leave --compile out$"):
        run(tmp_path, Net(2), inputs(2, 4), explain={**ASKED, "compile": True})
    torch._dynamo.reset()


def test_a_final_softmax_is_looked_for_in_each_forward(tmp_path):
    net = torch.nn.Sequential(Net(2), torch.nn.Softmax(1))
    with pytest.raises(RequestError, match=r"explain\.compile has no meaning .*the model ends in softmax.*take it out"):
        run(tmp_path, net, inputs(2, 4), explain={"methods": ["rise:n=4"], "compile": True})
