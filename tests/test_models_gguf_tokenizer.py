"""Tokenizers built from GGUF metadata cut text as their own algorithms do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.errors import ModelError
from ostinato.models import Tokenizer
from ostinato.models.files.gguf_tokenizer import build_tokenizer, end_ids
from ostinato.models.tokenizer import byte_alphabet

PIECES = ["▁t", "he", "▁the", "in", "re", "▁there", "er", "▁in", "th", "▁a", "at", "▁at"]
LETTERS = list("▁thernia,")
TOKENS = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *PIECES, *LETTERS]
METADATA = {
    "model": "llama",
    "tokens": TOKENS,
    "scores": [
        *[0.0] * 259,
        *[-float(i) for i in range(len(PIECES))],
        *[-100.0] * len(LETTERS),
    ],
    "token_type": [2, 3, 3, *[6] * 256, *[1] * (len(PIECES) + len(LETTERS))],
    "bos_token_id": 1,
    "unknown_token_id": 0,
}


def built(**changes: Any) -> Tokenizer:
    metadata = {**METADATA, **changes}
    return Tokenizer(
        build_tokenizer(lambda key: metadata.get(key.removeprefix("tokenizer.ggml.")), "a.gguf")
    )


SENTENCEPIECE = built()


def best_first(text: str) -> list[int]:
    """Merge, again and again, the neighbors whose whole scores best, the leftmost first."""
    ids = {token: i for i, token in enumerate(TOKENS)}
    parts = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        wholes = [(a + b, i) for i, (a, b) in enumerate(pairwise(parts))]
        known = [(-METADATA["scores"][ids[w]], i) for w, i in wholes if w in ids]  # type: ignore[index]
        if not known:
            break
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    found: list[int] = []
    for part in parts:
        bytes_of = [ids[f"<0x{byte:02X}>"] for byte in part.encode()]
        found += [ids[part]] if part in ids else bytes_of
    return found


@given(st.text(alphabet="therina, é"))
def test_sentencepiece_merges_best_first_and_falls_back_to_bytes(text: str) -> None:
    ids = SENTENCEPIECE.encode(text)
    assert ids == best_first(text)
    assert SENTENCEPIECE.decode(ids) == (f" {text}" if text else "")  # a word begins with a space


def test_the_begin_token_is_put_where_the_file_says_so() -> None:
    assert SENTENCEPIECE.bos_ids == (1,)
    assert built(add_bos_token=False).bos_ids == ()
    assert SENTENCEPIECE.encode("the")[0] != 1
    assert built(bos_token_id=None).bos_ids == (1,)  # by its place, where the file does not say


@pytest.mark.parametrize(
    ("pre", "begins"),
    [("llama-bpe", True), ("tekken", True), ("falcon3", True), ("qwen2", False), (None, False)],
)
def test_some_pre_tokenizers_begin_texts_where_the_file_does_not_say(
    pre: str | None, begins: bool
) -> None:
    values = {"model": "gpt2", "tokens": ["a", "<s>"], "token_type": [1, 3], "merges": []}
    assert built(pre=pre, **values).bos_ids == ((1,) if begins else ())
    assert built(pre=pre, add_bos_token=not begins, **values).bos_ids == (() if begins else (1,))


def test_ends_are_known_by_their_key_and_by_their_spelling() -> None:
    def ends(*tokens: str, **more: object) -> list[int]:
        values = {"model": "gpt2", "tokens": tokens, **more}
        return end_ids(lambda key: values.get(key.removeprefix("tokenizer.ggml.")))

    assert ends("a", "<|im_end|>", "<|endoftext|>", "b", eos_token_id=3) == [1, 2, 3]
    assert ends("<|end|>", "a", eot_token_id=1) == [0, 1]
    assert ends("<|end|>", "<|return|>", "<|call|>", eos_token_id=1) == [1]
    values = {"model": "gpt2", "tokens": ["a", "<|im_end|>"], "token_type": [1, 1], "merges": []}
    assert built(**values).special_ids == {1}


def test_control_tokens_of_phi3_strip_the_blanks_behind_them() -> None:
    metadata = {**METADATA, "tokens": [*TOKENS, "<|end|>"], "scores": [*METADATA["scores"], 0.0]}  # type: ignore[misc]
    metadata["token_type"] = [*METADATA["token_type"], 3]  # type: ignore[misc]
    names = {"general.name": "Phi-3 mini"}
    backend = build_tokenizer(
        lambda key: names.get(key) or metadata.get(key.removeprefix("tokenizer.ggml.")), "a.gguf"
    )
    end = len(TOKENS)
    spaced = backend.encode("<|end|>\n the", add_special_tokens=False).ids
    assert spaced == [end, *backend.encode("the", add_special_tokens=False).ids]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["abc", " 1234", "!"]),
        ("default", ["abc", " ", "123", "4", "!"]),
        ("gpt-4o", ["abc", " ", "123", "4", "!"]),
        ("smollm", ["abc", " ", "1", "2", "3", "4", "!"]),
        ("llama-bpe", ["abc", " ", "123", "4", "!"]),
        ("qwen2", ["abc", " ", "1", "2", "3", "4", "!"]),
        ("tekken", ["abc", " ", "1", "2", "3", "4", "!"]),
    ],
)
def test_words_are_split_by_the_pre_tokenizer_of_the_file(pre: str, pieces: list[str]) -> None:
    """Every merge is known, so that only the cuts before merging keep tokens apart."""
    letters = [*"abc1234!", "Ġ"]
    merges = [f"{a} {b}" for a, b in ("ab", "12", "34")]
    merges += ["ab c", "12 3", "12 34", "123 4", "Ġ 1234", "Ġ abc", "abc 123"]
    tokens = [*letters, *[merge.replace(" ", "") for merge in merges]]
    tokenizer = built(
        model="gpt2", pre=pre, tokens=tokens, merges=merges, token_type=None, bos_token_id=None
    )
    ids = tokenizer.encode("abc 1234!")
    assert [tokenizer.token_bytes(i).decode() for i in ids] == pieces


SENTENCES = [
    "I'll pay £12,345.60 at 11:30, won't I?\n\n  Yes!  ",
    "Zażółć gęślą jaźń \u2014 caf\u00e9 / cafe\u0301 ... \t tabs\r\nCamelCaseWORDs 北京 2026年",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_words_of_qwen_are_cut_as_transformers_cuts_them(text: str) -> None:
    transformers = pytest.importorskip("transformers")
    letters = {c: i for i, c in enumerate(sorted(byte_alphabet().values()))}
    theirs = transformers.Qwen2Tokenizer(vocab=letters, merges=[])
    metadata = {"model": "gpt2", "pre": "qwen2", "tokens": list(letters), "merges": []}
    ours = build_tokenizer(lambda key: metadata.get(key.removeprefix("tokenizer.ggml.")), "a.gguf")
    their, our = theirs.backend_tokenizer, ours
    words = our.pre_tokenizer.pre_tokenize_str(our.normalizer.normalize_str(text))
    assert words == their.pre_tokenizer.pre_tokenize_str(their.normalizer.normalize_str(text))


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ModelError, match="must be of the kind 'gpt2' or 'llama', got 'bert'"):
        built(model="bert")
    with pytest.raises(ModelError, match=r"smollm, .*, tekken, trillion, got 'bloom'"):
        built(model="gpt2", merges=[], pre="bloom")
    with pytest.raises(ModelError, match=r"must hold 'tokenizer\.ggml\.scores', got none"):
        built(scores=None)
