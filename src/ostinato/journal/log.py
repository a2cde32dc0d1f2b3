"""The log of a run: its steps, events, results, checkpoints, calls and notes, read by number.

All entries of a run share one sequence of numbers, and later transactions have higher ones. So who
remembers the last number misses nothing and sees nothing twice. A block of steps has the number of
its first step, and each step the number at its distance in ticks: steps pay for no numbers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import reader
from ostinato.journal.encoding import decode
from ostinato.journal.fields import as_object
from ostinato.journal.records import (
    Call,
    CheckpointRow,
    Event,
    LogEntry,
    Note,
    Result,
    StepRecord,
)
from ostinato.journal.sqlite.columns import decode_block
from ostinato.journal.sqlite.database import Database

LAST_CHARACTER = "\U0010ffff"
MANY = 1024  # calls read at once: their answers are short
PAGE = 64  # rows read at once: no transaction stays open while the caller handles a row
BLOCKS = 4  # of up to 2,048 steps
LONGEST_NAME = 255  # of a file
LAST = (1 << 63) - 1


class RunReader:
    """Reads the tables of one run, page by page."""

    def __init__(self, database: Database, run: str) -> None:
        self._database, self._run = database, run
        self._decode = reader(database)  # of what may refer to artifacts

    def entries(self, after: int) -> Iterator[LogEntry]:
        """Yield the entries with numbers above `after` that are there now, in order.

        Raises `RunError` where the run has been deleted.
        """
        rows = self._database.query("SELECT seq FROM runs WHERE id = ?", (self._run,))
        if not rows:
            raise RunError(f"The run {self._run} is not in {self._database.path}: it was deleted.")
        # The tables are read one after the other: what is committed meanwhile is for the next time.
        upto = rows[0][0]
        if upto <= after:
            return
        tables: tuple[Iterator[LogEntry], ...] = (
            self.steps_in_log(after, upto),
            self.events(after, upto),
            self.results(after, upto),
            self.checkpoints_in_log(after, upto),
            self.calls(after, upto),
            self.notes(after, upto),
        )
        yield from heapq.merge(*tables, key=_number)

    # Steps ------------------------------------------------------------------------------------

    def steps(self, after: int) -> Iterator[StepRecord]:
        """Yield the steps of ticks above `after`, in the order of their ticks."""
        while rows := self._database.query(
            "SELECT last, first, seq, data FROM steps WHERE run = ? AND last > ? ORDER BY first "
            f"LIMIT {BLOCKS}",
            (self._run, after),
        ):
            for last, first, seq, data in rows:
                for tick, position, report in decode_block(data, self._decode):
                    if tick > after:
                        yield StepRecord(tick, position, report, seq + tick - first)
                after = last

    def steps_in_log(self, after: int, upto: int) -> Iterator[StepRecord]:
        """Yield the steps with numbers above `after` and up to `upto`."""
        # The block in which `after` lies is the last that starts at or before it.
        start = "(SELECT COALESCE(MAX(seq), 0) FROM steps WHERE run = ?1 AND seq <= ?2)"
        while rows := self._database.query(
            f"SELECT first, last, seq, data FROM steps WHERE run = ?1 AND seq >= {start} "
            f"AND seq + last - first > ?2 AND seq <= ?3 ORDER BY seq LIMIT {BLOCKS}",
            (self._run, after, upto),
        ):
            for first, last, seq, data in rows:
                for tick, position, report in decode_block(data, self._decode):
                    if seq + tick - first > after:
                        yield StepRecord(tick, position, report, seq + tick - first)
                after = seq + last - first

    # All else ---------------------------------------------------------------------------------

    def events(self, after: int = 0, upto: int = LAST) -> Iterator[Event]:
        """Yield the events with numbers above `after` and up to `upto`."""
        for seq, tick, name, data, created in self._page(
            "seq, tick, name, data, created FROM events", after, upto
        ):
            yield Event(seq, tick, name, as_object(self._decode(data)), created)

    def results(self, after: int = 0, upto: int = LAST) -> Iterator[Result]:
        """Yield the results with numbers above `after` and up to `upto`."""
        for seq, tick, key, row, created in self._page(
            "seq, tick, key, row, created FROM results", after, upto
        ):
            yield Result(seq, tick, key, as_object(self._decode(row)), created)

    def checkpoints(self) -> list[CheckpointRow]:
        """Return the checkpoints that exist, in the order of their ticks."""
        rows = self._database.query(
            f"SELECT {_CHECKPOINT} FROM checkpoints WHERE run = ? ORDER BY tick", (self._run,)
        )
        return [self._checkpoint(row) for row in rows]

    def checkpoints_in_log(self, after: int, upto: int) -> Iterator[CheckpointRow]:
        """Yield the checkpoints that exist with numbers above `after` and up to `upto`."""
        for row in self._page(f"{_CHECKPOINT} FROM checkpoints", after, upto):
            yield self._checkpoint(row)

    def _checkpoint(self, row: tuple[Any, ...]) -> CheckpointRow:
        seq, tick, position, file, size, created, crc = row
        # A journal may come from somebody else: a row must not lead out of the run's folder.
        if not file or Path(file).name != file or file.startswith(".") or len(file) > LONGEST_NAME:
            raise RunError(f"A checkpoint must be a file of the run's folder, got {file!r:.60}.")
        path = self._database.folder_of(self._run) / file
        return CheckpointRow(tick, position, path, size, created, crc, seq)

    def calls(self, after: int = 0, upto: int = LAST) -> Iterator[Call]:
        """Yield the calls with numbers above `after` and up to `upto`."""
        for row in self._page(f"{_CALL} FROM calls", after, upto):
            yield self._call(row)

    def calls_under(self, prefix: str) -> Iterator[Call]:
        """Yield the calls whose paths begin with `prefix`, by path."""
        after = prefix
        while True:
            rows = self._database.query(
                f"SELECT {_CALL} FROM calls WHERE run = ? AND path > ? AND path < ? "
                "ORDER BY path LIMIT ?",
                (self._run, after, prefix + LAST_CHARACTER, MANY),
            )
            yield from map(self._call, rows)
            if len(rows) < MANY:
                return
            after = rows[-1][2]

    def find_call(self, path: str) -> Call | None:
        """Return the call of a path; None where it has no answer yet."""
        rows = self._database.query(
            f"SELECT {_CALL} FROM calls WHERE run = ? AND path = ?", (self._run, path)
        )
        return self._call(rows[0]) if rows else None

    def _call(self, row: tuple[Any, ...]) -> Call:
        seq, tick, path, arguments, answer, error, child, author, created = row
        return Call(
            seq=seq,
            tick=tick,
            path=path,
            arguments=as_object(decode(arguments)),
            answer=None if answer is None else self._decode(answer),
            error=error,
            child=child,
            author=author,
            created=created,
        )

    def notes(self, after: int = 0, upto: int = LAST) -> Iterator[Note]:
        """Yield the notes with numbers above `after` and up to `upto`."""
        for seq, key, verdict, value, text, author, created in self._page(
            "seq, key, verdict, value, text, author, created FROM notes", after, upto
        ):
            yield Note(seq, key, verdict, value and as_object(decode(value)), text, author, created)

    def _page(self, columns: str, after: int, upto: int) -> Iterator[tuple[Any, ...]]:
        """Yield rows by number, which is the first column; no transaction stays open meanwhile."""
        while True:
            rows = self._database.query(
                f"SELECT {columns} WHERE run = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (self._run, after, upto, PAGE),
            )
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


_CHECKPOINT = "seq, tick, position, file, bytes, created, crc"
_CALL = "seq, tick, path, arguments, answer, error, child, author, created"


def _number(entry: LogEntry) -> int:
    return entry.seq
