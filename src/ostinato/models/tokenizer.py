"""Text to tokens and back, and conversations by the checkpoint's own template.

Text from outside never becomes a control token, even where it spells one. Only `encode_control`
reads control tokens. Knows no network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from ostinato.arguments import counted, reason
from ostinato.errors import ItemError, ModelError
from ostinato.models.chat import ChatTemplate, Guard
from ostinato.models.files.json_values import Values, read_json, write_json
from ostinato.text_files import half_character, read_text

Message = Mapping[str, Any]
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """The tokenizer of a checkpoint: `tokenizer.json`, its special tokens and chat template."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        chat_template: str | None = None,
        specials: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap `backend`. `specials` are the names that a template may use (`bos_token`, ...)."""
        self.backend = backend
        self.eos_ids = frozenset(eos_ids)
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._added = dict(added)
        self.specials = dict(specials or {})
        decoder = backend.decoder
        self._byte_level = decoder is not None and _is_byte_level(json.loads(_state(decoder)))
        # A second instance: the setting belongs to the whole tokenizer, not to one call.
        self._plain = _second(backend)
        self._plain.encode_special_tokens = True
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json` and the files that name end tokens.

        Raises `ModelError` where one is missing or damaged.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{path} must exist, got no such file. Give a folder with a fast tokenizer "
                "(transformers writes one with save_pretrained)."
            )
        backend = read_tokenizer(path)
        # Some files pad or truncate for training, which would change prompts silently.
        backend.no_padding()
        backend.no_truncation()
        config = _read_optional(folder / "tokenizer_config.json")
        specials = _special_names(config)
        return cls(
            backend,
            eos_ids=_end_ids(folder, backend, specials),
            chat_template=_chat_template(folder, config),
            specials=specials,
        )

    def save(self, folder: Path, max_length: int) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; `max_length` is the model's limit."""
        self.backend.save(str(folder / "tokenizer.json"))
        config: dict[str, object] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            # Else transformers removes spaces before punctuation, and decodes another text than we.
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            **self.specials,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_json(folder / "tokenizer_config.json", config)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def bos_ids(self) -> tuple[int, ...]:
        """The tokens that the checkpoint adds to a plain text (often none)."""
        return tuple(self._plain.encode("", add_special_tokens=True).ids)

    def require_known(self, text: str) -> None:
        """Raise `ItemError` for characters that have no token, which `encode` drops.

        Only a vocabulary of characters lacks some: others spell them in bytes, or have a token for
        what they do not know.
        """
        if self._characters is None:
            return
        missing = Counter(c for c in text if c not in self._characters)
        if missing:
            listed = ", ".join(f"{c!r} ({counted(n, 'times')})" for c, n in missing.most_common(5))
            raise ItemError(
                f"The text must have characters of the model's vocabulary only, got "
                f"{counted(len(missing), 'others')}: {listed}{', …' * (len(missing) > 5)}. "
                "Replace them, or train on text that has them, or with --tokenizer bpe."
            )

    @cached_property
    def _characters(self) -> frozenset[str] | None:
        """The characters of a vocabulary that drops all others; None where nothing is dropped."""
        model = self.backend.model
        if not isinstance(model, models.BPE) or model.unk_token or model.byte_fallback:
            return None
        # A normalizer or pre-tokenizer, such as that of bytes, may replace characters first.
        if self.backend.normalizer is not None or self.backend.pre_tokenizer is not None:
            return None
        return frozenset(token for token in self.backend.get_vocab() if len(token) == 1)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`; nothing in it becomes a control token."""
        return _tokens(self._plain, text)

    def encode_control(self, text: str) -> list[int]:
        """Return the tokens of `text`; control tokens that it spells are read as such.

        For prompts whose author may set the turns, such as raw completions.
        """
        return _tokens(self.backend, text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, as it continues earlier text.

        Control tokens add nothing; incomplete characters become U+FFFD. The space with which a
        SentencePiece vocabulary starts a text is kept.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the exact bytes that a token adds to the text.

        Empty for a control token and for an id that only pads the embedding.
        """
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._bytes_of(token)
        return found

    def shown(self, token: int) -> str:
        """Return the text of one token; a control token is spelled out."""
        control = self._added[token].content if token in self._added else ""
        return self.decode([token]) or control

    def id_of(self, token: str) -> int | None:
        """Return the id of a token by its spelling in the vocabulary, special or not."""
        return self.backend.token_to_id(token)

    def chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **values: Any
    ) -> list[int]:
        """Return the tokens of a conversation, by the checkpoint's template.

        `messages` are mappings with `role` and `content`; `values` are further names for the
        template. Nothing in the messages becomes a control token.
        """
        guard = Guard([self._added[i].content for i in self.special_ids], messages)
        text = self._render(guard.messages, add_generation_prompt, values)
        if guard.mark not in text:
            return _tokens(self.backend, text)
        return [i for part in self._split(text) for i in self._encode_part(part, guard)]

    def chat_text(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **values: Any
    ) -> str:
        """Return the conversation as the template renders it, control tokens spelled out."""
        return self._render(messages, add_generation_prompt, values)

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, values: Mapping[str, Any]
    ) -> str:
        if self._template is None:
            raise ModelError(
                "the tokenizer must have a chat template, got none. "
                "Use a checkpoint tuned for conversations, or give a plain prompt."
            )
        unused = {"tools": None, "documents": None}  # templates test these names for None
        names = {
            **unused,
            **self.specials,
            **values,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._template.render(messages, names)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        return None if self.chat_template is None else ChatTemplate(self.chat_template)

    @cached_property
    def _control(self) -> dict[str, int]:
        return {self._added[i].content: i for i in self.special_ids}

    def _split(self, text: str) -> list[str]:
        """Split at control tokens; odd parts are tokens, with the spaces that they strip."""
        tokens = sorted((self._added[i] for i in self.special_ids), key=lambda t: -len(t.content))
        if not tokens:
            return [text]
        parts = [
            (r"\s*" if t.lstrip else "") + re.escape(t.content) + (r"\s*" if t.rstrip else "")
            for t in tokens
        ]
        return re.split("(" + "|".join(parts) + ")", text)

    def _encode_part(self, part: str, guard: Guard) -> list[int]:
        # Without the spaces that a token strips first; a token may itself be made of spaces.
        control = self._control.get(part.strip())
        if control is None:
            control = self._control.get(part)
        if control is not None:
            return [control]
        return self.encode(guard.lift(part))

    def _bytes_of(self, token: int) -> bytes:
        if token in self._added:
            added = self._added[token]
            return b"" if added.special else added.content.encode()
        spelling = self.backend.id_to_token(token) if 0 <= token < 1 << 32 else None
        if spelling is None:
            return b""
        if self._byte_level:
            return bytes(_BYTE_OF[c] for c in spelling if c in _BYTE_OF)
        # SentencePiece: a byte as <0x0A>, and spaces as "▁".
        byte = _BYTE_TOKEN.fullmatch(spelling)
        return bytes([int(byte[1], 16)]) if byte else spelling.replace("▁", " ").encode()


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`. Raises `ModelError` where it is missing or damaged."""
    text = read_text(path, raises=ModelError, fix="Download it again.")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{path} must be a tokenizer file, got: {reason(error)}. Download it again."
        ) from error


def _tokens(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """Encode a text. Raises `ItemError` for a half character, which no vocabulary has."""
    try:
        return backend.encode(text, add_special_tokens=False).ids
    except (UnicodeEncodeError, TypeError):
        if half := half_character(text):
            raise ItemError(
                f"A text must hold whole characters, got half of one, {half}. Write it again."
            ) from None
        raise


def _second(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return another tokenizer of the same vocabulary, with settings of its own."""
    # Sharing the model takes a thousandth of the time of reading it again.
    second = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(backend, part) is not None:
            setattr(second, part, getattr(backend, part))
    second.add_tokens([token for _, token in _added_tokens(backend)])
    # The library numbers added tokens in their order: ids with gaps are not reproduced.
    if repr(_added_tokens(second)) == repr(_added_tokens(backend)):
        return second
    return tokenizers.Tokenizer.from_str(backend.to_str())


