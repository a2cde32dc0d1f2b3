"""Constraints as values: what a whole text must be, and the matchers that follow them.

llguidance (extra `constrain`) compiles a constraint once per tokenizer. A matcher then follows each
draft and returns the tokens allowed next. Knows no model and no sampling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from ostinato.arguments import require_choice
from ostinato.decode.joint_matcher import JointMatcher
from ostinato.errors import InputError, MissingExtra
from ostinato.models import Tokenizer
from ostinato.schemas import mask_schema
from ostinato.text_files import half_character, parse_json

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    Matcher = LLMatcher | JointMatcher

Kind = Literal["regex", "json_schema", "choice", "grammar", "all"]

FUEL = 10_000_000
"""How large a constraint may be, and grow in a step, in llguidance's own unit: about 50,000 of them
take a millisecond."""

_NAMES: Mapping[str, str] = {
    "regex": "a regular expression",
    "json_schema": "a JSON schema",
    "choice": "a list of texts",
    "grammar": "a Lark grammar",
    "all": "a list of constraints",
}
_GROUP = re.compile(r"\(\?[^)]*?[:>]")  # "(?i:", "(?P<name>"
_ESCAPE = re.compile(r"\\(\W)")
# Runs of characters that a pattern holds as they are: none is special, none is quantified.
_LITERAL = re.compile(r"(?:\\\W(?![*?{])|[^\\\[\](){}|*+?.^$](?![*?{]))+")
_REGEX_FRAME = re.compile(
    r"^at \d+\(\d+\): (invalid regex .* \(in regex\): (regex parse error: .* error: )?)?"
    r"|( in regex \S+)? \d+ \| start: TEXT .*$"
)
_REGEX_HINT = (
    "Leave out what looks around (^ and $ are not needed, \\b cannot be used): the whole text "
    "must match."
)


@dataclass(frozen=True)
class Constraint:
    """What a whole text must be; made by `regex`, `json_schema`, `choice`, `grammar` or `all_of`.

    `text` is the pattern, the schema or list as JSON, or the Lark grammar (in llguidance's
    dialect). With `room`, a draft near its token limit may only take tokens after which it can
    still be completed within the limit. `hints` are texts that help to find such a completion,
    besides those that a pattern contains. The syntax is checked at first use.
    """

    kind: Kind
    text: str
    room: bool = True
    hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choice("A constraint's kind", self.kind, get_args(Kind))
        if half := half_character(self.text):
            raise InputError(
                f"A constraint must hold whole characters, got half of one, {half}. Write it again."
            )
        if not isinstance(self.text, str) or not self.text.strip():
            raise InputError(
                f"A constraint must be {_NAMES[self.kind]}, got {self.text!r}. Write what is "
                "allowed."
            )

    @classmethod
    def regex(cls, pattern: str, *, room: bool = True) -> Constraint:
        """Require the whole text to match a regular expression (Rust's `regex`: no lookaround)."""
        return cls("regex", pattern, room)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str, *, room: bool = True) -> Constraint:
        """Require JSON that is valid under a schema (a mapping or its text; `{}`: any JSON)."""
        if isinstance(schema, str):
            try:
                schema = parse_json(schema)
            except ValueError as error:
                raise InputError(
                    f"A JSON schema must be JSON, got an error: {error}. Fix it there."
                ) from error
        if not isinstance(schema, Mapping):
            raise InputError(
                f"A JSON schema must be a JSON object, got {type(schema).__name__}. "
                'Write for example {"type": "object"}.'
            )
        return cls("json_schema", json.dumps(schema, ensure_ascii=False), room)

    @classmethod
    def choice(cls, texts: Sequence[str], *, room: bool = True) -> Constraint:
        """Require one of these texts."""
        choices = [texts] if isinstance(texts, str) else list(texts)
        for text in choices:
            if not isinstance(text, str) or not text:
                raise InputError(
                    f"A choice must be a text that is not empty, got {text!r}. Leave it out."
                )
        if not choices:
            raise InputError("A choice must have at least one text, got none. Name them.")
        return cls("choice", json.dumps(choices, ensure_ascii=False), room)

    @classmethod
    def grammar(cls, lark: str, *, room: bool = True) -> Constraint:
        """Require a text of a Lark grammar whose first rule is `start`."""
        return cls("grammar", lark, room)

    @classmethod
    def all_of(cls, constraints: Sequence[Constraint]) -> Constraint:
        """Require several constraints at once; each is followed separately (see `JointMatcher`)."""
        if not constraints:
            raise InputError("all_of must have at least one constraint, got none. Name them.")
        if len(constraints) == 1:
            return constraints[0]
        parts = [part.to_json() for one in constraints for part in one.parts]
        room = all(one.room for one in constraints)
        return cls("all", json.dumps(parts, ensure_ascii=False), room)

    @property
    def parts(self) -> tuple[Constraint, ...]:
        """The constraints that `all_of` joined; else the constraint itself."""
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
    def literals(self) -> tuple[str, ...]:
        """The hints, and the runs of two or more characters that a pattern contains literally."""
        if self.kind == "all":
            return tuple(dict.fromkeys(text for part in self.parts for text in part.literals))
        runs = _LITERAL.findall(_GROUP.sub("(", self.text)) if self.kind == "regex" else []
        texts = (_ESCAPE.sub(r"\1", run) for run in runs)
        return tuple(dict.fromkeys((*self.hints, *(text for text in texts if len(text) > 1))))

    def check(self) -> None:
        """Raise `InputError` if the constraint cannot be compiled. Needs no tokenizer."""
        library = _library()
        for part in self.parts:
            _refuse(
                part, library.LLMatcher.validate_grammar(part.to_llguidance(), limits=_limits())
            )

    def to_llguidance(self) -> str:
        """Return the grammar that llguidance reads; not for a constraint made by `all_of`."""
        library = _library()
        if self.kind == "json_schema":
            schema = json.dumps(mask_schema(json.loads(self.text)), ensure_ascii=False)
            return str(library.LLMatcher.grammar_from_json_schema(schema))
        if self.kind == "grammar":
            return str(library.LLMatcher.grammar_from_lark(self.text))
        if self.kind == "choice":
            # One term, whose automaton may have any number of texts: as rules of the grammar they
            # would be followed one by one, and llguidance gives up beyond 2,000.
            texts = " | ".join(json.dumps(text) for text in json.loads(self.text))
            return str(library.LLMatcher.grammar_from_lark(f"start: TEXT\nTEXT: {texts}"))
        return str(
            library.LLMatcher.grammar_from_lark(f"start: TEXT\nTEXT: {lark_term(self.text)}")
        )


