"""Constrain: the checks that can be said as a language become a mask over the tokens.

A token after which one of them could not be met is never drawn (constrained decoding, Willard and
Louf 2023). What cannot be said so acts by the strategy beneath: backtracking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ostinato.checks import BaseCheck, Language
from ostinato.decode import Constraint
from ostinato.decode.constraint import matcher, term
from ostinato.decode.guided import Guided
from ostinato.errors import InputError, ItemError, MissingExtra
from ostinato.loop import Check
from ostinato.models import Tokenizer


class Masked(NamedTuple):
    """A constraint, and the names of the checks that are in it."""

    constraint: Constraint | None
    checks: tuple[str, ...]


def constraint_of(
    checks: Sequence[Check], item: Mapping[str, object], tokenizer: Tokenizer | None = None
) -> Masked:
    """Return what the checks demand of an item's text as one constraint.

    Patterns and their opposites are one language, exactly. A schema is followed alone: the first
    one that llguidance can follow, and then no pattern. The others are not in the constraint, nor
    is what grows too large over the tokens of `tokenizer`.
    """
    said = [(check.name, check.languages(item)) for check in checks if isinstance(check, BaseCheck)]
    for name, languages in said:
        if any(language.kind == "json_schema" for language in languages):
            constraint = _schema(languages[0].text, tokenizer)
            if constraint is not None:
                return Masked(constraint, (name,))
    found = Masked(None, ())
    for name, languages in said:
        found = _with(found, name, languages, tokenizer)
    return found


def _with(
    found: Masked, name: str, languages: Sequence[Language], tokenizer: Tokenizer | None
) -> Masked:
    """Return a constraint with one more check in it, where llguidance can follow both together."""
    terms = _terms(languages)
    if not terms:
        return found
    before = found.constraint
    begun = f"{before.text} & " if before else "start: TEXT\nTEXT: "
    hints = [hint for language in languages for hint in language.hints]
    both = Constraint(
        "grammar",
        begun + " & ".join(terms),
        hints=(*(before.hints if before else ()), *hints),
    )
    return Masked(both, (*found.checks, name)) if _can_be_followed(both, tokenizer) else found


@lru_cache(maxsize=1024)
def _can_be_followed(constraint: Constraint, tokenizer: Tokenizer | None) -> bool:
    try:
        constraint.check()
        if tokenizer is not None:  # an automaton may be small enough until tokens are laid over it
            matcher(constraint, tokenizer)
    except MissingExtra:
        raise
    except InputError:
        return False
    return True


@lru_cache(maxsize=256)
def _schema(text: str, tokenizer: Tokenizer | None) -> Constraint | None:
    constraint = Constraint("json_schema", text)
    return constraint if _can_be_followed(constraint, tokenizer) else None


def _terms(languages: Sequence[Language]) -> tuple[str, ...]:
    """Return the terms of a grammar that say the languages; none where one cannot be followed."""
    terms = [_term(language) for language in languages if language.kind == "regex"]
    return tuple(term for term in terms if term is not None) if None not in terms else ()


@lru_cache(maxsize=1024)
def _term(language: Language) -> str | None:
    try:
        Constraint.regex(language.text).check()
        pattern = term(language.text)
    except MissingExtra:
        raise
    except InputError:
        return None
    return f"~({pattern})" if language.no else pattern


@lru_cache(maxsize=1024)
def fitting(constraint: Constraint, tokenizer: Tokenizer, limit: int) -> Constraint:
    """Return the constraint; without room where no way to end within the limit is found."""
    try:
        Guided(constraint, tokenizer, limit)
    except ItemError:
        return replace(constraint, room=False)
    return constraint
