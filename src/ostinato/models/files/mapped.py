"""Weights that are mapped from files: the memory of pages that were read can be given back.

A network keeps its weights after a backend has arranged them for itself. Where they are mapped and
still as the file has them, a new mapping costs no memory until it is read. Knows no backend.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open
from torch import Tensor, nn


class MappedTensor(NamedTuple):
    """A tensor as it was read, and where it is stored."""

    tensor: Tensor
    path: Path
    name: str


class _Place(NamedTuple):
    path: Path
    name: str


_places: WeakKeyDictionary[nn.Module, dict[int, _Place]] = WeakKeyDictionary()
_maps: WeakKeyDictionary[nn.Module, mmap.mmap] = WeakKeyDictionary()


def remember_places(network: nn.Module, stored: list[MappedTensor]) -> None:
    """Remember which weights of a network are mapped from safetensors files, and from where."""
    places = {each.tensor.data_ptr(): _Place(each.path, each.name) for each in stored}
    _places[network] = {
        weight.data_ptr(): places[weight.data_ptr()]
        for weight in _weights(network)
        if weight.data_ptr() in places
    }


def remember_map(network: nn.Module, mapped: mmap.mmap) -> None:
    """Remember the private map of a file that the buffers of a network lie in."""
    _maps[network] = mapped


def release_pages(network: nn.Module) -> None:
    """Give back the memory of weights that are mapped from files and as these have them.

    They are read from the files again when they are used. Other weights stay as they are.
    """
    with torch.inference_mode(False):  # what replaces a weight can be trained as the weight
        _release_map(network)
        _replace(network)


def _release_map(network: nn.Module) -> None:
    changed = any(weight._version for weight in network.buffers())
    if network in _maps and not changed and hasattr(mmap, "MADV_DONTNEED"):
        _maps[network].madvise(mmap.MADV_DONTNEED)


def _replace(network: nn.Module) -> None:
    places = _places.pop(network, {})
    if not places:
        return
    with ExitStack() as stack:
        try:
            first, second = (
                {
                    path: stack.enter_context(safe_open(path, framework="pt"))
                    for path in {place.path for place in places.values()}
                }
                for _ in range(2)
            )
        except OSError:  # the file is gone: what is mapped stays
            return
        kept = {}
        for weight in _weights(network):
            place = places.get(weight.data_ptr())
            # Compared by one map and replaced by another, whose pages nobody has read.
            if place is None or not _equal(weight, first[place.path].get_tensor(place.name)):
                continue
            weight.data = second[place.path].get_tensor(place.name)
            kept[weight.data_ptr()] = place
        _places[network] = kept


def _weights(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())


def _equal(weight: Tensor, stored: Tensor) -> bool:
    same = weight.dtype == stored.dtype and weight.shape == stored.shape
    return same and torch.equal(weight.detach(), stored)
