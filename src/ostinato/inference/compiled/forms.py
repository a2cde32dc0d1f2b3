"""Which networks the compiled kernel supports, and in what form it takes their weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ostinato.errors import InputError
from ostinato.inference.compiled.structures import KINDS
from ostinato.models import Llama, RMSNorm, has_adapter, is_quantized

# pool.h counts a pass's phases (six a layer) in 12 bits, a phase's units (a head of a row) in 16.
MAX_LAYERS = 680
MAX_HEADS = 65_535 // 96  # for the rows of a pass (MOST of products.h)


class Form(NamedTuple):
    """What decides how much memory a network's weights need, and what it holds."""

    dtype: torch.dtype
    grouped: bool
    tied: bool


def form_of(network: Llama, bits: int | None) -> Form:
    """Return the form of a network whose weights are rounded to `bits`, if given."""
    grouped = bits is not None or is_quantized(network)
    tied = not is_quantized(network) and _is_tied(network)
    return Form(network.dtype if grouped else narrow_dtype(network), grouped, tied)


def _is_tied(network: Llama) -> bool:
    return network.model.embed_tokens.weight is network.lm_head.weight


def narrow_dtype(network: Llama) -> torch.dtype:
    """Return the type that holds every matrix exactly: float32 that came from bfloat16 fits it.

    Beside an adapter it stays: no update fits, once it is not 0.
    """
    dtype = network.dtype
    if dtype != torch.float32 or has_adapter(network):
        return dtype
    layers = (m for m in network.modules() if isinstance(m, nn.Linear | nn.Embedding))
    return torch.bfloat16 if all(_is_narrow(m.weight.detach()) for m in layers) else dtype


def _is_narrow(weight: Tensor) -> bool:
    # The first row before the rest: in a network that was trained, it does not fit.
    parts = (weight[:1], weight[1:])
    return all(not (part.view(torch.int32) & 0xFFFF).any() for part in parts)


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
