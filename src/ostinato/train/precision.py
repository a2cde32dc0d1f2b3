"""How a step computes: the type of its products, and that its bits are always the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ostinato.arguments import require
from ostinato.loop import fold_in
from ostinato.models import deterministic_ops, device_of

PrecisionName = Literal["float32", "bfloat16"]


class Precision:
    """The type of the matrix products of networks on one device; weights keep theirs.

    Every step is deterministic in `step_of`: dropout draws from torch's global generator, which is
    seeded there, so that a step depends on its number alone and not on what ran before it.
    """

    def __init__(
        self, *networks: nn.Module, name: PrecisionName = "float32", seed: int = 0
    ) -> None:
        require(bool(networks), "networks", "at least one", networks)
        names = get_args(PrecisionName)
        require(name in names, "name", " or ".join(names), name)
        self.device, self.name, self._seed = device_of(networks[0]), name, seed
        self._networks = networks

    @property
    def dtype(self) -> torch.dtype:
        """The type of the products."""
        dtype: torch.dtype = getattr(torch, self.name)
        return dtype

    def autocast(self) -> torch.autocast:
        """Return a context for products of this type.

        Each batch needs its own: the context caches the rounded weights, with their graph.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bfloat16")

    def deterministic(self) -> AbstractContextManager[None]:
        """Return a context in which the device uses deterministic algorithms."""
        return deterministic_ops(self.device)

    @contextmanager
    def step_of(self, number: int) -> Iterator[None]:
        """Take a step of the networks, in training mode, in the block; `number` counts from 0."""
        with self.deterministic():
            if any(_drops_out(network) for network in self._networks):
                torch.manual_seed(fold_in(self._seed, "dropout", number))
            for network in self._networks:
                network.train()
            yield


def _drops_out(network: nn.Module) -> bool:
    """Return whether a network has dropout, as a module or as a number `dropout`."""
    return any(
        getattr(module, "dropout", 0.0) or (isinstance(module, _DropoutNd) and module.p)
        for module in network.modules()
    )
