"""A recurrent language model (GRU, Cho et al., 2014): its memory is one state, not a cache.

It trains like any other network; `ostinato.inference.gru_backend` generates its tokens. Knows no
loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.models.files.checkpoint_io import read_weights, write_config, write_weights
from ostinato.models.files.json_values import Values

MODEL_TYPE = "ostinato_gru"


@dataclass(frozen=True, kw_only=True)
class GRUConfig:
    """The shape of a recurrent network.

    `max_position_embeddings` only limits the length of a text: there are no positions. The name is
    that of the other configurations.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int = 4096
    eos_token_id: tuple[int, ...] = ()
    model_type: str = MODEL_TYPE

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "config.json") -> GRUConfig:
        """Read the contents of a `config.json`. Raises `ModelError` for another network."""
        typed = Values({"max_position_embeddings": cls.max_position_embeddings, **values}, file)
        return cls(
            vocab_size=typed.size("vocab_size"),
            hidden_size=typed.size("hidden_size"),
            num_hidden_layers=typed.size("num_hidden_layers"),
            max_position_embeddings=typed.size("max_position_embeddings"),
            eos_token_id=typed.tokens("eos_token_id"),
        )


class GRU(nn.Module):
    """The network. `forward` returns hidden states, `logits` the scores of the next token."""

    def __init__(self, config: GRUConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        C = config.hidden_size
        # PyTorch's initialization takes no generator: seed the global one, and restore it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed_tokens = nn.Embedding(config.vocab_size, C)
            self.layers = nn.GRU(C, C, config.num_hidden_layers, batch_first=True)
            nn.init.normal_(self.embed_tokens.weight, std=C**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the hidden states (B, T, C) of `tokens` (B, T)."""
        hidden: Tensor = self.layers(self.embed_tokens(tokens))[0]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) at `hidden` (..., C); the head is tied to the embedding."""
        return nn.functional.linear(hidden, self.embed_tokens.weight)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`; `load` reads them."""
        write_config(folder, {"architectures": ["ostinato.GRU"], **asdict(self.config)})
        write_weights(folder, self)

    @classmethod
    def load(cls, folder: Path, values: Mapping[str, Any], dtype: torch.dtype) -> GRU:
        """Read what `save` wrote; `values` are those of `config.json`. Raises `ModelError`."""
        network = cls(GRUConfig.from_dict(values, str(folder / "config.json")))
        read_weights(folder, network)
        return network.to(dtype)
