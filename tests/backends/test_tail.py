"""A replayed tail gives what the whole model gives with another activation at the layer."""

import pytest
import torch
import torch.nn.functional as F

from ..support import inputs, maps, traced
from .tails import (
    Model,
    Pairs,
    Switch,
    attention,
    attention_by_hand,
    by_function,
    by_item,
    by_script,
    by_script_and_more,
    by_value,
    changed_after_use,
    compiled,
    dense,
    detached,
    from_a_pair,
    h_plus_skip,
    identity,
    in_place,
    in_place_at_once,
    into_input,
    into_skip,
    keywords,
    literals,
    little,
    lstm,
    masked,
    pieces,
    residual,
    scaled_attention,
    set_items,
    sown,
    through_a_view,
    twice,
    two_above,
    two_beside,
    two_into_one,
    unet,
    unpacked,
    views_of_it,
)


def root_forwards(model):
    """A list that grows by one with each forward of the whole model."""
    found = []
    model.register_forward_hook(lambda _m, _i, _o: found.append(1))
    return found


def expected(model, layer, x, activation, pick=lambda y: y):
    """A whole forward, the layer's output (or the first of its outputs) replaced by hand."""

    def instead(_module, _arguments, output):
        new = activation.clone()
        return (new, *output[1:]) if isinstance(output, tuple) else new

    hook = model.get_submodule(layer).register_forward_hook(instead)
    with torch.no_grad():
        found = pick(model(torch.from_numpy(x).double()))
    hook.remove()
    return found


def others(A):
    """Activations that a tail may be asked for."""
    generator = torch.Generator().manual_seed(5)
    without = A.clone()
    without[:, 0] = 0
    return [without, torch.randn(A.shape, generator=generator, dtype=A.dtype), -3 * A, A.clone()]


def check(model, layers=("first",), *, letters="AD", replays=True, batch=3, pick=lambda y: y, **more):
    """Every layer, every activation; twice, the second time in another order."""
    x = inputs(2, batch)
    count = root_forwards(model)
    with traced(model, x, letters, layers, target=1, **more) as (trace, _):
        run, clean = trace.run, trace.run.outputs.scores.clone()
        taps = {name: A.clone() for name, A in run.activations.items()}
        count.clear()
        first = {
            (name, i): run.tail(name, a).scores.clone() for name in layers for i, a in enumerate(others(taps[name]))
        }
        ran = len(count)
        again = {key: run.tail(key[0], others(taps[key[0]])[key[1]]).scores for key in reversed(first)}
        for name, i in first:
            want = expected(model, name, x, others(taps[name])[i], pick)
            torch.testing.assert_close(first[name, i], want.reshape(first[name, i].shape), rtol=1e-9, atol=1e-12)
            assert torch.equal(again[name, i], first[name, i])
        assert len({tuple(each.flatten().tolist()) for each in first.values()}) > 1
        assert torch.equal(run.outputs.scores, clean)
        assert all(torch.equal(A, taps[name]) for name, A in run.activations.items())
        # What was replayed cost one whole forward for each layer, the check; the rest cost one for each question.
        wanted = {True: len(layers), False: len(layers) + len(first), None: ran}[replays]
        assert ran == wanted
        return run


BODIES = [
    residual, into_skip, into_input, unet, dense, in_place, in_place_at_once, h_plus_skip, set_items, views_of_it, twice, literals,
    attention, attention_by_hand, scaled_attention, lstm, pieces, masked, sown, detached, keywords,
]  # fmt: skip


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize("body", BODIES)
def test_a_tail_equals_the_whole_with_another_activation(body, letters):
    check(Model(body), letters=letters)


@pytest.mark.parametrize("body", [residual, attention, set_items])
def test_a_batch_of_one(body):
    check(Model(body), batch=1)


@pytest.mark.parametrize("letters", ["AD", "AGHDgub"])
@pytest.mark.parametrize("body", [residual, in_place, h_plus_skip, dense])
def test_every_question_at_once(body, letters):
    check(Model(body), letters=letters)


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize(
    ("body", "layers"),
    [
        (two_above, ("first", "second")),
        (two_above, ("second", "skip", "first")),
        (two_beside, ("first", "skip")),
        (two_into_one, ("first", "skip")),
        (dense, ("first", "second", "norm", "wide")),
    ],
)
def test_several_layers(body, layers, letters):
    check(Model(body), layers, letters=letters)


@pytest.mark.parametrize("letters", ["AD", "AGD", "ADg"])
@pytest.mark.parametrize("layers", [("identity",), ("first", "identity"), ("second", "identity")])
def test_a_layer_that_gives_back_what_it_got_is_not_what_skips_past_it(layers, letters):
    check(Model(identity), layers, letters=letters, replays=None)


@pytest.mark.parametrize("letters", ["AD", "AGD"])
def test_a_layer_that_gives_a_tuple(letters):
    check(Model(from_a_pair, pair=Pairs()), ["pair"], letters=letters)


