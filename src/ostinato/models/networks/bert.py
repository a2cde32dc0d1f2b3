"""BERT networks: every token sees all others (Devlin et al. 2019), in the Hugging Face layout.

`Bert` gives hidden states, `MaskedBert` the logits of what stands at each place. Modules have the
layout's names, so that checkpoints load as they are. Knows no loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.errors import ModelError
from ostinato.models.files.checkpoint_io import read_weights, write_config, write_weights
from ostinato.models.files.json_values import Values, read_json

_UNUSED = ("pooler.", "cls.seq_relationship.", "embeddings.position_ids")
_HEAD = "cls.predictions."

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The shape of a BERT network, under the names of the Hugging Face layout."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), got {self.hidden_size}. Mend config.json."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> BertConfig:
        """Read the contents of a `config.json`. Raises `ModelError` for another kind of network."""
        wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for name, value in wanted.items():
            if values.get(name, value) != value:
                raise ModelError(
                    f"{name} must be {value!r}, got {values[name]!r}. Take a BERT checkpoint."
                )
        silent = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        given = Values({**silent, **values}, file)
        numbers = ("layer_norm_eps", "initializer_range")
        sizes = [f.name for f in fields(cls) if f.name not in (*numbers, "pad_token_id")]
        return cls(
            **{name: given.size(name) for name in sizes},
            layer_norm_eps=given.number("layer_norm_eps"),
            initializer_range=given.number("initializer_range"),
            pad_token_id=given.size("pad_token_id", least=0),
        )

    def to_dict(self, architecture: str) -> dict[str, Any]:
        """Return the contents of a `config.json`."""
        kind = {"architectures": [architecture], "model_type": "bert", "hidden_act": "gelu"}
        return {**kind, **asdict(self)}


class _SelfAttention(nn.Module):
    """Attention of every place to all, in heads."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor, bound: Tensor | None) -> Tensor:
        """Return (B, T, C) for (B, T, C); `bound` (B, 1, 1, T) is added to the scores."""
        B, T, C = x.size()
        split = (B, T, self.heads, C // self.heads)
        q, k, v = (f(x).view(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5  # (B, H, T, T)
        if bound is not None:
            scores = scores + bound
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(B, T, C)


class _Added(nn.Module):
    """A projection added to what was there, then normalized."""

    def __init__(self, inner: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Return (B, T, C) for `x` (B, T, inner) and `before` (B, T, C)."""
        y: Tensor = self.LayerNorm(self.dense(x) + before)
        return y


class _Dense(nn.Module):
    """A projection and GELU."""

    def __init__(self, config: BertConfig, outer: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, outer) for (B, T, C)."""
        return F.gelu(self.dense(x))


class _Attention(nn.Module):
    """Attention and its projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Added(config.hidden_size, config)

    def forward(self, x: Tensor, bound: Tensor | None) -> Tensor:
        """Return (B, T, C) for (B, T, C)."""
        y: Tensor = self.output(self.self(x, bound), x)
        return y


class _Layer(nn.Module):
    """Attention, then a feed-forward; each normalized after it was added."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Dense(config, config.intermediate_size)
        self.output = _Added(config.intermediate_size, config)

    def forward(self, x: Tensor, bound: Tensor | None) -> Tensor:
        """Return (B, T, C) for (B, T, C)."""
        x = self.attention(x, bound)
        y: Tensor = self.output(self.intermediate(x), x)
        return y


class _Embeddings(nn.Module):
    """Word, position and kind of sentence (always the first), normalized."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, C)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, C)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, C)
        self.LayerNorm = nn.LayerNorm(C, config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, T, C) for (B, T)."""
        at = self.position_embeddings.weight[: tokens.size(1)]
        kind = self.token_type_embeddings.weight[0]
        y: Tensor = self.LayerNorm(self.word_embeddings(tokens) + at + kind)
        return y


class _Layers(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class Bert(nn.Module):
    """The network without a head."""

    def __init__(self, config: BertConfig, *, seed: int | None = None) -> None:
        """Build with weights drawn from `seed`; without one they are left for a load to fill."""
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        if seed is not None:
            draw(self, seed, config.initializer_range)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the hidden states (B, T, C) of `tokens` (B, T); `mask` (B, T) is false where
        there is only padding."""
        x = self.embeddings(tokens)
        bound = None
        if mask is not None:
            bound = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)
            bound = bound[:, None, None]
        for layer in self.encoder.layer:
            x = layer(x, bound)
        hidden: Tensor = x
        return hidden


class _Transform(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class _Predictions(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = _Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class _Head(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = _Predictions(config)


class MaskedBert(nn.Module):
    """BERT with the head of masked language modeling, tied to the word embeddings."""

    def __init__(self, config: BertConfig, *, seed: int | None = None) -> None:
        """Build with weights drawn from `seed`; without one they are left for a load to fill."""
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.cls = _Head(config)
        if seed is not None:
            draw(self, seed, config.initializer_range)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of what stands at each place of `tokens` (B, T)."""
        return self.logits(self.bert(tokens, mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) at `hidden` (..., C)."""
        head = self.cls.predictions
        x = head.transform.LayerNorm(F.gelu(head.transform.dense(hidden)))
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, head.bias)


@torch.no_grad()
def draw(network: nn.Module, seed: int, spread: float) -> None:
    """Draw all matrices from a normal distribution; biases become 0 and norms 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0.0, spread, generator=generator)
        else:
            weight.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)


def load_bert(folder: str | Path) -> Bert:
    """Load the encoder of a folder, with or without heads, in float32."""
    return _filled(Path(folder), Bert(_config(Path(folder))), masked=False)


def load_masked(folder: str | Path) -> MaskedBert:
    """Load a masked language model of a folder, in float32. Raises `ModelError` without a head."""
    return _filled(Path(folder), MaskedBert(_config(Path(folder))), masked=True)


def save_masked(folder: Path, network: MaskedBert) -> None:
    """Write `config.json` and `model.safetensors`, as `BertForMaskedLM` reads them."""
    write_config(folder, network.config.to_dict("BertForMaskedLM"))
    write_weights(folder, network)


def _config(folder: Path) -> BertConfig:
    path = folder / "config.json"
    return BertConfig.from_dict(read_json(path), str(path))


def _filled(folder: Path, network: N, *, masked: bool) -> N:
    read_weights(folder, network, lambda weights: _named(weights, masked))
    return network


def _named(weights: Mapping[str, Tensor], masked: bool) -> dict[str, Tensor]:
    """Return the weights that count; names of older files are brought up to date."""
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias").removeprefix("bert.")
        if name.startswith(_UNUSED) or name.startswith(_HEAD + "decoder."):
            continue  # the decoder is tied: its weight is that of the words, its bias the head's
        if name.startswith(_HEAD):
            named |= {name: value} if masked else {}
        else:
            named[f"bert.{name}" if masked else name] = value
    return named
