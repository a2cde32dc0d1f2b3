"""Sentence vectors: how near two texts are in meaning (Reimers & Gurevych 2019).

A BERT encoder, the mean of its hidden states over a text, of length 1: the product of two vectors
is their cosine. Each text is computed alone, in a shape that depends on its length only, so that
its vector does not depend on what it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from ostinato.errors import InputError, ModelError
from ostinato.models.catalog import CATALOG, installed_folder
from ostinato.models.files.json_values import read_json
from ostinato.models.networks.bert import Bert, load_bert

SHAPE = 16  # tokens: a text is padded to a multiple of this
LONGEST = 256  # tokens, where the folder does not say


class Encoder:
    """Turns texts into vectors of `width` numbers. A text beyond `longest` tokens is cut."""

    def __init__(self, network: Bert, backend: tokenizers.Tokenizer, longest: int) -> None:
        self._network, self.longest = network, longest
        self.width = network.config.hidden_size
        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(longest)
        self._backend.encode_special_tokens = True  # what a text spells is text

    @classmethod
    def load(cls, name: str | Path) -> Encoder:
        """Load a known model (`minilm`) or a folder in the layout of BERT.

        Raises `ModelError` with the mend where it is missing, damaged or of another layout.
        """
        folder = _find(str(name))
        network = load_bert(folder)
        path = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"{path} must be a tokenizer file, got: {error}. Download it anew."
            ) from None
        settings = folder / "sentence_bert_config.json"
        said = read_json(settings).get("max_seq_length") if settings.is_file() else LONGEST
        room = network.config.max_position_embeddings
        return cls(network, backend, min(said if isinstance(said, int) else LONGEST, room))

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that begin and end it."""
        return self._backend.encode(text).ids

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (N, width), each of length 1, of some texts."""
        if not texts:
            return torch.zeros(0, self.width)
        return torch.stack([self._vector(self.tokens(text)) for text in texts])

    def likeness(self, one: str, other: str) -> float:
        """Return the cosine of two texts, in [-1, 1]."""
        a, b = self.vectors([one, other])
        return max(-1.0, min(1.0, float(a @ b)))

    def _vector(self, ids: Sequence[int]) -> Tensor:
        count = len(ids)
        if not count:
            raise InputError("A text must have at least one token, got none. Mend the tokenizer.")
        length = min(-(-count // SHAPE) * SHAPE, self._network.config.max_position_embeddings)
        pad = self._network.config.pad_token_id
        tokens = torch.tensor([[*ids, *[pad] * (length - count)]])
        mask = (torch.arange(length) < count)[None]
        hidden = self._network(tokens, mask)[0, :count]  # (T, C)
        return torch.nn.functional.normalize(hidden.mean(0), dim=0)


@lru_cache(maxsize=2)
def load_encoder(name: str) -> Encoder:
    """Return an encoder, loaded once for the program."""
    return Encoder.load(name)


def _find(name: str) -> Path:
    if name in CATALOG:
        return installed_folder(name)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(
            f"An encoder must be 'minilm' or a folder in the layout of BERT, got {name!r}. "
            "Check the name or the path."
        )
    return path
