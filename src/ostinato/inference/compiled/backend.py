"""Our network's tokens for lanes through the compiled kernel: one call a pass, no padding.

Each sum of the kernel runs in one order whatever the number of rows and threads, so a row gives the
same bits alone, in any batch, and as part of a prompt. Activations are float32, the cache has the
network's type. Knows no sampling and no lanes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.inference.compiled.build import open_kernel
from ostinato.inference.compiled.memory import LargePages
from ostinato.inference.compiled.weights import (
    KINDS,
    LANES,
    NetworkC,
    Weights,
    check_network,
    padded,
)
from ostinato.inference.row_blocks import Counts, TokenRow, by_slot
from ostinato.inference.self_test import SelfTest, test_rows
from ostinato.inference.validation import check_length, check_slots, check_tokens, top_position
from ostinato.models import Llama, inverse_frequencies, lora_layers

PAD = 64  # positions: the cache grows in multiples of this
ROWS = 64
"""The most rows of a pass; the bits do not depend on it."""


def check_compiled(network: Llama) -> None:
    """Compile the kernel, and refuse a network that it does not know."""
    check_network(network)
    open_kernel()


class CompiledBackend:
    """Slots side by side, each with the keys and values of one sequence, in compiled code.

    For one thread of the program: passes share their memory. The kernel takes as many threads as
    torch has when it is called. Hidden states are float32.
    """

    prefill_chunk = 1
    packed = True
    block = ROWS

    def __init__(
        self,
        network: Llama,
        slots: int,
        *,
        length: int = 512,
        int8: bool = False,
        tiles: bool | None = None,
    ) -> None:
        """Make room for `slots` sequences of `length` positions; more are added when needed.

        With `int8` the weights are rounded to 8 bits. `tiles` multiplies weights of bfloat16 and
        int8 by the processor's matrix tiles (by default, where it has them). Raises `ModelError`
        without a C++ compiler, `InputError` for a network that the kernel does not know.
        """
        if slots < 1:
            raise InputError(f"slots must be at least 1, got {slots}. Take 16.")
        if next(lora_layers(network), None) is not None:
            raise InputError("the network's adapters must be merged, got one that is not.")
        self.config, self.slots = network.config, slots
        self.counts, self._int8 = Counts(), int8
        self._kernel = open_kernel()
        has_tiles = bool(self._kernel.ask_tiles())
        if tiles and not has_tiles:
            raise InputError("tiles must be left out on a processor without AMX, got True.")
        self._weights = Weights(network, int8=int8, tiles=has_tiles if tiles is None else tiles)
        self.tiles, self.dtype = self._weights.tiles, self._weights.dtype
        self._embedding = network.model.embed_tokens.weight.detach()
        self._keys = self._values = torch.empty(0, dtype=self.dtype)
        self._net = self._network()
        self._threads = 0
        self._grow(max(length, PAD))

    @property
    def compute_mode(self) -> str:
        """The kernel's number format, and whether it multiplies by the processor's matrix tiles."""
        return "compiled" + ", int8" * self._int8 + ", by matrix tiles" * self.tiles

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        return self.config.vocab_size

    @property
    def limit(self) -> int:
        """The most tokens that a sequence of this model may have."""
        return self.config.max_position_embeddings

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot."""
        self._compute([TokenRow(slot, token, start + n) for n, token in enumerate(tokens)])
        self.counts.prompt += len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        check_slots([source, target], self.slots)
        blocks = -(-length // LANES)  # what is copied too much is behind the end, and unread
        self._keys[:, target, :, :blocks] = self._keys[:, source, :, :blocks]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return hidden states (n, C).

        Each row attends to the positions before it in its slot, and to itself. A later feed at
        an earlier position overwrites it: nothing else is needed to go back.
        """
        self.counts.generated += len(rows)
        order = by_slot(rows)
        ordered = self._compute([TokenRow(*rows[i]) for i in order])
        if order == list(range(len(rows))):
            return ordered
        hidden = torch.empty_like(ordered)
        hidden[order] = ordered
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at `hidden` (n, C)."""
        head = self._weights.head
        self._make_ready()
        out = torch.empty(len(hidden), head.blocks * LANES)
        self._kernel.product(
            ctypes.byref(head),
            ctypes.c_int64(self._weights.kind),
            _at(hidden.contiguous()),
            ctypes.c_int64(self.config.hidden_size),
            ctypes.c_int64(len(hidden)),
            ctypes.c_int64(ROWS),
            ctypes.c_int64(self._threads),
            _at(self._memory),
            _at(out),
        )
        return out if out.size(1) == self.vocab_size else out[:, : self.vocab_size].contiguous()

    def self_test(self) -> SelfTest:
        """Compute a few rows alone and in company, and tell whether the bits are the same."""
        counts = replace(self.counts)
        try:
            return test_rows(self)
        finally:
            self.counts = counts

    # One pass -------------------------------------------------------------------------------

    def _compute(self, rows: Sequence[TokenRow]) -> Tensor:
        """Return the hidden states (n, C) of rows that are sorted by slot and position."""
        check_slots((row.slot for row in rows), self.slots)
        check_tokens([row.token for row in rows], self.vocab_size)
        top = 1 + top_position(rows)
        check_length(top, self.limit)
        length = self._keys.size(3) * LANES
        if top > length:
            self._grow(max(top, length + length // 2))
        hidden = torch.empty(len(rows), self.config.hidden_size)
        for first in range(0, len(rows), ROWS):
            some = rows[first : first + ROWS]
            self._pass(some, hidden[first : first + len(some)])
        return hidden

    def _pass(self, rows: Sequence[TokenRow], hidden: Tensor) -> None:
        self._make_ready()
        count, width = len(rows), self.config.hidden_size
        tokens = torch.tensor([row.token for row in rows])
        self._entry[:count, :width] = self._embedding[tokens]
        numbers = ctypes.c_int64 * count
        self._kernel.forward(
            ctypes.byref(self._net),
            ctypes.c_int64(count),
            numbers(*(row.slot for row in rows)),
            numbers(*(row.position for row in rows)),
            ctypes.c_int64(ROWS),
            ctypes.c_int64(self._threads),
            _at(self._memory),
            _at(hidden),
        )

    # Memory ---------------------------------------------------------------------------------

    def _network(self) -> NetworkC:
        config, weights = self.config, self._weights
        return NetworkC(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            padded_width=padded(config.hidden_size),
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            padded_head=padded(config.head_dim),
            inner=padded(config.intermediate_size),
            weight_kind=weights.kind,
            cache_kind=KINDS[weights.dtype],
            eps=config.rms_norm_eps,
            scale=config.head_dim**-0.5,
            layer=ctypes.cast(weights.layers, ctypes.c_void_p),
            norm=weights.norm,
        )

    def _grow(self, positions: int) -> None:
        """Give every slot room for `positions`, rounded up."""
        length = -(-positions // PAD) * PAD
        config, slots = self.config, self.slots
        L, KV, D = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        memory = LargePages()
        keys = memory.zeros((L, slots, KV, length // LANES, D, LANES), self.dtype)
        values = memory.zeros((L, slots, KV, length, padded(D)), self.dtype)
        if self._keys.numel():
            keys[:, :, :, : self._keys.size(3)] = self._keys
            values[:, :, :, : self._values.size(3)] = self._values
        self._keys, self._values = keys, values
        for layer, k, v in zip(self._weights.layers, keys, values, strict=True):
            layer.keys, layer.values = k.data_ptr(), v.data_ptr()
        angles = torch.outer(torch.arange(length).float(), inverse_frequencies(config))
        self._turns = angles.cos(), angles.sin()
        self._net.cosines, self._net.sines = (turn.data_ptr() for turn in self._turns)
        self._net.length = length
        self._threads = 0

    def _make_ready(self) -> None:
        """Take the memory that a pass needs with as many threads as torch has now."""
        threads = torch.get_num_threads()
        if threads == self._threads:
            return
        self._threads = threads
        floats = self._kernel.scratch_floats(
            ctypes.byref(self._net), ctypes.c_int64(ROWS), ctypes.c_int64(threads)
        )
        self._memory = torch.zeros(floats)
        width = self._net.padded_width
        self._entry = self._memory[: ROWS * width].view(ROWS, width)


def _at(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
