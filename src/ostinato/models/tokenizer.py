"""Text to tokens and back, and conversations by the checkpoint's own template.

Text from outside never becomes a control token, even where it spells one. Only `encode_control`
reads control tokens. Knows no network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from ostinato.arguments import counted, reason
from ostinato.errors import InputError, ItemError, ModelError
from ostinato.models.chat import ChatTemplate
from ostinato.models.files.json_values import Values, read_json, write_json
from ostinato.models.learned_words import control_after_words, learned_tokens
from ostinato.models.traced_encoder import (
    TracedEncoder,
    encode_text,
    plain_tokenizer,
    second_tokenizer,
)
from ostinato.models.traced_text import TracedText
from ostinato.text_files import read_text

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
        decoder = {} if backend.decoder is None else json.loads(_state(backend.decoder))
        self._byte_level = _is_byte_level(decoder)
        self._replaced = dict(_replacements(decoder)) or {"▁": " "}
        # A second instance: the setting belongs to the whole tokenizer, not to one call.
        self._plain = plain_tokenizer(backend)
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
        specials = _special_names(_read_optional(folder / "special_tokens_map.json") | config)
        _name_control_tokens(backend, specials)
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
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that the checkpoint puts before and after a plain text (often none)."""
        for text in ("a", "0", *(token.content for token in self._added.values())):
            found = self.backend.encode(text, add_special_tokens=True)
            inner = [i for i, added in enumerate(found.special_tokens_mask) if not added]
            if inner:
                return tuple(found.ids[: inner[0]]), tuple(found.ids[inner[-1] + 1 :])
        return tuple(found.ids), ()  # no text has tokens

    @property
    def bos_ids(self) -> tuple[int, ...]:
        """The tokens that the checkpoint puts before a plain text (often none)."""
        return self.frame[0]

    def prompt(self, text: str) -> list[int]:
        """Return the tokens of a text that a model continues: its start tokens, then the text's."""
        return [*self.bos_ids, *self.encode(text)]

    def continuation(self, text: str) -> list[int]:
        """Return the tokens of a text that continues another: no space is put before it."""
        return encode_text(self._joint, text).ids

    @cached_property
    def _joint(self) -> tokenizers.Tokenizer:
        return without_prefix(self._plain)

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
        return encode_text(self._plain, text).ids

    def encode_control(self, text: str) -> list[int]:
        """Return the tokens of `text`; control tokens that it spells are read as such.

        For prompts whose author may set the turns, such as raw completions.
        """
        return encode_text(self.backend, text).ids

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
        text = self._render(messages, add_generation_prompt, values)
        return self._encoder.ids(text)

    def chat_with_mask(
        self, messages: Sequence[Message], **values: Any
    ) -> tuple[list[int], list[bool]]:
        """Return the tokens of a whole conversation, and which of them a model should learn.

        Those are what the template marks with `{% generation %}`; where it marks nothing, the
        assistant's words with the token that ends each turn. Raises `InputError` where the
        template shows no word of the assistant.
        """
        text = self._render(messages, False, values)
        encoded = self._encoder.encode(text)
        return encoded.ids, learned_tokens(text, encoded, messages, self.eos_ids, self._turn_ends)

    @cached_property
    def _turn_ends(self) -> list[int]:
        """The control token behind the assistant's words, whether or not it is an end by name."""
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            text = self._render(talk, False, {})
            return control_after_words(text, self._encoder.encode(text), talk, self.special_ids)
        except InputError:  # the template takes other conversations
            return []

    def chat_text(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **values: Any
    ) -> str:
        """Return the conversation as the template renders it, control tokens spelled out."""
        # A copy without the places.
        return "".join([self._render(messages, add_generation_prompt, values)])

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, values: Mapping[str, Any]
    ) -> TracedText:
        if self._template is None:
            raise ModelError(
                "the tokenizer must have a chat template, got none. "
                "Use a checkpoint tuned for conversations, or give a plain prompt."
            )
        unused = {"tools": None, "documents": None}  # templates test these names for None
        names = {**unused, **self.specials, "add_generation_prompt": add_generation_prompt}
        return self._template.render(messages, values, names)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        return None if self.chat_template is None else ChatTemplate(self.chat_template)

    @cached_property
    def _encoder(self) -> TracedEncoder:
        return TracedEncoder(self.backend, {i: self._added[i] for i in sorted(self.special_ids)})

    def _bytes_of(self, token: int) -> bytes:
        added = self._added.get(token)
        if added is not None and (added.special or self._byte_level):
            return b"" if added.special else added.content.encode()
        spelling = self.backend.id_to_token(token) if 0 <= token < 1 << 32 else None
        if spelling is None:
            return b""
        if self._byte_level:
            known = all(character in _BYTE_OF for character in spelling)
            return bytes(_BYTE_OF[c] for c in spelling) if known else spelling.encode()
        # SentencePiece: a byte as <0x0A>, and spaces as "▁".
        byte = _BYTE_TOKEN.fullmatch(spelling)
        if byte:
            return bytes([int(byte[1], 16)])
        for shown, text in self._replaced.items():
            spelling = spelling.replace(shown, text)
        return spelling.encode()


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`. Raises `ModelError` where it is missing or damaged."""
    text = read_text(path, raises=ModelError, fix="Download it again.")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{path} must be a tokenizer file, got: {reason(error)}. Download it again."
        ) from error


def without_prefix(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a tokenizer that puts no space before a text."""
    second = second_tokenizer(backend)
    second.encode_special_tokens = backend.encode_special_tokens
    # A tokenizer without a vocabulary reads the parts that are changed as JSON.
    parts = {
        name: None if part is None else _unprefixed(json.loads(_state(part)))
        for name, part in (
            ("normalizer", backend.normalizer),
            ("pre_tokenizer", backend.pre_tokenizer),
        )
    }
    empty = json.loads(tokenizers.Tokenizer(models.BPE()).to_str())
    changed = tokenizers.Tokenizer.from_str(json.dumps({**empty, **parts}))
    second.normalizer, second.pre_tokenizer = changed.normalizer, changed.pre_tokenizer
    return second


def _unprefixed(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer without what puts a space before a text."""
    kind = part.get("type")
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if kind == "ByteLevel":
        return {**part, "add_prefix_space": False}
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            kept = (_unprefixed(inner) for inner in part[name])
            return {**part, name: [inner for inner in kept if inner is not None]}
    return part


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


def _is_byte_level(decoder: Mapping[str, Any]) -> bool:
    """Return whether the decoder of a `tokenizer.json` is byte-level, alone or in a sequence."""
    inner = decoder.get("decoders", [])
    return decoder.get("type") == "ByteLevel" or any(map(_is_byte_level, inner))


def _replacements(decoder: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a decoder replaces in the spelling of each token."""
    kind = decoder.get("type")
    if kind == "Metaspace":
        yield decoder["replacement"], " "
    elif kind == "BPEDecoder":
        yield decoder["suffix"], " "
    elif kind == "Replace" and "String" in decoder["pattern"]:
        yield decoder["pattern"]["String"], decoder["content"]
    for inner in decoder.get("decoders", []):
        yield from _replacements(inner)


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `bos_token`, `eos_token`, ... as strings; files have strings or objects."""
    names = {}
    for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"):
        value = config.get(f"{name}_token")
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            names[f"{name}_token"] = value
    return names


def _name_control_tokens(backend: tokenizers.Tokenizer, specials: Mapping[str, str]) -> None:
    """Make the tokens that have a name control tokens, as `transformers` does."""
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for token in specials.values():
        known = added.get(token)
        if backend.token_to_id(token) is not None and (known is None or not known.special):
            backend.add_special_tokens(
                [tokenizers.AddedToken(token, special=True, normalized=False)]
            )


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
    if template is None:  # where older versions of transformers put it
        template = _read_optional(folder / "chat_template.json").get("chat_template")
    return template if isinstance(template, str) else None


def _named_template(entry: object, file: str) -> tuple[str, str]:
    if not isinstance(entry, Mapping):
        raise ModelError(
            f"chat_template in {file} must be a text, or a list of objects with name and "
            f"template, got {entry!r} in it. Use the file that belongs to the model."
        )
    values = Values(entry, f"chat_template in {file}")
    return values.text("name"), values.text("template")
