"""What all backends share: checked sizes, limits, counts and the frame of a self-test.

How rows are computed is up to the subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ostinato.arguments import require_at_least
from ostinato.errors import InputError
from ostinato.inference.row_blocks import Counts
from ostinato.inference.self_test import SelfTest, recalled, stored
from ostinato.models import (
    CPU,
    Llama,
    compute_dtype,
    device_of,
    facts_are_kept,
    is_known_code,
    machine,
    plain_compute_mode,
    recall,
    remember,
    source_hash,
)
from ostinato.waiting import waiting

SELF_TEST = "self-test"
"""The kind of fact that a self-test's result is remembered as."""


class SlotBackend(ABC):
    """Slots side by side, each with the state of one sequence; see `Backend` for the methods.

    `vocab_size` is the number of logits, `limit` the maximum length of a sequence in tokens, and
    `block` the rows of one product. `counts` has the prompt and generated rows computed so far.
    """

    def __init__(
        self, network: nn.Module, *, slots: int, block: int, prefill_chunk: int = 1
    ) -> None:
        require_at_least(1, "Use 16.", slots=slots)
        require_at_least(1, "Use 16, or 64 for bulk.", block=block)
        require_at_least(1, "Use 64.", prefill_chunk=prefill_chunk)
        self.slots, self.block, self.prefill_chunk = slots, block, prefill_chunk
        self.network, self._form = network, _form(network)
        config: Any = network.config
        self.vocab_size, self.limit = config.vocab_size, config.max_position_embeddings
        self.device = device_of(network)
        self.compute_mode = plain_compute_mode(self.device)  # the compiled backend has its own
        self.counts = Counts()
        # What the self-test depends on besides, for `remember`; None where it is not known.
        self._tested: dict[str, object] | None = None

    def update(self, network: nn.Module | None = None) -> bool:
        """Take over the weights of the network, or of another one of its shape, as they are now.

        See `Backend.update`. Raises `InputError` for a network of another kind, shape or type.
        """
        taken = self.network if network is None else network
        check_same_form(taken, self._form)
        changed = self._take_over(taken)
        self.network = taken
        return changed

    @abstractmethod
    def _take_over(self, network: Any) -> bool:
        """Load the weights that changed; return whether any did."""

    def self_test(self, *, again: bool = False) -> SelfTest:
        """Compute a few rows alone and beside others, and report whether the bits are equal.

        Call it before the slots are used: it overwrites some of them. `counts` stays as it is.
        The result is remembered for the same computation on this machine; `again` repeats it.
        """
        key = self._test_key() if facts_are_kept() else None
        known = None if again or key is None else recalled(recall(SELF_TEST, key))
        if known is not None:
            return known
        counts = replace(self.counts)
        try:
            with waiting("Checking how this machine computes, once for each model…"):
                found = self._compare_rows()
        finally:
            self.counts = counts
        if key is not None:
            remember(SELF_TEST, key, stored(found))
        return found

    def _test_key(self) -> dict[str, object] | None:
        """Return everything that the self-test's result depends on; None: it is not remembered."""
        if self._tested is None or self.device != CPU or not is_known_code(type(self)):
            return None
        return {
            "machine": machine(),
            "code": source_hash(Path(__file__).parent),
            "backend": type(self).__name__,
            "mode": self.compute_mode,
            "slots": min(self.slots, self.block),
            "block": self.block,
            "prefill_chunk": self.prefill_chunk,
            **self._tested,
        }

    @abstractmethod
    def _compare_rows(self) -> SelfTest:
        """Run the comparison of `self_test`."""


def default_dtype(network: Llama) -> torch.dtype:
    """Return the type that PyTorch computes a network in, unless another is asked for.

    It is the faster one as a rule: weights in 16 bits lose nothing in it. Others stay as they are.
    """
    held = network.dtype
    return held if held.itemsize > 2 else compute_dtype(device_of(network))


def in_dtype(dtype: torch.dtype, network: Llama) -> str:
    """Return what the name of a compute mode gets where its type is not the default one."""
    own = dtype == default_dtype(network)
    return "" if own else f", in {str(dtype).removeprefix('torch.')}"


def check_same_form(network: nn.Module, expected: Mapping[str, object]) -> None:
    """Refuse a network whose weights cannot take the place of those of this form."""
    got = _form(network)
    for name, value in expected.items():
        if got.get(name) != value:
            raise InputError(
                f"the network's {name} must be {value}, as when the backend was opened, got "
                f"{got.get(name)}. Open another backend for it."
            )


def _form(network: nn.Module) -> dict[str, object]:
    """Return the class, type, device and shape of a network."""
    first = next(network.parameters(), None)
    config: Any = network.config
    return {
        "class": type(network).__name__,
        "type": None if first is None else str(first.dtype).removeprefix("torch."),
        "device": str(device_of(network)),
        **{field.name: getattr(config, field.name) for field in fields(config)},
    }
