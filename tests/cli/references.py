"""What the command line should have computed, one sample at a time, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

LINEAR = {1: "linear", 2: "bilinear"}


def parts(net, x, index=None):
    """Activation and gradient at ``first``, input gradient, scores, and the class explained, of one sample (C, *s)."""
    entry = torch.as_tensor(x)[None].requires_grad_()
    first = net.first(entry)
    hidden = net.act(net.second(torch.tanh(first)))
    scores = net.head(hidden.flatten(2).mean(2))
    index = int(scores.argmax()) if index is None else int(index)
    at_first, at_input = torch.autograd.grad(scores[0, index], [first, entry])
    return first.detach(), at_first, at_input, scores.detach()[0], index


def cam(net, x, method, index=None, resolution="input"):
    """A CAM at ``first``, (*s)."""
    A, G, _, _, _ = parts(net, x, index)
    if method == "gradcam":
        values = (G.flatten(2).mean(2).reshape(1, -1, *[1] * (A.ndim - 2)) * A).sum(1).relu()
    elif method == "layercam":
        values = (G.relu() * A).sum(1).relu()
    else:
        values = (G * A).sum(1)
    if resolution == "input":
        values = F.interpolate(values[:, None], x.shape[1:], mode=LINEAR[A.ndim - 2], align_corners=False)[:, 0]
    return values[0].numpy()


def gradient(net, x, index=None, times_input=False):
    """The gradient at the input, (C, *s)."""
    _, _, at_input, _, _ = parts(net, x, index)
    return (at_input[0] * torch.as_tensor(x) if times_input else at_input[0]).numpy()
