"""Modules whose TorchScript writes a file named ``marker`` into the working directory, each by another way."""

import warnings

# TorchScript reads the annotations in this file, so they must be no strings.
from typing import Dict, Tuple  # noqa: UP035

import torch
from torch import Tensor, nn


class Writes(nn.Module):
    def forward(self, x):
        torch.save(x, "marker")
        return x.mean(2)


class Maps(nn.Module):
    def forward(self, x):
        return x.mean(2) + torch.from_file("marker", True, 4).sum()


class Below(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), Writes())

    def forward(self, x):
        if x.sum() > -1e9:
            x = x + self.first(x)[..., None]
        return x.mean(2)


def write(x: Tensor) -> Tensor:
    torch.save(x, "marker")
    return x


class Forks(nn.Module):
    def forward(self, x):
        return torch.jit.wait(torch.jit.fork(write, x)).mean(2)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is of yesterday

    @torch.jit.interface
    class Door(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pass


class Behind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "marker")
        return x


class Through(nn.Module):
    door: Door

    def __init__(self):
        super().__init__()
        self.door = Behind()

    def forward(self, x):
        return self.door(x).mean(2)


class Plain(nn.Module):
    def forward(self, x):
        return x.mean(2)


def after(self: nn.Module, inputs: Tuple[Tensor], output: Tensor):  # noqa: UP006
    torch.save(output, "marker")
    return output


def hooked():
    module = Plain()
    module.register_forward_hook(after)
    return module


class SetState(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean(2) * self.w

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]):  # noqa: UP006
        torch.save(state[0], "marker")
        self.w, self.training = state[0], state[1]


HOSTILE = {"writes": Writes, "maps": Maps, "below": Below, "forks": Forks, "interface": Through, "hook": hooked, "setstate": SetState}  # fmt: skip
refusals = dict.fromkeys(HOSTILE, "aten::save") | {
    "maps": "aten::from_file",
    "interface": "aten::save|prim::CallMethod",
    "setstate": "runs while it is loaded",
}


class TwoOutputs(nn.Module):
    """Harmless: two inputs, and a dict."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, x, mask: Tensor) -> Dict[str, Tensor]:  # noqa: UP006
        features = torch.relu(self.conv(x * mask))
        return {"features": features, "logits": self.head(features.mean(-1))}


class Windowed(nn.Module):
    """Harmless, but what it computes depends on the values."""

    def forward(self, x):
        if bool(x.sum() > 0):
            return x.mean(2)
        return x.amax(2) * 3
