"""The items of a job as a stream: checked and hashed in one pass, read again while it works.

Memory holds a few of them, however many there are. Knows prompts, rules and past cases; no model.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError, ItemError, RunError
from ostinato.loop import UniqueItems, digest
from ostinato.models import weights_digest
from ostinato.refine.inputs import check_value
from ostinato.refine.job.config import Job
from ostinato.refine.job.item_index import IndexWriter, ItemFacts, ItemIndex
from ostinato.refine.job.items import Item
from ostinato.refine.progress import PassProgress
from ostinato.refine.prompts import conversation
from ostinato.refine.routing.router import Router
from ostinato.row_files import iter_rows, place
from ostinato.text_files import FileProblems

T = TypeVar("T")

FORMAT = 1
"""Of the index: another number makes every index anew."""

PAGE = 256
"""Items in a list of `pages`."""

LINES = 8
"""How many of the lines without a column are named."""


class JobItems:
    """The first items of a job's input, in its order, with what the index knows of each.

    Raises `InputError` while they are read where the input is not what the index was made of.
    """

    def __init__(self, path: Path, index: ItemIndex, signature: tuple[int, ...]) -> None:
        self.path = path
        self.index = index
        self._signature = signature

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Item]:
        return (item for item, _ in self.with_facts())

    @property
    def whole(self) -> bool:
        """Whether these are all items of the input."""
        return len(self.index) == self.index.whole

    def first(self, limit: int | None) -> JobItems:
        """Return the first `limit` of them; all for None."""
        return JobItems(self.path, self.index.first(limit), self._signature)

    def with_facts(self, start: int = 0) -> Iterator[tuple[Item, ItemFacts]]:
        """Yield each item from the position `start` on, with what the index knows of it."""
        if start >= len(self):
            return
        rows = iter_rows(self.path, keep_halves=True)
        facts = self.index.facts(start)
        for (line, columns), known in zip(islice(rows, start, None), facts, strict=False):
            # After it was read: what is worked on is what the index was made of.
            _require_same(self.path, self._signature)
            yield Item(known.key, known.number, columns, line), known
        _require_same(self.path, self._signature)  # a shorter file has ended early

    def pairs(self) -> UniqueItems:
        """Return them as lanes take them."""
        return _Pairs(self)


class _Pairs(UniqueItems):
    def __init__(self, items: JobItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def pairs(self, start: int = 0) -> Iterator[tuple[str, object]]:
        return ((item.key, item.columns) for item, _ in self._items.with_facts(start))


def signature_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written: its size, time and number; empty for none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


def pages(items: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """Yield items in lists of at most `size`."""
    coming = iter(items)
    while page := list(islice(coming, size)):
        yield page


def _require_same(path: Path, signature: tuple[int, ...]) -> None:
    if signature_of(path) != signature:
        raise InputError(
            f"The input must stay as it is while the job works, and {path.name} has changed. "
            "Nothing is lost: run the same command again."
        )


# One pass ---------------------------------------------------------------------------------------


def read_job_items(
    job: Job, router: Router, folder: Path, *, say: Callable[[str], None] = lambda line: None
) -> JobItems:
    """Return all items of a job, with their index in `folder`; it is made where it is not there.

    `say` gets lines about the progress of a long pass. Raises `InputError` that lists what is
    wrong with the input, with file, line and column.
    """
    signature = signature_of(job.input)
    path = folder / f"{_inputs_digest(job)}.db"
    if path.exists():
        with suppress(RunError):  # damaged, or gone meanwhile: it is made anew
            index = ItemIndex(path)
            with suppress(OSError):
                os.utime(path)  # it is used
            return JobItems(job.input, index, signature)
    return _indexed(job, path, signature, partial(item_facts, router), say)


@contextmanager
def checked_items(job: Job) -> Iterator[JobItems]:
    """Yield all items of a job, without how they are routed. Raises `InputError` as that does.

    Their index is in a temporary folder.
    """
    with TemporaryDirectory(prefix="ostinato-") as folder:
        yield _indexed(job, Path(folder, "items.db"), signature_of(job.input), _unrouted)


def read_items(job: Job, limit: int | None = None) -> list[Item]:
    """Return the first `limit` items of a job as a list, once the whole input is checked."""
    with checked_items(job) as items:
        return list(items.first(limit))


def _indexed(
    job: Job,
    path: Path,
    signature: tuple[int, ...],
    facts: Callable[[Item], ItemFacts],
    say: Callable[[str], None] = lambda line: None,
) -> JobItems:
    with IndexWriter(path) as writer:
        _fill_index(job, facts, writer, say)
        # The index is that of the file that was there before.
        _require_same(job.input, signature)
        return JobItems(job.input, writer.finish(), signature)


def _fill_index(
    job: Job,
    facts: Callable[[Item], ItemFacts],
    writer: IndexWriter,
    say: Callable[[str], None],
) -> None:
    checks, number = RowChecks(job), -1
    reading = PassProgress(f"Reading {job.input.name}", say)
    rows = reading.over(iter_rows(job.input, keep_halves=True))
    for number, (line, columns) in enumerate(rows):
        # After a problem the job is refused, so the rest is only checked.
        if checks.accepts(line, columns):
            key = _id(columns[job.id]) if job.id else f"{digest(columns)[:12]}-1"
            writer.add(facts(Item(key, number, columns, line)))
    if number < 0:
        raise InputError(
            f"{job.input.name} must hold at least one item, got none. Add items to it."
        )
    checks.refuse(number + 1)
    if job.id:
        _refuse_doubles(job, writer)
    else:
        # A row keeps its key when others are inserted before it: it is that of its content.
        writer.number_equal_keys()


def item_facts(router: Router, item: Item) -> ItemFacts:
    """Route an item; return what its reply depends on besides `Job.sections`, as a hash."""
    try:
        route = router.route(item.columns)
    except ItemError as error:  # `Refine` reports it when the item's turn comes
        value: list[object] = [str(error)]
        return ItemFacts(item.index, item.key, item.line, digest([item.columns, value]))
    messages = list(route.messages)
    value = [messages[0]["content"] if router.prompt.plain else messages, route.reply]
    hashed = digest([item.columns, value])
    return ItemFacts(item.index, item.key, item.line, hashed, route.source.value, route.rule)


def _unrouted(item: Item) -> ItemFacts:
    return ItemFacts(item.index, item.key, item.line, digest="")


def _id(value: object) -> str:
    # The journal's keys are UTF-8; a half character is spelled out.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _refuse_doubles(job: Job, writer: IndexWriter) -> None:
    problems = FileProblems(job.input)
    for line, key, first in writer.doubles():
        at, other = place(job.input, line), place(job.input, first)
        problems.add(f"{at}: '{job.id}' must be unique, got {key!r} as on {other}")
    problems.refuse()


def _inputs_digest(job: Job) -> str:
    """Return a hash of all that an index depends on: equal ones need no second pass."""
    cases = job.cases
    parts = [
        *(FORMAT, version("ostinato"), job.id, _bytes_digest(job.file), _bytes_digest(job.input)),
        [check_value(check) for check in job.checks],
        _bytes_digest(cases.file) if cases else "",
        weights_digest(cases.encoder, "") if cases and cases.by != "words" else "",
    ]
    return digest(parts)


def _bytes_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, ValueError):  # whoever reads the file says what is wrong
        return f"unreadable at {time.time_ns()}"


class RowChecks:
    """What is wrong with the rows of an input: missing columns, bad ids, bad conversations.

    The first lines with a problem are kept, the others counted.
    """

    def __init__(self, job: Job) -> None:
        id_needed = {job.id: "the id"} if job.id else {}
        self._job = job
        self._needed = {**id_needed, **job.needed_columns()}
        self._missing: dict[str, tuple[int, list[int]]] = {}
        self._names: dict[str, None] = {}
        self._last: tuple[str, ...] = ()
        self._ids = FileProblems(job.input)
        self._conversations = FileProblems(job.input)
        prompts = [job.prompt, *(rule.prompt for rule in job.rules if rule.prompt)]
        self._columns = dict.fromkeys(p.messages_column for p in prompts if p.messages_column)

    def accepts(self, line: int, columns: Mapping[str, Any]) -> bool:
        """Look at a row; return whether nothing was wrong with any row so far."""
        if (names := tuple(columns)) != self._last:
            self._last = names
            self._names |= dict.fromkeys(names)
        if not self._needed.keys() <= columns.keys():
            self._lacks(line, columns)
        if not self._missing:
            self._look_at(line, columns)
        return not (self._missing or self._ids.count or self._conversations.count)

    def refuse(self, rows: int) -> None:
        """Raise `InputError` for the first kind of problem that was found in `rows` rows."""
        problems = FileProblems(self._job.input)
        for column in self._needed:
            if column in self._missing:
                problems.add(self._told(column, rows))
        problems.refuse()
        self._ids.refuse()
        self._conversations.refuse()

    def _lacks(self, line: int, columns: Mapping[str, Any]) -> None:
        for column in self._needed:
            if column not in columns:
                count, lines = self._missing.get(column, (0, []))
                self._missing[column] = count + 1, [*lines, line][:LINES]

    def _look_at(self, line: int, columns: Mapping[str, Any]) -> None:
        if self._job.id:
            value = columns[self._job.id]
            text = isinstance(value, str | int) and not isinstance(value, bool)  # true is an int
            if not text or not str(value).strip():
                at = place(self._job.input, line)
                self._ids.add(
                    f"{at}: '{self._job.id}' must be a text or a whole number, got {value!r}"
                )
        for column in self._columns:
            try:
                conversation(columns.get(column), column)
            except ItemError as error:
                self._conversations.add(f"{place(self._job.input, line)}: {error}")

    def _told(self, column: str, rows: int) -> str:
        """Say once which rows lack a column, however many they are."""
        count, lines = self._missing[column]
        if count == rows:
            names = f" The columns are: {', '.join(self._names)}." if self._names else ""
            at = place(self._job.input, lines[0]) if rows == 1 else "every row"
        else:
            shown = ", ".join(map(str, lines)) + (", …" if count > len(lines) else "")
            names, at = "", place(self._job.input, shown)
            at = at.replace(" ", "s ", 1) if count > 1 else at
        guess = did_you_mean(column, (name for name in self._names if name != column))
        return (
            f"{at}: the column '{column}' is missing; {self._needed[column]} needs it."
            f"{guess}{names}"
        )
