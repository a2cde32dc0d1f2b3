"""Build a tokenizer from the metadata of a GGUF file: byte-level BPE, or SentencePiece's BPE.

Knows no files: it gets a function that reads one metadata value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ostinato.errors import ModelError

# Token types of the format (gguf.md of ggml).
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

# Pre-tokenizers (how text is split before merging), by llama.cpp's names. Those in `_WHOLE` take a
# word of the vocabulary whole, even where no merges lead to it.
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_QWEN2 = ("qwen2", "deepseek-r1-qwen")
_TEKKEN = ("tekken",)
_WHOLE = (*_LLAMA3, *_TEKKEN)
_DIGITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
)
_WORDS = {
    **dict.fromkeys(_LLAMA3, _DIGITS % "{1,3}" + _MARKS + _REST),
    **dict.fromkeys(_QWEN2, _DIGITS % "" + _MARKS + _REST),
    **dict.fromkeys(_TEKKEN, _CASED + _REST),
}

Get = Callable[[str], Any]


def build_tokenizer(get: Get, file: str) -> tokenizers.Tokenizer:
    """Return the tokenizer of a file; `get(key)` returns a metadata value or None.

    `file` is its name in messages. Raises `ModelError` for an unsupported kind.
    """
    kind = get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(get, file)
    elif kind == "llama":
        backend = _sentencepiece(get, file)
    else:
        raise ModelError(
            f"the tokenizer of {file} must be of the kind 'gpt2' or 'llama', got {kind!r}. "
            "Use the model's Hugging Face folder instead."
        )
    tokens = _need(get, "tokens", file)
    # Without types, all are ordinary (1).
    kinds = get("tokenizer.ggml.token_type") or [1] * len(tokens)
    backend.add_tokens(
        [
            tokenizers.AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    _add_bos(backend, get, tokens, by_default=kind == "llama")
    return backend


def _byte_level(get: Get, file: str) -> tokenizers.Tokenizer:
    tokens = _need(get, "tokens", file)
    merges = [tuple(merge.split(" ")) for merge in _need(get, "merges", file)]
    kind = get("tokenizer.ggml.pre") or "default"
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, ignore_merges=kind in _WHOLE)
    )
    if kind in _QWEN2:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(kind, file)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pre_tokenizer(kind: str, file: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind in ("gpt-2", "default"):
        return byte_level
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, byte_level])
    if kind in _WORDS:
        words = pre_tokenizers.Split(tokenizers.Regex(_WORDS[kind]), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([words, plain])
    raise ModelError(
        f"the pre-tokenizer of {file} must be one of default, gpt-2, llama-bpe, qwen2, smollm, "
        f"tekken, got {kind!r}. Use the model's Hugging Face folder instead."
    )


def _sentencepiece(get: Get, file: str) -> tokenizers.Tokenizer:
    """Return BPE that merges the pair with the best score (SentencePiece, Kudo & Richardson 2018).

    The file has scores instead of merges: each split of a token into two tokens is a merge, ranked
    by the score of the whole.
    """
    tokens, scores = _need(get, "tokens", file), _need(get, "scores", file)
    vocab = {token: i for i, token in enumerate(tokens)}
    pairs = [
        (-scores[i], i, token[:cut], token[cut:])
        for i, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    merges = [(left, right) for _, _, left, right in sorted(pairs, key=lambda pair: pair[:2])]
    unknown = get("tokenizer.ggml.unknown_token_id")
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=tokens[0 if unknown is None else unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    space = normalizers.Replace(" ", "▁")
    prefixed = get("tokenizer.ggml.add_space_prefix") is not False
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), space]) if prefixed else space
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prefixed else [])
    )
    return backend


def _add_bos(
    backend: tokenizers.Tokenizer, get: Get, tokens: list[str], *, by_default: bool
) -> None:
    """Let plain texts start with the file's BOS token where the file says so."""
    begin = get("tokenizer.ggml.bos_token_id")
    chosen = get("tokenizer.ggml.add_bos_token")
    if begin is not None and (by_default if chosen is None else chosen):
        token = tokens[begin]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{token}:0 $A:0", special_tokens=[(token, begin)]
        )


def _need(get: Get, key: str, file: str) -> Any:
    value = get(f"tokenizer.ggml.{key}")
    if value is None:
        raise ModelError(
            f"{file} must hold 'tokenizer.ggml.{key}', got none. Use a newer GGUF of the model."
        )
    return value
