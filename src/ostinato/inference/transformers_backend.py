"""A network of `transformers` over slots, row by row, each slot with its own cache.

The shape of every product depends on its position alone: prompts go in chunks counted from their
start, a generated token alone with its own past. So other rows change no bits. In return, a batch
is no faster than its rows one by one. Knows no sampling and no lanes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ostinato.inference.prepared import Place, Seen
from ostinato.inference.row_blocks import by_slot
from ostinato.inference.self_test import SelfTest, probe_tokens
from ostinato.inference.slot_backend import SlotBackend
from ostinato.inference.validation import (
    check_held,
    check_length,
    check_slots,
    check_start,
    check_tokens,
)
from ostinato.models import TransformersNetwork, crop


@dataclass
class _Sequence:
    """What a slot holds. Without a cache, every token computes the whole sequence again."""

    tokens: list[int] = field(default_factory=list)
    cache: Any = None


class TransformersBackend(SlotBackend):
    """Slots side by side, each with the tokens and the cache of one sequence."""

    network: TransformersNetwork

    def __init__(
        self,
        network: TransformersNetwork,
        slots: int,
        *,
        block: int = 16,
        prefill_chunk: int = 64,
    ) -> None:
        """Open `slots` empty sequences. `block` is the rows of the head's product."""
        super().__init__(network.eval(), slots=slots, block=block, prefill_chunk=prefill_chunk)
        self._seen = Seen()
        self._seen.look(self._places(network))
        self._sequences = [self._empty() for _ in range(slots)]

    def _take_over(self, network: TransformersNetwork) -> bool:
        """Empty the slots where weights changed; the network computes with its own."""
        changed = self._seen.load_changed(self._places(network.eval()))
        if changed:
            self._sequences = [self._empty() for _ in range(self.slots)]
        return changed

    def _places(self, network: TransformersNetwork) -> list[Place]:
        return [Place("network", [network], lambda: None)]

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot, in chunks.

        `start` must be a multiple of `prefill_chunk`. The slot must hold the positions before it.
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
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        sequence = self._sequence(source)
        check_slots([target], self.slots)
        self._sequences[target] = _Sequence(list(sequence.tokens), copy.deepcopy(sequence.cache))
        self._cropped(target, length)

    @torch.inference_mode()
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return hidden states (n, C).

        A row at an earlier position crops its slot first: rewinding needs nothing else. Where the
        network has no plain head, the result is the logits (n, V).
        """
        outputs: list[Tensor] = [torch.empty(0)] * len(rows)
        for i in by_slot(rows):
            slot, token, position = rows[i]
            sequence = self._cropped(slot, position)
            self._check([token], position + 1)
            sequence.tokens.append(token)
            fed = sequence.tokens if sequence.cache is None else [token]
            outputs[i] = self.network.states(self._batch(fed), sequence.cache)[0, -1]
        self.counts.generated += len(rows)
        return _result(torch.stack(outputs) if rows else self._no_rows())

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 of what `feed` returned, in blocks of fixed shape."""
        if not self.network.headed:
            return _result(hidden[:, : self.vocab_size].float().cpu())
        parts = [hidden.new_zeros(0, self.vocab_size).float()]
        for first in range(0, hidden.size(0), self.block):
            part = hidden[first : first + self.block]
            rows = part.new_zeros(self.block, part.size(1))
            rows[: part.size(0)] = part
            logits = self.network.logits(rows)[: part.size(0), : self.vocab_size]
            parts.append(logits.float())
        return _result(torch.cat(parts).cpu())

    def _compare_rows(self) -> SelfTest:
        try:
            return self._compare_after_longer_prompt()
        finally:  # probe tokens left behind would pass for a sequence's past
            self._sequences = [self._empty() for _ in range(self.slots)]

    def _compare_after_longer_prompt(self) -> SelfTest:
        """Compute a row alone, then again in slots that held a longer prompt."""
        longer = min(100, self.limit - 1)
        length, other = max(1, longer * 4 // 5), self.slots - 1
        tokens = probe_tokens(longer + 1, self.vocab_size)
        row = (0, tokens[length], length)
        self.prefill(0, tokens[:length])
        alone = self.feed([row])
        self.prefill(other, tokens[:longer])  # the row needs only the first `length` of it
        company = [(other, tokens[length], length)] + ([row] if other else [])
        beside = self.feed(company)
        expected = self.logits(alone)
        for hidden, logits in zip(beside, self.logits(beside), strict=True):
            if not (torch.equal(hidden, alone[0]) and torch.equal(logits, expected[0])):
                return SelfTest(
                    False,
                    f"A row at position {length} of this {self.network.config.model_type} network "
                    "gave other bits after a longer prompt than alone: results depend on what was "
                    "computed before. Use slots=1 for results that repeat.",
                )
        return SelfTest(True, f"The same bits alone and beside other rows, in {len(beside)} tries.")

    def _chunk(self, sequence: _Sequence, tokens: Sequence[int]) -> None:
        """Compute a chunk padded to its full shape, then crop the padding."""
        first = len(sequence.tokens)
        sequence.tokens += tokens
        if sequence.cache is None:
            return
        shape = min(self.prefill_chunk, self.limit - first)
        padded = [*tokens, *[0] * (shape - len(tokens))]
        self.network.states(self._batch(padded), sequence.cache)
        crop(sequence.cache, len(sequence.tokens))

    def _sequence(self, slot: int) -> _Sequence:
        check_slots([slot], self.slots)
        return self._sequences[slot]

    def _cropped(self, slot: int, length: int) -> _Sequence:
        """Return the slot's sequence, cut to `length` positions."""
        sequence = self._sequence(slot)
        check_held(length, len(sequence.tokens))
        if length == 0:  # a new cache: not every kind can be cropped to nothing
            sequence = self._sequences[slot] = self._empty()
        elif length < len(sequence.tokens):
            del sequence.tokens[length:]
            if sequence.cache is not None:
                crop(sequence.cache, length)
        return sequence

    def _check(self, tokens: Sequence[int], length: int) -> None:
        check_tokens(tokens, self.vocab_size)
        check_length(length, self.limit, self.network.config.bounded)

    def _empty(self) -> _Sequence:
        return _Sequence([], self.network.empty_cache() if self.network.cached else None)

    def _no_rows(self) -> Tensor:
        return torch.empty(0, self.network.config.hidden_size, device=self.device)

    def _batch(self, tokens: Sequence[int]) -> Tensor:
        """Return the tokens as a batch of one sequence, (1, T)."""
        return torch.tensor([tokens], device=self.device)


def _result(values: Tensor) -> Tensor:
    """Return a copy made outside inference mode, so that callers may change it in place."""
    with torch.inference_mode(False):
        return torch.empty_like(values, requires_grad=False).copy_(values)
