"""Keys and values of many slots, written row by row and read in place. Knows no attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.models import CPU, LlamaConfig


class Targets(NamedTuple):
    """Where rows are written: indices into the flat cache."""

    keys: Tensor  # (rows, KV, D)
    values: Tensor  # (rows, KV)


class KVCache:
    """For each layer, keys (slots + 1, KV, D, length) and values (slots + 1, KV, length, D).

    The positions of keys are innermost: the product with a query reads them fastest that way.
    The last slot is scratch: padding rows are written there.
    """

    def __init__(
        self, config: LlamaConfig, slots: int, dtype: torch.dtype, device: torch.device = CPU
    ) -> None:
        self.slots, self.dtype, self.device = slots, dtype, device
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        self.length = 0
        empty = torch.zeros(slots + 1, self.kv_heads, 0, self.head_dim, dtype=dtype, device=device)
        # The list repeats one empty tensor, which holds nothing; `grow` replaces each.
        self.keys = [empty.transpose(2, 3)] * config.num_hidden_layers
        self.values = [empty] * config.num_hidden_layers

    def grow(self, length: int) -> None:
        """Extend every slot to `length` positions."""
        old, self.length = self.length, length
        # Layer by layer, so that at most one layer is held twice.
        for i in range(len(self.keys)):
            shape = (self.slots + 1, self.kv_heads, self.head_dim, length)
            keys = torch.zeros(shape, dtype=self.dtype, device=self.device)
            keys[..., :old] = self.keys[i]
            values = keys.new_zeros(keys.transpose(2, 3).shape)
            values[:, :, :old] = self.values[i]
            self.keys[i], self.values[i] = keys, values

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[target, ..., :length] = keys[source, ..., :length]
            values[target, :, :length] = values[source, :, :length]

    def targets(self, slots: Tensor, positions: Tensor) -> Targets:
        """Return where the rows at `positions` of `slots` (rows,) are written, in every layer."""
        D, L = self.head_dim, self.length
        heads = slots[:, None] * self.kv_heads + self._up_to(self.kv_heads)  # (rows, KV)
        first = heads[:, :, None] * (D * L) + self._up_to(D) * L  # (rows, KV, D)
        return Targets(first + positions[:, None, None], heads * L + positions[:, None])

    def _up_to(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device)

    def write(self, layer: int, targets: Targets, keys: Tensor, values: Tensor) -> None:
        """Write the `keys` and `values` (rows, KV, D) of one layer."""
        # Flat indices are computed once per pass and serve all layers; indexing by slot and
        # position would compute them again in every layer.
        self.keys[layer].view(-1).index_put_((targets.keys,), keys)
        self.values[layer].view(-1, self.head_dim).index_put_((targets.values,), values)

    def read(self, layer: int, slots: slice | Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return keys (slots * KV, D, L) and values (slots * KV, L, D) up to `length`, L.

        They are views for consecutive slots (a slice), copies for any others.
        """
        keys, values = self.keys[layer][..., :length], self.values[layer][:, :, :length]
        if isinstance(slots, slice):
            return keys[slots].flatten(0, 1), values[slots].flatten(0, 1)
        return (
            keys.index_select(0, slots).flatten(0, 1),
            values.index_select(0, slots).flatten(0, 1),
        )
