"""Tokens of text of which only the template's own parts may spell control tokens.

The tokens are those of the tokenizer for the whole text. Where text from outside spells a control
token, it is encoded as the characters that it has. Knows no template.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import tokenizers
from tokenizers import models

from ostinato.errors import ItemError
from ostinato.models.traced_text import TracedText, masked
from ostinato.text_files import half_character

_ALIAS_RANGE = range(0xF0000, 0x10FFFE)  # private use
_ALIASES = re.compile("[\U000f0000-\U0010fffd]")


class Encoded(NamedTuple):
    """Tokens, and for each the first and the last character after it that it covers."""

    ids: list[int]
    places: list[tuple[int, int]]


class _Control(NamedTuple):
    """A control token in a text: its characters without blanks that it strips, and its id."""

    start: int
    end: int
    token: int


class TracedEncoder:
    """Encodes traced text for one tokenizer, whose control tokens are `control`."""

    def __init__(
        self, backend: tokenizers.Tokenizer, control: Mapping[int, tokenizers.AddedToken]
    ) -> None:
        self._backend, self._control = backend, control
        self._added = added_tokens(backend)
        # Without a vocabulary it finds added tokens only, numbered in their order.
        self._locator = tokenizers.Tokenizer(models.BPE())
        if backend.normalizer is not None:
            self._locator.normalizer = backend.normalizer
        self._locator.add_tokens([copy.copy(token) for _, token in self._added])
        self._spellings = "".join(token.content for _, token in self._added)
        self._aliased = _Aliased(backend, control)

    def ids(self, text: TracedText) -> list[int]:
        """Return the tokens of a text."""
        aliased = self._for(text)
        return aliased.ids(str.__str__(text), list(self._controls(text)))

    def encode(self, text: TracedText) -> Encoded:
        """Return the tokens of a text, and their places."""
        aliased = self._for(text)
        return aliased.encode(str.__str__(text), list(self._controls(text)))

    def _for(self, text: TracedText) -> _Aliased:
        """Return a tokenizer whose aliases are not in the text: that must not spell one."""
        used = _ALIASES.findall(text)
        return _Aliased(self._backend, self._control, used) if used else self._aliased

    def _controls(self, text: TracedText) -> Iterator[_Control]:
        """Yield the control tokens that the template wrote."""
        # Masked, no text from outside can spell one, nor take part in one.
        found = self._locator.encode(masked(text, self._spellings), add_special_tokens=False)
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            token, _ = self._added[number]
            if token in self._control:
                yield _stripped(text, start, end, token, self._control[token].content)


def _stripped(text: str, start: int, end: int, token: int, content: str) -> _Control:
    """Return a control token's own characters; its place may include blanks around it."""
    at = text.find(content, start, end)
    if at >= 0:
        return _Control(at, at + len(content), token)
    part = str.__str__(text)[start:end]
    first = start + len(part) - len(part.lstrip())
    return _Control(first, first + len(part.strip()), token)


class _Aliased:
    """A tokenizer that reads one private character as each control token, and no spelling."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        control: Mapping[int, tokenizers.AddedToken],
        used: Collection[str] = (),
    ) -> None:
        """Build it with aliases that are not in `used`."""
        self._tokenizer = plain_tokenizer(backend)
        aliases = (alias for alias in map(chr, _ALIAS_RANGE) if alias not in used)
        self._alias = dict(zip(control, aliases, strict=False))
        # With the token's own flags, an alias strips and splits as the token does.
        self._tokenizer.add_tokens(
            [_alias_of(control[token], alias) for token, alias in self._alias.items()]
        )
        self._token_of = {self._tokenizer.token_to_id(a): t for t, a in self._alias.items()}

    def ids(self, text: str, controls: list[_Control]) -> list[int]:
        """Return the tokens of `text`, in which `controls` are its control tokens."""
        return [self._token_of.get(token, token) for token in self._encode(text, controls).ids]

    def _encode(self, text: str, controls: list[_Control]) -> tokenizers.Encoding:
        parts, at = [], 0
        for control in controls:
            parts += [text[at : control.start], self._alias[control.token]]
            at = control.end
        return encode_text(self._tokenizer, "".join([*parts, text[at:]]))

    def encode(self, text: str, controls: list[_Control]) -> Encoded:
        """Return what `ids` does, with the places."""
        places, at = list[int](), 0
        for control in controls:
            places += [*range(at, control.start), control.start]
            at = control.end
        places += range(at, len(text) + 1)
        found = self._encode(text, controls)
        encoded = Encoded([], [])
        following = iter(controls)
        for token, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token in self._token_of:
                control = next(following)
                encoded.ids.append(control.token)
                encoded.places.append((control.start, control.end))
            else:
                encoded.ids.append(token)
                encoded.places.append((places[start], places[end - 1] + 1 if end else 0))
        return encoded


def _alias_of(token: tokenizers.AddedToken, alias: str) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        alias,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=False,
    )


def encode_text(backend: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """Encode a text. Raises `ItemError` for a half character, which no vocabulary has."""
    try:
        return backend.encode(text, add_special_tokens=False)
    except (UnicodeEncodeError, TypeError):
        if half := half_character(text):
            raise ItemError(
                f"A text must hold whole characters, got half of one, {half}. Write it again."
            ) from None
        raise


def plain_tokenizer(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer that reads control tokens as the characters that spell them."""
    plain = second_tokenizer(backend)
    plain.encode_special_tokens = True
    control = {i: token.content for i, token in added_tokens(backend) if token.special}
    if any(i in plain.encode(text, add_special_tokens=False).ids for i, text in control.items()):
        # To some models they are also words of the vocabulary: there, they get another spelling.
        plain = tokenizers.Tokenizer.from_str(_respelled(backend.to_str(), set(control.values())))
        plain.encode_special_tokens = True
    plain.post_processor = None  # it would trim places
    return plain


def _respelled(state: str, words: set[str]) -> str:
    """Return a tokenizer's JSON in which a noncharacter is put before some words."""
    values = json.loads(state)
    vocab = values["model"]["vocab"]
    if isinstance(vocab, dict):
        values["model"]["vocab"] = {_apart(w) if w in words else w: i for w, i in vocab.items()}
    else:
        values["model"]["vocab"] = [[_apart(w) if w in words else w, s] for w, s in vocab]
    if values["model"].get("unk_token") in words:
        values["model"]["unk_token"] = _apart(values["model"]["unk_token"])
    for token in values["added_tokens"]:
        if token["content"] in words:
            token["content"] = _apart(token["content"])
    return json.dumps(values)


def _apart(word: str) -> str:
    return f"\U0010ffff{word}"


def second_tokenizer(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return another tokenizer of the same vocabulary, with settings of its own."""
    # Sharing the model takes a thousandth of the time of reading it again.
    second = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(backend, part) is not None:
            setattr(second, part, getattr(backend, part))
    second.add_tokens([copy.copy(token) for _, token in added_tokens(backend)])
    # The library numbers added tokens in their order: ids with gaps are not reproduced.
    if repr(added_tokens(second)) == repr(added_tokens(backend)):
        return second
    return tokenizers.Tokenizer.from_str(backend.to_str())


def added_tokens(backend: tokenizers.Tokenizer) -> list[tuple[int, tokenizers.AddedToken]]:
    """Return the added tokens by id."""
    return sorted(backend.get_added_tokens_decoder().items(), key=lambda pair: pair[0])
