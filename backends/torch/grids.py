"""Tokens and channels-last values, brought to (batch, channel, *spatial)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import RequestError

Order = Literal["first", "last"]
PREFIX = 8
"""So many class, distillation and register tokens are thought of at most."""


@dataclass(frozen=True)
class Grid:
    """How a layer's output is read. As it is; with its channels last; or as tokens behind a prefix."""

    order: Order = "first"
    prefix: int = 0
    sizes: tuple[int, ...] | None = None

    def __str__(self) -> str:
        if self.sizes is not None:
            return f"prefix={self.prefix},grid={'x'.join(map(str, self.sizes))}"
        return "channels=last" if self.order == "last" else ""

    def read(self, raw: Tensor) -> Tensor:
        """(batch, channel, *spatial)."""
        if self.order == "first":
            return raw
        if self.sizes is None:
            return raw.movedim(-1, 1)
        tokens = raw[:, self.prefix :].movedim(-1, 1)
        return tokens.reshape(*tokens.shape[:2], *self.sizes)

    def write(self, values: Tensor, raw: Tensor) -> Tensor:
        """A copy in the layer's own form; the prefix is taken from ``raw``."""
        if self.order == "first":
            return values.clone()
        if self.sizes is None:
            return values.movedim(1, -1).clone()
        return torch.cat([raw[:, : self.prefix], values.flatten(2).movedim(1, -1)], 1)

    def shape(self, dims: Sequence[int]) -> tuple[int, ...]:
        """(channel, *spatial) of one sample of raw shape ``dims``."""
        if self.order == "first":
            return tuple(dims)
        return (dims[-1], *(self.sizes or dims[:-1]))


@dataclass(frozen=True)
class Tokens:
    """What the user says of tokens: ``prefix=1,grid=14x14``, ``channels=last``, ``channels=first``."""

    order: Order | None = None
    prefix: int | None = None
    sizes: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str | None) -> Tokens:
        """`RequestError` says what to type where it cannot."""
        settings: dict[str, Any] = {}
        for part in filter(None, (text or "").split(",")):
            key, _, value = part.partition("=")
            if key == "channels" and value in ("first", "last"):
                settings["order"] = value
            elif key == "prefix" and value.isdecimal():
                settings["prefix"] = int(value)
            elif key == "grid" and all(size.isdecimal() and int(size) for size in value.split("x")):
                settings["sizes"] = tuple(map(int, value.split("x")))
            else:
                raise RequestError(f"tokens {text!r} given, expected prefix=1,grid=14x14 or channels=last")
        return cls(**settings)


def order_of(module: nn.Module) -> Order | None:
    """Where a layer of this kind has its channels, None where it does not matter to it."""
    if isinstance(module, nn.LayerNorm):
        return "last" if len(module.normalized_shape) == 1 else "first"
    if isinstance(module, nn.Linear | nn.MultiheadAttention | nn.Embedding | nn.RNNBase):
        return "last"
    name = type(module).__name__
    known = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "MaxPool", "AvgPool", "Upsample")
    return "first" if any(part in name for part in known) and not any(module.children()) else None


def settle(
    dims: Sequence[int],
    field: Sequence[int],
    order: Order | None,
    seen: Iterable[tuple[int, ...]],
    tokens: Tokens,
    own: Order | None = None,
) -> Grid:
    """The grid of a layer's output (*dims) for an input with the spatial sizes ``field``.

    ``own`` is where a layer of this kind always has its channels, ``order`` what the layers that ran last say,
    ``seen`` the grids of layers before. `RequestError` where tokens can be read in several ways, or in none.
    """
    rank, seen = len(field), list(seen)
    if not rank:
        return Grid()
    if len(dims) == rank + 1 and tokens.order != "last" and not (rank == 1 and _tokens_there(dims[0], order, tokens)):
        first, last = tuple(dims[1:]) in seen, tuple(dims[:-1]) in seen
        if first == last:
            first, last = alike(dims[1:], field), alike(dims[:-1], field)
        as_last = rank > 1 and tokens.order is None and own != "first" and (order == "last" if first == last else last)
        return Grid("last") if as_last else Grid()
    if len(dims) == rank + 1 and rank > 1:
        return Grid() if own == "first" else Grid("last")
    if len(dims) == 2 and (tokens.order == "last" or tokens.sizes is not None or order != "first"):
        return _grid(dims[0], field, list(dict.fromkeys(seen)), tokens)
    return Grid()


def _tokens_there(count: int, order: Order | None, tokens: Tokens) -> bool:
    """Whether (count, channel) of a signal's network are tokens: as its layers say, or as the user does."""
    said = tokens.sizes is not None and count == (tokens.prefix or 0) + math.prod(tokens.sizes)
    return tokens.order is None and (order == "last" or said)


def alike(sizes: Sequence[int], field: Sequence[int]) -> bool:
    """Whether ``sizes`` is ``field`` made smaller by one factor along all axes, to within one point."""
    factors = [large / small for large, small in zip(field, sizes, strict=True)]
    factor = max(factors, default=1.0)
    return all(abs(large / factor - small) <= 1 for large, small in zip(field, sizes, strict=True))


def _grid(count: int, field: Sequence[int], seen: list[tuple[int, ...]], tokens: Tokens) -> Grid:
    rank = len(field)
    said = f"tokens: {count} in a layer"
    if tokens.sizes is not None:
        prefix = count - math.prod(tokens.sizes) if tokens.prefix is None else tokens.prefix
        if prefix < 0 or prefix + math.prod(tokens.sizes) != count or len(tokens.sizes) != rank:
            given = f"prefix={prefix},grid={'x'.join(map(str, tokens.sizes))}"
            raise RequestError(f"{said}, which {given} does not make for an input of {_by(field)}")
        return Grid("last", prefix, tokens.sizes)
    prefixes = range(min(PREFIX, count - 1) + 1) if tokens.prefix is None else [tokens.prefix]
    fits = [Grid("last", prefix, sizes) for prefix in prefixes for sizes in seen if count - prefix == math.prod(sizes)]
    if not fits:
        fits = [
            Grid("last", prefix, sizes) for prefix in prefixes if (sizes := _patches(count - prefix, field)) is not None
        ]
    if len(fits) == 1:
        return fits[0]
    advice = f"say --tokens prefix=P,grid={'x'.join('NML'[:rank])}"
    if not fits:
        raise RequestError(f"{said} are no grid of an input of {_by(field)}; {advice}")
    ways = " or ".join(str(each) for each in fits[:3])
    raise RequestError(f"{said} can be {ways}; {advice}")


def _patches(count: int, field: Sequence[int]) -> tuple[int, ...] | None:
    """Sizes of a grid of ``count`` equal, whole patches with the sides of a cube, over ``field``."""
    if count < 2:
        return None
    side = (math.prod(field) / count) ** (1 / len(field))
    sizes = tuple(round(length / side) for length in field)
    whole = math.prod(sizes) == count and all(s and length % s == 0 for s, length in zip(sizes, field, strict=True))
    return sizes if whole and len({length // s for s, length in zip(sizes, field, strict=True)}) == 1 else None


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
