"""What backends prepare of a network's weights, kept as long as the network lives.

So another call of `write` or `Refine` with the same `LanguageModel` packs nothing again. Only the
latest preparation of a network is kept: each is a copy of its weights. Knows no layout.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ostinato.models import CPU

Prepared = TypeVar("Prepared")


class _Kept(NamedTuple):
    key: Hashable
    weights: list[object]
    value: Any


_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
_one_at_a_time = Lock()


def prepared(network: nn.Module, key: Hashable, make: Callable[[], Prepared]) -> Prepared:
    """Return what `make` returns for a network, or what it returned for the same key and weights.

    The result must not refer to the network, which could not be freed. Nothing is kept of a network
    on another device than the CPU, nor of one in training: its weights change before the next call.
    """
    with _one_at_a_time:
        weights = _state(network)
        kept = _kept.get(network)
        if kept is not None and weights is not None and kept[:2] == (key, weights):
            return kept.value  # type: ignore[no-any-return]
        _kept.pop(network, None)  # first, so that two copies are never in memory
        value = make()
        if weights is not None:
            # Their place in memory may be another one now.
            _kept[network] = _Kept(key, _state(network) or [], value)
        return value


def _state(network: nn.Module) -> list[object] | None:
    """Return what changes with the weights; None where that cannot be seen.

    PyTorch counts changes in place, but not those through `.data`: the first value shows most.
    """
    state: list[object] = []
    for weight in chain(network.parameters(), network.buffers()):
        if weight.grad is not None or weight.is_inference() or weight.device != CPU:
            return None
        # No more than the first value: reading one maps the pages around it.
        first = weight.detach()[(slice(0, 1),) * weight.dim()].flatten()
        state.append((weight.data_ptr(), weight._version, weight.shape, weight.dtype, _bits(first)))
    return state


def _bits(values: torch.Tensor) -> bytes:
    return bytes(values.contiguous().view(torch.uint8).tolist())
