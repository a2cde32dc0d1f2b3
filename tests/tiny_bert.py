"""Tiny random networks in BERT's layout for tests: an encoder, and a masked language model."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ostinato.models import BertConfig, MaskedBert, save_masked

WORDS = (
    "the a table room hotel train flight book for two three people at noon please yes no is it in "
    "san jose what phone number thank you weather rain find me i want to would like s ##ing ##s ."
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word_pieces() -> Backend:
    """Return a tokenizer of words and letters, as BERT's."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?,'"
    pieces = [*SPECIALS, *WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    backend.add_special_tokens(list(SPECIALS))
    return backend


def tiny_bert(vocabulary: int, *, width: int = 32, seed: int = 1) -> MaskedBert:
    """Return a network of 2 layers, drawn from a seed."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    network = MaskedBert(config, seed=seed).eval()
    bias = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    network.cls.predictions.bias.data.copy_(bias)
    return network


def save_tiny_bert(folder: Path) -> Path:
    """Write a tiny masked language model, which is an encoder as well."""
    backend = word_pieces()
    save_masked(folder, tiny_bert(backend.get_vocab_size()))
    backend.save(str(folder / "tokenizer.json"))
    return folder
