"""The networks in other formats: ``python -m camsweep.sample_data.formats [DIR]`` writes ``.onnx`` and ``.keras``.

Needs onnx and keras. The weights are those of the ``.pt`` files beside; so are the outputs, to rounding.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if __package__:
    from .models import DigitNet, EcgNet, MotionNet
else:  # run as a script
    from models import DigitNet, EcgNet, MotionNet  # type: ignore[import-not-found,no-redef]

HERE = Path(__file__).parent
SHAPES = {"ecg": (3, 500), "digits": (1, 32, 40), "motion": (1, 12, 24, 32)}
"""One sample, (channel, *s)."""
NETWORKS: dict[str, Callable[[], nn.Module]] = {"ecg": EcgNet, "digits": DigitNet, "motion": MotionNet}


def write_onnx(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """By torch's own exporter, batches of any size."""
    some = {0: "batch"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs another package, and folds nothing
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": some, "logits": some},
        )


def write_keras(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """The same layers as Keras has them: channels last, padding a layer of its own."""
    with keras_on_torch() as keras:
        x = keras.Input((*shape[1:], shape[0]), name="x")
        keras.Model(x, Translation(keras).network(network, x)).save(path)


class Translation:
    """Layers of torch as layers of Keras, called on Keras' tensors."""

    def __init__(self, keras: Any) -> None:
        self.layers = keras.layers

    def network(self, network: nn.Module, x: Any) -> Any:
        """The whole of one of `NETWORKS`."""
        if isinstance(network, DigitNet):
            x = self.row(network.features, x, "features")
        elif isinstance(network, EcgNet):
            x = self.row(network.stem, x, "stem")
            for name in ("stage1", "stage2", "stage3"):
                x = self.residual(getattr(network, name), x, name)
        elif isinstance(network, MotionNet):
            x = self.row(network.stage1, self.row(network.stem, x, "stem"), "stage1")
            x = self.residual(network.stage2, x, "stage2")
        rank = len(x.shape) - 2
        x = getattr(self.layers, f"GlobalAveragePooling{rank}D")(name="pool")(x)
        head: Any = network.head
        return self.filled(self.layers.Dense(head.out_features, name="head"), x, head)

    def row(self, modules: nn.Sequential, x: Any, name: str) -> Any:
        """One after the other; the last has the name of all."""
        for i, module in enumerate(modules):
            own = name if module is modules[-1] else f"{name}_{i}"
            relu = isinstance(module, nn.ReLU)
            x = self.layers.ReLU(name=own)(x) if relu else self.weighted(module, x, own)
        return x

    def residual(self, block: Any, x: Any, name: str) -> Any:
        """`models.Residual`."""
        h = self.weighted(block.norm1, self.weighted(block.conv1, x, f"{name}_conv1"), f"{name}_norm1")
        h = self.weighted(block.conv2, self.layers.ReLU(name=f"{name}_relu1")(h), f"{name}_conv2")
        h = self.weighted(block.norm2, h, f"{name}_norm2")
        skip = x if isinstance(block.skip, nn.Identity) else self.weighted(block.skip, x, f"{name}_skip")
        return self.layers.ReLU(name=name)(self.layers.Add(name=f"{name}_add")([h, skip]))

    def weighted(self, module: Any, x: Any, name: str) -> Any:
        """A convolution, padded before it, or a batch norm."""
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return self.filled(self.layers.BatchNormalization(epsilon=module.eps, name=name), x, module)
        rank = len(module.kernel_size)
        if any(module.padding):
            padding = module.padding if rank > 1 else module.padding[0]
            x = getattr(self.layers, f"ZeroPadding{rank}D")(padding, name=f"{name}_pad")(x)
        kind = getattr(self.layers, f"Conv{rank}D")
        sizes = {"strides": module.stride, "use_bias": module.bias is not None, "name": name}
        return self.filled(kind(module.out_channels, module.kernel_size, **sizes), x, module)

    def filled(self, layer: Any, x: Any, module: Any) -> Any:
        """The layer called, its weights those of the module."""
        y = layer(x)
        own: list[Tensor] = [module.weight, *([] if module.bias is None else [module.bias])]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own += [module.get_buffer("running_mean"), module.get_buffer("running_var")]
        else:
            own[0] = own[0].movedim(0, -1).movedim(0, -2)  # (out, in, *k) to (*k, in, out)
        layer.set_weights([each.detach().numpy() for each in own])
        return y


@contextmanager
def keras_on_torch() -> Iterator[Any]:
    """Keras, which asks the environment what it runs on when it is imported first."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras

        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            keras.utils.clear_session()
            yield keras
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


def main(folder: Path = HERE) -> None:
    """Write both formats of each network whose weights lie in ``folder``."""
    for name, network in NETWORKS.items():
        module = network()
        module.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        write_onnx(module.eval(), SHAPES[name], folder / f"{name}.onnx")
        write_keras(module, SHAPES[name], folder / f"{name}.keras")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
