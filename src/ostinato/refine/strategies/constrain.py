"""Constrained decoding (Willard and Louf 2023, arXiv 2307.09702): checks as a mask over tokens.

A token after which such a check could not be met is never sampled. Checks that cannot be written as
a language (a regular expression, its complement, a JSON schema) act through backtracking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ostinato.checks import ANY, BaseCheck, ConstraintSpec
from ostinato.decode import ConstrainedState, Constraint, lark_term, matcher
from ostinato.errors import InputError, ItemError, MissingExtra
from ostinato.loop import Check
from ostinato.models import Tokenizer


class MaskedChecks(NamedTuple):
    """A constraint, and the names of the checks that it contains."""

    constraint: Constraint | None
    checks: tuple[str, ...]


def constraint_of(
    checks: Sequence[Check], item: Mapping[str, object], tokenizer: Tokenizer | None = None
) -> MaskedChecks:
    """Return one constraint for all checks that can be written as a language for this item.

    Patterns and their complements are followed in parallel. A JSON schema is followed alone: the
    first one that llguidance can follow, and then no pattern. A check whose automaton grows too
    large over the tokens of `tokenizer` is left out.

    Raises `MissingExtra` if llguidance is not installed.
    """
    named = [
        (check.name, _languages_of(check, item)) for check in checks if isinstance(check, BaseCheck)
    ]
    for name, languages in named:
        if any(language.kind == "json_schema" for language in languages):
            constraint = _schema(languages[0].text, tokenizer)
            if constraint is not None:
                return MaskedChecks(constraint, (name,))
    patterns = {name: _constraints_of(languages, tokenizer) for name, languages in named}
    # Side by side, not intersected: the product of 71 blocked words exceeds llguidance's limits.
    every = [pattern for several in patterns.values() for pattern in several]
    names = tuple(name for name, several in patterns.items() if several)
    return MaskedChecks(Constraint.all_of(every) if every else None, names)


def _languages_of(check: BaseCheck, item: Mapping[str, object]) -> tuple[ConstraintSpec, ...]:
    """Return a check's languages; none for an item that it cannot read: judging reports that."""
    try:
        return check.constraint_specs(item)
    except InputError:
        return ()


def _constraints_of(
    languages: Sequence[ConstraintSpec], tokenizer: Tokenizer | None
) -> tuple[Constraint, ...]:
    """Return a constraint for each language, or none if llguidance cannot follow all of them."""
    found = [_pattern(language) for language in languages if language.kind == "regex"]
    known = tuple(one for one in found if one is not None and _can_follow(one, tokenizer))
    return known if len(known) == len(languages) else ()


# Cached, as the functions below: the items of a job share most of their checks, and llguidance
# takes milliseconds to compile one.
@lru_cache(maxsize=1024)
def _can_follow(constraint: Constraint, tokenizer: Tokenizer | None) -> bool:
    try:
        constraint.check()
        if tokenizer is not None:  # an automaton can pass alone and be too large over the tokens
            matcher(constraint, tokenizer)
    except MissingExtra:  # an InputError, too
        raise
    except InputError:
        return False
    return True


@lru_cache(maxsize=256)
def _schema(text: str, tokenizer: Tokenizer | None) -> Constraint | None:
    constraint = Constraint("json_schema", text)
    return constraint if _can_follow(constraint, tokenizer) else None


@lru_cache(maxsize=1024)
def _pattern(language: ConstraintSpec) -> Constraint | None:
    try:
        Constraint.regex(language.text).check()
        pattern = lark_term(language.text)
    except MissingExtra:
        raise
    except InputError:
        return None
    # A complement contains all bytes that are not UTF-8: a draft could avoid a forbidden word by
    # writing them, and would find no end. The intersection with any text removes them.
    expression = f"~({pattern}) & {lark_term(ANY)}" if language.no else pattern
    return Constraint("grammar", f"start: TEXT\nTEXT: {expression}", hints=language.hints)


@lru_cache(maxsize=1024)
def fitting(constraint: Constraint, tokenizer: Tokenizer, limit: int) -> Constraint:
    """Return the constraint, without `room` if no text within `limit` is found for it.

    `limit` is in tokens. Without room to close, a draft may be cut in the middle.
    """
    try:
        ConstrainedState(constraint, tokenizer, limit)
    except ItemError:
        return replace(constraint, room=False)
    return constraint
