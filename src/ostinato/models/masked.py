"""A masked language model in BERT's layout, with its tokenizer. Knows no loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ostinato.errors import ModelError
from ostinato.models.catalog import user_path
from ostinato.models.device import find_device
from ostinato.models.networks.bert import BertConfig, MaskedBert, load_masked
from ostinato.models.tokenizer import Tokenizer

MASK = "[MASK]"


@dataclass(frozen=True)
class MaskedModel:
    """A network that predicts masked tokens, and its tokenizer."""

    network: MaskedBert
    tokenizer: Tokenizer
    name: str

    @property
    def config(self) -> BertConfig:
        """The network's shape."""
        return self.network.config

    @cached_property
    def mask_id(self) -> int:
        """The id of the mask token. Raises `ModelError` where there is none."""
        mask_id = self.tokenizer.id_of(MASK)
        if mask_id is None:
            raise ModelError(
                f"the tokenizer of {self.name} must have the token {MASK}, got none. "
                "Use a masked language model (BertForMaskedLM), or train one with --kind masked."
            )
        return mask_id

    @cached_property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before and after a text: BERT's [CLS] and [SEP], or none."""
        return self.tokenizer.frame

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens without control tokens; word pieces are joined."""
        if self.word_pieces:
            return self.tokenizer.backend.decode(list(ids), skip_special_tokens=True)
        return self.tokenizer.decode(ids)

    @cached_property
    def word_pieces(self) -> bool:
        """Whether the tokens are word pieces, which have no spaces."""
        decoder = json.loads(self.tokenizer.backend.to_str()).get("decoder") or {}
        return bool(decoder.get("type") == "WordPiece")


def load_masked_model(folder: str | Path, *, device: str | None = None) -> MaskedModel:
    """Load a masked language model; `device` is as in `load_model`.

    Raises `ModelError` where it is missing or of another kind.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise ModelError(
            f"model must be the folder of a masked language model, got {str(folder)!r}. "
            "Check the path, or train one: ostinato train text --kind masked"
        )
    network = load_masked(folder).to(find_device(device))
    return MaskedModel(network, Tokenizer.from_folder(folder), str(folder))
