"""Constrain: the checks that can be said as a language become a mask over the tokens.

A token after which one of them could not be met is never drawn (constrained decoding, Willard and
Louf 2023). What cannot be said so acts by the strategy beneath: backtracking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ostinato.checks import ANY, BaseCheck, ConstraintSpec
from ostinato.decode import ConstrainedState, Constraint, matcher, term
from ostinato.errors import InputError, ItemError, MissingExtra
from ostinato.loop import Check
from ostinato.models import Tokenizer


class MaskedChecks(NamedTuple):
    """A constraint, and the names of the checks that are in it."""

    constraint: Constraint | None
    checks: tuple[str, ...]


def constraint_of(
    checks: Sequence[Check], item: Mapping[str, object], tokenizer: Tokenizer | None = None
) -> MaskedChecks:
    """Return what the checks demand of an item's text as one constraint.

    Patterns and their opposites are followed side by side. A schema is followed alone: the first
    one that llguidance can follow, and then no pattern. The others are not in the constraint, nor
    is what grows too large over the tokens of `tokenizer`.
    """
    said = [(check.name, _said(check, item)) for check in checks if isinstance(check, BaseCheck)]
    for name, languages in said:
        if any(language.kind == "json_schema" for language in languages):
            constraint = _schema(languages[0].text, tokenizer)
            if constraint is not None:
                return MaskedChecks(constraint, (name,))
    followed = {name: _followed(languages, tokenizer) for name, languages in said}
    parts = [part for parts in followed.values() for part in parts]
    names = tuple(name for name, parts in followed.items() if parts)
    return MaskedChecks(Constraint.all_of(parts) if parts else None, names)


def _said(check: BaseCheck, item: Mapping[str, object]) -> tuple[ConstraintSpec, ...]:
    """Return what a check demands; nothing of an item that it cannot read, as judging tells."""
    try:
        return check.languages(item)
    except InputError:
        return ()


def _followed(
    languages: Sequence[ConstraintSpec], tokenizer: Tokenizer | None
) -> tuple[Constraint, ...]:
    """Return a constraint for each language; none where llguidance cannot follow one of them."""
    parts = [_part(language) for language in languages if language.kind == "regex"]
    known = tuple(part for part in parts if part is not None and _can_be_followed(part, tokenizer))
    return known if len(known) == len(languages) else ()


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


@lru_cache(maxsize=1024)
def _part(language: ConstraintSpec) -> Constraint | None:
    try:
        Constraint.regex(language.text).check()
        pattern = term(language.text)
    except MissingExtra:
        raise
    except InputError:
        return None
    # Bytes that are no text are not in the pattern, and would be in what is not of it.
    said = f"~({pattern}) & {term(ANY)}" if language.no else pattern
    return Constraint("grammar", f"start: TEXT\nTEXT: {said}", hints=language.hints)


@lru_cache(maxsize=1024)
def fitting(constraint: Constraint, tokenizer: Tokenizer, limit: int) -> Constraint:
    """Return the constraint; without room where no way to end within the limit is found."""
    try:
        ConstrainedState(constraint, tokenizer, limit)
    except ItemError:
        return replace(constraint, room=False)
    return constraint
