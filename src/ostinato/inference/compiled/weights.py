"""A network's weights in the layout of the compiled kernel, and its C structures.

Knows no cache and no rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.inference.compiled.memory import LargePages
from ostinato.models import DecoderLayer, Llama, RMSNorm

LANES = 16  # outputs that the kernel computes side by side, one in each lane of a vector
DEPTH = 32  # inputs of a matrix tile
# `weight_kind` and `cache_kind` of kernel.cpp, by dtype; TILED for weights in matrix tiles.
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
TILED = {torch.bfloat16: 3, torch.int8: 4}
# pool.h counts a pass's phases (six a layer) in 12 bits, a phase's units (a head of a row) in 16.
MAX_LAYERS = 680
MAX_HEADS = 1000


class ProductC(ctypes.Structure):
    """`struct Product` of kernel.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
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
_MORE = ("inner", "length", "weight_kind", "cache_kind")


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
    """The weights of a network in the kernel's layout; int8 weights have a scale per output.

    `tiles` arranges bfloat16 and int8 weights for the processor's matrix tiles.
    """

    def __init__(self, network: Llama, *, int8: bool, tiles: bool = False) -> None:
        check_network(network)
        self.dtype = network.model.embed_tokens.weight.dtype
        self._type = torch.int8 if int8 else self.dtype
        self.tiles = tiles and self._type in TILED
        if self._type == torch.float32 and fits_bfloat16(network):
            self._type = torch.bfloat16  # the same bits from half the memory
        self.kind = (TILED if self.tiles else KINDS)[self._type]
        self._kept: list[Tensor] = []  # kept alive: the structures hold only addresses
        self._memory = LargePages()
        self.norm = self._floats(network.model.norm.weight)
        self.head = self._product([network.lm_head])
        self.layers = (LayerC * network.config.num_hidden_layers)(
            *map(self._layer, network.blocks())
        )

    @property
    def bytes(self) -> int:
        """The size of the weights in memory, in bytes."""
        return sum(kept.numel() * kept.element_size() for kept in self._kept)

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
            up=self._pairs(mlp.gate_proj, mlp.up_proj),
            down=self._product([mlp.down_proj]),
            window=attention.window or 0,
        )

    def _product(self, parts: Sequence[nn.Linear]) -> ProductC:
        weight = torch.cat([part.weight.detach() for part in parts])
        bias = None
        if parts[0].bias is not None:
            bias = torch.cat([part.bias.detach() for part in parts])
        return self._packed(_padded_rows(weight), None if bias is None else _padded_rows(bias))

    def _pairs(self, gate: nn.Linear, up: nn.Linear) -> ProductC:
        """Join both: a block of the gate's outputs, then the same block of `up`'s, and so on.

        A thread then computes SwiGLU of a block as soon as it has the pair.
        """

        def joined(first: Tensor, second: Tensor) -> Tensor:
            blocks = [
                _padded_rows(part.detach()).view(-1, LANES, *part.shape[1:])
                for part in (first, second)
            ]
            return torch.stack(blocks, 1).flatten(0, 2)

        bias = None if gate.bias is None else joined(gate.bias, up.bias)
        return self._packed(joined(gate.weight, up.weight), bias)

    def _packed(self, weight: Tensor, bias: Tensor | None) -> ProductC:
        """Arrange weights (O, I) in blocks of outputs; 0 pads the inputs to a whole block."""
        scale = None
        if self._type == torch.int8:
            weight, scale = quantized(weight)
        weight = weight.to(self._type)
        inputs = padded(weight.size(1), DEPTH if self.tiles else LANES)
        weight = nn.functional.pad(weight, (0, inputs - weight.size(1)))
        outputs, together = len(weight), 2 if self.tiles else 1
        blocks = weight.view(outputs // LANES, LANES, inputs // together, together)
        blocks = self._memory.copy(blocks.transpose(1, 2))  # (O/16, I/together, 16, together)
        self._kept.append(blocks)
        return ProductC(
            weight=blocks.data_ptr(),
            scale=None if scale is None else self._floats(scale),
            bias=None if bias is None else self._floats(bias),
            inputs=inputs,
            blocks=outputs // LANES,
        )

    def _floats(self, values: Tensor) -> int:
        self._kept.append(kept := self._memory.copy(values.detach().float()))
        return kept.data_ptr()


def fits_bfloat16(network: Llama) -> bool:
    """Return whether every matrix of a network in float32 came from bfloat16."""
    matrices = (p.detach() for p in network.parameters() if p.dim() > 1)
    return all(torch.equal(matrix, matrix.bfloat16().float()) for matrix in matrices)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 weights (O, I) and the scale (O,) of each output, whose largest is 127."""
    values = weight.float()
    scale = values.abs().amax(1).clamp(min=1e-30) / 127
    return (values / scale[:, None]).round().to(torch.int8), scale


def padded(size: int, block: int = LANES) -> int:
    """Return the size rounded up to a multiple of `block`."""
    return -(-size // block) * block


def _padded_rows(values: Tensor) -> Tensor:
    """Return values (O, ...) padded with zeros to whole blocks of outputs."""
    return torch.cat(
        (values, values.new_zeros(padded(len(values)) - len(values), *values.shape[1:]))
    )


def check_network(network: Llama) -> None:
    """Refuse a network that the kernel does not support."""
    config = network.config
    dtype = network.model.embed_tokens.weight.dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(
            f"a compiled model must be in float32 or bfloat16, got {dtype}. Load it with dtype."
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
