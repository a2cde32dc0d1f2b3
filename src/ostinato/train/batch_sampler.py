"""Which examples a step sees: a pure function of (seed, step). Knows no network.

Each epoch has its own permutation, made from the epoch's number alone. A resume therefore costs
the same however far the run is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from ostinato.arguments import require_at_least
from ostinato.errors import InputError
from ostinato.loop import fold_in

POOL = 64
"""Neighbors in the shuffled order that are sorted by length. Short enough to keep epochs random,
long enough to save most of the padding."""


class BatchSampler:
    """The batches of every epoch.

    `lengths` are the examples' lengths in tokens. A batch holds examples of similar length: their
    number times the longest length is at most `batch_tokens`. One longer example is a batch alone.
    """

    def __init__(self, lengths: Sequence[int], batch_tokens: int, seed: int) -> None:
        if not lengths:
            raise InputError("The training data must hold at least one example, got none.")
        require_at_least(1, batch_tokens=batch_tokens)
        self._lengths, self._batch_tokens, self._seed = list(lengths), batch_tokens, seed
        # Two epochs stay cached: the current one, and the first, which later ones are made from.
        self.epoch = lru_cache(maxsize=2)(self._epoch)
        self.batches = len(self.epoch(0))

    def _epoch(self, number: int) -> tuple[tuple[int, ...], ...]:
        """Return the batches of an epoch, each a tuple of example indices."""
        rng = random.Random(fold_in(self._seed, "order", number))
        # Grouping unequal lengths again would give another number of batches, and `batch` could
        # not find an epoch by division. Later epochs shuffle the batches of the first.
        if number and len(set(self._lengths)) > 1:
            batches = list(self.epoch(0))
            rng.shuffle(batches)
            return tuple(batches)
        return self._grouped(rng)

    def _grouped(self, rng: random.Random) -> tuple[tuple[int, ...], ...]:
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        batches: list[tuple[int, ...]] = []
        pool_size = self._pool_size()
        for start in range(0, len(order), pool_size):
            pool = sorted(order[start : start + pool_size], key=lambda i: (self._lengths[i], i))
            pool_batches = self._cut(pool)
            rng.shuffle(pool_batches)
            batches += pool_batches
        return tuple(batches)

    def _pool_size(self) -> int:
        """Return `POOL`; for examples of one length, the next multiple of the batch size."""
        longest = max(self._lengths)
        if min(self._lengths) < longest:
            return POOL
        # Equal lengths need no sorting. Without whole batches each pool would end in a small one.
        batch_size = max(1, self._batch_tokens // max(1, longest))
        return -(-POOL // batch_size) * batch_size

    def _cut(self, pool: Sequence[int]) -> list[tuple[int, ...]]:
        """Cut a pool, sorted by length, into batches of at most `batch_tokens` tokens."""
        batches: list[tuple[int, ...]] = []
        batch: list[int] = []
        for index in pool:
            if batch and (len(batch) + 1) * self._lengths[index] > self._batch_tokens:
                batches.append(tuple(batch))
                batch = []
            batch.append(index)
        batches.append(tuple(batch))
        return batches

    def batch(self, batch_index: int) -> tuple[int, tuple[int, ...]]:
        """Return the epoch and the examples of a batch; its index counts over all epochs."""
        epoch, index = divmod(batch_index, self.batches)
        return epoch, self.epoch(epoch)[index]
