"""Build a tokenizer from the metadata of a GGUF file: byte-level BPE, or SentencePiece's BPE.

Knows no files: it gets a function that reads one metadata value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from ostinato.errors import ModelError
from ostinato.models.files.gguf_words import begins_texts, split_words, takes_whole_words

# Token types of the format (gguf.md of ggml).
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

# Tokens that end a text or a turn by their spelling: older files name only one of theirs.
_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
)
_HARMONY = ("<|return|>", "<|call|>")
_TURN_ENDS = ("eot", "eom")
_SENTENCEPIECE = {"unknown": 0, "bos": 1, "eos": 2}  # where a file does not say

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
    strips, ends = _strips_blanks(get), _ends(tokens)
    backend.add_tokens(
        [
            tokenizers.AddedToken(
                token,
                special=kind != _USER_DEFINED or token in ends,
                normalized=False,
                rstrip=strips and token not in ("<unk>", "<s>", "<|endoftext|>"),
            )
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) or token in ends
        ]
    )
    _add_bos(backend, get, tokens, by_default=kind == "llama" or begins_texts(_words(get)))
    return backend


def end_ids(get: Get) -> list[int]:
    """Return every token that ends a text or a turn: by its key, or as known by its spelling."""
    named = [special_id(get, "eos"), *(get(f"tokenizer.ggml.{key}_token_id") for key in _TURN_ENDS)]
    ends = _ends(get("tokenizer.ggml.tokens"))
    return sorted({int(i) for i in named if i is not None} | set(ends.values()))


def special_id(get: Get, name: str) -> int | None:
    """Return the id of a special token by its name in the file (bos, eos, unknown, padding)."""
    found = get(f"tokenizer.ggml.{name}_token_id")
    if found is None and get("tokenizer.ggml.model") == "llama":
        return _SENTENCEPIECE.get(name)
    return None if found is None else int(found)


def _ends(tokens: Sequence[str]) -> dict[str, int]:
    """Return the tokens that are known by their spelling to end a text or a turn."""
    ids = {token: i for i, token in enumerate(tokens) if token in _ENDS or token in _HARMONY}
    if all(token in ids for token in _HARMONY):  # there, this one ends a part of an answer
        ids.pop("<|end|>", None)
    return {token: i for token, i in ids.items() if token in _ENDS}


def _strips_blanks(get: Get) -> bool:
    """Return whether control tokens strip the blanks after them, which no file says."""
    name = str(get("general.name") or "").lower()
    return "phi-3" in name or "phi3" in name


def _words(get: Get) -> str:
    """Return the name of the pre-tokenizer; files from before there were names lack it."""
    unnamed = "gpt-2" if get("general.architecture") == "gpt2" else "default"
    return str(get("tokenizer.ggml.pre") or unnamed)


def _byte_level(get: Get, file: str) -> tokenizers.Tokenizer:
    tokens = _need(get, "tokens", file)
    merges = [tuple(merge.split(" ")) for merge in _need(get, "merges", file)]
    name = _words(get)
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, ignore_merges=takes_whole_words(name))
    )
    split_words(backend, name, file)
    backend.decoder = decoders.ByteLevel()
    return backend


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
    unknown = special_id(get, "unknown")
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=tokens[unknown or 0],
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
    begin = special_id(get, "bos")
    chosen = get("tokenizer.ggml.add_bos_token")
    if begin is not None and (by_default if chosen is None else chosen):
        token = tokens[begin]
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{token}:0", "$A:0"], special_tokens=[(token, begin)]
        )


def _need(get: Get, key: str, file: str) -> Any:
    value = get(f"tokenizer.ggml.{key}")
    if value is None:
        raise ModelError(
            f"{file} must hold 'tokenizer.ggml.{key}', got none. Use a newer GGUF of the model."
        )
    return value
