"""Reads the checks of a job file, and refuses those that no text can pass together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from ostinato.checks import (
    BaseCheck,
    Blocked,
    Contains,
    Excludes,
    Finder,
    Judge,
    Length,
    OnTopic,
    finder,
    from_spec,
)
from ostinato.errors import InputError, OstinatoError
from ostinato.refine.job.model import read_judging
from ostinato.refine.job.toml_reader import Table
from ostinato.remote import is_server

ReadCheck = tuple[Table, BaseCheck]
"""A check, after the table that it was read from."""


def read_checks(root: Table, folder: Path) -> list[ReadCheck]:
    """Read every `[[check]]`; a problem is recorded at its key."""
    read: list[ReadCheck] = []
    for table in root.tables("check"):
        try:
            check = from_spec("", table.values, folder)
        except InputError as error:
            table.add_problem(error.key if error.key in table.values else "", str(error))
            continue
        check = _with_model_path(table, check, folder)
        # Verdicts and the report are found by the name of their check.
        if any(check.name == other.name for _, other in read):
            table.add_problem(
                "name" if table.has("name") else "kind",
                f"The names of checks must be unique, got '{check.name}' twice. "
                f'Add name = "…" to this one.',
            )
        read.append((table, check))
    # Not `if not read`: a check that could not be read already has its own problem.
    if not root.has("check"):
        root.add_problem("check", "It is missing. Add at least one [[check]] with a kind.")
    return read


def prepare(checks: Iterable[BaseCheck]) -> None:
    """Load what checks need to judge. Raises `InputError` that names the check that cannot."""
    for check in checks:
        try:
            check.prepare()
        except OstinatoError as error:
            raise InputError(f"The check '{check.name}' cannot judge: {error}") from error


def _with_model_path(table: Table, check: BaseCheck, folder: Path) -> BaseCheck:
    """Return a check with the path of its model, if that is in the job's folder."""
    if isinstance(check, OnTopic):
        return replace(check, model=read_judging(table, folder, check.model, "encoder"))
    if isinstance(check, Judge) and not is_server(check.model):
        return replace(check, model=read_judging(table, folder, check.model, "model"))
    return check


def refuse_contradictions(read: Sequence[ReadCheck], sampling: Table, max_new_tokens: int) -> None:
    """Record checks that exclude each other, or that need more than `max_new_tokens`."""
    for first, second in combinations(read, 2):
        _refuse_lengths(first, second)
        _refuse_required_words(first, second)
        _refuse_required_words(second, first)
    for table, check in read:
        if isinstance(check, Length) and check.unit == "tokens":
            _refuse_few_tokens(table, check, sampling, max_new_tokens)


def _refuse_few_tokens(table: Table, check: Length, sampling: Table, most: int) -> None:
    if check.min is not None and check.min > most:
        given = "" if sampling.has("max_new_tokens") else " by default"
        table.add_problem(
            "min",
            f"It must be at most {sampling.location('max_new_tokens')}, which is {most}{given}, "
            f"got {check.min}. Every draft is cut there: lower this or raise that.",
        )


def _refuse_lengths(first: ReadCheck, second: ReadCheck) -> None:
    (one, a), (other, b) = first, second
    if not isinstance(a, Length) or not isinstance(b, Length) or a.unit != b.unit:
        return
    if a.max is not None and b.min is not None and b.min > a.max:
        other.add_problem(
            "min",
            f"It must be at most {one.location('max')}, which is {a.max} {a.unit}, got {b.min}. No "
            "text passes both: lower this or raise that.",
        )
    if a.min is not None and b.max is not None and b.max < a.min:
        other.add_problem(
            "max",
            f"It must be at least {one.location('min')}, which is {a.min} {a.unit}, got {b.max}. "
            "No text passes both: raise this or lower that.",
        )


def _refuse_required_words(requiring: ReadCheck, forbidding: ReadCheck) -> None:
    """Record a required text that contains a forbidden one."""
    (one, contains), (other, excludes) = requiring, forbidding
    if not isinstance(contains, Contains) or not isinstance(excludes, Excludes | Blocked):
        return
    found = _forbidden_in(excludes, contains)
    refused = [] if found is None else [t for t in contains.texts if found.find(t) is not None]
    # One text of several may do: then all must be forbidden.
    if not refused or (contains.mode == "any" and not _all_refused(contains, refused)):
        return
    key = "words" if isinstance(excludes, Blocked) else "texts"
    other.add_problem(
        key if other.has(key) else "file",
        f'It must allow "{refused[0]}", which {one.location("texts")} requires. No text passes '
        "both: remove it from one.",
    )


def _all_refused(contains: Contains, refused: Sequence[str]) -> bool:
    # What a pattern finds or a column holds is not known here: it may be allowed.
    alternatives = contains.patterns or contains.column
    return not alternatives and len(refused) == len(contains.texts)


def _forbidden_in(excludes: Excludes | Blocked, contains: Contains) -> Finder | None:
    """Return a finder of forbidden texts in a required one; None if that decides nothing.

    A forbidden whole word, or one in a certain case, can be avoided by how the required text is
    written.
    """
    blocked = isinstance(excludes, Blocked)
    texts = excludes.words if isinstance(excludes, Blocked) else excludes.texts
    whole = True if isinstance(excludes, Blocked) else excludes.whole
    if not texts or (whole and not contains.whole) or (excludes.case and not contains.case):
        return None
    return finder(texts, case=excludes.case, whole=whole, wild=blocked, visible=blocked)
