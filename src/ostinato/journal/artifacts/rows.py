"""The artifacts of a journal and of a run, as they are listed and found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import Artifact
from ostinato.journal.sqlite.database import Database


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """An artifact of a run, and where it came first.

    `bytes` are those on the disk. `source` is "step", "event", "checkpoint" or, with its `key`,
    "result" or "call". Steps are written in blocks: `tick` is that of the first step of a block.
    """

    artifact: Artifact
    bytes: int
    tick: int
    source: str
    key: str | None

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        place = {"bytes": self.bytes, "tick": self.tick, "source": self.source, "key": self.key}
        return {**self.artifact, **place}


def find_artifact(database: Database, prefix: str) -> Artifact:
    """Return the artifact of a hash, or of its first digits. Raises `RunError` without one."""
    rows = database.query(
        "SELECT hash, kind, dtype, shape, rate FROM artifacts WHERE hash >= ?1 AND hash < ?2 "
        "LIMIT 2",
        (prefix, prefix + "g"),  # the letter after the last hexadecimal digit
    )
    if len(rows) != 1:
        got = "several" if rows else "none"
        raise RunError(
            f"The hash of an artifact must be one of {database.path}, got {prefix!r}, which is "
            f"that of {got}."
        )
    return artifact_of(database, rows[0])


def artifact_of(database: Database, row: tuple[Any, ...]) -> Artifact:
    """Return the artifact of a row (hash, kind, dtype, shape, rate)."""
    hash, kind, dtype, shape, rate = row
    reference = {"artifact": hash, "kind": kind, "dtype": dtype, "shape": json.loads(shape)}
    return Artifact(reference if rate is None else {**reference, "rate": rate}, database)


def artifacts_of(database: Database, run: str) -> list[ArtifactRow]:
    """Return the artifacts of a run, in the order in which they came."""
    rows = database.query(
        "SELECT a.hash, kind, dtype, shape, rate, bytes, tick, source, key FROM artifact_uses u "
        "JOIN artifacts a ON a.hash = u.hash WHERE run = ? ORDER BY u.rowid",
        (run,),
    )
    return [ArtifactRow(artifact_of(database, row[:5]), *row[5:]) for row in rows]
