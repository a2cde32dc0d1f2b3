"""A decoder-only transformer in the Hugging Face Llama layout, written plainly.

Its `state_dict` keys are those of `LlamaForCausalLM`, and of Mistral, Qwen 2 and Qwen 3. The config
selects the norms, positions and feed-forward of GPT-2, whose files
`ostinato.models.files.weight_mapping` renames. Knows no cache, no sampling and no loop: `forward`
is for training and scoring, and `ostinato.inference` generates tokens.

Sources: "Llama 2" (Touvron et al., 2023), section 2.2; RMSNorm (Zhang and Sennrich, 2019);
RoPE (Su et al., 2021), equation 34, with the halves of a head as pairs; SwiGLU (Shazeer, 2020);
grouped queries (Ainslie et al., 2023). GPT-2 (Radford et al., 2019), section 2.3; sliding windows:
"Mistral 7B" (Jiang et al., 2023), section 2; norms of queries and keys: "Qwen3" (Yang et al.,
2025), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import counted
from ostinato.errors import InputError
from ostinato.models.networks.branches import Branches
from ostinato.models.networks.config import LlamaConfig
from ostinato.models.networks.rope import rope_type
from ostinato.models.networks.train_kernels import attend, rms_norm, rotate

Activation = Callable[[Tensor], Tensor]
Rotation = tuple[Tensor, Tensor]  # cosines and sines (T, D)

_GELU_TANH = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_fast": _GELU_TANH,
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "relu": F.relu,
    "silu": F.silu,
}


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, then scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (..., C) normalized over its last axis."""
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Subtract the mean, divide by the standard deviation, then scale and shift."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)


Norm = RMSNorm | LayerNorm


def norm(config: LlamaConfig, size: int | None = None) -> Norm:
    """Return a norm of the config's kind, over `size` features (by default, C)."""
    kind = RMSNorm if config.family.norm == "rms" else LayerNorm
    return kind(size or config.hidden_size, config.rms_norm_eps)


