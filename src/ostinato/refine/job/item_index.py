"""What is known of the items of an input before any work: one row for each, in a SQLite file.

A job's items may be more than the memory holds, so they are compared, counted and found here. Knows
keys and hashes; knows no prompt and no model.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ostinato.arguments import counted, reason
from ostinato.errors import OutputError, RunError
from ostinato.journal import JSON

SHOWN = 3
"""How many keys of a group are named."""

_TABLE = """
CREATE TABLE items (
  number INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  line INTEGER NOT NULL,
  digest TEXT NOT NULL,
  source TEXT NOT NULL,
  rule TEXT NOT NULL
)
"""

_FACTS = "SELECT number, key, line, digest, source, rule FROM items"

_NUMBER_EQUAL_KEYS = """
UPDATE items SET key = substr(key, 1, length(key) - 1) || again.times FROM (
  SELECT * FROM (
    SELECT number AS place, ROW_NUMBER() OVER (PARTITION BY key ORDER BY number) AS times
    FROM items
  ) WHERE times > 1
) AS again WHERE number = again.place
"""


class ItemFacts(NamedTuple):
    """What is known of an item: its position, its key, and its line in the input.

    `digest` is the hash of all that its reply depends on besides the sections of the job; `source`
    and `rule` say how it is routed.
    """

    number: int
    key: str
    line: int
    digest: str
    source: str = "model"
    rule: str = ""


@dataclass(frozen=True)
class Keys:
    """A group of items: how many there are, and the keys of the first ones."""

    count: int = 0
    first: tuple[str, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """Count keys, and keep the first `SHOWN`."""
        count, first = 0, list[str]()
        for key in keys:
            count += 1
            if count <= SHOWN:
                first.append(key)
        return cls(count, tuple(first))

    def __str__(self) -> str:
        shown = ", ".join(self.first) + (", …" if self.count > len(self.first) else "")
        return f"{counted(self.count, 'items')} ({shown})"


NO_KEYS = Keys()


@dataclass(frozen=True, kw_only=True)
class ItemChanges:
    """How the items of a job differ from those of a run.

    `reordered`: those in both are in another order. `shortened`: a limit leaves some out.
    """

    changed: Keys = NO_KEYS
    added: Keys = NO_KEYS
    removed: Keys = NO_KEYS
    reordered: bool = False
    shortened: bool = False


class ItemIndex:
    """The first `limit` items of an input; a view on a file that never changes.

    Raises `RunError` for a file that cannot be read.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = path
        with _readable(path):
            self._connection = _connected(path)
            weakref.finalize(self, self._connection.close)
            self.whole = int(self._one("SELECT COUNT(*) FROM items"))
            self._one(f"SELECT EXISTS ({_FACTS} LIMIT 1)")  # a file of another form
        self._count = self.whole if limit is None else min(limit, self.whole)

    def __len__(self) -> int:
        return self._count

    def first(self, limit: int | None) -> ItemIndex:
        """Return the view on the first `limit` items of the file."""
        return ItemIndex(self.path, limit)

    def to_json(self) -> dict[str, JSON]:
        """Return what a run records of its items."""
        return {"file": self.path.name, "count": len(self)}

    def facts(self, start: int = 0) -> Iterator[ItemFacts]:
        """Yield what is known of each item from the position `start` on."""
        query = f"{_FACTS} WHERE number >= ? AND number < ? ORDER BY number"
        with _readable(self.path):
            rows = self._connection.execute(query, (start, self._count))
            yield from map(ItemFacts._make, rows)  # a generator, which keeps the connection open

    @cached_property
    def digest(self) -> str:
        """The hash of the keys and digests of all items, in their order."""
        running = hashlib.blake2b(digest_size=16)
        for facts in self.facts():
            running.update(f"{facts.key}\0{facts.digest}\0".encode("utf-8", "surrogatepass"))
        return running.hexdigest()

    def has_same_items(self, other: ItemIndex) -> bool:
        """Return whether another index has the same items in the same order."""
        same_file = other.path.name == self.path.name
        return len(other) == len(self) and (same_file or other.digest == self.digest)

    @property
    def all_ready(self) -> bool:
        """Whether a rule or a past case answers every item."""
        return not self._one(
            "SELECT EXISTS (SELECT 1 FROM items WHERE number < ? AND source = 'model')",
            self._count,
        )

    def changes_since(self, before: ItemIndex) -> ItemChanges:
        """Compare with the items of an earlier run.

        An item that only the limit leaves out is not removed.
        """
        if self.has_same_items(before):
            return ItemChanges()
        with self._beside(before):
            return self._compared(before._count)

    def unchanged_since(self, before: ItemIndex) -> Iterator[tuple[int, str]]:
        """Yield (position, key) of each item whose digest is the same in an earlier run."""
        query = (
            "SELECT i.number, i.key FROM items AS i JOIN earlier.items AS e ON e.key = i.key "
            "WHERE i.number < ? AND e.number < ? AND e.digest = i.digest ORDER BY i.number"
        )
        with (
            self._beside(before),
            closing(self._connection.execute(query, (self._count, before._count))) as rows,
        ):
            yield from rows

    @contextmanager
    def _beside(self, other: ItemIndex) -> Iterator[None]:
        """Attach another index as `earlier`."""
        with _readable(self.path, other.path):
            self._connection.execute("ATTACH ? AS earlier", (str(other.path),))
            try:
                yield
            finally:
                self._connection.execute("DETACH earlier")

    def _compared(self, earlier: int) -> ItemChanges:
        here, there = "i.number < :now", "e.number < :then"
        both = f"FROM items AS i JOIN earlier.items AS e ON e.key = i.key WHERE {here} AND {there}"
        kept = "SELECT 1 FROM items AS i WHERE i.key = e.key"
        old = "SELECT 1 FROM earlier.items AS e WHERE e.key = i.key"
        numbers = {"now": self._count, "then": earlier}

        def keys(query: str) -> Keys:
            rows = self._connection.execute(query, numbers)
            return Keys.of(key for (key,) in rows)

        order = self._connection.execute(f"SELECT e.number {both} ORDER BY i.number", numbers)
        last, reordered = -1, False
        for (number,) in order:
            reordered |= number < last
            last = number
        missing = f"SELECT e.key FROM earlier.items AS e WHERE {there} AND NOT EXISTS"
        left_out = f"{kept} AND i.number >= :now"
        return ItemChanges(
            changed=keys(f"SELECT i.key {both} AND e.digest <> i.digest ORDER BY i.number"),
            added=keys(
                f"SELECT i.key FROM items AS i WHERE {here} AND NOT EXISTS ({old} AND {there}) "
                "ORDER BY i.number"
            ),
            removed=keys(f"{missing} ({kept}) ORDER BY e.number"),
            # Rows that moved are not written again, but the output has another order.
            reordered=reordered,
            shortened=bool(
                self._connection.execute(
                    f"SELECT EXISTS (SELECT 1 FROM earlier.items AS e WHERE {there} "
                    f"AND EXISTS ({left_out}))",
                    numbers,
                ).fetchone()[0]
            ),
        )

    def _one(self, query: str, *values: object) -> Any:
        return self._connection.execute(query, values).fetchone()[0]


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


