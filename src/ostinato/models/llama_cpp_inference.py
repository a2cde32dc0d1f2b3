"""A GGUF file run by llama.cpp over places of its memory.

A place is a sequence of llama.cpp's memory; going back takes the positions behind out of it. How
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
from ostinato.models.blocks import Counts, by_place
from ostinato.models.llama_cpp_network import LlamaCppNetwork
from ostinato.models.row_checks import check_length, check_places, check_start, check_tokens
from ostinato.models.self_test import SelfTest

PROBE = 24  # tokens of the self-test


class LlamaCppInference:
    """Places side by side, each a sequence of llama.cpp's memory."""

    def __init__(
        self,
        network: LlamaCppNetwork,
        places: int,
        *,
        block: int = 16,
        prefill_chunk: int = 64,
        threads: int | None = None,
    ) -> None:
        """Make room for `places` sequences. `block` is the most rows of a pass.

        `threads` are torch's where none are named.
        """
        if places < 1:
            raise InputError(f"places must be at least 1, got {places}. Take 16.")
        self.network = network  # kept: the context is freed before the weights
        self.places, self.block, self.prefill_chunk = places, block, prefill_chunk
        self.counts = Counts()
        self._library = library = network.library
        rows = max(block, prefill_chunk)
        self._context = library.llama_init_from_model(
            network.handle, self._parameters(rows, threads or torch.get_num_threads())
        )
        if not self._context:
            raise ModelError(
                f"llama.cpp must have memory for {places} places of {self.limit} tokens, and has "
                "not. Take fewer places."
            )
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(rows, 0, 1)
        self._held = [0] * places

    def __del__(self) -> None:
        context, self._context = getattr(self, "_context", None), None
        if context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(context)

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        return self.network.config.vocab_size

    @property
    def limit(self) -> int:
        """The most tokens that a place holds."""
        return self.network.config.max_position_embeddings

    def prefill(self, place: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a place.

        `start` must be a multiple of `prefill_chunk`, and the place hold what comes before it.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        for first in range(0, len(tokens), chunk):
            part = tokens[first : first + chunk]
            self._run([(place, token, start + first + n) for n, token in enumerate(part)], ())
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
        """Compute one token per row (place, token, position); return its logits (n, V).

        A row at an earlier position takes what is behind it out of its place first.
        """
        found = torch.empty(len(rows), self.vocab_size)
        order = by_place(rows)
        for first in range(0, len(order), self.block):
            part = order[first : first + self.block]
            self._run([rows[i] for i in part], [(n, found[i]) for n, i in enumerate(part)])
        self.counts.generated += len(rows)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V): what `feed` returned."""
        return hidden.clone()

    def self_test(self) -> SelfTest:
        """Tell whether a row gives the same bits whenever it is computed: with one place, tried.

        To be called before the places are used: it empties them.
        """
        if self.places > 1:
            return SelfTest(
                False,
                f"llama.cpp computes the rows of {self.places} places in one product, whose shape "
                "depends on what is written together. Take places=1 for results that repeat.",
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
            for place, token, position in rows:
                self._check(place, token, position)
            self._fill(rows, {index for index, _ in wanted})
            failed = self._library.llama_decode(self._context, self._batch)
            if failed:
                raise ModelError(f"llama.cpp must compute {len(rows)} rows, and failed ({failed}).")
        except (InputError, ModelError):  # what was not computed is not held
            for place, _, position in rows:
                if 0 <= place < self.places:
                    self._held[place] = max(0, min(before[place], self._held[place], position))
            raise
        for index, into in wanted:
            found = self._library.llama_get_logits_ith(self._context, index)
            into.copy_(torch.from_numpy(np.ctypeslib.as_array(found, (self.vocab_size,))))

    def _fill(self, rows: Sequence[tuple[int, int, int]], wanted: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for n, (place, token, position) in enumerate(rows):
            batch.token[n], batch.pos[n] = token, position
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, place
            batch.logits[n] = n in wanted

    def _check(self, place: int, token: int, position: int) -> None:
        """Make the place end at the position; refuse what cannot be computed there."""
        check_places([place], self.places)
        check_tokens([token], self.vocab_size)
        check_length(position + 1, self.limit)
        self._crop(place, position)
        self._held[place] = position + 1

    def _crop(self, place: int, length: int, needed: int | None = None) -> None:
        """Take what is behind `length` out of a place that holds at least `needed` positions."""
        held, needed = self._held[place], length if needed is None else needed
        if not 0 <= needed <= held:
            raise InputError(
                f"position must be from 0 to {held}, which the place holds, got {needed}. "
                "Compute what comes before it first."
            )
        if length < held and not self._library.llama_memory_seq_rm(self._memory, place, length, -1):
            raise ModelError(
                f"the memory of {self.network.config.model_type} must let positions be taken out, "
                "and does not: it keeps a state. Run it behind a server."
            )
        self._held[place] = length

    def _parameters(self, rows: int, threads: int) -> Any:
        parameters = self._library.llama_context_default_params()
        parameters.n_ctx = self.places * self.limit
        parameters.n_seq_max = self.places
        parameters.n_batch = parameters.n_ubatch = rows
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True  # so that places can share a prompt
        return parameters
