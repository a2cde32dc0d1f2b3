"""Which examples a step sees: a pure function of (seed, step). Knows no network.

Each epoch has its own permutation, made from its number alone, so that a resume costs the same
however far the run is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from ostinato.errors import InputError
from ostinato.loop import fold_in

POOL = 64  # examples of like length are sought among so many neighbors in the order


class BatchSampler:
    """The batches of every epoch.

    `lengths` are the examples' tokens; a batch holds examples of like length whose number times
    the longest is at most `batch_tokens` (one example where it alone is longer).
    """

    def __init__(self, lengths: Sequence[int], batch_tokens: int, seed: int) -> None:
        if not lengths:
            raise InputError("The training data must hold at least one example, got none.")
        if batch_tokens < 1:
            raise InputError(f"batch_tokens must be at least 1, got {batch_tokens}.")
        self._lengths, self._batch_tokens, self._seed = list(lengths), batch_tokens, seed
        self.epoch = lru_cache(maxsize=2)(self._epoch)
        self.batches = len(self.epoch(0))

    def _epoch(self, number: int) -> tuple[tuple[int, ...], ...]:
        """Return the batches of an epoch, each a tuple of example indices.

        Examples of unequal length are grouped once, as in the first epoch, so that every epoch
        has as many batches; later ones put these in another order.
        """
        dice = random.Random(fold_in(self._seed, "order", number))
        if number and len(set(self._lengths)) > 1:
            some = list(self.epoch(0))
            dice.shuffle(some)
            return tuple(some)
        return self._grouped(dice)

    def _grouped(self, dice: random.Random) -> tuple[tuple[int, ...], ...]:
        order = list(range(len(self._lengths)))
        dice.shuffle(order)
        batches: list[tuple[int, ...]] = []
        pool_size = self._pool()
        for start in range(0, len(order), pool_size):
            pool = sorted(order[start : start + pool_size], key=lambda i: (self._lengths[i], i))
            some = list(self._cut(pool))
            dice.shuffle(some)
            batches += some
        return tuple(batches)

    def _pool(self) -> int:
        """Return `POOL`, or for examples of one length the next number that whole batches fill."""
        length = max(self._lengths)
        if min(self._lengths) < length:
            return POOL
        batch = max(1, self._batch_tokens // max(1, length))
        return -(-POOL // batch) * batch

    def _cut(self, pool: Sequence[int]) -> Sequence[tuple[int, ...]]:
        cut: list[tuple[int, ...]] = []
        batch: list[int] = []
        for index in pool:
            if batch and (len(batch) + 1) * self._lengths[index] > self._batch_tokens:
                cut.append(tuple(batch))
                batch = []
            batch.append(index)
        cut.append(tuple(batch))
        return cut

    def batch(self, place: int) -> tuple[int, tuple[int, ...]]:
        """Return the epoch and the examples of the batch at `place`, counted over all epochs."""
        epoch, at = divmod(place, self.batches)
        return epoch, self.epoch(epoch)[at]
