"""A way to explain a model of ``models.py`` as a user does, and the known answers, by torch's autograd alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import camsweep
from camsweep.core.errors import RequestError

MODELS = Path(__file__).with_name("models.py")
LAYOUTS = {3: "NCT", 4: "NCHW", 5: "NCDHW"}


@dataclass(frozen=True)
class Answer:
    """What a results file holds."""

    maps: dict[str, np.ndarray]
    """(sample, target, *s) by name, ``hirescam@features``."""
    score: np.ndarray
    index: np.ndarray
    foil: np.ndarray
    status: np.ndarray
    messages: list[str]
    names: tuple[str, ...]
    explained: str
    """Which score was."""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Callable[..., Answer]:
    """``sweep("Net", x, ["class:1"], ..)``: explained from Python, in float64, on the layer's grid."""

    def run(
        model: str,
        x: np.ndarray,
        targets: Sequence[str],
        *,
        args: Mapping[str, Any] | None = None,
        methods: Sequence[str] = ("hirescam",),
        layer: str = "features",
        arrays: Mapping[str, np.ndarray] | None = None,
        options: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        **explain: Any,
    ) -> Answer:
        folder = tmp_path_factory.mktemp("run")
        arrays = dict(arrays or {})
        np.savez(folder / "data.npz", x=x, **arrays)
        known = {key: key for key in ("label", "id", "classes") if key in arrays}
        path = camsweep.explain(
            model={"source": f"{MODELS}:{model}", "args": dict(args or {}), **(options or {})},
            data={"path": str(folder / "data.npz"), "input": "x", "layout": LAYOUTS[x.ndim], **known, **(data or {})},
            explain={
                "methods": list(methods), "layers": [layer], "targets": list(targets), "batch_size": 2,
                "device": "cpu", **explain,
            },
            output={"path": str(folder / "run.h5"), "dtype": "float64", "resolution": "layer"},
        )  # fmt: skip
        with camsweep.open_results(path) as results:
            return Answer(
                {name: view.read() for name, view in results.maps.items()},
                results.target_score,
                results.target_index,
                results.target_foil,
                results.status,
                results.messages,
                results.target_names,
                results.score,
            )

    return run


@pytest.fixture
def refused(sweep) -> Callable[..., str]:
    """The one line that `sweep` is refused with."""

    def run(*words: Any, **more: Any) -> str:
        with pytest.raises(RequestError) as caught:
            sweep(*words, **more)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def samples(*shape: int, count: int = 3, seed: int = 1) -> np.ndarray:
    """``count`` of (channel, *shape), two channels, each sample with means of its own."""
    rng = np.random.default_rng(seed)
    means = 1.5 * rng.normal(size=(count, 2, *[1] * len(shape)))
    return (rng.normal(size=(count, 2, *shape)) + means).astype(np.float32)


@dataclass(frozen=True)
class Known:
    """An activation, (N, C, *s), the gradient there, and the scores (N,)."""

    A: np.ndarray
    G: np.ndarray
    score: np.ndarray

    @property
    def hirescam(self) -> np.ndarray:
        return (self.A * self.G).sum(1)

    @property
    def signed_gradcam(self) -> np.ndarray:
        return (self.A * self.G.mean(tuple(range(2, self.G.ndim)), keepdims=True)).sum(1)

    @property
    def gradcam(self) -> np.ndarray:
        return self.signed_gradcam.clip(0)


def known(
    module: nn.Module,
    x: Any,
    score: Callable[[Any], Tensor],
    layer: str = "features",
    grid: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Known:
    """By autograd: ``score`` maps what the module gives to (N,), ``grid`` the layer's output to (N, C, *s)."""
    seen: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(_first(out)))
    value = score(_forward(module, x))
    hook.remove()
    [gradient] = torch.autograd.grad(value.sum(), seen[0])
    return Known(grid(seen[0]).detach().numpy(), grid(gradient).numpy(), value.detach().numpy())


def ablationcam(module: nn.Module, x: Any, score: Callable[[Any], Tensor], layer: str = "features") -> np.ndarray:
    """relu(sum_k (y - y_k) / |y| A_k), a forward for each channel."""
    clean = known(module, x, score, layer)
    total = 0.0
    for k in range(clean.A.shape[1]):
        keep = torch.ones(clean.A.shape[1], dtype=torch.float64)
        keep[k] = 0
        keep = keep.reshape(-1, *[1] * (clean.A.ndim - 2))
        hook = module.get_submodule(layer).register_forward_hook(lambda _m, _i, out, keep=keep: out * keep)
        without = score(_forward(module, x)).detach().numpy()
        hook.remove()
        weight = (clean.score - without) / np.abs(clean.score)
        total = total + weight.reshape(-1, *[1] * (clean.A.ndim - 2)) * clean.A[:, k]
    return np.clip(total, 0, None)


def of(index: Any) -> Callable[[Tensor], Tensor]:
    """The score of a class, one for all or one for each sample."""
    return lambda z: z[torch.arange(len(z)), torch.as_tensor(index)]


def outputs(module: nn.Module, x: Any) -> np.ndarray:
    return _forward(module, x).detach().numpy()


def same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    """Equal to rounding, and not because both are nothing."""
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * size)


def _forward(module: nn.Module, x: Any) -> Any:
    arrays = x if isinstance(x, tuple) else (x,)
    tensors = [torch.from_numpy(a) for a in arrays]
    return module.double().eval()(*[t.double() if t.is_floating_point() else t for t in tensors])


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
