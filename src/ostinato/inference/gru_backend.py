"""The tokens of a recurrent network for lanes, with the state of every position kept.

Going back is taking an earlier state. Every product has a fixed shape, as in
`ostinato.inference.fixed_shape`. Knows no sampling and no lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.inference.linear import Product, can_pack, linear
from ostinato.inference.row_blocks import Counts, TokenRow, by_slot
from ostinato.inference.self_test import SelfTest, test_rows
from ostinato.inference.validation import check_length, check_slots, check_tokens
from ostinato.models import GRU, device_of, plain_compute_mode


class GRUBackend:
    """Slots side by side, each with the states of one sequence; products in blocks of rows.

    A prompt is computed row by row like all else, so a row's bits depend on its slot's tokens
    alone. For one thread of the program.
    """

    prefill_chunk = 1

    def __init__(self, network: GRU, slots: int, *, block: int = 16) -> None:
        if slots < 1 or block < 1:
            raise InputError(f"slots and block must be at least 1, got {slots} and {block}.")
        self.config, self.slots, self.block = network.config, slots, block
        self.counts = Counts()
        self.dtype, self.device = network.embed_tokens.weight.dtype, device_of(network)
        self.packed = self.device.type == "cpu" and can_pack(self.dtype, block)
        L, C = self.config.num_hidden_layers, self.config.hidden_size
        with torch.inference_mode():
            self._embedding = network.embed_tokens.weight.detach()
            self._head = linear(self._embedding, None, block, packed=self.packed)
            self._layers = [self._gates(network.layers, i) for i in range(L)]
            self._states = self._zeros(slots, 0, L, C)  # after each position
            self._none = self._zeros(L, C)

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
        """The most tokens that a sequence may have."""
        return self.config.max_position_embeddings

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        """Compute `tokens` at positions `start`, `start + 1`, ... of a slot."""
        self._compute([TokenRow(slot, token, start + n) for n, token in enumerate(tokens)])
        self.counts.prompt += len(tokens)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        self._states[target, :length] = self._states[source, :length]

    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor:
        """Compute rows (slot, token, position); return hidden states (n, C).

        Each goes on from the state at the position before it. A later feed at an earlier position
        overwrites it: nothing else is needed to go back.
        """
        self.counts.generated += len(rows)
        return self._compute([TokenRow(*row) for row in rows])

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, V) in float32 at `hidden` (n, C), in blocks of fixed shape."""
        out = [torch.empty(0, self.config.vocab_size)]
        out += [
            self._head(_filled(hidden[at : at + self.block], self.block)).float().cpu()
            for at in range(0, len(hidden), self.block)
        ]
        return torch.cat(out)[: len(hidden)].clone()

    def self_test(self) -> SelfTest:
        """Compute a few rows alone and in company, and tell whether the bits are the same."""
        counts = replace(self.counts)
        try:
            return test_rows(self)
        finally:
            self.counts = counts

    # One pass -------------------------------------------------------------------------------

    @torch.inference_mode()
    def _compute(self, rows: Sequence[TokenRow]) -> Tensor:
        self._check(rows)
        hidden = self._zeros(len(rows), self.config.hidden_size)
        for members in self._waves(rows):
            for at in range(0, len(members), self.block):
                part = members[at : at + self.block]
                hidden[part] = self._block([rows[n] for n in part])
        return hidden

    def _waves(self, rows: Sequence[TokenRow]) -> Iterator[list[int]]:
        """Yield the indices of rows that can be computed together: one of each slot."""
        turns: dict[int, int] = {}
        waves: list[list[int]] = []
        for n in by_slot(rows):
            turn = turns.get(rows[n].slot, 0)
            turns[rows[n].slot] = turn + 1
            waves += [[]] if turn == len(waves) else []
            waves[turn].append(n)
        yield from waves

    def _block(self, rows: Sequence[TokenRow]) -> Tensor:
        """Compute at most `block` rows of different slots; return the top states (n, C)."""
        before = [self._states[r.slot, r.position - 1] if r.position else self._none for r in rows]
        states = _filled(torch.stack(before), self.block)  # (block, L, C)
        tokens = torch.tensor([r.token for r in rows], device=self.device)
        x = _filled(self._embedding[tokens], self.block)
        after = []
        for i, (of_input, of_state) in enumerate(self._layers):
            h = states[:, i].contiguous()
            reset, update, new = of_input(x).chunk(3, -1)
            reset_h, update_h, new_h = of_state(h).chunk(3, -1)
            z = torch.sigmoid(update + update_h)
            n = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
            x = (1 - z) * n + z * h  # PyTorch's form of the GRU
            after.append(x)
        made = torch.stack(after, 1)  # (block, L, C)
        for row, state in zip(rows, made, strict=False):
            self._states[row.slot, row.position] = state
        return x[: len(rows)]

    def _gates(self, layers: nn.GRU, i: int) -> tuple[Product, Product]:
        """Return the products of a layer with its input and with its state (reset, update, new)."""
        weights = [getattr(layers, f"weight_{kind}_l{i}") for kind in ("ih", "hh")]
        biases = [getattr(layers, f"bias_{kind}_l{i}") for kind in ("ih", "hh")]
        first, second = (
            linear(weight, bias, self.block, packed=self.packed)
            for weight, bias in zip(weights, biases, strict=True)
        )
        return first, second

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _check(self, rows: Sequence[TokenRow]) -> None:
        top = 1 + max((row.position for row in rows), default=-1)
        check_length(top, self.limit)
        check_slots((row.slot for row in rows), self.slots)
        check_tokens([row.token for row in rows], self.vocab_size)
        if top > self._states.size(1):
            length = max(top, 64, self._states.size(1) * 3 // 2)
            grown = self._zeros(self.slots, length, *self._states.shape[2:])
            grown[:, : self._states.size(1)] = self._states
            self._states = grown


def _filled(x: Tensor, block: int) -> Tensor:
    """Return x (n, ...) with zeros behind it, `block` rows in all."""
    made = x.new_zeros(block, *x.shape[1:])
    made[: len(x)] = x
    return made
