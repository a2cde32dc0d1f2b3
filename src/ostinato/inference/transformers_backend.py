"""A network of `transformers` over slots, row by row, each with a cache of its own.

Every product has a shape that depends on its position alone: prompts in chunks counted from their
start, a generated token alone with its own past. So what shares the batch changes no bits; in
return a batch is no faster than its rows one by one. Knows no sampling and no lanes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.inference.row_blocks import Counts, by_slot
from ostinato.inference.self_test import SelfTest
from ostinato.inference.validation import check_length, check_slots, check_start, check_tokens
from ostinato.models import TransformersNetwork, crop, device_of, plain_compute_mode


@dataclass
class _Sequence:
    """What a slot holds. Without a cache the tokens are all there is."""

    tokens: list[int] = field(default_factory=list)
    cache: Any = None


class TransformersBackend:
    """Slots side by side, each with the tokens and the cache of one sequence."""

    def __init__(
        self,
        network: TransformersNetwork,
        slots: int,
        *,
        block: int = 16,
        prefill_chunk: int = 64,
    ) -> None:
        """Make room for `slots` sequences. `block` is the rows of the last product."""
        if slots < 1:
            raise InputError(f"slots must be at least 1, got {slots}. Take 16.")
        self.network, self.device = network.eval(), device_of(network)
        self.slots, self.block, self.prefill_chunk = slots, block, prefill_chunk
        self.counts = Counts()
        self._sequences = [self._empty() for _ in range(slots)]

    @property
    def compute_mode(self) -> str:
        """Plain operations of PyTorch, on the network's device."""
        return plain_compute_mode(self.device)

    @property
    def vocab_size(self) -> int:
        """The number of tokens that can be fed."""
        return self.network.config.vocab_size

    @property
    def limit(self) -> int:
        """The most tokens that a sequence of this model may have."""
        return self.network.config.max_position_embeddings

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot, in prompt shape.

        `start` must be a multiple of `prefill_chunk`, and the slot hold what comes before it.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        sequence = self._cropped(slot, start)
        self._check(tokens, start + len(tokens))
        for first in range(0, len(tokens), chunk):
            self._chunk(sequence, tokens[first : first + chunk])
        self.counts.prompt += len(tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        held = self._sequence(source)
        self._sequences[target] = _Sequence(list(held.tokens), copy.deepcopy(held.cache))
        self._cropped(target, length)

    @torch.inference_mode()
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return what predicts the next.

        A row at an earlier position crops its slot first: nothing else is needed to go back.
        """
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for i in by_slot(rows):
            slot, token, position = rows[i]
            sequence = self._cropped(slot, position)
            self._check([token], position + 1)
            sequence.tokens.append(token)
            fed = sequence.tokens if sequence.cache is None else [token]
            found[i] = self.network.states(self._tokens(fed), sequence.cache)[0, -1]
        self.counts.generated += len(rows)
        return _result(torch.stack(found) if rows else self._no_rows())

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at what `feed` returned, in blocks of fixed shape."""
        if not self.network.headed:
            return _result(hidden[:, : self.vocab_size].float().cpu())
        parts = [hidden.new_zeros(0, self.vocab_size).float()]
        for first in range(0, hidden.size(0), self.block):
            part = hidden[first : first + self.block]
            rows = part.new_zeros(self.block, part.size(1))
            rows[: part.size(0)] = part
            made = self.network.logits(rows)[: part.size(0), : self.vocab_size]
            parts.append(made.float())
        return _result(torch.cat(parts).cpu())

    def self_test(self) -> SelfTest:
        """Compute a row anew, in company and after a longer prompt; tell whether bits are equal.

        To be called before the slots are used: it overwrites some of them.
        """
        counts = replace(self.counts)
        try:
            return self._compare()
        finally:
            self.counts = counts
            self._sequences = [self._empty() for _ in range(self.slots)]

    def _compare(self) -> SelfTest:
        longer = min(100, self.limit - 1)
        length, other = max(1, longer * 4 // 5), self.slots - 1
        tokens = [(7 * i + 3) % self.vocab_size for i in range(longer + 1)]
        row = (0, tokens[length], length)
        self.prefill(0, tokens[:length])
        alone = self.feed([row])
        self.prefill(other, tokens[:longer])  # of which the row's slot needs the beginning only
        company = [(other, tokens[length], length)] + ([row] if other else [])
        found = self.feed(company)
        expected = self.logits(alone)
        for hidden, logits in zip(found, self.logits(found), strict=True):
            if not (torch.equal(hidden, alone[0]) and torch.equal(logits, expected[0])):
                return SelfTest(
                    False,
                    f"A row at position {length} of this {self.network.config.model_type} network "
                    "gave other bits after a longer prompt than alone: results depend on what was "
                    "computed before. Take slots=1 for results that repeat.",
                )
        return SelfTest(True, f"The same bits alone and in company, in {len(found)} tries.")

    def _chunk(self, sequence: _Sequence, tokens: Sequence[int]) -> None:
        """Compute a chunk, padded to its full shape; the padding is cropped away again."""
        begin = len(sequence.tokens)
        sequence.tokens += tokens
        if sequence.cache is None:
            return
        shape = min(self.prefill_chunk, self.limit - begin)
        padded = [*tokens, *[0] * (shape - len(tokens))]
        self.network.states(self._tokens(padded), sequence.cache)
        crop(sequence.cache, len(sequence.tokens))

    def _sequence(self, slot: int) -> _Sequence:
        check_slots([slot], self.slots)
        return self._sequences[slot]

    def _cropped(self, slot: int, length: int) -> _Sequence:
        """Return the slot's sequence, cut to `length` positions."""
        sequence = self._sequence(slot)
        if not 0 <= length <= len(sequence.tokens):
            raise InputError(
                f"position must be from 0 to {len(sequence.tokens)}, which the slot holds, got "
                f"{length}. Compute what comes before it first."
            )
        if length == 0:
            sequence = self._sequences[slot] = self._empty()
        elif length < len(sequence.tokens):
            del sequence.tokens[length:]
            if sequence.cache is not None:
                crop(sequence.cache, length)
        return sequence

    def _check(self, tokens: Sequence[int], wanted: int) -> None:
        check_tokens(tokens, self.vocab_size)
        check_length(wanted, self.limit, self.network.config.bounded)

    def _empty(self) -> _Sequence:
        return _Sequence([], self.network.empty_cache() if self.network.cached else None)

    def _no_rows(self) -> Tensor:
        return torch.empty(0, self.network.config.hidden_size, device=self.device)

    def _tokens(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([tokens], device=self.device)


def _result(made: Tensor) -> Tensor:
    """Return a tensor that callers may change in place, unlike those of inference mode."""
    with torch.inference_mode(False):
        return torch.empty_like(made, requires_grad=False).copy_(made)
