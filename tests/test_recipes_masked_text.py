"""The masked-text recipe: where gaps lie, and how accuracy is counted."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_bert import tiny_bert
from tokenizers import Tokenizer as Backend

from ostinato.models import MaskedModel, Tokenizer
from ostinato.text.training import make_tokenizer
from recipes.masked_text import CONTEXT, accuracy, fill, gap_examples, split

TEXT = "To be, or not to be, that is the question. " * 30


def test_gaps_lie_within_their_pieces_and_are_the_same_again() -> None:
    pieces = gap_examples(TEXT, 20, 6)
    assert pieces == gap_examples(TEXT, 20, 6) != gap_examples(TEXT, 20, 6, seed=1)
    for piece in pieces:
        before, behind = piece.gaps.parts
        assert len(piece.text) == CONTEXT and piece.gaps.tokens == (6,)
        assert before + piece.text[piece.start : piece.end] + behind == piece.text


def test_what_is_held_out_is_not_learned_from() -> None:
    learned, held = split(TEXT)
    assert learned + held == TEXT and 0.09 < len(held) / len(TEXT) < 0.11


def test_accuracy_counts_characters() -> None:
    pieces = gap_examples(TEXT, 4, 5)
    truth = [piece.answer for piece in pieces]
    assert accuracy(pieces, truth) == 1
    assert accuracy(pieces, ["\0" * 5, *truth[1:]]) == 0.75


def test_a_network_fills_each_gap_to_its_length() -> None:
    backend: Backend = make_tokenizer([TEXT], "char", 0)
    backend.add_special_tokens(["[MASK]"])
    tokenizer = Tokenizer(backend)
    model = MaskedModel(tiny_bert(tokenizer.vocab_size), tokenizer, "tiny")
    assert [len(text) for text in fill(model, gap_examples(TEXT, 3, 4), 2)] == [4, 4, 4]