def lark_term(pattern: str) -> str:
    """Return a regular expression as a term of a Lark grammar. Raises `InputError`.

    `\\d`, `\\w` and `\\s` match Unicode, as in Python.
    """
    try:
        return f"/{_library().regex_to_lark(pattern, use_ascii='')}/"
    except ValueError as error:
        _refuse(Constraint.regex(pattern), str(error))
        raise


def _refuse(constraint: Constraint, error: str) -> None:
    """Raise `InputError` with llguidance's reason; warnings, which it returns alike, pass."""
    if not error or error.startswith("WARNING"):
        return
    reason = " ".join(error.split("<state>")[0].split())  # a dump of the parser follows
    if constraint.kind == "regex":
        # It is embedded in a grammar: where it stands there, and the grammar, say nothing to users.
        reason = _REGEX_FRAME.sub("", reason)
    fix = _REGEX_HINT if constraint.kind == "regex" else "Fix it there."
    raise InputError(
        f"A constraint must be {_NAMES[constraint.kind]}, got {constraint.text[:200]!r}: {reason}. "
        f"{fix}"
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
    """Our tokenizer in the form that llguidance reads: the bytes of each token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = None
        size = tokenizer.vocab_size
        silent = [i for i in range(size) if not tokenizer.token_bytes(i)]
        self.tokens = [tokenizer.token_bytes(i) for i in range(size)]
        if not tokenizer.eos_ids:  # llguidance needs one: an id beyond the model's vocabulary
            silent.append(size)
            self.tokens.append(b"")
        self.special_token_ids = silent
        self.eos_token_id = min(tokenizer.eos_ids, default=size)
        # UTF-8 never contains the byte 0xFF: these tokens match nothing in a text.
        for token in silent:
            self.tokens[token] = b"\xff<%d>" % token

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.continuation(text)


@lru_cache(maxsize=8)
def llguidance_tokenizer(tokenizer: Tokenizer) -> LLTokenizer:
    """Return a tokenizer in llguidance's form; takes about a second for 49,152 tokens, once."""
    library = _library()
    vocabulary = library.TokenizerWrapper(_Vocabulary(tokenizer))
    eos_ids = sorted(tokenizer.eos_ids) or None
    ll_tokenizer: LLTokenizer = library.LLTokenizer(vocabulary, eos_token=eos_ids)
    return ll_tokenizer


def matcher(constraint: Constraint, tokenizer: Tokenizer) -> Matcher:
    """Return a matcher at the start of a text. Raises `InputError` for a bad constraint."""
    ll_tokenizer = llguidance_tokenizer(tokenizer)
    parts = [_compiled(part, ll_tokenizer).deep_copy() for part in constraint.parts]
    return parts[0] if len(parts) == 1 else JointMatcher(parts, single_byte_tokens(tokenizer))


def clear_compiled() -> None:
    """Compile every constraint again at its next use.

    Matchers of one constraint share an automaton that grows as they advance. Once it has grown
    beyond its limit, it stays broken for all of them.
    """
    _compiled.cache_clear()


@lru_cache(maxsize=8)
def single_byte_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of one byte, the first for each byte that has one."""
    found: dict[bytes, int] = {}
    for token in range(tokenizer.vocab_size):
        if len(written := tokenizer.token_bytes(token)) == 1:
            found.setdefault(written, token)
    return tuple(found.values())


@lru_cache(maxsize=256)
def _compiled(constraint: Constraint, ll_tokenizer: LLTokenizer) -> LLMatcher:
    grammar, limits = constraint.to_llguidance(), _limits()
    compiled: LLMatcher = _library().LLMatcher(ll_tokenizer, grammar, log_level=0, limits=limits)
    _refuse(constraint, compiled.get_error() if compiled.is_error() else "")
    return compiled
