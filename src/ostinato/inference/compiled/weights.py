"""A network's weights in the layout of the compiled kernel. Knows no cache and no rows."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from ostinato.inference.compiled.build import open_kernel
from ostinato.inference.compiled.forms import check_network, form_of
from ostinato.inference.compiled.memory import LargePages
from ostinato.inference.compiled.structures import (
    DEPTH,
    FLOAT_INPUTS,
    GROUPED,
    GROUPED_INPUTS,
    KINDS,
    LANES,
    PACKED,
    TILED,
    TILED_INPUTS,
    LayerC,
    MatrixC,
    ProductC,
)
from ostinato.inference.prepared import Place, Seen
from ostinato.models import (
    DecoderLayer,
    Groups,
    Llama,
    LoraLinear,
    Norm,
    QuantizedEmbedding,
    QuantizedLinear,
    effective_weight,
    in_common,
    quantized_in_groups,
    release_pages,
)


class Weights:
    """The weights of a network in the kernel's layout, and where the kernel finds them.

    `bits` rounds them to 8 or 4 bits in groups; weights that are in groups already stay as they
    are. `tiles` arranges bfloat16 weights for the processor's matrix tiles.
    """

    def __init__(self, network: Llama, *, bits: int | None = None, tiles: bool = False) -> None:
        check_network(network)
        self._kernel = open_kernel()
        self._bits = bits
        self._form = form_of(network, bits)
        self.dtype, self.grouped, _ = self._form
        self.tiles = tiles and not self.grouped and self.dtype == torch.bfloat16
        # Kept alive: the structures hold only addresses.
        self._kept: list[Tensor] = []
        self._products: dict[str, ProductC] = {}
        self._following: list[ProductC] = []  # those that are the next of another
        self._biases: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._embedding: Tensor | None = None  # the network's own
        self._memory, self._seen = LargePages(), Seen()
        self._scratch = torch.empty(0)
        self._load(network)
        self.layers = (LayerC * network.config.num_hidden_layers)(
            *(self._layer(i, block) for i, block in enumerate(network.blocks()))
        )
        release_pages(network)  # the kernel has its own copy of all but some embeddings
        self._find_embedding(network)
        self._seen.look(self._places(network))

    def changed(self, network: Llama) -> bool:
        """Return whether the network has other weights than these."""
        return self._seen.changed(self._places(network))

    def can_update(self, network: Llama) -> bool:
        """Return whether `update` can take over the weights: they have the same form."""
        in_blocks = self.grouped and self._bits is None  # of a format for each matrix
        return not in_blocks and self._form == form_of(network, self._bits)

    def update(self, network: Llama) -> bool:
        """Arrange the weights that changed in the memory of the old; return whether any did."""
        changed = self._load(network)
        self._find_embedding(network)
        return changed

    def _load(self, network: Llama) -> bool:
        try:
            return self._seen.load_changed(self._places(network))
        finally:
            self._scratch = torch.empty(0)

    @property
    def head(self) -> ProductC:
        """The product that gives the logits."""
        return self._products["head"]

    @property
    def norm(self) -> int:
        """Where the last norm is."""
        return self._norms["norm"].data_ptr()

    @property
    def input_kind(self) -> int:
        """How the kernel lays out rows for products."""
        return GROUPED_INPUTS if self.grouped else TILED_INPUTS if self.tiles else FLOAT_INPUTS

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type of keys and values: 16 bits, but for weights in float32."""
        wide = self.dtype == torch.float32 and not self.grouped
        return torch.float32 if wide else torch.bfloat16

    @property
    def kinds(self) -> list[int]:
        """The kinds of all products, and of the cache: they decide how the kernel sums."""
        layers = [(layer.qkv, layer.out, layer.up, layer.down) for layer in self.layers]
        products = {product.kind for layer in layers for product in layer} | {self.head.kind}
        return [*sorted(products), KINDS[self.cache_dtype]]

    @property
    def bytes(self) -> int:
        """The size of the weights in memory, in bytes."""
        kept = self._kept if self._embedding is None else [*self._kept, self._embedding]
        return sum(each.numel() * each.element_size() for each in kept)

    def _places(self, network: Llama) -> Iterator[Place]:
        """Yield where the weights of all modules are, in the order of their memory."""
        yield self._norm("norm", network.model.norm)
        yield self._product("head", [network.lm_head])
        for i, block in enumerate(network.blocks()):
            attention, mlp = block.self_attn, block.mlp
            assert mlp.gate_proj is not None
            yield self._norm(f"{i}.norm1", block.input_layernorm)
            inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
            yield self._product(f"{i}.qkv", inputs)
            if attention.q_norm is not None and attention.k_norm is not None:
                yield self._norm(f"{i}.q_norm", attention.q_norm)
                yield self._norm(f"{i}.k_norm", attention.k_norm)
            yield self._product(f"{i}.out", [attention.o_proj])
            yield self._norm(f"{i}.norm2", block.post_attention_layernorm)
            # A thread computes SwiGLU of a block as soon as it has the pair.
            yield self._product(f"{i}.up", [mlp.gate_proj, mlp.up_proj], paired=True)
            yield self._product(f"{i}.down", [mlp.down_proj])
        embedding = network.model.embed_tokens
        load = partial(self._load_embedding, embedding, network.lm_head)
        yield Place("embedding", [embedding], load)

    def _norm(self, name: str, norm: Norm) -> Place:
        return Place(name, [norm], partial(self._load_norm, name, norm))

    def _product(self, name: str, layers: Sequence[nn.Linear], *, paired: bool = False) -> Place:
        """Return the place of layers that share their inputs.

        Their outputs follow each other or, `paired`, a block of the first is followed by one of the
        second.
        """
        return Place(name, layers, partial(self._load_product, name, layers, paired))

    def _layer(self, i: int, block: DecoderLayer) -> LayerC:
        def norm(name: str) -> int | None:
            kept = self._norms.get(f"{i}.{name}")
            return None if kept is None else kept.data_ptr()

        return LayerC(
            norm1=norm("norm1"),
            qkv=self._products[f"{i}.qkv"],
            q_norm=norm("q_norm"),
            k_norm=norm("k_norm"),
            out=self._products[f"{i}.out"],
            norm2=norm("norm2"),
            up=self._products[f"{i}.up"],
            down=self._products[f"{i}.down"],
            window=block.self_attn.window or 0,
        )

    # Embeddings and norms ---------------------------------------------------------------------

    def _load_embedding(self, layer: nn.Embedding, head: nn.Linear) -> None:
        """Arrange the embeddings, where they are in blocks and not those of the head."""
        if isinstance(layer, QuantizedEmbedding):
            tied = getattr(head, "matrix", None) is layer.matrix
            self._products["embedding"] = (
                self.head if tied and self._bits is None else self._grouped([layer.groups()])
            )

    def _find_embedding(self, network: Llama) -> None:
        """Set where the embeddings are, and their kind: they may be the network's own."""
        layer, self._embedding = network.model.embed_tokens, None
        if isinstance(layer, QuantizedEmbedding):
            where = ctypes.addressof(self._products["embedding"]), PACKED
        elif not self.grouped and layer.weight is network.lm_head.weight:  # tied
            where = ctypes.addressof(self.head), PACKED
        else:
            self._embedding = held = layer.weight.detach().contiguous()
            where = held.data_ptr(), KINDS[held.dtype]
        self.embedding, self.embedding_kind = where

    def _load_norm(self, name: str, norm: Norm) -> None:
        if name not in self._norms:
            self._norms[name] = self._zeros(norm.weight.shape, torch.float32)
        self._norms[name].copy_(norm.weight.detach())

    # Products ---------------------------------------------------------------------------------

    def _load_product(self, name: str, layers: Sequence[nn.Linear], paired: bool) -> None:
        """Arrange the weights of layers that share their inputs; 0 pads inputs and outputs."""
        if layers[0].bias is not None:
            self._load_bias(name, [layer.bias for layer in layers], paired)
        if self.grouped:
            parts = [self._groups(layer) for layer in layers]
            if name in self._products:
                self._pack_groups(self._products[name], parts, paired)
            else:
                self._products[name] = self._grouped(parts, self._bias(name), paired=paired)
            return
        shapes = [layer.weight for layer in layers]
        if name not in self._products:
            self._products[name] = self._floats(name, shapes, paired)
        for layer, place in zip(layers, _places(shapes, paired), strict=True):
            self._pack_floats(self._products[name], place, layer)

    def _floats(self, name: str, shapes: Sequence[Tensor], paired: bool) -> ProductC:
        """Return a product of floats, whose weights are still 0."""
        inputs = padded(shapes[0].size(1), DEPTH if self.tiles else LANES)
        blocks = _blocks(shapes, paired)
        return ProductC(
            weight=self._zeros((blocks, inputs, LANES), self.dtype).data_ptr(),
            bias=self._bias(name),
            inputs=inputs,
            blocks=blocks,
            kind=TILED if self.tiles else KINDS[self.dtype],
        )

    def _pack_floats(self, product: ProductC, place: _Place, layer: nn.Linear) -> None:
        """Arrange a layer's weights; an adapter's update is added on the way."""
        matrix = MatrixC(kind=KINDS[self.dtype])
        if self._can_add(layer):
            weight, update = layer.weight.detach(), layer.update(self._room(layer.weight.numel()))
            matrix.update, matrix.factor = update.data_ptr(), layer.scale
        else:
            weight = effective_weight(layer).detach().to(self.dtype)
        weight = weight.contiguous()  # kept alive by its name: the kernel has only an address
        matrix.numbers = weight.data_ptr()
        self._pack(product, place, matrix)

    def _grouped(
        self, parts: Sequence[Groups], bias: int | None = None, *, paired: bool = False
    ) -> ProductC:
        """Arrange parts in groups; those of another format become a product of their own."""
        first, more = list(parts), list[Groups]()
        whole = all(part.shape[0] % LANES == 0 for part in parts)
        if whole and not paired:
            first = [part for part in takewhile(partial(_same_format, parts[0]), parts)]
            more = list(parts[len(first) :])
        product = self._in_groups(in_common(first), bias, paired)
        if more:
            after = bias and bias + product.own * LANES * torch.float32.itemsize
            self._following.append(following := self._grouped(more, after))
            product.next = ctypes.addressof(following)
            product.blocks += following.blocks
        return product

    def _in_groups(self, parts: Sequence[Groups], bias: int | None, paired: bool) -> ProductC:
        """Arrange parts of one format."""
        one, inputs, blocks = parts[0], parts[0].shape[1], _blocks(parts, paired)
        per_block = inputs // one.group, LANES
        product = ProductC(
            weight=self._zeros((blocks, inputs * one.bits // 8, LANES), torch.uint8).data_ptr(),
            scale=self._zeros((blocks, *per_block), torch.float16).data_ptr(),
            bias=bias,
            inputs=inputs,
            blocks=blocks,
            kind=GROUPED[one.bits, one.group],
            offset=one.offset,
            own=blocks,
        )
        if one.minimum is not None:
            product.minimum = self._zeros((blocks, *per_block), torch.float16).data_ptr()
        self._pack_groups(product, parts, paired)
        return product

    def _pack_groups(self, product: ProductC, parts: Sequence[Groups], paired: bool) -> None:
        for part, place in zip(parts, _places(parts, paired), strict=True):
            numbers, scale = part.numbers.contiguous(), part.scale.contiguous()
            matrix = MatrixC(numbers=numbers.data_ptr(), scale=scale.data_ptr())
            if part.minimum is not None:
                minimum = part.minimum.contiguous()
                matrix.minimum = minimum.data_ptr()
            self._pack(product, place, matrix)

    def _groups(self, part: nn.Linear) -> Groups:
        """Return the weights of a part in groups: as they are, else rounded to 8 bits or fewer."""
        if isinstance(part, QuantizedLinear) and self._bits is None:
            return part.groups()
        more = padded(part.in_features, DEPTH) - part.in_features
        return quantized_in_groups(
            nn.functional.pad(effective_weight(part).detach(), (0, more)), self._bits or 8
        )

    def _can_add(self, layer: nn.Linear) -> TypeGuard[LoraLinear]:
        """Return whether the kernel adds the layer's update, rounding it as merging does."""
        if not isinstance(layer, LoraLinear) or self.dtype not in (torch.float32, torch.bfloat16):
            return False
        thin = layer.lora_A.weight.dtype, layer.lora_B.weight.dtype
        return (layer.weight.dtype, *thin) == (self.dtype, torch.float32, torch.float32)

    def _room(self, floats: int) -> Tensor:
        """Return memory for an update, the same one for all while they are loaded."""
        if len(self._scratch) < floats:
            self._scratch = torch.empty(floats)
        return self._scratch

    def _pack(self, product: ProductC, place: _Place, matrix: MatrixC) -> None:
        matrix.outputs, matrix.inputs, matrix.first, matrix.step = place
        threads = ctypes.c_int64(torch.get_num_threads())
        self._kernel.pack(ctypes.byref(product), ctypes.byref(matrix), threads)

    def _load_bias(self, name: str, biases: Sequence[Tensor], paired: bool) -> None:
        if name not in self._biases:
            self._biases[name] = self._zeros((_blocks(biases, paired), LANES), torch.float32)
        kept = self._biases[name].view(-1)
        for bias, place in zip(biases, _places(biases, paired), strict=True):
            outputs = torch.arange(len(bias))
            at = place.first + outputs // LANES * LANES * place.step + outputs % LANES
            kept[at] = bias.detach().float()

    def _bias(self, name: str) -> int | None:
        kept = self._biases.get(name)
        return None if kept is None else kept.data_ptr()

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self._kept.append(kept := self._memory.zeros(shape, dtype))
        return kept


class _Place(NamedTuple):
    """A part's outputs and inputs, where its first output is, and its blocks' distance."""

    outputs: int
    inputs: int
    first: int
    step: int


class _Shaped(Protocol):
    """Weights (O, I), in floats or in groups, or a bias (O,)."""

    @property
    def shape(self) -> torch.Size: ...


def _places(parts: Sequence[_Shaped], paired: bool) -> list[_Place]:
    places, first = [], 0
    for index, part in enumerate(parts):
        outputs, inputs = part.shape[0], part.shape[-1]
        if paired:
            places.append(_Place(outputs, inputs, index * LANES, len(parts)))
        else:
            places.append(_Place(outputs, inputs, first, 1))
        first += outputs
    return places


def _blocks(parts: Sequence[_Shaped], paired: bool) -> int:
    if paired:
        return sum(padded(part.shape[0]) for part in parts) // LANES
    return padded(sum(part.shape[0] for part in parts)) // LANES


def _same_format(one: Groups, other: Groups) -> bool:
    def form(groups: Groups) -> tuple[object, ...]:
        return groups.bits, groups.group, groups.offset, groups.minimum is None

    return form(one) == form(other)


def padded(size: int, block: int = LANES) -> int:
    """Return the size rounded up to a multiple of `block`."""
    return -(-size // block) * block
