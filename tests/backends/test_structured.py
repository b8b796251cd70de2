"""What models give besides one tensor: found by key, chosen by rule, put back as it was."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
from torch import nn

from camsweep.backends.torch import TorchBackend
from camsweep.backends.torch.structured import first_tensor, named_tensors, replaced, selected
from camsweep.core.backend import Tapping
from camsweep.core.errors import RequestError

from ..support import Net, inputs

Z, H, WHOLE = torch.arange(6.0).reshape(3, 2), torch.ones(3, 4, 5), torch.arange(3)
Pair = namedtuple("Pair", "left right")


@dataclass
class Plain:
    z: object
    h: object = None


@dataclass
class ModelOutput(OrderedDict):
    """As Hugging Face's: a dataclass that is an ordered dict of what is not None."""

    loss: object = None
    logits: object = None
    hidden_states: object = None

    def __post_init__(self):
        for each in fields(self):
            if (value := getattr(self, each.name)) is not None:
                self[each.name] = value


GIVEN = {
    "tensor": (Z, {"": Z}),
    "tuple": ((Z, H), {"0": Z, "1": H}),
    "list": ([H, None, Z], {"0": H, "2": Z}),
    "dict": ({"a": Z, "n": 3, "s": "text"}, {"a": Z}),
    "numbers": ({7: Z}, {"7": Z}),
    "dataclass": (Plain(Z, [H, H]), {"z": Z, "h.0": H, "h.1": H}),
    "namedtuple": (Pair(Z, {"x": H}), {"left": Z, "right.x": H}),
    "output": (ModelOutput(logits=Z, hidden_states=(H, H)), {"logits": Z, "hidden_states.0": H, "hidden_states.1": H}),
    "nested": ({"a": ({"b": [Z, (H,)]},)}, {"a.0.b.0": Z, "a.0.b.1.0": H}),
    "nothing": (None, {}),
    "same": ((Z, Z), {"0": Z, "1": Z}),
}


@pytest.mark.parametrize("name", GIVEN)
def test_every_tensor_has_a_key(name):
    given, want = GIVEN[name]
    found = named_tensors(given, 3)
    assert list(found) == list(want)
    assert all(found[key] is want[key] for key in want)


def detections(*lengths):
    """For each sample so many: boxes, labels, scores, and something of the whole sample."""
    generator = torch.Generator().manual_seed(0)
    return [
        {"boxes": torch.rand(n, 4, generator=generator), "labels": torch.arange(n) + 1, "scores": torch.rand(n, generator=generator), "total": torch.tensor(n)}
        for n in lengths
    ]  # fmt: skip


@pytest.mark.parametrize("lengths", [(2, 0, 3), (1,), (0,), (0, 0), (4, 4)])
def test_detections_are_padded(lengths):
    given = detections(*lengths)
    found = named_tensors(given, len(lengths))
    assert list(found) == ["boxes", "labels", "scores"]
    width = max(1, *lengths) if len(lengths) > 1 else max(1, lengths[0])
    for key, values in found.items():
        assert values.shape[:2] == (len(lengths), width)
        for row, n in enumerate(lengths):
            assert torch.equal(values[row, :n], given[row][key])
            blank = values[row, n:]
            assert (blank.isnan() if blank.is_floating_point() else blank == -1).all()
    assert selected(found, None, len(lengths)) == "scores"


def test_a_list_that_is_not_of_the_samples_is_a_list():
    assert set(named_tensors(detections(2, 3), 3)) >= {"0.boxes", "1.scores"}


def test_a_padded_score_has_a_gradient():
    z = torch.rand(3, requires_grad=True)
    found = named_tensors([{"scores": z[:2] * 2}, {"scores": z[2:] * 3}], 2)["scores"]
    [gradient] = torch.autograd.grad(found.nan_to_num().sum(), z)
    assert gradient.tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("given", "wanted", "key"),
    [
        ({"": Z}, None, ""), ({"z": Z, "index": WHOLE}, None, "z"), ({"z": Z, "other": torch.ones(5, 2)}, None, "z"),
        ({"hidden": H, "logits": Z}, None, "logits"), ({"loss": torch.tensor(1.0), "z": Z}, None, "z"),
        ({"hidden": H, "z": Z}, "hidden", "hidden"), ({"boxes": H, "scores": Z, "labels": WHOLE}, None, "scores"),
    ],
)  # fmt: skip
def test_which_output_is_explained(given, wanted, key):
    assert selected(given, wanted, 3) == key


@pytest.mark.parametrize(
    ("given", "wanted", "says"),
    [
        ({"a": Z, "b": H}, None, r"a \(3, 2\), b \(3, 4, 5\) for a batch of 3; choose one with --output KEY"),
        ({"a": Z, "b": H}, "c", "gives no output 'c'"),
        ({"logits": Z}, "logit", "Did you mean 'logits'"),
        ({"": Z}, "logits", "output 'logits'"),
        ({}, None, "gives no tensor"),
        ({"labels": WHOLE}, None, r"labels \(3,\)"),
    ],
)
def test_an_output_that_is_not_clear_is_asked_for_in_one_line(given, wanted, says):
    with pytest.raises(RequestError, match=says) as caught:
        selected(given, wanted, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tensor", "tuple", "dict", "namedtuple", "output", "nested", "same"])
def test_the_first_tensor_is_replaced_and_nothing_else(name):
    given = GIVEN[name][0]
    old = first_tensor(given)
    assert old is Z
    new = torch.zeros(3, 2)
    found = replaced(given, old, new)
    assert type(found) is type(given)
    assert first_tensor(found) is new
    before, after = named_tensors(given, 9), named_tensors(found, 9)
    assert list(before) == list(after)
    assert all(after[key] is (new if before[key] is Z else before[key]) for key in before)
    assert first_tensor(given) is Z  # what was given is left alone


def test_whole_numbers_are_no_activation():
    assert first_tensor((WHOLE, "text", None, [WHOLE, Z])) is Z
    assert first_tensor({"i": WHOLE}) is None


class Giving(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.net, self.give = Net(2), give

    def forward(self, x):
        return self.give(self.net(x))


@pytest.mark.parametrize(
    ("give", "output"),
    [
        (lambda z: Plain(z, z.sin()), "z"), (lambda z: Pair(z.sin(), z), "right"), (lambda z: ModelOutput(logits=z), None),
        (lambda z: (z, z), "1"), (lambda z: {"a": [{"b": z}], "n": len(z)}, None), (lambda z: {"a": z, "b": z[:1].sum()}, "a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("letters", ["AG", "AGHDg"])
def test_the_gradient_is_that_of_the_output_that_is_named(give, output, letters):
    x = inputs(2)
    backend = TorchBackend(Giving(give), device=torch.device("cpu"), dtype="float64", output=output)
    assert backend.structure(x[:1]).outputs == 3
    with backend.tapped(Tapping(["net.first"], 2, frozenset(letters))) as session:
        run = session(session.tensor(x))
        weights = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
        found = run.pullback({run.outputs.selected: weights})["net.first"]
        scores = run.outputs.scores
    net = Net(2).double()
    A = net.first(torch.from_numpy(x).double()).detach().requires_grad_()
    [want] = torch.autograd.grad((net.tail(A) * weights).sum(), A)
    torch.testing.assert_close(scores, net.tail(A).detach())
    torch.testing.assert_close(found, want)
