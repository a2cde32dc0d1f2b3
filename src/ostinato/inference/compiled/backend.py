"""Our network through the compiled kernel: one call per pass, no padding.

The kernel sums in one order whatever the number of rows and threads. So a row gives the same bits
alone, in any batch, and as part of a prompt (batch-invariant inference). Activations are float32;
the cache is bfloat16, or float32 for weights that need it. Knows no sampling and no lanes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.inference.compiled.build import kernel_hash, open_kernel
from ostinato.inference.compiled.forms import check_network
from ostinato.inference.compiled.memory import LargePages
from ostinato.inference.compiled.structures import KINDS, LANES, NetworkC, ProductC
from ostinato.inference.compiled.weights import Weights, padded
from ostinato.inference.prepared import forget_outdated, prepared
from ostinato.inference.row_blocks import TokenRow, by_slot
from ostinato.inference.self_test import SelfTest, compare_rows
from ostinato.inference.slot_backend import SlotBackend
from ostinato.inference.validation import check_length, check_slots, check_tokens, top_position
from ostinato.models import Llama, inverse_frequencies, network_key

PAD = 64  # positions: the cache grows in multiples of this


def check_compiled(network: Llama) -> None:
    """Open the kernel; refuse a network that it does not support."""
    check_network(network)
    open_kernel()


class CompiledBackend(SlotBackend):
    """Slots side by side, each with the keys and values of one sequence, in compiled code.

    Not thread-safe: passes share their memory. The kernel runs as many threads as torch has when it
    is called. Hidden states are float32.
    """

    packed = True  # for the self-test's message

    def __init__(
        self,
        network: Llama,
        slots: int,
        *,
        length: int = PAD,
        bits: int | None = None,
        tiles: bool | None = None,
    ) -> None:
        """Allocate `slots` sequences of `length` positions; the cache grows when needed.

        `bits` rounds the weights to 8 or 4 bits, in groups. `tiles` multiplies bfloat16 weights by
        the processor's matrix tiles, Intel AMX (by default, where it has them). Raises
        `ModelError` where there is no kernel for this processor, `InputError` for a network that
        it does not support.
        """
        self._kernel = open_kernel()
        super().__init__(network, slots=slots, block=int(self._kernel.most_rows()))
        self.config, self._length = network.config, max(length, PAD)
        has_tiles = bool(self._kernel.ask_tiles())
        if tiles and not has_tiles:
            raise InputError("tiles must be left out on a processor without AMX, got True.")
        self._bits, self._may_tile = bits, has_tiles if tiles is None else tiles
        make = partial(self._pack, network)
        kept = prepared(network, ("compiled", bits, self._may_tile), make)
        self._shares = kept.shared
        self._use(network, kept.value)

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot."""
        rows = [TokenRow(slot, token, start + n) for n, token in enumerate(tokens)]
        self._check(rows)
        for part in self._parts(rows):
            self._pass(part, None)
        self.counts.prompt += len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        check_slots([source, target], self.slots)
        blocks = -(-length // LANES)  # whole blocks: the surplus is beyond the end, never read
        self._keys[:, target, :, :blocks] = self._keys[:, source, :, :blocks]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return hidden states (n, C).

        Each row attends to itself and the earlier positions of its slot. Feeding an earlier
        position overwrites it: rewinding needs nothing else.
        """
        self.counts.generated += len(rows)
        # Sorted, as a row needs earlier rows of its slot, which may be in an earlier pass.
        order = by_slot(rows)
        ordered = self._compute([TokenRow(*rows[i]) for i in order])
        if order == list(range(len(rows))):
            return ordered
        hidden = torch.empty_like(ordered)
        hidden[order] = ordered
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at `hidden` (n, C)."""
        out = self.multiplied(self._weights.head, hidden)
        return out if out.size(1) == self.vocab_size else out[:, : self.vocab_size].contiguous()

    def multiplied(self, product: ProductC, rows: Tensor) -> Tensor:
        """Return a product of rows (n, inputs), with its outputs rounded up to whole blocks."""
        self._prepare_scratch()
        rows = rows.contiguous()  # kept alive by its name: the kernel has only an address
        out = torch.empty(len(rows), product.blocks * LANES)
        self._kernel.product(
            ctypes.byref(self._net),
            ctypes.byref(product),
            _address(rows),
            ctypes.c_int64(rows.size(1)),
            ctypes.c_int64(len(rows)),
            ctypes.c_int64(self._threads),
            _address(self._scratch),
            _address(out),
        )
        return out

    def _pack(self, network: Llama) -> Weights:
        return Weights(network, bits=self._bits, tiles=self._may_tile)

    def _take_over(self, network: Llama) -> bool:
        weights = self._weights
        if not self._shares and weights.can_update(network):
            changed = weights.update(network)
            self._net.embedding = weights.embedding
            return changed
        if not weights.changed(network):
            return False
        forget_outdated(network)
        self._shares = False
        self._use(network, self._pack(network))
        return True

    def _use(self, network: Llama, weights: Weights) -> None:
        """Compute with these weights from now on, in empty slots."""
        self._weights = weights
        # A copy: it holds the addresses of this backend's cache.
        self._layers = type(weights.layers).from_buffer_copy(weights.layers)
        self.tiles, self.dtype = weights.tiles, weights.cache_dtype
        rounded = "" if self._bits is None else f", int{self._bits} in groups"
        self.compute_mode = "compiled" + rounded + ", by matrix tiles" * self.tiles
        self._tested = {**network_key(network, network.config), "weights": weights.kinds}
        self._net = self._network()
        self._threads = 0  # for which the scratch memory is laid out
        self._empty()

    def _test_key(self) -> dict[str, object] | None:
        key = super()._test_key()
        return None if key is None else {**key, "kernel": kernel_hash()}

    def _compare_rows(self) -> SelfTest:
        try:
            return compare_rows(self)
        finally:  # its sequences are longer than many others: their memory is not kept
            self._empty()

    # One pass -------------------------------------------------------------------------------

    def _compute(self, rows: Sequence[TokenRow]) -> Tensor:
        """Return the hidden states (n, C) of rows sorted by slot and position."""
        self._check(rows)
        hidden = torch.empty(len(rows), self.config.hidden_size)
        for first, part in enumerate(self._parts(rows)):
            self._pass(part, hidden[first * self.block :])
        return hidden

    def _check(self, rows: Sequence[TokenRow]) -> None:
        """Refuse rows that cannot be computed; make room for the others."""
        check_slots((row.slot for row in rows), self.slots)
        check_tokens([row.token for row in rows], self.vocab_size)
        top = 1 + top_position(rows)
        check_length(top, self.limit)
        length = self._keys.size(3) * LANES
        if top > length:
            self._grow(max(top, length + length // 2))

    def _parts(self, rows: Sequence[TokenRow]) -> Iterator[Sequence[TokenRow]]:
        """Cut rows into those of one pass each; the bits do not depend on it."""
        for first in range(0, len(rows), self.block):
            yield rows[first : first + self.block]

    def _pass(self, rows: Sequence[TokenRow], hidden: Tensor | None) -> None:
        """Compute the rows of a pass into `hidden` (n, C), or only their keys and values."""
        self._prepare_scratch()
        numbers = ctypes.c_int64 * len(rows)
        self._kernel.forward(
            ctypes.byref(self._net),
            ctypes.c_int64(len(rows)),
            numbers(*(row.token for row in rows)),
            numbers(*(row.slot for row in rows)),
            numbers(*(row.position for row in rows)),
            ctypes.c_int64(self._threads),
            _address(self._scratch),
            None if hidden is None else _address(hidden),
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
            input_kind=weights.input_kind,
            cache_kind=KINDS[self.dtype],
            embedding_kind=weights.embedding_kind,
            eps=config.rms_norm_eps,
            scale=config.head_dim**-0.5,
            layer=ctypes.cast(self._layers, ctypes.c_void_p),
            norm=weights.norm,
            embedding=weights.embedding,
        )

    def _empty(self) -> None:
        """Forget all sequences, and begin with as much memory as at first."""
        self._keys = self._values = torch.empty(0, dtype=self.dtype)
        self._grow(self._length)

    def _grow(self, positions: int) -> None:
        """Extend every slot to `positions`, rounded up."""
        length = -(-positions // PAD) * PAD
        config, slots = self.config, self.slots
        L, KV, D = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        memory = LargePages()
        # The kernel computes LANES positions side by side, so a key's block of them is innermost.
        keys = memory.zeros((L, slots, KV, length // LANES, D, LANES), self.dtype)
        values = memory.zeros((L, slots, KV, length, padded(D)), self.dtype)
        if self._keys.numel():
            keys[:, :, :, : self._keys.size(3)] = self._keys
            values[:, :, :, : self._values.size(3)] = self._values
        self._keys, self._values = keys, values
        for layer, k, v in zip(self._layers, keys, values, strict=True):
            layer.keys, layer.values = k.data_ptr(), v.data_ptr()
        angles = torch.outer(torch.arange(length).float(), inverse_frequencies(config))
        self._rotations = angles.cos(), angles.sin()  # kept alive: the kernel has only addresses
        self._net.cosines, self._net.sines = (table.data_ptr() for table in self._rotations)
        self._net.length = length
        self._threads = 0  # scores take scratch memory by length: lay it out again

    def _prepare_scratch(self) -> None:
        """Allocate the scratch memory of a pass; its size depends on torch's threads."""
        threads = torch.get_num_threads()
        if threads == self._threads:
            return
        self._threads = threads
        floats = self._kernel.scratch_floats(ctypes.byref(self._net), ctypes.c_int64(threads))
        self._scratch = torch.zeros(floats)


def _address(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
