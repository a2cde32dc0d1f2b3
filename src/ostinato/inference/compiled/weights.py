"""A network's weights in the layout of the compiled kernel, and its C structures.

Knows no cache and no rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.inference.compiled.build import open_kernel
from ostinato.inference.compiled.memory import LargePages
from ostinato.models import (
    DecoderLayer,
    Groups,
    Llama,
    QuantizedEmbedding,
    QuantizedLinear,
    RMSNorm,
    in_common,
    is_quantized,
    quantized_in_groups,
    release_pages,
)

LANES = 16  # outputs that the kernel computes side by side, one in each lane of a vector
DEPTH = 32  # inputs of a matrix tile, and of a group
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # `Kind` of products.h
TILED = 3
GROUPED = {(8, 32): 4, (8, 16): 5, (4, 32): 6, (4, 16): 7}  # by bits and inputs of a group
PACKED = 8  # of embeddings: as the product that they point to
FLOAT_INPUTS, TILED_INPUTS, GROUPED_INPUTS = 0, 1, 2  # `input_kind` of attention.h
# pool.h counts a pass's phases (six a layer) in 12 bits, a phase's units (a head of a row) in 16.
MAX_LAYERS = 680
MAX_HEADS = 65_535 // 96  # for the rows of a pass (MOST of products.h)


class ProductC(ctypes.Structure):
    """`struct Product` of kernel.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("minimum", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("own", ctypes.c_int64),
        ("next", ctypes.c_void_p),
    )


class MatrixC(ctypes.Structure):
    """`struct Matrix` of pack.h."""

    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("minimum", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("step", ctypes.c_int64),
    )


class LayerC(ctypes.Structure):
    """`struct Layer` of kernel.cpp."""

    _fields_ = (
        ("norm1", ctypes.c_void_p),
        ("qkv", ProductC),
        ("q_norm", ctypes.c_void_p),
        ("k_norm", ctypes.c_void_p),
        ("out", ProductC),
        ("norm2", ctypes.c_void_p),
        ("up", ProductC),
        ("down", ProductC),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("window", ctypes.c_int64),
    )


_SIZES = ("layers", "width", "padded_width", "heads", "kv_heads", "head_dim", "padded_head")
_MORE = ("inner", "length", "input_kind", "cache_kind", "embedding_kind")


