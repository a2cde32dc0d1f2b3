"""How a byte-level vocabulary splits text into words before merging, by llama.cpp's names.

GGUF files name this pre-tokenizer. A name that is not here is refused: another one would give other
tokens without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from ostinato.errors import ModelError


class _Words(NamedTuple):
    """A pre-tokenizer: patterns that split one after the other.

    `whole` takes a word of the vocabulary whole, even where no merges lead to it; `begins` starts
    texts with the BOS token where the file does not say; `composed` normalizes to NFC first.
    """

    patterns: tuple[str, ...]
    whole: bool = False
    begins: bool = False
    composed: bool = False


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_CASED = rf"{_BEFORE}[{_UPPER}]*[{_LOWER}]+%s|{_BEFORE}[{_UPPER}]+[{_LOWER}]*%s"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4 = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}{{1,3}}|{_MARKS}|{_BLANKS}"
_QWEN2 = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}|{_MARKS}|{_BLANKS}"
_TEKKEN = rf"{_CASED % ('', '')}|\p{{N}}|{_PATHS}|{_BLANKS}"
_GPT4O = rf"{_CASED % (_ENDINGS + '?', _ENDINGS + '?')}|\p{{N}}{{1,3}}|{_PATHS}|{_BLANKS}"
_QWEN35 = (
    rf"{_ENDINGS}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_DEEPSEEK3 = (
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}"
)
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"

_KNOWN: dict[tuple[str, ...], _Words] = {
    # Files from before pre-tokenizers had names; llama.cpp splits them so, whatever they need.
    ("default",): _Words((_PUNCTUATION, _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "exaone4", "trillion", "mellum"): _Words(
        (_GPT2,)
    ),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"): _Words(
        (r"\p{N}", _GPT2)
    ),
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"): _Words(
        (_GPT4,), whole=True, begins=True
    ),
    ("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"): _Words((_GPT4,)),
    ("qwen2", "deepseek-r1-qwen"): _Words((_QWEN2,), composed=True),
    ("stablelm2", "megrez", "hunyuan", "grok-2"): _Words((_QWEN2,)),
    ("tekken",): _Words((_TEKKEN,), whole=True, begins=True),
    ("qwen35",): _Words((_QWEN35,), composed=True),
    ("deepseek-coder",): _Words(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥\u0800-一가-\ud7ff]+", r"\p{N}")
    ),
    ("deepseek-v3",): _Words((r"\p{N}{1,3}", "[一-龥぀-ヿ]+", _DEEPSEEK3)),
    ("gpt-4o", "llama4"): _Words((_GPT4O,)),
}
_BY_NAME = {name: words for names, words in _KNOWN.items() for name in names}


def known_names() -> list[str]:
    """Return the names of the pre-tokenizers that can be read."""
    return sorted(_BY_NAME)


def begins_texts(name: str) -> bool:
    """Return whether texts start with the BOS token where a file does not say."""
    return name in _BY_NAME and _BY_NAME[name].begins


def takes_whole_words(name: str) -> bool:
    """Return whether a word of the vocabulary is one token, even where no merges lead to it."""
    return name in _BY_NAME and _BY_NAME[name].whole


def split_words(backend: tokenizers.Tokenizer, name: str, file: str) -> None:
    """Set the normalizer and the pre-tokenizer `name`. Raises `ModelError` for an unknown name."""
    words = _BY_NAME.get(name)
    if words is None:
        raise ModelError(
            f"the pre-tokenizer of {file} must be one of {', '.join(known_names())}, got "
            f"{name!r}. Use the model's Hugging Face folder instead."
        )
    if words.composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(list(_steps(words)))


def _steps(words: _Words) -> Iterator[pre_tokenizers.PreTokenizer]:
    for pattern in words.patterns:
        yield pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    yield pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
