"""Our network, computing every token in a fixed shape, over a cache of slots.

What comes out for a row depends on its slot's tokens alone: not on the other rows, their
number or order, nor on where it is kept or how long the cache is padded. Floating point sums
depend on the shape of the product they are part of, so each product has one shape: linear
layers over blocks of exactly `block` rows, attention as matmul, softmax and matmul over a cache
padded to multiples of 64, summed in pieces of 128 positions. Knows no sampling and no lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.errors import InputError
from ostinato.inference.kv_cache import Cache, Targets
from ostinato.inference.linear import can_pack, linear
from ostinato.inference.packing import PackedLayer, pack_layer, pack_norm
from ostinato.inference.row_blocks import Counts, TokenRow, blocks, by_slot
from ostinato.inference.self_test import SelfTest, test_rows
from ostinato.inference.validation import (
    check_length,
    check_slots,
    check_start,
    check_tokens,
    top_position,
)
from ostinato.models import (
    ACTIVATIONS,
    LanguageModel,
    Llama,
    inverse_frequencies,
    lora_layers,
    plain_compute_mode,
)

PAD = 64  # positions: the cache is read and grown in multiples of this
PIECE = 128  # positions: longer sums are split by some libraries according to their length
QUERIES = 4  # fewer query rows take another kernel
_LIMIT = 1e16  # a masked key must stay finite when it is multiplied


class _Plan(NamedTuple):
    """What all layers of one pass share."""

    cis: Tensor | None  # (rows, H + KV, D/2) complex: the turn of each query and key
    write: Targets  # where keys and values go
    bounds: dict[int | None, Tensor]  # by window (..., L): +inf where a key counts, else -inf
    slots: slice | Tensor  # what the rows attend to: consecutive slots, or any


class FixedShapeBackend:
    """Slots side by side, each with the keys and values of one sequence.

    For one thread of the program: passes share their buffers. `counts` tells how many prompt and
    generated rows went through the network.
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
    ) -> None:
        """Make room for `slots` sequences of `length` positions; more are added when needed.

        The network's adapters must be merged. `block` and `prefill_chunk` are the rows of a
        product for generated and for prompt tokens: the bits depend on them, and on `packed`
        (by default, oneDNN's packed weights where they exist).
        """
        network = model if isinstance(model, Llama) else model.llama()
        _check(network, slots, block, prefill_chunk)
        self.config = network.config
        self.slots, self.block, self.prefill_chunk = slots, block, prefill_chunk
        self.counts = Counts()
        weight = network.model.embed_tokens.weight
        self.dtype, self.device = weight.dtype, weight.device
        self.packed = self._can_pack() if packed is None else packed
        self.heads, self.kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        self.head_dim = self.config.head_dim
        self._windows = self.config.windows
        act = self.config.hidden_act
        self._activation = partial(F.silu, inplace=True) if act == "silu" else ACTIVATIONS[act]
        with torch.inference_mode():
            self._embedding = weight.detach()
            learned = network.model.embed_positions
            self._positions = None if learned is None else learned.weight.detach()
            self._norm = pack_norm(network.model.norm)
            self._head = linear(network.lm_head.weight, None, block, packed=self.packed)
            self._layers = [
                pack_layer(layer, block, packed=self.packed, rotary=learned is None)
                for layer in network.blocks()
            ]
            self._cache = Cache(self.config, slots, self.dtype, self.device)
            self._buffers()
            self._grow(max(length, PAD))

    @property
    def compute_mode(self) -> str:
        """Plain operations of PyTorch, on the network's device."""
        return plain_compute_mode(self.device)

    @property
    def vocab_size(self) -> int:
        """The number of logits."""
        return self.config.vocab_size

    @property
    def limit(self) -> int:
        """The most tokens that a sequence of this model may have."""
        return self.config.max_position_embeddings

    # --- what callers use ---------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot, in prompt shape.

        Chunks are counted from position 0, so `start` must be a multiple of `prefill_chunk`:
        what comes before it stays as it is.
        """
        chunk = self.prefill_chunk
        check_start(start, chunk)
        check_slots([slot], self.slots)
        check_tokens(tokens, self.config.vocab_size)
        self._reserve(start + -(-len(tokens) // chunk) * chunk, start + len(tokens))
        for first in range(0, len(tokens), chunk):
            self._prompt_chunk(slot, tokens[first : first + chunk], start + first)
        self.counts.prompt += len(tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        check_slots([source, target], self.slots)
        self._cache.copy(source, target, length)

    @torch.inference_mode()
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute one token per row (slot, token, position); return hidden states (n, C).

        Each row attends to the positions before it in its slot, and to itself. Rows of one
        slot may come together (positions that were computed before, to restore a sequence): they
        are taken in the order of their positions. A later feed at an earlier position
        overwrites it: nothing else is needed to go back.
        """
        order = by_slot(rows)
        ordered = [TokenRow(*rows[i]) for i in order]
        check_slots((row.slot for row in ordered), self.slots)
        check_tokens([row.token for row in ordered], self.config.vocab_size)
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
        """Return the logits (n, V) in float32, on the processor, in blocks of fixed shape."""
        n = hidden.size(0)
        out = _result(n, self.config.vocab_size, torch.float32, torch.device("cpu"))
        for first in range(0, n, self.block):
            part = hidden[first : first + self.block]
            self._head_rows[: part.size(0)] = part
            out[first : first + self.block] = self._head(self._head_rows)[: part.size(0)]
        return out

    def self_test(self) -> SelfTest:
        """Compute a few rows alone and in company, and tell whether the bits are the same.

        To be called before the slots are used: it overwrites some of them.
        """
        counts = replace(self.counts)
        try:
            return test_rows(self)
        finally:
            self.counts = counts

    # --- one pass --------------------------------------------------------------------------

    def _decode_block(self, rows: list[TokenRow], lines: list[int], first: int | None) -> Tensor:
        """Compute at most `block` rows, each in its line of the block; the others are padding."""
        tokens, positions = [0] * self.block, [0] * self.block
        slots = [self.slots] * self.block  # padding is written to the scratch slot
        for row, line in zip(rows, lines, strict=True):
            tokens[line], positions[line], slots[line] = row.token, row.position, row.slot
        length = _padded(1 + max(positions))
        table = torch.tensor((tokens, positions, slots))
        used = lines[-1] + 1
        where = None if first is None else slice(first, first + used)
        return self._pass(table.to(self.device), length, used, where)

    def _pass(self, table: Tensor, length: int, used: int, consecutive: slice | None) -> Tensor:
        """Compute a block whose tokens, positions and slots are `table` (3, block)."""
        tokens, where, slots = table
        attended = slots[:used] if consecutive is None else consecutive
        bounds = {w: b[:, None] for w, b in self._bounds(where[:used], length).items()}
        plan = _Plan(self._turns(where), self._cache.targets(slots, where), bounds, attended)
        x = self._embed(tokens, where)  # (block, C)
        for i, layer in enumerate(self._layers):
            qkv = self._project(i, x, plan)
            x += layer.out(self._attend(i, qkv, plan, length))
            x += self._feed_forward(layer, x, self._act)
        return self._norm(x)

    def _prompt_chunk(self, slot: int, tokens: Sequence[int], start: int) -> None:
        """Compute a chunk of one slot. Its padding lands on later positions, to be overwritten."""
        chunk = self.prefill_chunk
        filled = [*tokens, *[0] * (chunk - len(tokens))]
        table = torch.tensor((filled, range(start, start + chunk), [slot] * chunk))
        self._prompt_pass(table.to(self.device), start + chunk, slice(slot, slot + 1))

    def _prompt_pass(self, table: Tensor, length: int, slot: slice | Tensor) -> None:
        """Compute a chunk of one slot: `table` (3, chunk) as in `_pass`."""
        tokens, where, slots = table
        targets = self._cache.targets(slots, where)
        plan = _Plan(self._turns(where), targets, self._bounds(where, length), slot)
        x = self._embed(tokens, where)
        last = len(self._layers) - 1
        for i, layer in enumerate(self._layers[:last]):
            qkv = self._project(i, x, plan)
            x += layer.out(self._attend_chunk(i, qkv, plan, length))
            x += self._feed_forward(layer, x, self._chunk_act)
        self._project(last, x, plan)  # of the last layer only keys and values count

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the rows (rows, C) that enter the first layer."""
        x = self._embedding[tokens]
        if self._positions is not None:  # a chunk's padding may lie behind the last of them
            x += self._positions[positions.clamp(max=self.limit - 1)]
        return x

    def _project(self, i: int, x: Tensor, plan: _Plan) -> Tensor:
        """Return queries, keys and values (rows, H + 2 KV, D), turned; the latter two are kept."""
        rows, H, KV, D = x.size(0), self.heads, self.kv_heads, self.head_dim
        layer = self._layers[i]
        qkv = layer.qkv(layer.norm1(x)).view(rows, H + 2 * KV, D)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv[:, :H] = layer.q_norm(qkv[:, :H])
            qkv[:, H : H + KV] = layer.k_norm(qkv[:, H : H + KV])
        if plan.cis is not None:
            turned = qkv[:, : H + KV]
            pairs = turned.float()  # the same memory where it is float32
            torch.view_as_complex(pairs.view(rows, H + KV, D // 2, 2)).mul_(plan.cis)
            if pairs.dtype != turned.dtype:
                turned.copy_(pairs)
        # What is masked counts 0 times: that is 0 only for finite numbers.
        kept = qkv[:, H:].nan_to_num_(0.0).clamp_(-_LIMIT, _LIMIT)
        self._cache.write(i, plan.write, kept[:, :KV], kept[:, KV:])
        return qkv

    def _attend(self, i: int, qkv: Tensor, plan: _Plan, length: int) -> Tensor:
        """Attend from each row to its slot; return (block, H * D)."""
        H, KV, D = self.heads, self.kv_heads, self.head_dim
        bound = plan.bounds[self._windows[i]]
        used, G = bound.size(0), H // KV
        queries, mixed = self._queries, self._mixed
        queries[..., :G, :] = qkv[:, :H].view(-1, KV, G, D)
        keys, values = self._cache.read(i, plan.slots, length)
        scores = torch.bmm(queries[:used].flatten(0, 1), keys)
        per_row = scores.view(used, -1, length)
        torch.minimum(per_row, bound, out=per_row)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(self.dtype)
        target = mixed[: used * KV]
        torch.bmm(weights[..., :PIECE], values[:, :PIECE], out=target)
        for piece in range(PIECE, length, PIECE):
            end = piece + PIECE
            target.baddbmm_(weights[..., piece:end], values[:, piece:end])
        return mixed.view(self.block, KV, -1, D)[:, :, :G].reshape(self.block, H * D)

    def _attend_chunk(self, i: int, qkv: Tensor, plan: _Plan, length: int) -> Tensor:
        """Attend from a chunk of one slot; return (chunk, H * D)."""
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
        inner = layer.up(layer.norm2(x))
        if not self.config.family.gated:
            return layer.down(self._activation(inner))
        gate, up = inner.chunk(2, -1)
        torch.mul(self._activation(gate), up, out=act)
        return layer.down(act)

    # --- tables and checks ----------------------------------------------------------------

    def _bounds(self, positions: Tensor, length: int) -> dict[int | None, Tensor]:
        """Return what scores are held to (rows, L) by window: +inf where a row sees, else -inf."""
        where = torch.arange(length, device=self.device)
        bounds: dict[int | None, Tensor] = {}
        for window in set(self._windows):
            seen = where <= positions[:, None]
            if window is not None:
                seen &= where > positions[:, None] - window
            bounds[window] = torch.where(seen, math.inf, -math.inf).to(self.dtype)
        return bounds

    def _turns(self, positions: Tensor) -> Tensor | None:
        """Return the turns (rows, H + KV, D/2); those of queries also scale the scores."""
        if self._cis is None:
            return None
        turn = self._cis[positions][:, None]
        H, KV = self.heads, self.kv_heads
        scaled = turn * self.head_dim**-0.5
        return torch.cat((scaled.expand(-1, H, -1), turn.expand(-1, KV, -1)), 1)

    def _reserve(self, positions: int, wanted: int) -> None:
        check_length(wanted, self.limit)
        length = self._cache.length
        if positions > length:
            self._grow(max(positions, length + length // 2))

    def _grow(self, positions: int) -> None:
        """Give every slot room for `positions`, rounded up."""
        length = _padded(positions)
        self._cache.grow(length)
        if self._positions is not None:
            self._cis: Tensor | None = None
            return
        where = torch.arange(length, dtype=torch.float32)
        angles = torch.outer(where, inverse_frequencies(self.config))
        cis = torch.polar(torch.ones_like(angles), angles)  # (L, D/2), of the same bits everywhere
        self._cis = cis.to(self.device)

    def _buffers(self) -> None:
        config, rows = self.config, self.block
        G = max(QUERIES, self.heads // self.kv_heads)
        D, KV = self.head_dim, self.kv_heads
        kind: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        self._queries = torch.zeros(rows, KV, G, D, **kind)
        self._mixed = torch.zeros(rows * KV, G, D, **kind)
        self._act = torch.empty(rows, config.intermediate_size, **kind)
        self._chunk_act = torch.empty(self.prefill_chunk, config.intermediate_size, **kind)
        self._head_rows = torch.zeros(rows, config.hidden_size, **kind)

    def _can_pack(self) -> bool:
        return self.device.type == "cpu" and can_pack(self.dtype, self.block)


def _check(network: Llama, slots: int, block: int, chunk: int) -> None:
    if slots < 1:
        raise InputError(f"slots must be at least 1, got {slots}. Take 16.")
    if block < 1:
        raise InputError(f"block must be at least 1, got {block}. Take 16, or 64 for bulk.")
    if chunk < 1 or chunk % PAD:
        raise InputError(f"prefill_chunk must be a multiple of {PAD}, got {chunk}. Take {PAD}.")
    if next(lora_layers(network), None) is not None:
        raise InputError("the network's adapters must be merged, got one that is not. Call merge.")


def _result(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an empty tensor that callers may change in place, unlike those of inference mode."""
    with torch.inference_mode(False):
        return torch.empty(rows, columns, dtype=dtype, device=device)


def _padded(positions: int) -> int:
    return -(-positions // PAD) * PAD
