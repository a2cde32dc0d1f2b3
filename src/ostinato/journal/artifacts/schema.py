"""The tables of artifacts: their migration. Knows SQLite only."""

from __future__ import annotations

import sqlite3

ARTIFACT_BYTES = (
    "(SELECT COALESCE(SUM(a.bytes), 0) FROM artifact_uses u JOIN artifacts a ON a.hash = u.hash "
    "WHERE u.run = runs.id)"
)
"""SQL: the bytes of the artifacts that a run uses."""


def add_artifact_tables(connection: sqlite3.Connection) -> None:
    """Migration: make the tables of artifacts and of the runs that use them."""
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)


_TABLES = """
CREATE TABLE artifacts (
  hash TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  dtype TEXT NOT NULL,
  shape TEXT NOT NULL,
  rate INTEGER,
  coding TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  file TEXT,
  content BLOB
);
CREATE TABLE artifact_uses (
  run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  hash TEXT NOT NULL REFERENCES artifacts (hash) ON DELETE CASCADE,
  tick INTEGER NOT NULL,
  source TEXT NOT NULL,
  key TEXT,
  PRIMARY KEY (run, hash)
);
CREATE INDEX artifact_users ON artifact_uses (hash)"""
