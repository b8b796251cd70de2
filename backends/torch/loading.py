"""From a source and a weights file to a ``torch.nn.Module``, without running code that was not asked for."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pickle
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import RequestError, nearest
from ...core.user_code import unloaded
from ..checkpoints import check, check_sums
from ..code import code_file, parted

if TYPE_CHECKING:
    from ...core.job import ModelSection

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep the state dict among other things."""

PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
"""What DataParallel, Lightning, ``torch.compile`` and habit put before every name."""


def settle_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError):
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise RequestError(f"device {name!r} is not here; choose auto or one of: {', '.join(there)}") from None
    return device


def load_module(model: ModelSection) -> nn.Module:
    """Build the module that ``model.source`` names, with ``model.args``, and give it ``model.weights``.

    Without a source the weights must be a whole pickled module, which is code and needs ``trust_checkpoint``.
    """
    if model.source is None:
        stored = read_checkpoint(Path(model.weights or ""), trust=model.trust_checkpoint)
        if isinstance(stored, nn.Module):
            return stored
        raise RequestError(
            f"{model.weights} holds weights only; name the code that builds the module: --model FILE.py:CLASS"
        )
    module = build(model.source, model.args)
    if model.weights is not None:
        stored = read_checkpoint(Path(model.weights), trust=model.trust_checkpoint)
        fill(module, stored.state_dict() if isinstance(stored, nn.Module) else stored, model.weights)
    return module


def build(source: str, args: Mapping[str, Any]) -> nn.Module:
    """Call ``file.py:Name`` or ``package.module:name`` with ``args``; what it prints goes to stderr."""
    where, name = parted(source)
    with _told(f"model source {source}"), contextlib.redirect_stdout(sys.stderr):
        module = imported_code(where)
        if not hasattr(module, name):
            choices = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise RequestError(f"{where} has no {name!r}. {nearest(name, choices)}")
        factory: Callable[..., Any] = getattr(module, name)
        if isinstance(factory, nn.Module):
            return factory
        try:
            inspect.signature(factory).bind(**args)
        except TypeError as error:
            raise RequestError(f"{source}: {error}; its arguments are {inspect.signature(factory)}") from None
        built = factory(**args)
    if not isinstance(built, nn.Module):
        raise RequestError(f"{source} gave a {type(built).__name__}, expected a torch.nn.Module")
    return built


def read_checkpoint(path: Path, *, trust: bool) -> Any:
    """What a weights file holds: a mapping of tensors, or, where it is trusted, anything that was pickled."""
    check(path)
    check_sums(path)
    if _is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise RequestError(f"{path} is not a whole safetensors file: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages and of pickles; what matters is told below
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"pickled code, {named[1]}" if named else "pickled code"
        raise RequestError(
            f"{path} holds more than weights ({what}), which loading would run; "
            "save its state_dict, or give --trust-checkpoint if you trust where it came from"
        ) from None
    except Exception as error:
        raise RequestError(
            f"{path} cannot be read as a checkpoint, damaged or cut short: {_last_line(error)}"
        ) from None


def _is_safetensors(path: Path) -> bool:
    """By its name, or where the length of a header in JSON is followed by one."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(10)[8:] in (b'{"', b"{}")


def fill(module: nn.Module, stored: Any, path: object) -> None:
    """Load ``stored`` into ``module``, strictly: every name and every shape must agree.

    The state dict may lie under a usual key, and its names may carry a usual prefix.
    """
    own = module.state_dict()
    state = _unwrap(stored)
    if not state:
        raise RequestError(f"{path} holds no tensors by name; expected a state_dict")
    while not own.keys() & state.keys():
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    # Checkpoints from before PyTorch 0.4.1 lack this counter, and evaluation never looks at it.
    state |= {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or extra:
        raise RequestError(
            f"{path} is for another network: {len(missing)} names missing{_first(missing)}, "
            f"{len(extra)} unexpected{_first(extra)}; check the model's class and its args"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise RequestError(
                f"{path} is for another network: {name} is {tuple(tensor.shape)}, "
                f"the model wants {tuple(own[name].shape)}; check the model's args"
            )
    module.load_state_dict(state)


def _unwrap(stored: Any) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            return _unwrap(stored[key])
    if not isinstance(stored, Mapping):
        return {}
    return {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}


def imported_code(where: str) -> ModuleType:
    """The module at ``FILE.py``, which can import its neighbours, or of the name ``package.module``."""
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = code_file(where)
    module, loader = unloaded(path)
    with _importable(path.parent, path.stem, module):
        loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importable(folder: Path, name: str, module: ModuleType) -> Iterator[None]:
    """The file's neighbours can be imported while it loads, and it can find itself by name, as dataclasses must."""
    before = sys.modules.get(name)
    sys.path.insert(0, str(folder))
    sys.modules[name] = module
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if before is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = before


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises, SystemExit too, into one line with its place."""
    try:
        yield
    except (RequestError, KeyboardInterrupt):
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        raise RequestError(f"{what} fails: {_last_line(error)}{place}") from error


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def _first(names: set[str]) -> str:
    return f" (first: {min(names)})" if names else ""
