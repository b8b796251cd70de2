"""Weights from HDF5 files, each to the layer of its name."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...core.errors import RequestError
from .migration import plain


def fill(model: Any, group: h5py.Group, path: object) -> None:
    """The weights of a whole-model ``.h5``, of Keras 2 or 3: a group for each layer, by its name."""
    stored = {plain(name): name for name in _names(group, "layer_names")}
    own = {layer.name: layer for layer in model.layers if layer.weights}
    for name, layer in own.items():
        if name not in stored:
            raise RequestError(f"{path} has no weights for layer {name!r}; it is for another model")
        inner = _group(group, stored[name])
        names = _names(inner, "weight_names")
        _assign(layer, names, [_array(inner, each) for each in names], path)
    for name, original in stored.items():
        if name not in own and _names(_group(group, original), "weight_names"):
            raise RequestError(f"{path} has weights for a layer {original!r} that the model has not")


def _assign(layer: Any, names: Sequence[str], arrays: Sequence[NDArray[Any]], path: object) -> None:
    kept = _stored(layer.trainable_weights + layer.non_trainable_weights)
    if len(kept) != len(arrays):
        raise RequestError(f"{path} has {len(arrays)} weights for layer {layer.name!r}, which has {len(kept)}")
    keys = [_key(name) for name in names]
    wanted = [_key(variable.path) for variable in kept]
    if len(set(keys)) == len(keys) and set(keys) == set(wanted):  # inside a model the order may be another
        arrays = [arrays[keys.index(key)] for key in wanted]
    for variable, array in zip(kept, arrays, strict=True):
        _put(variable, array, layer, path)


def _put(variable: Any, array: NDArray[Any], layer: Any, path: object) -> None:
    if tuple(variable.shape) != array.shape:
        raise RequestError(
            f"{path} is for another model: {variable.name} of layer {layer.name!r} is {array.shape}, "
            f"the model wants {tuple(variable.shape)}"
        )
    variable.assign(array)


def _key(name: str) -> str:
    return "/".join(name.removesuffix(":0").split("/")[-2:])


def fill_in_order(model: Any, group: h5py.Group, config: Mapping[str, Any], path: object) -> None:
    """The weights of a ``.keras`` of Keras 2: a group for each layer, by its class and place in the ``config``.

    Keras 3 would count in its own order of the layers, which may be another.
    """
    layers = config["config"]["layers"] if isinstance(config["config"], Mapping) else config["config"]
    named = {layer.name: layer for layer in model.layers}
    counts: Counter[str] = Counter()
    for each in layers:
        kind = _snake(str(each["class_name"]).rpartition(">")[2])
        place = kind if not counts[kind] else f"{kind}_{counts[kind]}"
        counts[kind] += 1
        layer = named.get(plain(str(each["config"].get("name", ""))))
        if layer is None or not layer.weights:
            continue
        root = next((name for name in ("layers", "_layer_checkpoint_dependencies") if name in group), "layers")
        inner = _group(group, f"{root}/{place}")
        if "layers" in each["config"]:
            fill_in_order(layer, inner, each, path)
        else:
            _fill_layer(layer, inner, path)


def _fill_layer(layer: Any, group: h5py.Group, path: object) -> None:
    """A layer's weights."""
    filled = set(_fill_parts(layer, group, path))
    if missing := [variable.path for variable in _stored(layer.weights) if id(variable) not in filled]:
        raise RequestError(f"{path} has no weights for {missing[0]}")


def _fill_parts(layer: Any, group: h5py.Group, path: object) -> Iterator[int]:
    """Its own weights and those of what it is made of; which they are."""
    own = _stored((*layer._trainable_variables, *layer._non_trainable_variables))
    inner = _group(group, "vars") if "vars" in group else {}
    if len(inner) != len(own):
        raise RequestError(f"{path} has {len(inner)} weights for layer {layer.name!r}, which has {len(own)}")
    for i, variable in enumerate(own):
        _put(variable, _array(inner, str(i)), layer, path)
        yield id(variable)
    for name in group.keys() - {"vars"}:
        parts = (getattr(layer, each, None) for each in (name, f"_{name}", name.lstrip("_")))
        part = next((each for each in parts if getattr(each, "weights", None)), None)
        if part is not None:
            yield from _fill_parts(part, _group(group, name), path)


def _stored(variables: Iterable[Any]) -> list[Any]:
    """Without the state of random numbers."""
    return [each for each in variables if "seed_generator" not in each.path]


def _snake(name: str) -> str:
    """As Keras names the groups of a class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list in an attribute, or in several, where it was too long for one."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs and parts != [attribute]:
        parts.append(f"{attribute}{len(parts)}")
    found = [each for part in parts for each in group.attrs[part]]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in found]


def _array(group: h5py.Group | Mapping[str, Any], name: str) -> NDArray[Any]:
    found = _inside(group, name)
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise RequestError(f"{name} in the weights is no plain dataset of the file's own")
    size = math.prod(found.shape) * found.dtype.itemsize
    if size > 1 << 28 and size > 1000 * found.id.get_storage_size():
        raise RequestError(f"{name} in the weights says it holds {size} bytes, and holds almost none")
    return np.asarray(found)


def _group(group: h5py.Group, name: str) -> h5py.Group:
    found = _inside(group, name)
    if not isinstance(found, h5py.Group):
        raise RequestError(f"{name} in the weights is not what it should be")
    return found


def _inside(group: Any, name: str) -> Any:
    """What lies in the file itself: a link may lead to another."""
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise RequestError(f"the weights lack {name}: the file is for another model, or not whole")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise RequestError(f"{name} in the weights is a link, which is not followed")
        group = group[part]
    return group
