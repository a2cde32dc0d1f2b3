"""What backends prepare of a network's weights, and which of them changed since.

It is kept as long as the network lives, so that another call of `write` or `Refine` with the same
`LanguageModel` packs nothing again. Only the latest preparation of a network is kept: each is a
copy of its weights. Backends share what is kept: to take new weights, one makes its own first.
Knows no layout.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from ostinato.models import CPU, LoraLinear, MergedLinear, has_adapter

Made = TypeVar("Made")
_State = list[object]


class Prepared(NamedTuple, Generic[Made]):
    """What was prepared of a network; `shared`: others may use it too, so it must not change."""

    value: Made
    shared: bool


class _Kept(NamedTuple):
    key: Hashable
    weights: _State | None
    value: Any


_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
_one_at_a_time = Lock()


def prepared(network: nn.Module, key: Hashable, make: Callable[[], Made]) -> Prepared[Made]:
    """Return what `make` returns for a network, or what it returned for the same key and weights.

    The result must not refer to the network, which could not be freed. Nothing is kept of a network
    on another device than the CPU, nor of one in training, with gradients or an adapter: its
    weights change before the next call.
    """
    with _one_at_a_time:
        weights = _kept_state(network)
        kept = _kept.get(network)
        if kept is not None and weights is not None and kept[:2] == (key, weights):
            return Prepared(kept.value, True)
        _kept.pop(network, None)  # first, so that two copies are never in memory
        value = make()
        if weights is not None:
            # Their place in memory may be another one now.
            _kept[network] = _Kept(key, _kept_state(network), value)
        return Prepared(value, weights is not None)


def forget_outdated(network: nn.Module) -> None:
    """Drop what is kept of a network, if its weights have changed since."""
    with _one_at_a_time:
        kept = _kept.get(network)
        if kept is not None and kept.weights != _kept_state(network):
            del _kept[network]


def _kept_state(network: nn.Module) -> _State | None:
    trains = has_adapter(network) or any(p.grad is not None for p in network.parameters())
    return None if trains else _state([network])


# What changed ------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a backend has the weights of some modules, and the function that brings them there."""

    name: str
    modules: Sequence[nn.Module]
    load: Callable[[], None]


class Seen:
    """What was seen of weights when they were last loaded, by the names of their places."""

    def __init__(self) -> None:
        self._states: dict[str, _State | None] = {}

    def load_changed(self, places: Iterable[Place]) -> bool:
        """Load the places whose weights have changed; return whether there was one."""
        found = False
        for place in places:
            state = _state(place.modules)
            if state is None or state != self._states.get(place.name):
                place.load()
                self._states[place.name] = state
                found = True
        return found

    def look(self, places: Iterable[Place]) -> None:
        """Remember the weights of all places as those that are loaded."""
        self._states = {place.name: _state(place.modules) for place in places}

    def changed(self, places: Iterable[Place]) -> bool:
        """Return whether some weights are others than those that are loaded."""
        states = ((self._states.get(place.name), _state(place.modules)) for place in places)
        return any(state is None or state != before for before, state in states)


def _state(modules: Sequence[nn.Module]) -> _State | None:
    """Return what changes with the weights of modules; None where that cannot be seen.

    PyTorch counts changes in place, but not those through `.data`: the first value shows most.
    """
    state: _State = []
    for part in chain.from_iterable(module.modules() for module in modules):
        if isinstance(part, LoraLinear | MergedLinear):
            state.append(part.scale)
        # By the dictionaries: `parameters()` takes four times as long.
        for weight in chain(part._parameters.values(), part._buffers.values()):
            if weight is None:
                continue
            if weight.is_inference() or weight.device != CPU:
                return None
            # No more than the first value: reading one maps the pages around it.
            place = weight.data_ptr()
            first = ctypes.string_at(place, weight.element_size()) if weight.numel() else b""
            state.append((place, weight._version, weight.shape, weight.dtype, first))
    return state