@contextmanager
def _readable(*paths: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged index into a `RunError` that names its file."""
    try:
        yield
    except sqlite3.Error as error:
        path = next((path for path in paths if not _is_whole(path)), paths[0])
        raise RunError(
            f"The items of a run must be recorded in {path}, got: {error}. Delete that file, and "
            "run the same command again."
        ) from error


def _is_whole(path: Path) -> bool:
    try:
        with closing(_connected(path)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False


class IndexWriter:
    """Writes the file of an `ItemIndex`, beside its place until it is whole. A context manager."""

    BATCH = 1000

    def __init__(self, path: Path) -> None:
        self.path = path
        # A name that no other process takes.
        self._file = path.with_name(f".{path.name}.{os.getpid()}-{time.time_ns():x}")
        self._waiting: list[ItemFacts] = []

    def __enter__(self) -> IndexWriter:
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._file, isolation_level=None)
            # A crash leaves a file that nobody reads: it gets its name when it is whole.
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute(_TABLE)
            self._connection.execute("BEGIN")
        return self

    def __exit__(self, *raised: object) -> None:
        self._connection.close()
        self._file.unlink(missing_ok=True)

    def add(self, facts: ItemFacts) -> None:
        """Add the next item."""
        self._waiting.append(facts)
        if len(self._waiting) >= self.BATCH:
            self._write()

    def number_equal_keys(self) -> None:
        """Give keys that end in -1 and occur again the number of their occurrence instead."""
        self._with_keys()
        with self._told():
            self._connection.execute(_NUMBER_EQUAL_KEYS)

    def doubles(self) -> Iterator[tuple[int, str, int]]:
        """Yield (line, key, first line with that key) of each item whose key came before."""
        self._with_keys()
        with self._told():
            yield from self._connection.execute(
                "SELECT i.line, i.key, f.line FROM items AS i JOIN (SELECT key, MIN(number) AS "
                "first FROM items GROUP BY key HAVING COUNT(*) > 1) AS d ON d.key = i.key "
                "JOIN items AS f ON f.number = d.first WHERE i.number > d.first ORDER BY i.number"
            )

    def finish(self) -> ItemIndex:
        """Put the file at its place, and return the index."""
        self._with_keys()
        with self._told():
            self._connection.execute("COMMIT")
            self._connection.close()
            with self._file.open("rb") as file:  # a power cut must not leave a part of it
                os.fsync(file.fileno())
            os.replace(self._file, self.path)
        return ItemIndex(self.path)

    def _write(self) -> None:
        with self._told():
            self._connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", self._waiting
            )
        self._waiting.clear()

    def _with_keys(self) -> None:
        """Write what waits, and sort by keys: much quicker once than item by item."""
        self._write()
        with self._told():
            self._connection.execute("CREATE INDEX IF NOT EXISTS by_key ON items (key)")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            why = reason(error) if isinstance(error, OSError) else error
            raise OutputError(
                f"{self.path} must be a file that can be written, got: {why}. Make room or "
                "access, and run the same command again."
            ) from error


def index_of(path: Path, digests: Mapping[str, str]) -> ItemIndex:
    """Write the index of items of which an older run recorded only keys and digests."""
    with IndexWriter(path) as writer:
        for number, (key, digest) in enumerate(digests.items()):
            writer.add(ItemFacts(number, key, 0, digest))
        return writer.finish()


def forget_indexes(folder: Path, used: Iterable[str], before: float) -> None:
    """Delete the indexes in a folder that no run uses and that were written `before` a time.

    A younger one may be that of a run that is about to be made.
    """
    keep = set(used)
    # The second are parts that a killed process left.
    for path in [*folder.glob("*.db"), *folder.glob(".*.db.*")]:
        with suppress(OSError):  # another process may be faster
            if path.name not in keep and path.stat().st_mtime < before:
                path.unlink()
