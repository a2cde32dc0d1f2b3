"""Constraints: what a text may be as a whole, as a value; and the tokens that it allows next.

A constraint is compiled once for a tokenizer by llguidance (extra `constrain`), and followed along
each draft. Knows no model and no sampling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from ostinato.decode.joint_matcher import JointMatcher
from ostinato.errors import InputError, MissingExtra
from ostinato.models import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    Matcher = LLMatcher | JointMatcher

Kind = Literal["regex", "json_schema", "choice", "grammar", "all"]

FUEL = 10_000_000
"""How large a constraint may be, and grow in a step: llguidance's own measure, some 50,000 of it a
millisecond."""

_NAMES: Mapping[str, str] = {
    "regex": "a regular expression",
    "json_schema": "a JSON schema",
    "choice": "a list of texts",
    "grammar": "a Lark grammar",
    "all": "a list of constraints",
}
_GROUP = re.compile(r"\(\?[^)]*?[:>]")  # "(?i:", "(?P<name>"
_ESCAPE = re.compile(r"\\(\W)")
_LITERAL = re.compile(r"(?:\\\W(?![*?{])|[^\\\[\](){}|*+?.^$](?![*?{]))+")
_DOUBT = (
    "Leave out what looks around (^ and $ are not needed, \\b cannot be used): the whole text "
    "must match."
)


@dataclass(frozen=True)
class Constraint:
    """What a text must be as a whole; make one with `regex`, `json_schema`, `choice`, `grammar`.

    `text` is the pattern, the schema or list as JSON, or the Lark grammar (in llguidance's
    dialect). `all_of` makes one of several, each of which the text must be. With `room`, a draft
    near its limit is held to tokens after which it can still be ended within the limit; `hints` are
    texts that help to find how (what must be said), besides those that stand in a pattern. The
    syntax is checked where the constraint is first used.
    """

    kind: Kind
    text: str
    room: bool = True
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            names = ", ".join(get_args(Kind))
            raise InputError(f"A constraint's kind must be one of {names}, got {self.kind!r}.")
        if not isinstance(self.text, str) or not self.text.strip():
            raise InputError(
                f"A constraint must be {_NAMES[self.kind]}, got {self.text!r}. Write what is "
                "allowed."
            )

    @classmethod
    def regex(cls, pattern: str, *, room: bool = True) -> Constraint:
        """Hold the whole text to a regular expression (of Rust's `regex`: no looking around)."""
        return cls("regex", pattern, room)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str, *, room: bool = True) -> Constraint:
        """Hold the text to JSON under a schema (`{}`: any JSON); a text is parsed."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise InputError(
                    f"A JSON schema must be JSON, got an error: {error}. Mend it there."
                ) from error
        if not isinstance(schema, Mapping):
            raise InputError(
                f"A JSON schema must be a JSON object, got {type(schema).__name__}. "
                'Write for example {"type": "object"}.'
            )
        return cls("json_schema", json.dumps(schema, ensure_ascii=False), room)

    @classmethod
    def choice(cls, texts: Sequence[str], *, room: bool = True) -> Constraint:
        """Hold the text to one of some texts."""
        given = [texts] if isinstance(texts, str) else list(texts)
        for text in given:
            if not isinstance(text, str) or not text:
                raise InputError(
                    f"The texts of a choice must be texts that are not empty, got {text!r}. "
                    "Leave it out."
                )
        if not given:
            raise InputError("A choice must have at least one text, got none. Name them.")
        return cls("choice", json.dumps(given, ensure_ascii=False), room)

    @classmethod
    def grammar(cls, lark: str, *, room: bool = True) -> Constraint:
        """Hold the text to a Lark grammar, whose first rule is `start`."""
        return cls("grammar", lark, room)

    @classmethod
    def all_of(cls, constraints: Sequence[Constraint]) -> Constraint:
        """Hold the text to several constraints, each followed by itself; room is kept for all."""
        if not constraints:
            raise InputError("all_of must have at least one constraint, got none. Name them.")
        if len(constraints) == 1:
            return constraints[0]
        parts = [part.to_json() for one in constraints for part in one.parts]
        room = all(one.room for one in constraints)
        return cls("all", json.dumps(parts, ensure_ascii=False), room)

    @property
    def parts(self) -> tuple[Constraint, ...]:
        """The constraints of which it is made; itself, where it is made of none."""
        if self.kind != "all":
            return (self,)
        return tuple(map(Constraint.from_json, json.loads(self.text)))

    def to_json(self) -> dict[str, Any]:
        """Return the constraint as a JSON object."""
        hints = {"hints": list(self.hints)} if self.hints else {}
        return {"kind": self.kind, "text": self.text, "room": self.room, **hints}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Constraint:
        """Read back what `to_json` wrote."""
        hints = tuple(value.get("hints", ()))
        return cls(value["kind"], value["text"], bool(value["room"]), hints)

    @property
    def said(self) -> tuple[str, ...]:
        """The hints, and for a regular expression the letters that stand in it as they are."""
        if self.kind == "all":
            return tuple(dict.fromkeys(text for part in self.parts for text in part.said))
        runs = _LITERAL.findall(_GROUP.sub("(", self.text)) if self.kind == "regex" else []
        texts = (_ESCAPE.sub(r"\1", run) for run in runs)
        return tuple(dict.fromkeys((*self.hints, *(text for text in texts if len(text) > 1))))

    def check(self) -> None:
        """Raise `InputError` where the constraint cannot be followed. Needs no tokenizer."""
        library = _library()
        for part in self.parts:
            _refuse(part, library.LLMatcher.validate_grammar(part.spelled(), limits=_limits()))

    def spelled(self) -> str:
        """Return a constraint that is not made of others as llguidance reads it."""
        library = _library()
        if self.kind == "json_schema":
            return str(library.LLMatcher.grammar_from_json_schema(self.text))
        if self.kind == "grammar":
            return str(library.LLMatcher.grammar_from_lark(self.text))
        if self.kind == "choice":
            texts = " | ".join(json.dumps(text) for text in json.loads(self.text))
            return str(library.LLMatcher.grammar_from_lark(f"start: {texts}"))
        return str(library.LLMatcher.grammar_from_lark(f"start: TEXT\nTEXT: {term(self.text)}"))


def term(pattern: str) -> str:
    """Return a regular expression as a term of a Lark grammar; raise `InputError` where it is none.

    `\\d`, `\\w` and `\\s` are those of Unicode, as in Python.
    """
    try:
        return f"/{_library().regex_to_lark(pattern, use_ascii='')}/"
    except ValueError as error:
        _refuse(Constraint.regex(pattern), str(error))
        raise


def _refuse(constraint: Constraint, error: str) -> None:
    """Raise `InputError` with llguidance's reason, where there is one."""
    if not error or error.startswith("WARNING"):
        return
    reason = " ".join(error.split("<state>")[0].split())
    doubt = _DOUBT if constraint.kind == "regex" else "Mend it there."
    raise InputError(
        f"A constraint must be {_NAMES[constraint.kind]}, got {constraint.text:.200}: {reason}. "
        f"{doubt}"
    )