class Attention(nn.Module):
    """Causal self-attention with grouped key-value heads, over `window` positions (None: all)."""

    def __init__(self, config: LlamaConfig, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        C, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(C, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(C, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(C, self.kv_heads * self.head_dim, bias=bias)
        after = bias if config.output_bias is None else config.output_bias
        self.o_proj = nn.Linear(self.heads * self.head_dim, C, bias=after)
        self.q_norm = norm(config, self.head_dim) if config.family.qk_norm else None
        self.k_norm = norm(config, self.head_dim) if config.family.qk_norm else None

    def forward(
        self, x: Tensor, rotation: Rotation | None, branches: Branches | None = None
    ) -> Tensor:
        """Attend from every position to itself and earlier ones; `x` (B, T, C) to (B, T, C)."""
        B, T, _ = x.size()
        q = self.q_proj(x).view(B, T, self.heads, self.head_dim).transpose(1, 2)  # (B, H, T, D)
        k = self.k_proj(x).view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        group = self.heads // self.kv_heads
        if group > 1:  # (B, KV, T, D) to (B, H, T, D)
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        # Without a mask, PyTorch takes its faster causal kernel.
        if branches is not None:
            # In float32: on a CPU, the backward pass in bfloat16 takes seven times as long.
            y = branches.attend(q.float(), k.float(), v.float(), self.window).to(x.dtype)
        elif self.window is None or self.window >= T:
            y = attend(q, k, v, None)
        else:
            y = attend(q, k, v, _window_mask(T, self.window, x.device))
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """The feed-forward: gated (SwiGLU with "silu"), or two layers around the activation."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        C, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(C, inner, bias=bias) if config.family.gated else None
        self.up_proj = nn.Linear(C, inner, bias=bias)
        self.down_proj = nn.Linear(inner, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) for `x` (..., C)."""
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))  # type: ignore[no-any-return]
        gated = self.activation(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(gated)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each on the normalized residual stream (pre-norm)."""

    def __init__(self, config: LlamaConfig, window: int | None = None) -> None:
        super().__init__()
        self.self_attn = Attention(config, window)
        self.mlp = MLP(config)
        self.input_layernorm = norm(config)
        self.post_attention_layernorm = norm(config)

    def forward(
        self, x: Tensor, rotation: Rotation | None, branches: Branches | None = None
    ) -> Tensor:
        """Return (B, T, C) for `x` (B, T, C)."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, branches)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers and final norm: `model` in the layout."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = _embedding(config.vocab_size, config.hidden_size)
        learned = config.family.positions == "learned"
        self.embed_positions = (
            _embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        )
        self.layers = nn.ModuleList(DecoderLayer(config, window) for window in config.windows)
        self.norm = norm(config)


class Llama(nn.Module):
    """The network. `forward` returns hidden states, `logits` the scores of the next token."""

    def __init__(self, config: LlamaConfig, *, seed: int | None = None) -> None:
        """Draw the weights from `seed`; without one, they wait to be loaded."""
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if seed is not None:
            self.draw(seed)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in; matrices that stay in blocks have none."""
        return self.model.norm.weight.dtype

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Draw matrices from N(0, initializer_range^2); set biases to 0 and norms to 1."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():  # lists a tied head once
            if weight.dim() > 1:
                weight.normal_(0.0, self.config.initializer_range, generator=generator)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)

    @torch.no_grad()
    def zero_init(self) -> None:
        """Set the output projections of all layers to 0 ("Fixup", Zhang et al., 2019).

        At first, every layer passes its input through unchanged.
        """
        for block in self.blocks():
            for output in (block.self_attn.o_proj, block.mlp.down_proj):
                output.weight.zero_()

    def forward(self, tokens: Tensor, branches: Branches | None = None) -> Tensor:
        """Return the hidden states (B, T, C) after the final norm, for `tokens` (B, T).

        Pad sequences of unequal length on the right: earlier positions do not attend to padding.
        `branches` says where each token stands, if they are several continuations of one prompt.
        """
        length = tokens.size(1) if branches is None else branches.longest
        x = self.model.embed_tokens(tokens)  # (B, T, C)
        rotation = None
        if self.model.embed_positions is None:
            rotation = rope_table(self.config, length, dtype=x.dtype, device=x.device)
            if branches is not None:
                rotation = rotation[0][branches.positions], rotation[1][branches.positions]
        else:
            table = self._positions(length)
            x = x + (table if branches is None else table[branches.positions])
        for block in self.blocks():
            x = block(x, rotation, branches)
        return self.model.norm(x)  # type: ignore[no-any-return]

    def _positions(self, length: int) -> Tensor:
        """Return the learned position embeddings (T, C)."""
        limit = self.config.max_position_embeddings
        if length > limit:
            raise InputError(
                f"a sequence must have at most {counted(limit, 'tokens')} for this model, got "
                f"{length}. "
                "Shorten it."
            )
        assert self.model.embed_positions is not None
        return self.model.embed_positions.weight[:length]

    def blocks(self) -> Iterator[DecoderLayer]:
        """Yield the layers, typed, in order."""
        for block in self.model.layers:
            assert isinstance(block, DecoderLayer)
            yield block

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) at `hidden` (..., C)."""
        return self.lm_head(hidden)  # type: ignore[no-any-return]


def _embedding(rows: int, width: int) -> nn.Embedding:
    """Return an embedding of zeros, to be drawn or loaded."""
    # `nn.Embedding(rows, width)` draws: on the meta device that imports torch._dynamo, 1.7 seconds.
    return nn.Embedding(rows, width, _weight=torch.zeros(rows, width))


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Return the mask (T, T): each row sees itself and the `window - 1` positions before it."""
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < window)


def rope_table(
    config: LlamaConfig, length: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (T, D) of positions 0 to `length - 1`; both halves are equal."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, inverse_frequencies(config).to(device)).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def inverse_frequencies(config: LlamaConfig) -> Tensor:
    """Return the angles per position (D/2,) of RoPE, scaled by `rope_scaling`.

    "linear" is position interpolation (Chen et al., 2023). "llama3" divides slow frequencies by the
    factor, keeps fast ones and blends between ("The Llama 3 Herd of Models", 3.4.2).
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    kind = rope_type(scaling)
    if scaling is None or kind == "default":
        return frequencies
    factor = float(scaling["factor"])
    if kind == "linear":
        return frequencies / factor
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / factor)