class NetworkC(ctypes.Structure):
    """`struct Network` of kernel.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*_SIZES, *_MORE)),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("layer", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
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
        self.grouped = bits is not None or is_quantized(network)
        self.dtype = network.dtype if self.grouped else narrow_dtype(network)
        self.tiles = tiles and not self.grouped and self.dtype == torch.bfloat16
        # Kept alive: the structures hold only addresses.
        self._kept: list[Tensor] = []
        self._products: list[ProductC] = []
        self._memory = LargePages()
        self.norm = self._floats(network.model.norm.weight)
        self.head = self._product([network.lm_head])
        self.layers = (LayerC * network.config.num_hidden_layers)(
            *map(self._layer, network.blocks())
        )
        release_pages(network)  # the kernel has its own copy of all but some embeddings
        self.embedding, self.embedding_kind = self._embedding(network)

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
        return sum(kept.numel() * kept.element_size() for kept in self._kept)

    def _embedding(self, network: Llama) -> tuple[int, int]:
        """Return where the embeddings are, and their kind."""
        layer = network.model.embed_tokens
        if isinstance(layer, QuantizedEmbedding):
            tied = getattr(network.lm_head, "matrix", None) is layer.matrix
            product = self.head if tied and self._bits is None else self._grouped([layer.groups()])
            self._products.append(product)
            return ctypes.addressof(product), PACKED
        if not self.grouped and layer.weight is network.lm_head.weight:  # tied
            return ctypes.addressof(self.head), PACKED
        embedding = layer.weight.detach().contiguous()
        self._kept.append(embedding)
        return embedding.data_ptr(), KINDS[embedding.dtype]

    def _layer(self, block: DecoderLayer) -> LayerC:
        attention, mlp = block.self_attn, block.mlp
        assert mlp.gate_proj is not None
        q_norm, k_norm = attention.q_norm, attention.k_norm
        return LayerC(
            norm1=self._floats(block.input_layernorm.weight),
            qkv=self._product([attention.q_proj, attention.k_proj, attention.v_proj]),
            q_norm=None if q_norm is None else self._floats(q_norm.weight),
            k_norm=None if k_norm is None else self._floats(k_norm.weight),
            out=self._product([attention.o_proj]),
            norm2=self._floats(block.post_attention_layernorm.weight),
            # A thread computes SwiGLU of a block as soon as it has the pair.
            up=self._product([mlp.gate_proj, mlp.up_proj], paired=True),
            down=self._product([mlp.down_proj]),
            window=attention.window or 0,
        )

    def _product(self, parts: Sequence[nn.Linear], *, paired: bool = False) -> ProductC:
        """Arrange the weights of parts that share their inputs; 0 pads inputs and outputs.

        The outputs of the parts follow each other or, `paired`, a block of the first is followed by
        one of the second.
        """
        if self.grouped:
            groups = [self._groups(part) for part in parts]
            return self._grouped(groups, self._bias(parts, paired), paired=paired)
        shapes = [part.weight for part in parts]
        inputs = padded(parts[0].in_features, DEPTH if self.tiles else LANES)
        blocks = _blocks(shapes, paired)
        memory = self._zeros((blocks, inputs, LANES), self.dtype)
        product = ProductC(
            weight=memory.data_ptr(),
            bias=self._bias(parts, paired),
            inputs=inputs,
            blocks=blocks,
            kind=TILED if self.tiles else KINDS[self.dtype],
        )
        for part, place in zip(parts, _places(shapes, paired), strict=True):
            weight = part.weight.detach().to(self.dtype).contiguous()
            self._pack(product, place, MatrixC(numbers=weight.data_ptr(), kind=KINDS[self.dtype]))
        return product

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
            self._products.append(following := self._grouped(more, after))
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
        for part, place in zip(parts, _places(parts, paired), strict=True):
            numbers, scale = part.numbers.contiguous(), part.scale.contiguous()
            matrix = MatrixC(numbers=numbers.data_ptr(), scale=scale.data_ptr())
            if part.minimum is not None:
                minimum = part.minimum.contiguous()
                matrix.minimum = minimum.data_ptr()
            self._pack(product, place, matrix)
        return product

    def _groups(self, part: nn.Linear) -> Groups:
        """Return the weights of a part in groups: as they are, else rounded to 8 bits or fewer."""
        if isinstance(part, QuantizedLinear) and self._bits is None:
            return part.groups()
        more = padded(part.in_features, DEPTH) - part.in_features
        return quantized_in_groups(
            nn.functional.pad(part.weight.detach(), (0, more)), self._bits or 8
        )

    def _pack(self, product: ProductC, place: _Place, matrix: MatrixC) -> None:
        matrix.outputs, matrix.inputs, matrix.first, matrix.step = place
        threads = ctypes.c_int64(torch.get_num_threads())
        self._kernel.pack(ctypes.byref(product), ctypes.byref(matrix), threads)

    def _bias(self, parts: Sequence[nn.Linear], paired: bool) -> int | None:
        biases = [part.bias for part in parts]
        if biases[0] is None:
            return None
        kept = self._zeros((_blocks(biases, paired), LANES), torch.float32).view(-1)
        for bias, place in zip(biases, _places(biases, paired), strict=True):
            outputs = torch.arange(len(bias))
            at = place.first + outputs // LANES * LANES * place.step + outputs % LANES
            kept[at] = bias.detach().float()
        return kept.data_ptr()

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        self._kept.append(kept := self._memory.zeros(shape, dtype))
        return kept

    def _floats(self, values: Tensor) -> int:
        self._kept.append(kept := self._memory.copy(values.detach().float()))
        return kept.data_ptr()


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


def narrow_dtype(network: Llama) -> torch.dtype:
    """Return the type that holds every matrix exactly: float32 that came from bfloat16 fits it."""
    dtype = network.dtype
    if dtype != torch.float32:
        return dtype
    layers = (m for m in network.modules() if isinstance(m, nn.Linear | nn.Embedding))
    fits = all(not (m.weight.detach().view(torch.int32) & 0xFFFF).any() for m in layers)
    return torch.bfloat16 if fits else dtype


def padded(size: int, block: int = LANES) -> int:
    """Return the size rounded up to a multiple of `block`."""
    return -(-size // block) * block


def check_network(network: Llama) -> None:
    """Refuse a network that the kernel does not support."""
    config = network.config
    dtype = network.dtype
    if dtype not in KINDS:
        raise InputError(
            f"a compiled model must be in float32, bfloat16 or float16, got {dtype}. Load it with "
            "dtype."
        )
    if not isinstance(network.model.norm, RMSNorm) or config.hidden_act != "silu":
        raise InputError(
            "a compiled model must have RMS norms, rotary positions and a SiLU gate, got "
            f"{config.model_type!r}. Leave out compile."
        )
    if config.num_hidden_layers > MAX_LAYERS or config.num_key_value_heads > MAX_HEADS:
        got = f"{config.num_hidden_layers} and {config.num_key_value_heads}"
        raise InputError(
            f"a compiled model must have at most {MAX_LAYERS} layers and {MAX_HEADS} key heads, "
            f"got {got}. Leave out compile."
        )
