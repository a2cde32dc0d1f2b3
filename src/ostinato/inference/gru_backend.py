"""The tokens of a recurrent network (GRU) for many slots; the state of every position is kept.

Rewinding reads an earlier state. Every product has a fixed shape, as in
`ostinato.inference.fixed_shape`. Knows no sampling and no lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ostinato.inference.packing import Affine, Linear, Product, can_pack
from ostinato.inference.prepared import Place, Seen
from ostinato.inference.row_blocks import TokenRow, by_slot
from ostinato.inference.self_test import SelfTest, compare_rows
from ostinato.inference.slot_backend import SlotBackend
from ostinato.inference.validation import check_length, check_slots, check_tokens, top_position
from ostinato.models import GRU, network_key


class GRUBackend(SlotBackend):
    """Slots side by side, each with the states of one sequence; products in blocks of rows.

    A prompt is computed row by row like generated tokens, so a row's bits depend on its slot's
    tokens alone. Not thread-safe.
    """

    def __init__(self, network: GRU, slots: int, *, block: int = 16) -> None:
        super().__init__(network, slots=slots, block=block)
        self.config = network.config
        self.dtype = network.embed_tokens.weight.dtype
        self.packed = self.device.type == "cpu" and can_pack(self.dtype, block)
        L, C = self.config.num_hidden_layers, self.config.hidden_size
        with torch.inference_mode():
            self._load_embedding(network.embed_tokens)
            self._load_layers(network.layers)
            self._states = self._zeros(slots, 0, L, C)  # after each position; grown when needed
            self._initial = self._zeros(L, C)
        self._seen = Seen()
        self._seen.look(self._places(network))
        self._tested = self._tested_with(network)

    @torch.inference_mode()
    def _take_over(self, network: GRU) -> bool:
        changed = self._seen.load_changed(self._places(network))
        if changed:
            self._tested = self._tested_with(network)
        return changed

    def _tested_with(self, network: GRU) -> dict[str, object]:
        """Return what a self-test depends on besides."""
        return {**network_key(network, network.config), "packed": self.packed}

    def _places(self, network: GRU) -> list[Place]:
        embedding, layers = network.embed_tokens, network.layers
        return [
            Place("embedding", [embedding], lambda: self._load_embedding(embedding)),
            Place("layers", [layers], lambda: self._load_layers(layers)),
        ]

    def _load_embedding(self, layer: nn.Embedding) -> None:
        """Take the embeddings, which are the head's weights too."""
        self._embedding = layer.weight.detach()
        self._head = self._linear(self._embedding, None)

    def _load_layers(self, layers: nn.GRU) -> None:
        self._layers = [self._gates(layers, i) for i in range(layers.num_layers)]

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot."""
        self._compute([TokenRow(slot, token, start + n) for n, token in enumerate(tokens)])
        self.counts.prompt += len(tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        check_slots([source, target], self.slots)
        self._states[target, :length] = self._states[source, :length]

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute rows (slot, token, position); return hidden states (n, C).

        Each row continues the state of the position before it. Feeding an earlier position
        overwrites it: rewinding needs nothing else.
        """
        self.counts.generated += len(rows)
        return self._compute([TokenRow(*row) for row in rows])

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at `hidden` (n, C), in blocks of fixed shape."""
        out = [torch.empty(0, self.vocab_size)]
        out += [
            self._head(_padded(hidden[at : at + self.block], self.block)).float().cpu()
            for at in range(0, len(hidden), self.block)
        ]
        return torch.cat(out)[: len(hidden)].clone()

    def _compare_rows(self) -> SelfTest:
        return compare_rows(self)

    # One pass -------------------------------------------------------------------------------

    @torch.inference_mode()
    def _compute(self, rows: Sequence[TokenRow]) -> Tensor:
        """Return the hidden states (n, C) of rows, in their order."""
        self._check(rows)
        hidden = self._zeros(len(rows), self.config.hidden_size)
        for wave in self._waves(rows):
            for at in range(0, len(wave), self.block):
                part = wave[at : at + self.block]
                hidden[part] = self._block([rows[n] for n in part])
        return hidden

    def _waves(self, rows: Sequence[TokenRow]) -> list[list[int]]:
        """Return the indices of rows by wave; a wave has at most one row of each slot.

        A row needs the state before it, so rows of one slot are computed one after another.
        """
        taken: dict[int, int] = {}  # by slot: the number of its rows so far
        waves: list[list[int]] = []
        for n in by_slot(rows):
            wave = taken.get(rows[n].slot, 0)
            taken[rows[n].slot] = wave + 1
            if wave == len(waves):
                waves.append([])
            waves[wave].append(n)
        return waves

    def _block(self, rows: Sequence[TokenRow]) -> Tensor:
        """Compute at most `block` rows of different slots; return the top states (n, C)."""
        before = [
            self._states[r.slot, r.position - 1] if r.position else self._initial for r in rows
        ]
        states = _padded(torch.stack(before), self.block)  # (block, L, C)
        tokens = torch.tensor([r.token for r in rows], device=self.device)
        x = _padded(self._embedding[tokens], self.block)  # (block, C)
        after = []
        for i, (of_input, of_state) in enumerate(self._layers):
            h = states[:, i].contiguous()
            reset, update, new = of_input(x).chunk(3, -1)
            reset_h, update_h, new_h = of_state(h).chunk(3, -1)
            z = torch.sigmoid(update + update_h)
            # PyTorch's GRU applies the reset gate after the product, unlike Cho et al. (2014).
            n = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
            x = (1 - z) * n + z * h
            after.append(x)
        for row, state in zip(rows, torch.stack(after, 1), strict=False):  # (block, L, C)
            self._states[row.slot, row.position] = state
        return x[: len(rows)]

    def _gates(self, layers: nn.GRU, i: int) -> tuple[Product, Product]:
        """Return a layer's products with its input and its state: (reset, update, new)."""
        weights = [getattr(layers, f"weight_{kind}_l{i}") for kind in ("ih", "hh")]
        biases = [getattr(layers, f"bias_{kind}_l{i}") for kind in ("ih", "hh")]
        first, second = (self._linear(w, b) for w, b in zip(weights, biases, strict=True))
        return first, second

    def _linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        bias = None if bias is None else bias.detach()
        part = Affine(weight.detach(), bias, own=False)
        return Linear(part, self.block, packed=self.packed)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _check(self, rows: Sequence[TokenRow]) -> None:
        check_slots((row.slot for row in rows), self.slots)
        check_tokens([row.token for row in rows], self.vocab_size)
        length = 1 + top_position(rows)
        check_length(length, self.limit)
        if length > self._states.size(1):
            # By half: copying all states at every token would take quadratic time.
            self._grow(max(length, 64, self._states.size(1) * 3 // 2))

    def _grow(self, length: int) -> None:
        old = self._states
        self._states = self._zeros(self.slots, length, *old.shape[2:])
        self._states[:, : old.size(1)] = old


def _padded(x: Tensor, block: int) -> Tensor:
    """Return `x` (n, ...) padded with zeros to (block, ...)."""
    padded = x.new_zeros(block, *x.shape[1:])
    padded[: len(x)] = x
    return padded
