"""The numbered migrations of a journal's tables. `docs/journal.md` describes the newest ones.

Knows SQLite only: no run, no driver.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping

from ostinato.journal.artifacts.schema import add_artifact_tables


def _first_tables(connection: sqlite3.Connection) -> None:
    # One by one: `executescript` would commit the transaction of the migration first.
    for statement in _VERSION_1.split(";\n"):
        connection.execute(statement)


_VERSION_1 = """
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  spec TEXT NOT NULL,
  status TEXT NOT NULL,
  tick INTEGER NOT NULL,
  position INTEGER NOT NULL,
  stopped TEXT,
  edits TEXT,
  parent TEXT,
  parent_tick INTEGER,
  created REAL NOT NULL,
  updated REAL NOT NULL
);
CREATE TABLE steps (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (run, first)
);
CREATE TABLE events (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  name TEXT NOT NULL,
  data TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, seq)
);
CREATE TABLE results (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  number INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  row TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, key)
);
CREATE UNIQUE INDEX results_in_order ON results (run, number);
CREATE TABLE checkpoints (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  tick INTEGER NOT NULL,
  position INTEGER NOT NULL,
  file TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, tick)
);
CREATE TABLE requests (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  action TEXT NOT NULL,
  edits TEXT,
  created REAL NOT NULL,
  done REAL
);
CREATE INDEX requests_to_do ON requests (run) WHERE done IS NULL"""


_CONDITIONS = re.compile(r"\b(Past|When|Possible)(?=\()")
_CONDITION_NAMES = {"Past": "Exceeds", "When": "Predicate", "Possible": "StillPassable"}
_SPELLED = ("until", "was", "condition")  # keys whose values spell a condition
_CONFIG_NAMES = {
    "optimiser": "optimizer",
    "adam_share": "adamw_lr_scale",
    "final": "min_lr_ratio",
    "clip": "max_grad_norm",
    "ema": "ema_decay",
    "accumulate": "gradient_accumulation_steps",
    "warmup": "warmup_steps",
}
_KEY_NAMES: dict[tuple[str, str], dict[str, dict[str, str]]] = {
    # of each column: the object in it ("" for the whole) and the new names of its keys
    ("runs", "spec"): {"": {"way": "compute_mode"}, "config": _CONFIG_NAMES},
    ("runs", "stopped"): {},
    ("events", "data"): {},
    ("results", "row"): {"": {"tries": "backtracks"}},
}


def _new_names(connection: sqlite3.Connection) -> None:
    """Give the settings, results and conditions of older runs the names that they have today."""
    for (table, column), objects in _KEY_NAMES.items():
        rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
        for rowid, text in rows:
            value = _respelled(json.loads(text) if text else None)
            if not isinstance(value, dict):
                continue
            for key, names in objects.items():
                part = value.get(key) if key else value
                if isinstance(part, dict):
                    _rename(part, names)
            renamed = json.dumps(value, separators=(",", ":"))
            if renamed != text:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (renamed, rowid)
                )


def _respelled(value: object) -> object:
    """Return a JSON value in which spelled conditions have today's names."""
    if isinstance(value, list):
        return [_respelled(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _CONDITIONS.sub(lambda name: _CONDITION_NAMES[name[1]], each)
        if key in _SPELLED and isinstance(each, str)
        else _respelled(each)
        for key, each in value.items()
    }


def _rename(values: dict[str, object], names: Mapping[str, str]) -> None:
    """Rename keys, which keep their order."""
    items = list(values.items())
    values.clear()
    values.update({names.get(key, key): value for key, value in items})


def _sizes(connection: sqlite3.Connection) -> None:
    """Add to each run the bytes of its rows: to add them up takes long where there are many."""
    connection.execute("ALTER TABLE runs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
    rows = " + ".join(
        f"(SELECT COALESCE(SUM(LENGTH(CAST({column} AS BLOB))), 0) FROM {table} "
        "WHERE run = runs.id)"
        for table, column in (("steps", "data"), ("events", "data"), ("results", "row"))
    )
    connection.execute(f"UPDATE runs SET bytes = {rows}")


def _one_log(connection: sqlite3.Connection) -> None:
    """Number all entries of a run in one order; add calls, notes, answers and the tree of calls."""
    for statement in _VERSION_4.split(";\n"):
        connection.execute(statement)


# What an older run holds is put in order by its ticks: a block of steps at its first tick, all else
# at the highest tick up to then, in the order of its own table.
_VERSION_4 = """
ALTER TABLE runs ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN caller TEXT;
ALTER TABLE runs ADD COLUMN caller_path TEXT;
ALTER TABLE runs ADD COLUMN brief INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX runs_called ON runs (caller, caller_path) WHERE caller IS NOT NULL;
CREATE INDEX runs_branched ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_brief ON runs (updated) WHERE brief;
ALTER TABLE steps ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results RENAME COLUMN number TO seq;
ALTER TABLE checkpoints ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests RENAME COLUMN edits TO data;
ALTER TABLE requests ADD COLUMN path TEXT;
ALTER TABLE requests ADD COLUMN answer TEXT;
ALTER TABLE requests ADD COLUMN error TEXT;
CREATE TABLE calls (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  path TEXT NOT NULL,
  seq INTEGER NOT NULL,
  tick INTEGER NOT NULL,
  arguments TEXT NOT NULL,
  answer TEXT,
  error TEXT,
  child TEXT,
  author TEXT,
  created REAL NOT NULL,
  PRIMARY KEY (run, path)
);
CREATE UNIQUE INDEX calls_in_order ON calls (run, seq);
CREATE TABLE notes (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  key TEXT NOT NULL,
  verdict TEXT NOT NULL,
  value TEXT,
  text TEXT NOT NULL,
  author TEXT NOT NULL,
  created REAL NOT NULL,
  PRIMARY KEY (run, seq)
);
CREATE INDEX notes_of_results ON notes (run, key);
CREATE TEMP TABLE numbered (name TEXT, id INTEGER, seq INTEGER, PRIMARY KEY (name, id));
INSERT INTO numbered
SELECT name, id, SUM(width) OVER (
  PARTITION BY run ORDER BY at, rank, created, own ROWS UNBOUNDED PRECEDING
) - width + 1
FROM (
  SELECT run, 'steps' AS name, rowid AS id, first AS at, 0 AS rank, 0.0 AS created, first AS own,
    last - first + 1 AS width FROM steps
  UNION ALL
  SELECT run, 'events', rowid, MAX(tick) OVER own, CASE name WHEN 'start' THEN -1 ELSE 1 END,
    MAX(created) OVER own, seq, 1 FROM events WINDOW own AS (PARTITION BY run ORDER BY seq)
  UNION ALL
  SELECT run, 'results', rowid, MAX(tick) OVER own, 1, MAX(created) OVER own, seq, 1
    FROM results WINDOW own AS (PARTITION BY run ORDER BY seq)
  UNION ALL
  SELECT run, 'checkpoints', rowid, tick, 1, created, tick, 1 FROM checkpoints
);
UPDATE steps SET seq = (SELECT seq FROM numbered WHERE name = 'steps' AND id = steps.rowid);
UPDATE events SET seq = -(SELECT seq FROM numbered WHERE name = 'events' AND id = events.rowid);
UPDATE events SET seq = -seq;
UPDATE results SET seq = -(SELECT seq FROM numbered WHERE name = 'results' AND id = results.rowid);
UPDATE results SET seq = -seq;
UPDATE checkpoints SET seq =
  (SELECT seq FROM numbered WHERE name = 'checkpoints' AND id = checkpoints.rowid);
DROP TABLE numbered;
UPDATE runs SET seq = MAX(
  (SELECT COALESCE(MAX(seq + last - first), 0) FROM steps WHERE run = runs.id),
  (SELECT COALESCE(MAX(seq), 0) FROM events WHERE run = runs.id),
  (SELECT COALESCE(MAX(seq), 0) FROM results WHERE run = runs.id),
  (SELECT COALESCE(MAX(seq), 0) FROM checkpoints WHERE run = runs.id)
);
CREATE INDEX steps_in_log ON steps (run, seq);
CREATE INDEX checkpoints_in_log ON checkpoints (run, seq)"""


def _calls_in_order(connection: sqlite3.Connection) -> None:
    """Keep the calls of a run in the order of its log, with one index: two to write, not three."""
    for statement in _VERSION_6.split(";\n"):
        connection.execute(statement)


_VERSION_6 = """
CREATE TABLE ordered (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  path TEXT NOT NULL,
  tick INTEGER NOT NULL,
  arguments TEXT NOT NULL,
  answer TEXT,
  error TEXT,
  child TEXT,
  author TEXT,
  created REAL NOT NULL,
  PRIMARY KEY (run, seq)
) WITHOUT ROWID;
INSERT INTO ordered
SELECT run, seq, path, tick, arguments, answer, error, child, author, created
FROM calls ORDER BY run, seq;
DROP TABLE calls;
ALTER TABLE ordered RENAME TO calls;
CREATE UNIQUE INDEX calls_by_path ON calls (run, path)"""

MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _first_tables,
    _new_names,
    _sizes,
    _one_log,
    add_artifact_tables,
    _calls_in_order,
)
"""Migration n (from 1) brings schema n - 1 to n. Entries are only ever added."""