@pytest.mark.parametrize("letters", ["AD", "AGD"])
@pytest.mark.parametrize(
    ("body", "replays"),
    [
        (by_function, None),
        (by_script, False),
        (by_script_and_more, False),
        (little, False),
        (by_value, None),
        (by_item, None),
        (through_a_view, None),
        (changed_after_use, None),
        (unpacked, None),
    ],
)
def test_what_cannot_be_replayed_runs_whole(body, replays, letters):
    if body is by_function:  # numpy sees no gradient
        letters = "AD"
    model = Model(body, script=compiled()) if "script" in body.__code__.co_names else Model(body)
    check(model, letters=letters, replays=replays)


@pytest.mark.parametrize("letters", ["AD", "AGD"])
def test_a_branch_that_only_a_later_activation_takes(letters):
    model, x = Model(lambda m, x: m.end(m.switch(m.first(x))), switch=Switch()), inputs(2)
    with traced(model, x, letters, ["first"], target=1) as (trace, _):
        activation = trace.run.activations["first"].clone()
        activation[:, 0] = -1e5  # as compat=pytorch-grad-cam does
        torch.testing.assert_close(trace.run.tail("first", activation).scores, expected(model, "first", x, activation))


def ended(end):
    return lambda m, x: end(m.end(m.second(m.first(x)).relu()))


@pytest.mark.parametrize(
    ("end", "final"),
    [
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: F.log_softmax(z, dim=-1), "log-softmax"),
        (torch.sigmoid, "sigmoid"),
        (lambda z: F.softmax(z[:, :, None, None], 1).squeeze(-1).flatten(1), "softmax"),
        (lambda z: {"logits": z, "hidden": z.sin()}, None),
        (lambda z: ((z.sin(), {"logits": z}),), None),
    ],
)
def test_what_the_model_ends_in(end, final):
    model = Model(ended(end))
    if isinstance(end(torch.zeros(1, 3)), tuple):
        model = Model(lambda m, x: {"logits": ended(lambda z: z)(m, x), "more": (x, [x])})
    pick = {"softmax": lambda y: y, None: lambda y: y["logits"]}.get(final, lambda y: y)
    x = inputs(2)
    with traced(model, x, "AGD", ["first"], target=1) as (trace, _):
        assert trace.run.final == final
        for activation in others(trace.run.activations["first"]):
            found = trace.run.tail("first", activation).scores
            back = {
                "softmax": lambda z: z.softmax(1),
                "log-softmax": lambda z: z.log_softmax(1),
                "sigmoid": torch.sigmoid,
            }
            torch.testing.assert_close(
                back.get(final, lambda z: z)(found), expected(model, "first", x, activation, pick)
            )
        assert trace.run.session.passes["tail"] == 5  # with the check


def test_ablationcam_costs_one_forward_and_one_check_for_each_layer():
    x, names = inputs(2), ["ablationcam", "ablationcam:fill=mean", "ablationcam:smooth=aug", "gradcam"]
    model = Model(two_above)
    count = root_forwards(model)
    found = maps(model, x, names, ["first", "second"], target=1)
    assert len(count) == 1 + 6 + 2  # the structure's; the batch as it is and five times changed; the checks
    for layer in ("first", "second"):
        want = {}
        for flip in (False, True):
            for gain in (1.0, 0.9, 1.1):
                given = (x[..., ::-1] if flip else x).astype(float) * gain
                values = ablated(model, layer, torch.from_numpy(given))
                want[flip, gain] = values.flip(-1) if flip else values
        torch.testing.assert_close(found["ablationcam", layer], want[False, 1.0])
        torch.testing.assert_close(found["ablationcam:smooth=aug", layer], sum(want.values()) / 6)


def ablated(model, layer, x, target=1):
    """relu(sum_k (y - y_k) / |y| A_k)."""
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out.detach().clone()))
    model = model.double().eval()
    with torch.no_grad():
        y = model(x.clone())[:, target]
        hook.remove()
        A, total = seen[0], 0
        for k in range(A.shape[1]):
            less = A.clone()
            less[:, k] = 0
            w = (y - expected(model, layer, x.numpy(), less)[:, target]) / y.abs()
            total = total + w[:, None, None] * A[:, k]
    return total.relu()


def test_folded_weights_are_not_mistaken_for_others():
    """Weights made anew in each forward, as by a parametrization: an id that is free again is given to another one."""

    def forward(m, x):
        h, weights = m.first(x), [m.second.weight * (i + 1) for i in range(8)]
        for weight in weights:
            h = m.norm(F.conv2d(h, weight, None, 1, 1)).tanh()
        return m.end(h)

    x, model = inputs(2), Model(forward)
    for _ in range(5):
        with traced(model, x, "AS", ["first"], target=1) as (trace, _):
            session, given = trace.session, trace.run.inputs
            del trace
            found = session.forward(given, torch.arange(len(x))).scores
            with torch.no_grad():
                want = model(given)
        torch.testing.assert_close(found, want)
