"""Sentence vectors: how similar two texts are ("Sentence-BERT", Reimers & Gurevych, 2019).

A vector is the mean of a BERT encoder's hidden states over a text, scaled to length 1: the product
of two vectors is their cosine. Each text is computed alone, in a shape that depends on its length
only, so other texts change no bits of its vector. Knows no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from ostinato.errors import InputError
from ostinato.models.catalog import CATALOG, installed_folder, unknown_model, user_path
from ostinato.models.files.json_values import read_json
from ostinato.models.networks.bert import Bert, load_bert
from ostinato.models.tokenizer import read_tokenizer

PAD = 16  # tokens: a text is padded to a multiple of this, so that few shapes occur
MAX_TOKENS = 256  # of a text, where the folder names no limit: that of all-MiniLM-L6-v2


class Encoder:
    """Turns texts into vectors of `width` numbers. A text is truncated to `longest` tokens."""

    def __init__(self, network: Bert, backend: tokenizers.Tokenizer, longest: int) -> None:
        self._network, self.longest = network, longest
        self.width = network.config.hidden_size
        # A copy: these settings would change the caller's tokenizer.
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(longest)
        self._backend.encode_special_tokens = True  # else a text could spell [SEP] and become it

    @classmethod
    def load(cls, name: str | Path) -> Encoder:
        """Load a known model (`minilm`) or a folder in the layout of BERT.

        Raises `ModelError` where it is missing, damaged or of another layout.
        """
        folder = _find(str(name))
        network = load_bert(folder)
        backend = read_tokenizer(folder / "tokenizer.json")
        settings = folder / "sentence_bert_config.json"
        limit = read_json(settings).get("max_seq_length") if settings.is_file() else None
        positions = network.config.max_position_embeddings
        return cls(
            network, backend, min(limit if isinstance(limit, int) else MAX_TOKENS, positions)
        )

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, [CLS] and [SEP] included."""
        return self._backend.encode(text).ids

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (n, width) of n texts, each of length 1."""
        if not texts:
            return torch.zeros(0, self.width)
        return torch.stack([self._vector(self.tokens(text)) for text in texts])

    def similarity(self, one: str, other: str) -> float:
        """Return the cosine similarity of two texts, in [-1, 1]."""
        a, b = self.vectors([one, other])
        return max(-1.0, min(1.0, float(a @ b)))

    def _vector(self, ids: Sequence[int]) -> Tensor:
        count = len(ids)
        if not count:
            raise InputError("a text must have at least one token, got none. Fix the tokenizer.")
        length = min(-(-count // PAD) * PAD, self._network.config.max_position_embeddings)
        pad = self._network.config.pad_token_id
        tokens = torch.tensor([[*ids, *[pad] * (length - count)]])
        mask = (torch.arange(length) < count)[None]
        hidden = self._network(tokens, mask)[0, :count]  # (T, C), without padding
        return torch.nn.functional.normalize(hidden.mean(0), dim=0)


@lru_cache(maxsize=2)
def load_encoder(name: str) -> Encoder:
    """Return an encoder; the last two loaded are kept in memory."""
    return Encoder.load(name)


def _find(name: str) -> Path:
    if name in CATALOG:
        return installed_folder(name)
    path = user_path(name)
    if not path.is_dir():
        raise unknown_model(name, write=False)
    return path
