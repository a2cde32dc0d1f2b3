"""A GGUF file run by llama.cpp; a slot is a sequence of its memory.

Rewinding removes the later positions from that memory. How many rows share a pass changes the
shapes of llama.cpp's products, and so the last bits: only one slot repeats its results. Knows no
sampling and no lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.arguments import counted
from ostinato.errors import InputError, ModelError
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
from ostinato.models import LlamaCppNetwork

PROBE = 24  # tokens of the self-test's prompt


class LlamaCppBackend(SlotBackend):
    """Slots side by side, each a sequence of llama.cpp's memory."""

    network: LlamaCppNetwork

    def __init__(
        self,
        network: LlamaCppNetwork,
        slots: int,
        *,
        block: int = 16,
        prefill_chunk: int = 64,
        threads: int | None = None,
    ) -> None:
        """Allocate `slots` sequences; `block` is the maximum number of rows in a pass.

        `threads` defaults to torch's. Raises `ModelError` where the memory does not suffice.
        """
        # The network is kept alive: the context must be freed before the weights.
        super().__init__(network, slots=slots, block=block, prefill_chunk=prefill_chunk)
        self._library = library = network.library
        rows = max(block, prefill_chunk)
        self._context = library.llama_init_from_model(
            network.handle, self._parameters(rows, threads or torch.get_num_threads())
        )
        if not self._context:
            raise ModelError(
                f"llama.cpp must have memory for {slots} slots of "
                f"{counted(self.limit, 'tokens')}, got too "
                "little. Use fewer slots."
            )
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(rows, 0, 1)
        self._held = [0] * slots  # positions in each slot

    def __del__(self) -> None:
        # A constructor that raised may have set neither attribute.
        context, self._context = getattr(self, "_context", None), None
        if context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(context)

    def _take_over(self, network: LlamaCppNetwork) -> bool:
        """Refuse another network: llama.cpp holds the weights of its file, which never change."""
        if network is not self.network:
            raise InputError(
                f"the network must stay {self.network.path.name}, whose weights llama.cpp holds, "
                f"got {network.path.name}. Open another backend for it."
            )
        return False

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot.

        `start` must be a multiple of `prefill_chunk`. The slot must hold the positions before it.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        for first in range(0, len(tokens), chunk):
            part = tokens[first : first + chunk]
            self._run([(slot, token, start + first + n) for n, token in enumerate(part)], ())
        self.counts.prompt += len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`.

        Both share the memory of these positions.
        """
        check_slots([source, target], self.slots)
        check_held(length, self._held[source])
        if source == target:
            self._crop(target, length)
            return
        self._crop(target, 0)
        self._library.llama_memory_seq_cp(self._memory, source, target, 0, length)
        self._held[target] = length

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return its logits (n, V).

        A row at an earlier position removes the later ones from its slot first.
        """
        logits = torch.empty(len(rows), self.vocab_size)
        order = by_slot(rows)
        for first in range(0, len(order), self.block):
            part = order[first : first + self.block]
            self._run([rows[i] for i in part], [(n, logits[i]) for n, i in enumerate(part)])
        self.counts.generated += len(rows)
        return logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Return a copy of the logits (n, V) that `feed` returned."""
        return hidden.clone()

    def _compare_rows(self) -> SelfTest:
        if self.slots > 1:
            return SelfTest(
                False,
                f"llama.cpp computes the rows of {self.slots} slots in one product, whose shape "
                "depends on what is written together. Use slots=1 for results that repeat.",
            )
        try:
            return self._compare_repeated()
        finally:
            self._crop(0, 0)

    def _compare_repeated(self) -> SelfTest:
        """Compute a row, then again after a rewind, and again after its prompt."""
        length = max(1, min(PROBE, self.limit - 1))
        tokens = probe_tokens(length + 1, self.vocab_size)
        row = (0, tokens[length], length)
        self.prefill(0, tokens[:length])
        first = self.feed([row])
        self.feed([(0, tokens[0], length + n) for n in range(min(4, self.limit - length))])
        rewound = self.feed([row])
        self.prefill(0, tokens[:length])
        recomputed = self.feed([row])
        if not (torch.equal(first, rewound) and torch.equal(first, recomputed)):
            return SelfTest(False, "llama.cpp gave a row other bits when it was computed again.")
        return SelfTest(True, "The same bits when a row is computed again, in 2 tries.")

    def _run(
        self, rows: Sequence[tuple[int, int, int]], outputs: Sequence[tuple[int, Tensor]]
    ) -> None:
        """Compute rows in one pass; `outputs` are (index of a row, where its logits (V,) go)."""
        before = list(self._held)
        try:
            for slot, token, position in rows:
                self._check(slot, token, position)
            self._fill(rows, {index for index, _ in outputs})
            failed = self._library.llama_decode(self._context, self._batch)
            if failed:
                raise ModelError(
                    f"llama.cpp must compute {counted(len(rows), 'rows')}, got error {failed}. "
                    "Run with OSTINATO_LLAMA_LOG=1 to see the reason."
                )
        except (InputError, ModelError):  # the slots do not hold what was not computed
            for slot, _, position in rows:
                if 0 <= slot < self.slots:
                    self._held[slot] = max(0, min(before[slot], self._held[slot], position))
            raise
        for index, target in outputs:
            logits = self._library.llama_get_logits_ith(self._context, index)
            target.copy_(torch.from_numpy(np.ctypeslib.as_array(logits, (self.vocab_size,))))

    def _fill(self, rows: Sequence[tuple[int, int, int]], with_logits: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for n, (slot, token, position) in enumerate(rows):
            batch.token[n], batch.pos[n] = token, position
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, slot
            batch.logits[n] = n in with_logits

    def _check(self, slot: int, token: int, position: int) -> None:
        """Crop the slot to end at the position; refuse what cannot be computed there."""
        check_slots([slot], self.slots)
        check_tokens([token], self.vocab_size)
        check_length(position + 1, self.limit)
        self._crop(slot, position)
        self._held[slot] = position + 1

    def _crop(self, slot: int, length: int) -> None:
        """Remove the positions from `length` on from a slot."""
        held = self._held[slot]
        check_held(length, held)
        if length < held and not self._library.llama_memory_seq_rm(self._memory, slot, length, -1):
            kind = self.network.config.model_type
            raise ModelError(
                f"the network must support removing positions, got {kind!r}, which keeps a "
                "recurrent state. Run it behind a server."
            )
        self._held[slot] = length

    def _parameters(self, rows: int, threads: int) -> Any:
        parameters = self._library.llama_context_default_params()
        parameters.n_ctx = self.slots * self.limit
        parameters.n_seq_max = self.slots
        parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True  # else slots could not share the memory of a prompt
        return parameters