def _limits() -> Any:
    return _library().LLParserLimits(initial_lexer_fuel=FUEL, step_lexer_fuel=FUEL)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtra("A constraint", "constrain") from error
    return llguidance


# For one tokenizer ------------------------------------------------------------------------------


class _Vocabulary:
    """Our tokenizer as llguidance wants to see it: each token's bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = None
        size = tokenizer.vocab_size
        silent = [i for i in range(size) if not tokenizer.token_bytes(i)]
        self.tokens = [tokenizer.token_bytes(i) for i in range(size)]
        if not tokenizer.eos_ids:  # llguidance needs an end: one that the model does not have
            silent.append(size)
            self.tokens.append(b"")
        self.special_token_ids = silent
        self.eos_token_id = min(tokenizer.eos_ids, default=size)
        for token in silent:  # the byte 0xFF, which no text holds, marks what writes nothing
            self.tokens[token] = b"\xff<%d>" % token

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.encode(text)


@lru_cache(maxsize=8)
def reader(tokenizer: Tokenizer) -> LLTokenizer:
    """Return llguidance's view of a tokenizer (about a second for 49,152 tokens, once)."""
    library = _library()
    vocabulary = library.TokenizerWrapper(_Vocabulary(tokenizer))
    ends = sorted(tokenizer.eos_ids) or None
    made: LLTokenizer = library.LLTokenizer(vocabulary, eos_token=ends)
    return made


def matcher(constraint: Constraint, tokenizer: Tokenizer) -> Matcher:
    """Return a matcher that stands at the beginning. Raises `InputError`."""
    read = reader(tokenizer)
    parts = [_compiled(part, read).deep_copy() for part in constraint.parts]
    return parts[0] if len(parts) == 1 else JointMatcher(parts, one_byte(tokenizer))


def forget() -> None:
    """Compile everything anew where it is used next.

    Matchers of one constraint share an automaton that grows while they go on; where it grew beyond
    its limit, it stays broken for all of them.
    """
    _compiled.cache_clear()


@lru_cache(maxsize=8)
def one_byte(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the first token of each byte that a token writes alone."""
    found: dict[bytes, int] = {}
    for token in range(tokenizer.vocab_size):
        if len(written := tokenizer.token_bytes(token)) == 1:
            found.setdefault(written, token)
    return tuple(found.values())


@lru_cache(maxsize=256)
def _compiled(constraint: Constraint, read: LLTokenizer) -> LLMatcher:
    library = _library()
    made: LLMatcher = library.LLMatcher(read, constraint.spelled(), log_level=0, limits=_limits())
    _refuse(constraint, made.get_error() if made.is_error() else "")
    return made