def _added_tokens(backend: tokenizers.Tokenizer) -> list[tuple[int, tokenizers.AddedToken]]:
    return sorted(backend.get_added_tokens_decoder().items(), key=lambda pair: pair[0])


def _state(part: Any) -> bytes:
    """Return a part of a tokenizer as JSON."""
    return part.__getstate__()  # type: ignore[no-any-return]


def byte_alphabet() -> dict[int, str]:
    """Return the character that represents each byte in a byte-level vocabulary.

    Printable bytes are their own characters, the others have those from U+0100 on. The order is
    that of GPT-2's vocabulary (Radford et al., 2019, section 2.2).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable}
    return alphabet | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


_BYTE_OF = {character: byte for byte, character in byte_alphabet().items()}


def _is_byte_level(decoder: Any) -> bool:
    """Return whether the decoder of a `tokenizer.json` is byte-level, alone or in a sequence."""
    if not isinstance(decoder, dict):
        return False
    inner = decoder.get("decoders", [])
    return decoder.get("type") == "ByteLevel" or any(map(_is_byte_level, inner))


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `bos_token`, `eos_token`, ... as strings; files have strings or objects."""
    names = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(name)
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            names[name] = value
    return names


def _end_ids(
    folder: Path, backend: tokenizers.Tokenizer, specials: Mapping[str, str]
) -> frozenset[int]:
    """Return every token that ends a text, according to any of the files that can name one."""
    ids: set[int] = set()
    for file in ("config.json", "generation_config.json"):
        path = folder / file
        ids.update(Values(_read_optional(path), str(path)).tokens("eos_token_id"))
    if "eos_token" in specials:
        eos = backend.token_to_id(specials["eos_token"])
        ids.update(() if eos is None else (eos,))
    return frozenset(ids)


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_text(path, raises=ModelError, fix="Download it again.")
    template = config.get("chat_template")
    if isinstance(template, list):  # older files list several templates by name
        file = str(folder / "tokenizer_config.json")
        named = dict(_named_template(entry, file) for entry in template)
        template = named.get("default")
    return template if isinstance(template, str) else None


def _named_template(entry: object, file: str) -> tuple[str, str]:
    if not isinstance(entry, Mapping):
        raise ModelError(
            f"chat_template in {file} must be a text, or a list of objects with name and "
            f"template, got {entry!r} in it. Use the file that belongs to the model."
        )
    values = Values(entry, f"chat_template in {file}")
    return values.text("name"), values.text("template")
