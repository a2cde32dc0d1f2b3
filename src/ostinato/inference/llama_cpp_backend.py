"""A GGUF file run by llama.cpp over slots of its memory.

A slot is a sequence of llama.cpp's memory; going back takes the positions behind out of it. How
many rows share a pass changes the shapes of llama.cpp's products, and so the last bits. Knows no
sampling and no lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.errors import InputError, ModelError
from ostinato.inference.row_blocks import Counts, by_slot
from ostinato.inference.self_test import SelfTest
from ostinato.inference.validation import check_length, check_slots, check_start, check_tokens
from ostinato.models import CPU, LlamaCppNetwork, plain_compute_mode

PROBE = 24  # tokens of the self-test


class LlamaCppBackend:
    """Slots side by side, each a sequence of llama.cpp's memory."""

    def __init__(
        self,
        network: LlamaCppNetwork,
        slots: int,
        *,
        block: int = 16,
        prefill_chunk: int = 64,
        threads: int | None = None,
    ) -> None:
        """Make room for `slots` sequences. `block` is the most rows of a pass.

        `threads` are torch's where none are named.
        """
        if slots < 1:
            raise InputError(f"slots must be at least 1, got {slots}. Take 16.")
        self.network = network  # kept: the context is freed before the weights
        self.slots, self.block, self.prefill_chunk = slots, block, prefill_chunk
        self.counts = Counts()
        self._library = library = network.library
        rows = max(block, prefill_chunk)
        self._context = library.llama_init_from_model(
            network.handle, self._parameters(rows, threads or torch.get_num_threads())
        )
        if not self._context:
            raise ModelError(
                f"llama.cpp must have memory for {slots} slots of {self.limit} tokens, and has "
                "not. Take fewer slots."
            )
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(rows, 0, 1)
        self._held = [0] * slots

    def __del__(self) -> None:
        context, self._context = getattr(self, "_context", None), None
        if context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(context)

    @property
    def compute_mode(self) -> str:
        """As llama.cpp computes the file, on the processor."""
        return plain_compute_mode(CPU)

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        return self.network.config.vocab_size

    @property
    def limit(self) -> int:
        """The most tokens that a slot holds."""
        return self.network.config.max_position_embeddings

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot.

        `start` must be a multiple of `prefill_chunk`, and the slot hold what comes before it.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        for first in range(0, len(tokens), chunk):
            part = tokens[first : first + chunk]
            self._run([(slot, token, start + first + n) for n, token in enumerate(part)], ())
        self.counts.prompt += len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`; they share their memory."""
        self._crop(source, self._held[source], length)
        if source == target:
            self._crop(target, length)
            return
        self._crop(target, 0)
        self._library.llama_memory_seq_cp(self._memory, source, target, 0, length)
        self._held[target] = length

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return its logits (n, V).

        A row at an earlier position takes what is behind it out of its slot first.
        """
        found = torch.empty(len(rows), self.vocab_size)
        order = by_slot(rows)
        for first in range(0, len(order), self.block):
            part = order[first : first + self.block]
            self._run([rows[i] for i in part], [(n, found[i]) for n, i in enumerate(part)])
        self.counts.generated += len(rows)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V): what `feed` returned."""
        return hidden.clone()

    def self_test(self) -> SelfTest:
        """Tell whether a row gives the same bits whenever it is computed: with one slot, tried.

        To be called before the slots are used: it empties them.
        """
        if self.slots > 1:
            return SelfTest(
                False,
                f"llama.cpp computes the rows of {self.slots} slots in one product, whose shape "
                "depends on what is written together. Take slots=1 for results that repeat.",
            )
        counts = replace(self.counts)
        try:
            return self._compare()
        finally:
            self.counts = counts
            self._crop(0, 0)

    def _compare(self) -> SelfTest:
        length = max(1, min(PROBE, self.limit - 1))
        tokens = [(7 * i + 3) % self.vocab_size for i in range(length + 1)]
        row = (0, tokens[length], length)
        self.prefill(0, tokens[:length])
        first = self.feed([row])
        self.feed([(0, tokens[0], length + n) for n in range(min(4, self.limit - length))])
        again = self.feed([row])
        self.prefill(0, tokens[:length])
        anew = self.feed([row])
        if not (torch.equal(first, again) and torch.equal(first, anew)):
            return SelfTest(False, "llama.cpp gave a row other bits when it was computed again.")
        return SelfTest(True, "The same bits when a row is computed again, in 2 tries.")

    def _run(
        self, rows: Sequence[tuple[int, int, int]], wanted: Sequence[tuple[int, Tensor]]
    ) -> None:
        """Compute rows in one pass; copy the logits of the `wanted` ones (index, into)."""
        before = list(self._held)
        try:
            for slot, token, position in rows:
                self._check(slot, token, position)
            self._fill(rows, {index for index, _ in wanted})
            failed = self._library.llama_decode(self._context, self._batch)
            if failed:
                raise ModelError(f"llama.cpp must compute {len(rows)} rows, and failed ({failed}).")
        except (InputError, ModelError):  # what was not computed is not held
            for slot, _, position in rows:
                if 0 <= slot < self.slots:
                    self._held[slot] = max(0, min(before[slot], self._held[slot], position))
            raise
        for index, into in wanted:
            found = self._library.llama_get_logits_ith(self._context, index)
            into.copy_(torch.from_numpy(np.ctypeslib.as_array(found, (self.vocab_size,))))

    def _fill(self, rows: Sequence[tuple[int, int, int]], wanted: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for n, (slot, token, position) in enumerate(rows):
            batch.token[n], batch.pos[n] = token, position
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, slot
            batch.logits[n] = n in wanted

    def _check(self, slot: int, token: int, position: int) -> None:
        """Make the slot end at the position; refuse what cannot be computed there."""
        check_slots([slot], self.slots)
        check_tokens([token], self.vocab_size)
        check_length(position + 1, self.limit)
        self._crop(slot, position)
        self._held[slot] = position + 1

    def _crop(self, slot: int, length: int, needed: int | None = None) -> None:
        """Take what is behind `length` out of a slot that holds at least `needed` positions."""
        held, needed = self._held[slot], length if needed is None else needed
        if not 0 <= needed <= held:
            raise InputError(
                f"position must be from 0 to {held}, which the slot holds, got {needed}. "
                "Compute what comes before it first."
            )
        if length < held and not self._library.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise ModelError(
                f"the memory of {self.network.config.model_type} must let positions be taken out, "
                "and does not: it keeps a state. Run it behind a server."
            )
        self._held[slot] = length

    def _parameters(self, rows: int, threads: int) -> Any:
        parameters = self._library.llama_context_default_params()
        parameters.n_ctx = self.slots * self.limit
        parameters.n_seq_max = self.slots
        parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True  # so that slots can share a prompt
        return parameters
