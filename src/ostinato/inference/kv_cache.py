"""Keys and values of many slots, written row by row and read in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.models import LlamaConfig


class Targets(NamedTuple):
    """Where rows are kept: indices into the flat keys (rows, KV, D) and values (rows, KV)."""

    keys: Tensor
    values: Tensor


class Cache:
    """For each layer, keys (slots + 1, KV, D, length) and values (slots + 1, KV, length, D).

    Keys lie with their positions innermost, which is how the product with a query reads them
    fastest. The last slot takes what is written for padding.
    """

    def __init__(
        self,
        config: LlamaConfig,
        slots: int,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        self.slots, self.dtype = slots, dtype
        self.device = device or torch.device("cpu")
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        self.length = 0
        shape = (slots + 1, self.kv_heads, 0, self.head_dim)
        empty = torch.zeros(shape, dtype=dtype, device=self.device)
        self.keys = [empty.transpose(2, 3)] * config.num_hidden_layers
        self.values = [empty] * config.num_hidden_layers

    def grow(self, length: int) -> None:
        """Give every slot room for `length` positions."""
        old, self.length = self.length, length
        for i in range(len(self.keys)):
            shape = (self.slots + 1, self.kv_heads, self.head_dim, length)
            keys = torch.zeros(shape, dtype=self.dtype, device=self.device)
            keys[..., :old] = self.keys[i]
            values = keys.new_zeros(keys.transpose(2, 3).shape)
            values[:, :, :old] = self.values[i]
            self.keys[i], self.values[i] = keys, values

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[target, ..., :length] = keys[source, ..., :length]
            values[target, :, :length] = values[source, :, :length]

    def targets(self, slots: Tensor, positions: Tensor) -> Targets:
        """Return where the rows at `positions` of `slots` (rows,) are kept, in every layer."""
        D, L = self.head_dim, self.length
        heads = slots[:, None] * self.kv_heads + self._up_to(self.kv_heads)
        first = heads[:, :, None] * (D * L) + self._up_to(D) * L
        return Targets(first + positions[:, None, None], heads * L + positions[:, None])

    def _up_to(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device)

    def write(self, layer: int, targets: Targets, keys: Tensor, values: Tensor) -> None:
        """Keep the `keys` and `values` (rows, KV, D) of one layer."""
        self.keys[layer].view(-1).index_put_((targets.keys,), keys)
        self.values[layer].view(-1, self.head_dim).index_put_((targets.values,), values)

    def read(self, layer: int, slots: slice | Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return keys (slots * KV, D, L) and values (slots * KV, L, D), `length` long.

        They are views for consecutive slots, and copies for any others.
        """
        keys, values = self.keys[layer][..., :length], self.values[layer][:, :, :length]
        if isinstance(slots, slice):
            return keys[slots].flatten(0, 1), values[slots].flatten(0, 1)
        return (
            keys.index_select(0, slots).flatten(0, 1),
            values.index_select(0, slots).flatten(0, 1),
        )
