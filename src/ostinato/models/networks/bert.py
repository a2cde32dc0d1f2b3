"""BERT networks (Devlin et al., 2019), in which every token attends to all others.

`Bert` returns hidden states, `MaskedBert` the logits of the token at each position. Modules have
the names of the Hugging Face layout, so checkpoints load as they are. Knows no loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.arguments import require_types
from ostinato.errors import ModelError
from ostinato.models.files.checkpoint_io import read_weights, write_config, write_weights
from ostinato.models.files.json_values import Values, read_json

# Of other heads, and a buffer that older versions of transformers saved.
_UNUSED = ("pooler.", "cls.seq_relationship.", "embeddings.position_ids")
_HEAD = "cls.predictions."
REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}

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
        require_types(self)
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), got {self.hidden_size}. Fix config.json."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> BertConfig:
        """Read the contents of a `config.json`. Raises `ModelError` for another kind of network."""
        for name, value in REQUIRED.items():
            if values.get(name, value) != value:
                raise ModelError(
                    f"{name} must be {value!r}, got {values[name]!r}. Use a BERT checkpoint."
                )
        defaults = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        typed = Values({**defaults, **values}, file)
        numbers = ("layer_norm_eps", "initializer_range")
        sizes = [f.name for f in fields(cls) if f.name not in (*numbers, "pad_token_id")]
        return cls(
            **{name: typed.size(name) for name in sizes},
            layer_norm_eps=typed.number("layer_norm_eps"),
            initializer_range=typed.number("initializer_range"),
            pad_token_id=typed.size("pad_token_id", least=0),
        )

    def to_dict(self, architecture: str) -> dict[str, Any]:
        """Return the contents of a `config.json` for a class of `transformers`."""
        kind = {"architectures": [architecture], "model_type": "bert", "hidden_act": "gelu"}
        return {**kind, **asdict(self)}


class _SelfAttention(nn.Module):
    """Multi-head attention of every position to all."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return (B, T, C) for `x` (B, T, C); `bias` (B, 1, 1, T) is added to the scores."""
        B, T, C = x.size()
        split = (B, T, self.heads, C // self.heads)
        # Three times (B, H, T, D)
        q, k, v = (f(x).view(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5  # (B, H, T, T)
        if bias is not None:
            scores = scores + bias
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(B, T, C)


class _Added(nn.Module):
    """A projection added to the residual, then normalized (post-norm)."""

    def __init__(self, inner: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return (B, T, C) for `x` (B, T, inner) and `residual` (B, T, C)."""
        y: Tensor = self.LayerNorm(self.dense(x) + residual)
        return y


class _Dense(nn.Module):
    """A projection, then GELU."""

    def __init__(self, config: BertConfig, outer: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, outer) for (B, T, C)."""
        return F.gelu(self.dense(x))


class _Attention(nn.Module):
    """Attention and its output projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Added(config.hidden_size, config)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return (B, T, C) for (B, T, C)."""
        y: Tensor = self.output(self.self(x, bias), x)
        return y


class _Layer(nn.Module):
    """Attention, then a feed-forward; each is normalized after the residual is added."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Dense(config, config.intermediate_size)
        self.output = _Added(config.intermediate_size, config)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return (B, T, C) for (B, T, C)."""
        x = self.attention(x, bias)
        y: Tensor = self.output(self.intermediate(x), x)
        return y


class _Embeddings(nn.Module):
    """Embeddings of word, position and sentence type (always the first), normalized."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, C)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, C)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, C)
        self.LayerNorm = nn.LayerNorm(C, config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, T, C) for `tokens` (B, T)."""
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
        """Draw the weights from `seed`; without one, they wait to be loaded."""
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        if seed is not None:
            draw(self, seed, config.initializer_range)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the hidden states (B, T, C) of `tokens` (B, T).

        `mask` (B, T) is false at padding.
        """
        x = self.embeddings(tokens)  # (B, T, C)
        bias = None
        if mask is not None:
            bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)
            bias = bias[:, None, None]  # (B, 1, 1, T)
        for layer in self.encoder.layer:
            x = layer(x, bias)
        hidden: Tensor = x
        return hidden


# The next three classes exist for their names in checkpoints: `cls.predictions.transform`.
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
    """BERT with the masked-language-modeling head, tied to the word embeddings."""

    def __init__(self, config: BertConfig, *, seed: int | None = None) -> None:
        """Draw the weights from `seed`; without one, they wait to be loaded."""
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.cls = _Head(config)
        if seed is not None:
            draw(self, seed, config.initializer_range)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, T, V) of the token at each position of `tokens` (B, T)."""
        return self.logits(self.bert(tokens, mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) at `hidden` (..., C)."""
        head = self.cls.predictions
        x = head.transform.LayerNorm(F.gelu(head.transform.dense(hidden)))
        return F.linear(x, self.bert.embeddings.word_embeddings.weight, head.bias)


@torch.no_grad()
def draw(network: nn.Module, seed: int, spread: float) -> None:
    """Draw matrices from N(0, spread^2); set biases to 0 and norms to 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0.0, spread, generator=generator)
        else:
            weight.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)


def load_bert(folder: str | Path) -> Bert:
    """Load the encoder of a folder in float32; heads are ignored. Raises `ModelError`."""
    return _load(Path(folder), Bert(_config(Path(folder))), masked=False)


def load_masked(folder: str | Path) -> MaskedBert:
    """Load a masked language model in float32. Raises `ModelError` where it has no head."""
    return _load(Path(folder), MaskedBert(_config(Path(folder))), masked=True)


def save_masked(folder: Path, network: MaskedBert) -> None:
    """Write `config.json` and `model.safetensors`, as `BertForMaskedLM` reads them."""
    write_config(folder, network.config.to_dict("BertForMaskedLM"))
    write_weights(folder, network)


def _config(folder: Path) -> BertConfig:
    path = folder / "config.json"
    return BertConfig.from_dict(read_json(path), str(path))


def _load(folder: Path, network: N, *, masked: bool) -> N:
    read_weights(folder, network, lambda weights: _rename(weights, masked))
    return network


def _rename(weights: Mapping[str, Tensor], masked: bool) -> dict[str, Tensor]:
    """Return the weights that are used, with the names of older files brought up to date."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias").removeprefix("bert.")
        if name.startswith(_UNUSED) or name.startswith(_HEAD + "decoder."):
            continue  # the decoder is tied: word embeddings and the head's bias, stored twice
        if name.startswith(_HEAD):
            renamed |= {name: value} if masked else {}
        else:
            renamed[f"bert.{name}" if masked else name] = value
    return renamed
