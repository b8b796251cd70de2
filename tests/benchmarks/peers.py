"""The peers: how each is imported, and what is stood in for, without which it can do what is asked of it here.

``make bench-peers`` puts them into a folder of their own, and only the benchmarks look there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from .race import INSTALL, Missing
from .race import PEERS as FOLDER

PGC, CAPTUM, TORCHCAM, SIGNAL = "pytorch-grad-cam", "captum", "torch-cam", "signal-grad-cam"
QUANTUS, ZENNIT, TKV, XPLIQUE, CROSS = "Quantus", "zennit", "tf-keras-vis", "xplique", "cross-domain-saliency-maps"
VISION = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
RESNETS = ("torchvision", "torchvision.models", "torchvision.models.resnet")
PEERS = {
    PGC: ("pytorch_grad_cam", VISION),
    CAPTUM: ("captum.attr", ()),
    TORCHCAM: ("torchcam.methods", ()),
    SIGNAL: ("signal_grad_cam", ("tensorflow", "keras")),
    QUANTUS: ("quantus", ("cv2", "skimage", "skimage.segmentation")),
    ZENNIT: ("zennit", RESNETS),
    TKV: ("tf_keras_vis.gradcam", ()),
    XPLIQUE: ("xplique.attributions", ()),
    CROSS: ("cross_domain_saliency_maps.torch_ig.cross_domain_integrated_gradients", ()),
}
"""Module, and the modules that it imports for other purposes than ours."""

UNWANTED = {
    QUANTUS: ("tensorflow", "keras", "keras.layers", "keras.models", "zennit"),
    SIGNAL: ("tensorflow", "keras"),
}
"""What a peer takes up wherever it is there: an older Keras than ours, zennit with a torchvision, half a minute."""


class Absent(ModuleType):
    """Stands for a module that is imported but not used: any name is a module, any Name a class."""

    __path__: list[str] = []  # noqa: RUF012  (what makes a module a package)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else Absent(name)


@contextlib.contextmanager
def standing_in(names: Sequence[str], unwanted: Sequence[str] = ()) -> Iterator[None]:
    """Import what is missing of ``names``, and all of ``unwanted``, as `Absent`, for now."""
    replaced = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None] + list(unwanted)
    there = {name: sys.modules[name] for name in replaced if name in sys.modules}
    sys.modules.update({name: Absent(name) for name in replaced})
    try:
        yield
    finally:
        for name in replaced:
            sys.modules.pop(name, None)
        sys.modules.update(there)


@contextlib.contextmanager
def importing(name: str, *unused: str) -> Iterator[str]:
    """The peer's module, while it can be imported without what is not needed of it, ``unused`` among that."""
    module, also = PEERS[name]
    with standing_in((*also, *unused), UNWANTED.get(name, ())), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield module


def peer(name: str, *unused: str) -> Any:
    """The package; `Missing` where it is not installed or cannot be imported."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # behind ours: what both hold is taken from the project's own environment
        importlib.invalidate_caches()
    try:
        with importing(name, *unused) as module:
            return importlib.import_module(module)
    except ImportError as error:
        absent = importlib.util.find_spec(PEERS[name][0].partition(".")[0]) is None
        raise Missing(f"not installed: {INSTALL}" if absent else f"cannot be imported: {error}") from None
