"""What all backends share: checked sizes, limits, counts and the frame of a self-test.

How rows are computed is up to the subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Protocol

import torch

from ostinato.arguments import require_at_least
from ostinato.errors import InputError
from ostinato.inference.row_blocks import Counts
from ostinato.inference.self_test import SelfTest
from ostinato.models import Llama, lora_layers, plain_compute_mode


class NetworkShape(Protocol):
    """What a backend needs to know of any network's configuration."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...


class SlotBackend(ABC):
    """Slots side by side, each with the state of one sequence; see `Backend` for the methods.

    `vocab_size` is the number of logits, `limit` the maximum length of a sequence in tokens, and
    `block` the rows of one product. `counts` has the prompt and generated rows computed so far.
    """

    def __init__(
        self,
        config: NetworkShape,
        device: torch.device,
        *,
        slots: int,
        block: int,
        prefill_chunk: int = 1,
    ) -> None:
        require_at_least(1, "Use 16.", slots=slots)
        require_at_least(1, "Use 16, or 64 for bulk.", block=block)
        require_at_least(1, "Use 64.", prefill_chunk=prefill_chunk)
        self.slots, self.block, self.prefill_chunk = slots, block, prefill_chunk
        self.vocab_size, self.limit = config.vocab_size, config.max_position_embeddings
        self.device = device
        self.compute_mode = plain_compute_mode(device)  # the compiled backend has its own
        self.counts = Counts()

    def self_test(self) -> SelfTest:
        """Compute a few rows alone and beside others, and report whether the bits are equal.

        Call it before the slots are used: it overwrites some of them. `counts` stays as it is.
        """
        counts = replace(self.counts)
        try:
            return self._compare_rows()
        finally:
            self.counts = counts

    @abstractmethod
    def _compare_rows(self) -> SelfTest:
        """Run the comparison of `self_test`."""


def check_merged(network: Llama) -> None:
    """Refuse a network with an adapter that is not merged: backends read plain weights."""
    if next(lora_layers(network), None) is not None:
        raise InputError("the network's adapters must be merged, got one that is not. Call merge.")
