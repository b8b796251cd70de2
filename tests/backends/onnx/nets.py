"""Further nets of the kinds that are exported, and torch's two exporters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

from camsweep.tests.backends import networks


class Inception(nn.Module):
    """Kernels of several lengths side by side, and a shortcut (Ismail Fawaz et al. 2020)."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self._block(cin) for cin in (3, 16))
        self.shortcut = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16))
        self.head = nn.Linear(16, 5, bias=bias)

    @staticmethod
    def _block(cin):
        convs = [nn.Conv1d(4, 4, size, padding="same", bias=False) for size in (5, 9, 19)]
        return nn.ModuleDict({"neck": nn.Conv1d(cin, 4, 1, bias=False), "convs": nn.ModuleList(convs),
                              "pool": nn.MaxPool1d(3, 1, 1), "last": nn.Conv1d(cin, 4, 1), "norm": nn.BatchNorm1d(16)})  # fmt: skip

    def forward(self, x):
        y = x
        for block in self.blocks:
            narrow = block["neck"](y)
            parts = [conv(narrow) for conv in block["convs"]]
            y = F.relu(block["norm"](torch.cat([*parts, block["last"](block["pool"](y))], 1)))
        return self.head(F.relu(y + self.shortcut(x)).mean(-1))


class Recurrent(nn.Module):
    """A recurrent layer over (batch, channel, step), and its last state."""

    def __init__(self, kind: str = "LSTM", layers: int = 1, both: bool = False, *, bias: bool = True) -> None:
        super().__init__()
        make = getattr(nn, kind)
        self.rnn = make(3, 7, layers, batch_first=True, bidirectional=both, bias=bias)
        self.head = nn.Linear(14 if both else 7, 5, bias=bias)

    def forward(self, x):
        return self.head(self.rnn(x.transpose(1, 2))[0][:, -1])


class Windows(nn.Module):
    """Attention within shifted windows, with a table of places (Liu et al. 2021)."""

    def __init__(self, width: int = 8, side: int = 4, *, bias: bool = True) -> None:
        super().__init__()
        self.side, self.heads = side, 2
        self.patches, self.norm0 = nn.Conv2d(3, width, 3, 3), nn.LayerNorm(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, self.heads))
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None] + side - 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 5, bias=bias)

    def attend(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        places = self.table[self.index.view(-1)].view(t, t, -1).permute(2, 0, 1)
        weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + places[None]).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, c))

    def forward(self, x):
        x = self.norm0(self.patches(x).permute(0, 2, 3, 1))
        n, h, w, c = x.shape
        s = self.side
        y = torch.roll(self.norm1(x), (-2, -2), (1, 2))
        y = y.view(n, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        y = self.attend(y).view(n, h // s, w // s, s, s, c).transpose(2, 3).reshape(n, h, w, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x).mean((1, 2)))


class Mixed(nn.Module):
    """A depthwise convolution, norms of each kind, pools that pad unevenly, and activations written by hand."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, bias=bias)
        self.deep = nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=bias)
        self.norm, self.group, self.single = nn.LayerNorm(8), nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)
        self.wide, self.narrow = nn.Linear(8, 16, bias=bias), nn.Linear(16, 8, bias=bias)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.slopes = nn.PReLU(8)
        self.head = nn.Linear(8, 5, bias=bias)

    def forward(self, x):
        x = F.max_pool2d(self.slopes(self.group(self.stem(x))), 3, 2, ceil_mode=True)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y), approximate="tanh")) * self.scale
        x = self.single(x + y.permute(0, 3, 1, 2))
        x = F.silu(F.avg_pool2d(F.pad(x, (0, 1, 1, 0), mode="reflect"), 2, ceil_mode=True, count_include_pad=False))
        return torch.log_softmax(self.head(F.hardswish(F.mish(x)).amax((2, 3))), 1)


class Signals(nn.Module):
    """A transformer over patches of a signal, by torch's own layers."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv1d(3, 12, 8, 8, bias=bias)
        layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True, activation="gelu", bias=bias)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("places", torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0)))
        self.head = nn.Linear(12, 5, bias=bias)

    def forward(self, x):
        return self.head(self.layers(self.patches(x).transpose(1, 2) + self.places).mean(1)).softmax(-1)


NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    **networks.NETS,
    "inception": (Inception, networks.SHAPES[1]),
    "lstm": (Recurrent, (3, 20)),
    "bilstm": (partial(Recurrent, "LSTM", 2, True), (3, 20)),
    "gru": (partial(Recurrent, "GRU"), (3, 20)),
    "rnn": (partial(Recurrent, "RNN", 2), (3, 20)),
    "windows": (Windows, networks.SHAPES[2]),
    "mixed": (Mixed, (3, 24, 21)),
    "signals": (Signals, networks.SHAPES[1]),
}


@cache
def _net(name: str) -> nn.Module:
    return networks.built(*NETS[name]).float()


def net(name: str) -> tuple[nn.Module, np.ndarray]:
    """One of `NETS` in float32, and samples for it."""
    return _net(name), networks.samples(NETS[name][1])


@cache
def exported(name: str, dynamo: bool, opset: int = 20, batch: int | None = None) -> onnx.ModelProto:
    """The file that an exporter writes, with an open batch, or with a fixed one."""
    module, x = net(name)
    return export(module, torch.from_numpy(x[: batch or 2]), dynamo, opset, fixed=batch is not None)


def export(
    module: nn.Module, x: torch.Tensor, dynamo: bool, opset: int = 20, *, fixed: bool = False
) -> onnx.ModelProto:
    """What an exporter writes."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the older one knows no operator for it
    try:
        return _export(module, x, dynamo, opset, fixed)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _export(module: nn.Module, x: torch.Tensor, dynamo: bool, opset: int, fixed: bool) -> onnx.ModelProto:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = None if fixed else ({0: torch.export.Dim("n")},)
            program = torch.onnx.export(
                module, (x,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, input_names=["x"], verbose=False
            )
            return program.model_proto
        file = io.BytesIO()
        axes = None if fixed else {"x": {0: "n"}, "y": {0: "n"}}
        torch.onnx.export(
            module,
            (x,),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
        )
        return onnx.ModelProto.FromString(file.getvalue())
