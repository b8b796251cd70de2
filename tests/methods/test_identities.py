"""What is known of the methods without a reference: where they coincide, what they sum to, what turns their sign."""

import numpy as np
import pytest
import torch
from torch import nn

from camsweep.core.errors import RequestError
from camsweep.core.grid import resize
from camsweep.core.methods.spectrum import principal

from ..support import CONV, Net, inputs, maps, traced

RANKS = [1, 2, 3]


class Linear(nn.Module):
    """first -> global average -> linear: the network that CAM was made for."""

    def __init__(self, rank, classes=4):
        super().__init__()
        torch.manual_seed(rank)
        self.first = CONV[rank](2, 5, 3, padding=1)
        self.head = nn.Linear(5, classes)

    def tail(self, activation):
        return self.head(activation.flatten(2).mean(2))

    def forward(self, x):
        return self.tail(self.first(x))


def weights(net, target):
    """Of the class, (channel, 1, ..)."""
    rank = net.first.weight.ndim - 2
    return net.head.weight[target].detach().double().reshape(-1, *[1] * rank)


@pytest.mark.parametrize("rank", RANKS)
def test_on_a_linear_head_the_gradient_methods_are_cam(rank):
    net, x = Linear(rank), inputs(rank)
    with torch.no_grad():
        A = net.double().first(torch.from_numpy(x).double())
    cam = (weights(net, 2) * A).sum(1) / A[0, 0].numel()
    found = maps(net, x, ["gradcam:relu=off", "hirescam", "xgradcam:relu=off"], target=2)
    for values in found.values():
        assert torch.allclose(values, cam, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rank", RANKS)
def test_ablation_of_a_linear_head_in_closed_form(rank):
    """Without channel k the score loses w_k mean(A_k), whatever the other channels do."""
    net, x = Linear(rank), inputs(rank)
    with torch.no_grad():
        net.head.bias[1] -= 0.3
    [found] = maps(net, x, ["ablationcam:relu=off"], target=1).values()
    with torch.no_grad():
        A = net.double().first(torch.from_numpy(x).double())
        y = net.tail(A)[:, 1].reshape(-1, *[1] * rank)
    lost = weights(net, 1) * A.mean(tuple(range(2, A.ndim)), keepdim=True)
    assert torch.allclose(found, (lost * A).sum(1) / y.abs(), rtol=1e-10)
    assert (y < 0).any()  # and there too a channel that is missed speaks for the target


@pytest.mark.parametrize("rank", RANKS)
def test_behind_relus_shapley_is_gradcam_for_a_logit(rank):
    net, x = Net(rank), inputs(rank)
    found = maps(net, x, ["gradcam", "shapleycam"], target=1)
    assert torch.equal(found["gradcam", "first"], found["shapleycam", "first"])


@pytest.mark.parametrize("rank", RANKS)
def test_finer_with_alpha_zero_is_the_base_method(rank):
    net, x = Net(rank, classes=6), inputs(rank)
    for base in ("gradcam", "layercam"):
        found = maps(net, x, [base, f"finercam:alpha=0,base={base}"], target=3)
        assert torch.allclose(*found.values(), rtol=1e-12, atol=0)


def test_finer_against_one_class_is_their_contrast():
    net, x = Net(2, classes=6), inputs(2)
    [finer] = maps(net, x, ["finercam:classes=4,base=hirescam,relu=off"], target=1).values()
    assert torch.allclose(finer, contrast(net, x, "class:1-vs-class:4"), rtol=1e-12, atol=1e-15)


def test_finer_compares_a_class_with_none_but_itself_as_it_is():
    net, x = Net(2), inputs(2)
    found = maps(net, x, ["gradcam", "finercam:classes=1"], target=1)
    assert torch.allclose(*found.values(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("setting", ["ranks=3.4", "classes=3"])
def test_finer_names_classes_that_there_are(setting):
    with pytest.raises(RequestError, match=r"given, expected|the model has 0\.\.2"):
        maps(Net(2), inputs(2), [f"finercam:{setting}"])


def contrast(net, x, target, method="hirescam"):
    [found] = maps(net, x, [method], target=target).values()
    return found


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", ["gradcam:relu=off", "hirescam", "xgradcam:relu=off", "shapleycam:relu=off"])
def test_a_contrast_turned_round_is_its_negative(rank, method):
    net, x = Net(rank, smooth=True), inputs(rank)
    forward, back = contrast(net, x, "class:0-vs-class:2", method), contrast(net, x, "class:2-vs-class:0", method)
    assert torch.allclose(forward, -back, rtol=1e-12, atol=1e-15)


def test_hirescam_is_complete_behind_a_homogeneous_tail():
    net, x = Net(2, bias=False), inputs(2)
    [found] = maps(net, x, ["hirescam"], target=2).values()
    with torch.no_grad():
        score = net.double()(torch.from_numpy(x).double())[:, 2]
    assert torch.allclose(found.sum((1, 2)), score, rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_gradient_times_input_is_complete_in_a_homogeneous_net(rank):
    net, x = Net(rank, bias=False), inputs(rank)
    [found] = maps(net, x, ["grad+input"], target=0).values()
    with torch.no_grad():
        score = net.double()(torch.from_numpy(x).double())[:, 0]
    assert torch.allclose(found.flatten(1).sum(1), score, rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_input_and_biases_make_up_the_whole_score(rank):
    """The decomposition that FullGrad draws: f = sum(x g) + sum over the operators of sum(b G)."""
    net, x = Net(rank), inputs(rank)
    with traced(net, x, "xgb", target=1) as (trace, target):
        gradients, run = trace.gradients(target), trace.run
        terms = [(run.inputs * gradients[""]).flatten(1).sum(1)]
        terms += [(gradients[name] * bias).flatten(1).sum(1) for name, bias in run.biases.items()]
        assert len(terms) == 4
        assert torch.allclose(sum(terms), target.score(run.outputs), rtol=1e-10)


@pytest.mark.parametrize("rank", RANKS)
def test_eigen_smoothing_of_the_activation_is_eigencam(rank):
    """With equal weights the summands of Grad-CAM are the activation's channels, and their component Eigen-CAM."""
    net, x = Linear(rank), inputs(rank)
    with torch.no_grad():
        net.head.weight.fill_(1.0)
    found = maps(net, x, ["gradcam:smooth=eigen,relu=off", "eigencam"], target=0)
    places = found["eigencam", "first"][0].numel()
    assert torch.allclose(
        found["gradcam:relu=off,smooth=eigen", "first"] * places, found["eigencam", "first"], rtol=1e-9
    )


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam", "fullgrad", "eigencam"])
def test_augmented_smoothing_is_the_mean_over_its_inputs(rank, method):
    net, x = Net(rank), inputs(rank)
    [found] = maps(net, x, [f"{method}:smooth=aug"], target=1).values()
    flips = [lambda t: t] if rank == 1 else [lambda t: t, lambda t: np.flip(t, -1)]
    expected = []
    for flip in flips:
        for gain in (0.9, 1.0, 1.1):
            moved = flip(x).astype(np.float64) * gain
            [values] = maps(net, moved, [method], target=1).values()
            expected.append(flip(values.numpy()))
    assert np.allclose(found.numpy(), np.mean(expected, 0), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("how", ["mean", "max", "product"])
@pytest.mark.parametrize("relu", ["on", "off"])
@pytest.mark.parametrize("rank", RANKS)
def test_fusion_is_that_of_the_layers_maps_on_one_scale(rank, relu, how):
    net, x = Net(rank, smooth=True), inputs(rank)
    [fused] = maps(net, x, [f"gradcam:fuse={how},relu={relu}"], ["first", "second"], target=1).values()
    alone = maps(net, x, [f"gradcam:relu={relu}"], ["first", "second"], target=1)
    for row in range(len(x)):
        scaled = []
        for values in alone.values():
            values = resize(values[row].numpy()[None], x.shape[2:])[0]
            low = values.min() if relu == "on" else 0
            size = np.abs(values - low).max()
            scaled.append((values - low) / size if size else values * 0)
        first, second = scaled
        larger = np.where(np.abs(first) >= np.abs(second), first, second)
        expected = {"mean": (first + second) / 2, "max": larger, "product": first * second}[how]
        assert np.allclose(fused[row].numpy(), expected, rtol=1e-10, atol=1e-14)


def test_refinecam_is_gradcam_plus_plus_fused_by_product():
    net, x = Net(2), inputs(2)
    found = maps(net, x, ["refinecam", "gradcam++:fuse=product"], ["first", "second"])
    assert torch.equal(*found.values())


def test_random_weights_are_the_samples_own():
    net, x = Net(2), inputs(2)
    [first] = maps(net, x, ["randomcam"]).values()
    [again] = maps(net, x, ["randomcam"]).values()
    [seeded] = maps(net, x, ["randomcam"], seed=1).values()
    [drawn] = maps(net, x, ["randomcam:draw=1"]).values()
    assert torch.equal(first, again)
    assert not torch.equal(first, seeded)
    assert not torch.equal(first, drawn)


@pytest.mark.parametrize("method", ["guided-gradcam", "guided", "deconv"])
def test_what_changes_relus_needs_some(method):
    with pytest.raises(RequestError, match="the model runs none"):
        maps(Net(2, smooth=True), inputs(2), [method])


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (270, 270)])
def test_of_large_matrices_the_first_component_is_that_of_the_whole_decomposition(shape):
    rng = np.random.default_rng(0)
    maps_ = np.maximum(rng.normal(size=(3, *shape)), 0)
    maps_[2] = 0.5  # nothing varies
    found = principal(torch.from_numpy(maps_)).numpy()
    for each, expected in zip(found, maps_, strict=True):
        points = expected - expected.mean(1, keepdims=True)
        _, sizes, right = np.linalg.svd(points, full_matrices=False)
        component = right[0] * sizes[0]
        component = component * np.sign(component[np.abs(component).argmax()])
        assert np.allclose(each, component, rtol=0, atol=1e-9 * max(1.0, np.abs(component).max()))
