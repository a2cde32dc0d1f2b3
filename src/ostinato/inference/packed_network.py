"""A network's weights for products of one fixed shape. Takes over others, and knows no cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ostinato.inference.packing import Held, Linear, PackedLayer, PackedNorm, affine, norm_place
from ostinato.inference.prepared import Place, Seen
from ostinato.models import Llama, release_pages


class PackedNetwork:
    """The weights of a network, for products of `rows` rows in `dtype`.

    Its products read the network's own memory where no other form is needed. All else is a copy.
    """

    def __init__(self, network: Llama, rows: int, dtype: torch.dtype, *, packed: bool) -> None:
        self._dtype = dtype
        learned = network.model.embed_positions
        self.embedding = self._held(network.model.embed_tokens)
        self.positions = None if learned is None else self._held(learned)
        self.norm = PackedNorm(network.model.norm, dtype)
        self.head = Linear(affine(network.lm_head, dtype), rows, packed=packed)
        self.layers = [
            PackedLayer(layer, rows, dtype, packed=packed, rotary=learned is None)
            for layer in network.blocks()
        ]
        release_pages(network)  # of what was copied; the rest is mapped twice, which costs nothing
        self._seen = Seen()
        self._seen.look(self._places(network))

    def changed(self, network: Llama) -> bool:
        """Return whether the network has other weights than these."""
        return self._seen.changed(self._places(network))

    def update(self, network: Llama) -> bool:
        """Take over the weights that changed; return whether any did."""
        return self._seen.load_changed(self._places(network))

    def addresses(self) -> list[int]:
        """Return where all unpacked weights are that may have moved."""
        held = [self.embedding] if self.positions is None else [self.embedding, self.positions]
        products = [self.head, *(product for layer in self.layers for product in layer.products)]
        return [each.tensor.data_ptr() for each in held] + [each.address for each in products]

    def _places(self, network: Llama) -> Iterator[Place]:
        model = network.model
        yield self._held_place("embedding", self.embedding, model.embed_tokens)
        if self.positions is not None and model.embed_positions is not None:
            yield self._held_place("positions", self.positions, model.embed_positions)
        yield norm_place("norm", self.norm, model.norm)
        head = network.lm_head
        yield Place("head", [head], lambda: self.head.take(affine(head, self._dtype)))
        for i, (packed, layer) in enumerate(zip(self.layers, network.blocks(), strict=True)):
            yield from packed.places(str(i), layer)

    def _held(self, layer: nn.Embedding) -> Held:
        weight = layer.weight.detach()
        return Held(weight.to(self._dtype), own=self._is_copied(layer))

    def _held_place(self, name: str, held: Held, layer: nn.Embedding) -> Place:
        def load() -> None:
            weight = layer.weight.detach()
            held.take(weight.to(self._dtype), own=self._is_copied(layer))

        return Place(name, [layer], load)

    def _is_copied(self, layer: nn.Embedding) -> bool:
        weight = layer.weight
        return not isinstance(weight, nn.Parameter) or weight.dtype != self._dtype
