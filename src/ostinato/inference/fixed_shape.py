"""Our network, computing every token in a fixed shape over a KV cache of slots.

The result of a row depends on its slot's tokens alone: not on the other rows, their number or
order, nor on its slot or how long the cache is padded (batch-invariant inference). Floating-point
sums depend on the shape of their product, so each product has one shape. Linear layers take blocks
of exactly `block` rows. Attention is matmul, softmax and matmul over a cache padded to multiples of
64, summed in pieces of 128 positions. Knows no sampling and no lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.arguments import require
from ostinato.inference.kv_cache import KVCache, Targets
from ostinato.inference.packed_network import PackedNetwork
from ostinato.inference.packing import PackedLayer, can_pack
from ostinato.inference.prepared import forget_outdated, prepared
from ostinato.inference.row_blocks import TokenRow, blocks, by_slot
from ostinato.inference.self_test import SelfTest, compare_rows
from ostinato.inference.slot_backend import SlotBackend, in_dtype
from ostinato.inference.validation import (
    check_length,
    check_slots,
    check_start,
    check_tokens,
    top_position,
)
from ostinato.models import (
    ACTIVATIONS,
    CPU,
    LanguageModel,
    Llama,
    inverse_frequencies,
    network_key,
)

PAD = 64  # positions: the cache is read and grown in multiples of this
# On AVX2, weights times values over more than 192 positions was not bit-stable (docs/log.md):
# libraries split longer sums according to their length.
PIECE = 128  # positions
MIN_QUERIES = 4  # per key head: with fewer rows, libraries choose another kernel
_MAX_KEPT = 1e16  # keys and values are clamped: a masked one must stay finite when multiplied


class _Plan(NamedTuple):
    """What all layers of one pass share."""

    cis: Tensor | None  # (rows, H + KV, D/2) complex: the rotation of each query and key
    write: Targets  # where keys and values are written
    bounds: dict[int | None, Tensor]  # by window (..., L): +inf where a key counts, else -inf
    slots: slice | Tensor  # what the rows attend to: consecutive slots, or any


class FixedShapeBackend(SlotBackend):
    """Slots side by side, each with the keys and values of one sequence.

    Not thread-safe: passes share their buffers.
    """

    def __init__(
        self,
        model: LanguageModel | Llama,
        slots: int,
        *,
        block: int = 16,
        length: int = 512,
        prefill_chunk: int = 64,
        packed: bool | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Allocate `slots` sequences of `length` positions; the cache grows when needed.

        `block` and `prefill_chunk` are the rows of a
        product for generated and for prompt tokens. The bits depend on them, on `packed` (by
        default, oneDNN's packed weights where they exist), and on `dtype` (by default, the
        network's), to which the weights are converted.
        """
        network = model if isinstance(model, Llama) else model.llama()
        super().__init__(network, slots=slots, block=block, prefill_chunk=prefill_chunk)
        whole = prefill_chunk % PAD == 0
        require(whole, "prefill_chunk", f"a multiple of {PAD}", prefill_chunk, f"Use {PAD}.")
        self.config, self.dtype = network.config, dtype or network.dtype
        if dtype is not None:
            self.compute_mode += in_dtype(dtype, network)
        self.packed = self._can_pack() if packed is None else packed
        self._tested = self._tested_with(network)
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.head_dim = self.config.head_dim
        self._windows = self.config.windows
        act = self.config.hidden_act
        self._activation = partial(F.silu, inplace=True) if act == "silu" else ACTIVATIONS[act]
        with torch.inference_mode():
            key = "plain", self.block, self.packed, self.dtype
            self._weights, self._shares = prepared(network, key, partial(self._pack, network))
            self._cache = KVCache(self.config, slots, self.dtype, self.device)
            self._allocate_buffers()
            self._grow(max(length, PAD))

    def _pack(self, network: Llama) -> PackedNetwork:
        return PackedNetwork(network, self.block, self.dtype, packed=self.packed)

    @torch.inference_mode()
    def _take_over(self, network: Llama) -> bool:
        if not self._shares:
            changed = self._weights.update(network)
        elif changed := self._weights.changed(network):
            forget_outdated(network)
            self._weights, self._shares = self._pack(network), False
        if changed:
            self._tested = self._tested_with(network)
        return changed

    def _tested_with(self, network: Llama) -> dict[str, object]:
        """Return what a self-test depends on besides."""
        key = network_key(network, network.config)
        return {**key, "packed": self.packed, "dtype": str(self.dtype)}

    # Public ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot, in chunks.

        Chunks are counted from position 0, so `start` must be a multiple of `prefill_chunk`.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        check_slots([slot], self.slots)
        check_tokens(tokens, self.vocab_size)
        self._reserve(start + -(-len(tokens) // chunk) * chunk, start + len(tokens))
        for first in range(0, len(tokens), chunk):
            self._prompt_chunk(slot, tokens[first : first + chunk], start + first)
        self.counts.prompt += len(tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        check_slots([source, target], self.slots)
        self._cache.copy(source, target, length)

    @torch.inference_mode()
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return hidden states (n, C).

        Each row attends to itself and the earlier positions of its slot. One slot may have several
        rows, to restore a sequence: they are computed in the order of their positions. Feeding an
        earlier position overwrites it: rewinding needs nothing else.
        """
        order = by_slot(rows)
        ordered = [TokenRow(*rows[i]) for i in order]
        check_slots((row.slot for row in ordered), self.slots)
        check_tokens([row.token for row in ordered], self.vocab_size)
        top = 1 + top_position(ordered)
        self._reserve(top, top)
        hidden = _result(len(ordered), self.config.hidden_size, self.dtype, self.device)
        for members, lines, first in blocks(ordered, self.block):
            out = self._decode_block([ordered[m] for m in members], lines, first)
            hidden[[order[m] for m in members]] = out[lines]
        self.counts.generated += len(ordered)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32, on the CPU, in blocks of fixed shape."""
        n = hidden.size(0)
        out = _result(n, self.vocab_size, torch.float32, CPU)
        for first in range(0, n, self.block):
            part = hidden[first : first + self.block]
            self._head_rows[: part.size(0)] = part
            out[first : first + self.block] = self._weights.head(self._head_rows)[: part.size(0)]
        return out

    def _compare_rows(self) -> SelfTest:
        return compare_rows(self)

    # One pass -------------------------------------------------------------------------------

    def _decode_block(self, rows: list[TokenRow], lines: list[int], first: int | None) -> Tensor:
        """Compute at most `block` rows, each in its line of the block; the others are padding."""
        tokens, positions = [0] * self.block, [0] * self.block
        slots = [self.slots] * self.block  # padding is written to the scratch slot
        for row, line in zip(rows, lines, strict=True):
            tokens[line], positions[line], slots[line] = row.token, row.position, row.slot
        length = _padded(1 + max(positions))
        table = torch.tensor((tokens, positions, slots))
        used = lines[-1] + 1
        consecutive = None if first is None else slice(first, first + used)
        return self._pass(table.to(self.device), length, used, consecutive)

    def _pass(self, table: Tensor, length: int, used: int, consecutive: slice | None) -> Tensor:
        """Compute a block; return hidden states (block, C).

        `table` (3, block) has its tokens, positions and slots. Only the first `used` lines attend:
        attention is one product per slot, so its bits do not depend on their number.
        """
        tokens, positions, slots = table
        attended = slots[:used] if consecutive is None else consecutive
        bounds = {w: b[:, None] for w, b in self._bounds(positions[:used], length).items()}
        targets = self._cache.targets(slots, positions)
        plan = _Plan(self._rotations(positions), targets, bounds, attended)
        x = self._embed(tokens, positions)  # (block, C)
        for i, layer in enumerate(self._weights.layers):
            qkv = self._project(i, x, plan)
            x += layer.out(self._attend(i, qkv, plan, length))
            x += self._feed_forward(layer, x, self._act)
        return self._weights.norm(x)

    def _prompt_chunk(self, slot: int, tokens: Sequence[int], start: int) -> None:
        """Compute a chunk of one slot; its padding writes later positions, overwritten later."""
        chunk = self.prefill_chunk
        padded = [*tokens, *[0] * (chunk - len(tokens))]
        table = torch.tensor((padded, range(start, start + chunk), [slot] * chunk))
        self._prompt_pass(table.to(self.device), start + chunk, slice(slot, slot + 1))

    def _prompt_pass(self, table: Tensor, length: int, slot: slice | Tensor) -> None:
        """Compute a chunk of one slot: `table` (3, chunk) as in `_pass`."""
        tokens, positions, slots = table
        targets = self._cache.targets(slots, positions)
        plan = _Plan(self._rotations(positions), targets, self._bounds(positions, length), slot)
        x = self._embed(tokens, positions)  # (chunk, C)
        last = len(self._weights.layers) - 1
        for i, layer in enumerate(self._weights.layers[:last]):
            qkv = self._project(i, x, plan)
            x += layer.out(self._attend_chunk(i, qkv, plan, length))
            x += self._feed_forward(layer, x, self._chunk_act)
        self._project(last, x, plan)  # a prompt needs only the last layer's keys and values

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the embeddings (rows, C) of `tokens` (rows,)."""
        x = self._weights.embedding.tensor[tokens]
        learned = self._weights.positions
        if learned is not None:  # a chunk's padding may lie beyond the last position
            x += learned.tensor[positions.clamp(max=self.limit - 1)]
        return x

    def _project(self, i: int, x: Tensor, plan: _Plan) -> Tensor:
        """Return queries, keys and values (rows, H + 2 KV, D) of `x` (rows, C).

        Queries and keys are rotated (RoPE); keys and values are written to the cache.
        """
        rows, H, KV, D = x.size(0), self.heads, self.kv_heads, self.head_dim
        layer = self._weights.layers[i]
        qkv = layer.qkv(layer.norm1(x)).view(rows, H + 2 * KV, D)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv[:, :H] = layer.q_norm(qkv[:, :H])
            qkv[:, H : H + KV] = layer.k_norm(qkv[:, H : H + KV])
        if plan.cis is not None:
            rotated = qkv[:, : H + KV]
            pairs = rotated.float()  # the same memory where it is float32 already
            torch.view_as_complex(pairs.view(rows, H + KV, D // 2, 2)).mul_(plan.cis)
            if pairs.dtype != rotated.dtype:
                rotated.copy_(pairs)
        # A masked value is multiplied by 0: the product is 0 only for finite numbers.
        kept = qkv[:, H:].nan_to_num_(0.0).clamp_(-_MAX_KEPT, _MAX_KEPT)
        self._cache.write(i, plan.write, kept[:, :KV], kept[:, KV:])
        return qkv

    def _attend(self, i: int, qkv: Tensor, plan: _Plan, length: int) -> Tensor:
        """Attend from each row to its slot; `qkv` (block, H + 2 KV, D) to (block, H * D)."""
        H, KV, D = self.heads, self.kv_heads, self.head_dim
        bound = plan.bounds[self._windows[i]]
        used, G = bound.size(0), H // KV
        queries, mixed = self._queries, self._mixed
        queries[..., :G, :] = qkv[:, :H].view(-1, KV, G, D)
        keys, values = self._cache.read(i, plan.slots, length)
        scores = torch.bmm(queries[:used].flatten(0, 1), keys)  # (used * KV, G, L)
        per_row = scores.view(used, -1, length)
        # Masks by a minimum: an infinite score plus -inf would be NaN.
        torch.minimum(per_row, bound, out=per_row)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(self.dtype)
        target = mixed[: used * KV]
        torch.bmm(weights[..., :PIECE], values[:, :PIECE], out=target)
        for piece in range(PIECE, length, PIECE):
            end = piece + PIECE
            target.baddbmm_(weights[..., piece:end], values[:, piece:end])
        return mixed.view(self.block, KV, -1, D)[:, :, :G].reshape(self.block, H * D)

    def _attend_chunk(self, i: int, qkv: Tensor, plan: _Plan, length: int) -> Tensor:
        """Attend from a chunk to its slot; `qkv` (chunk, H + 2 KV, D) to (chunk, H * D)."""
        H, KV, D = self.heads, self.kv_heads, self.head_dim
        rows, G = qkv.size(0), H // KV
        queries = qkv[:, :H].view(rows, KV, G, D).permute(1, 2, 0, 3).reshape(KV, G * rows, D)
        keys, values = self._cache.read(i, plan.slots, length)
        scores = torch.bmm(queries, keys).view(KV * G, rows, length)
        torch.minimum(scores, plan.bounds[self._windows[i]], out=scores)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(self.dtype)
        mixed = torch.bmm(weights.view(KV, G * rows, length), values).view(KV, G, rows, D)
        return mixed.permute(2, 0, 1, 3).reshape(rows, H * D)

    def _feed_forward(self, layer: PackedLayer, x: Tensor, act: Tensor) -> Tensor:
        """Return (rows, C) for `x` (rows, C); `act` (rows, inner) is a buffer."""
        inner = layer.up(layer.norm2(x))
        if not self.config.family.gated:
            return layer.down(self._activation(inner))
        gate, up = inner.chunk(2, -1)
        torch.mul(self._activation(gate), up, out=act)
        return layer.down(act)

    # Tables and memory ----------------------------------------------------------------------

    def _bounds(self, positions: Tensor, length: int) -> dict[int | None, Tensor]:
        """Return upper bounds of scores (rows, L) by window: +inf where a row sees, else -inf."""
        where = torch.arange(length, device=self.device)
        bounds: dict[int | None, Tensor] = {}
        for window in set(self._windows):
            seen = where <= positions[:, None]
            if window is not None:
                seen &= where > positions[:, None] - window
            bounds[window] = torch.where(seen, math.inf, -math.inf).to(self.dtype)
        return bounds

    def _rotations(self, positions: Tensor) -> Tensor | None:
        """Return the rotations (rows, H + KV, D/2); those of queries include 1/sqrt(D)."""
        if self._cis is None:
            return None
        cis = self._cis[positions][:, None]
        H, KV = self.heads, self.kv_heads
        scaled = cis * self.head_dim**-0.5
        return torch.cat((scaled.expand(-1, H, -1), cis.expand(-1, KV, -1)), 1)

    def _reserve(self, positions: int, tokens: int) -> None:
        """Make room for `positions`, padding included, of a sequence of `tokens`."""
        check_length(tokens, self.limit)
        length = self._cache.length
        if positions > length:
            self._grow(max(positions, length + length // 2))

    def _grow(self, positions: int) -> None:
        """Extend every slot to `positions`, rounded up."""
        length = _padded(positions)
        self._cache.grow(length)
        if self._weights.positions is not None:
            self._cis: Tensor | None = None
            return
        where = torch.arange(length, dtype=torch.float32)
        angles = torch.outer(where, inverse_frequencies(self.config))
        cis = torch.polar(torch.ones_like(angles), angles)  # (L, D/2)
        self._cis = cis.to(self.device)  # computed on the CPU: a GPU's sines have other bits

    def _allocate_buffers(self) -> None:
        config, rows = self.config, self.block
        G = max(MIN_QUERIES, self.heads // self.kv_heads)
        D, KV = self.head_dim, self.kv_heads
        # `_queries` and `_head_rows` are zeros: their unused rows go through the products too.
        kind: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        self._queries = torch.zeros(rows, KV, G, D, **kind)
        self._mixed = torch.zeros(rows * KV, G, D, **kind)
        self._act = torch.empty(rows, config.intermediate_size, **kind)
        self._chunk_act = torch.empty(self.prefill_chunk, config.intermediate_size, **kind)
        self._head_rows = torch.zeros(rows, config.hidden_size, **kind)

    def _can_pack(self) -> bool:
        return self.device.type == "cpu" and can_pack(self.dtype, self.block)


def _result(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an empty tensor outside inference mode, so that callers may change it in place."""
    with torch.inference_mode(False):
        return torch.empty(rows, columns, dtype=dtype, device=device)


def _padded(positions: int) -> int:
    return -(-positions // PAD) * PAD
