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

Read = tuple[Table, BaseCheck]
"""A check with the table that it was read from."""


def read_checks(root: Table, folder: Path) -> list[Read]:
    """Read every `[[check]]`; what is wrong with one is noted at its key."""
    read: list[Read] = []
    for table in root.tables("check"):
        try:
            check = from_spec("", table.values, folder)
        except InputError as error:
            table.wrong(_key_told(table, error), str(error))
            continue
        check = _at_its_place(table, check, folder)
        if any(check.name == other.name for _, other in read):
            table.wrong(
                "name" if table.has("name") else "kind",
                f"Checks must have names that differ, got '{check.name}' twice. "
                f'Add name = "…" to this one.',
            )
        read.append((table, check))
    if not root.has("check"):
        root.wrong("check", "It is missing. Add at least one [[check]] with a kind.")
    return read


def prepare(checks: Iterable[BaseCheck]) -> None:
    """Load what checks need to judge. Raises `InputError` that names the check that lacks it."""
    for check in checks:
        try:
            check.prepare()
        except OstinatoError as error:
            raise InputError(f"The check '{check.name}' cannot judge: {error}") from error


def _at_its_place(table: Table, check: BaseCheck, folder: Path) -> BaseCheck:
    """Return a check with the path of its model, where that lies in the job's folder."""
    if isinstance(check, OnTopic):
        return replace(check, model=read_judging(table, folder, check.model, "encoder"))
    if isinstance(check, Judge) and not is_server(check.model):
        return replace(check, model=read_judging(table, folder, check.model, "model"))
    return check


def _key_told(table: Table, error: InputError) -> str:
    """Return the key of a check's table that an error tells of, or nothing."""
    if str(error).startswith("A check must be one of"):
        return "kind"
    if error.key in table.values:
        return error.key
    return next((key for key in table.values if f"'{key}'" in str(error)), "")


def refuse_contradictions(read: Sequence[Read], sampling: Table, max_new_tokens: int) -> None:
    """Note the checks that no text can pass beside another one, or within `max_new_tokens`."""
    for first, second in combinations(read, 2):
        _refuse_lengths(first, second)
        _refuse_words(first, second)
        _refuse_words(second, first)
    for table, check in read:
        if isinstance(check, Length) and check.unit == "tokens":
            _refuse_few_tokens(table, check, sampling, max_new_tokens)


def _refuse_few_tokens(table: Table, check: Length, sampling: Table, most: int) -> None:
    if check.min is not None and check.min > most:
        given = "" if sampling.has("max_new_tokens") else " where it is not given"
        table.wrong(
            "min",
            f"It must be at most {sampling.place('max_new_tokens')}, which is {most}{given}, got "
            f"{check.min}. Every draft is cut there: lower this, or raise that.",
        )


def _refuse_lengths(first: Read, second: Read) -> None:
    (one, a), (other, b) = first, second
    if not isinstance(a, Length) or not isinstance(b, Length) or a.unit != b.unit:
        return
    if a.max is not None and b.min is not None and b.min > a.max:
        other.wrong(
            "min",
            f"It must be at most {one.place('max')}, which is {a.max} {a.unit}, got {b.min}. No "
            "text passes both: lower this, or raise that.",
        )
    if a.min is not None and b.max is not None and b.max < a.min:
        other.wrong(
            "max",
            f"It must be at least {one.place('min')}, which is {a.min} {a.unit}, got {b.max}. No "
            "text passes both: raise this, or lower that.",
        )


def _refuse_words(wanting: Read, refusing: Read) -> None:
    """Note where a text that must be said holds one that must not."""
    (one, contains), (other, excludes) = wanting, refusing
    if not isinstance(contains, Contains) or not isinstance(excludes, Excludes | Blocked):
        return
    found = _found_by(excludes, contains)
    refused = [] if found is None else [t for t in contains.texts if found.find(t) is not None]
    if not refused or (contains.mode == "any" and not _all_refused(contains, refused)):
        return
    key = "words" if isinstance(excludes, Blocked) else "texts"
    other.wrong(
        key if other.has(key) else "file",
        f'It must leave "{refused[0]}" to be said, which {one.place("texts")} asks for. No text '
        "passes both: take it out of one.",
    )


def _all_refused(contains: Contains, refused: Sequence[str]) -> bool:
    alternatives = contains.patterns or contains.column
    return not alternatives and len(refused) == len(contains.texts)


def _found_by(excludes: Excludes | Blocked, contains: Contains) -> Finder | None:
    """Return what finds each refused text in one that is said, however it is said; else None."""
    blocked = isinstance(excludes, Blocked)
    texts = excludes.words if isinstance(excludes, Blocked) else excludes.texts
    whole = True if isinstance(excludes, Blocked) else excludes.whole
    if not texts or (whole and not contains.whole) or (excludes.case and not contains.case):
        return None
    return finder(texts, case=excludes.case, whole=whole, wild=blocked)
