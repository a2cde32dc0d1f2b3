"""Writes artifacts in the transactions of a run, and drops what nothing refers to any more.

Content of up to `IN_TABLE` bytes is in the table, which is faster than a file of its own: one sync
serves all rows of a transaction. Larger content is a file, which is on the disk before the row that
names it is committed: a crash in between leaves a file without a row, never a row without a file.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.artifacts.artifact import Sound, as_json, folder_of, refers
from ostinato.journal.artifacts.coding import PNG, encode_content
from ostinato.journal.artifacts.recorded_tensor import bytes_of
from ostinato.journal.encoding import encoder
from ostinato.journal.sqlite.database import Database
from ostinato.journal.state.checkpoint import artifacts_in, sync_folder

IN_TABLE = 1 << 17
"""Bytes of an artifact that the table holds; measured, a synced file is as fast from there on."""

_HASHES = re.compile(r'"artifact":"([0-9a-f]{40})"')


class ArtifactWriter:
    """Stores what a run refers to, in the run's own transactions.

    `end` is called after a transaction; `added` are the bytes that it added.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, run: str) -> None:
        self.added = 0
        self._connection = connection
        self._folder = folder_of(path)
        self._run = run
        # Hashes that steps, events and results refer to, for good: committed, and not yet.
        self._used: set[str] = set()
        self._new: set[str] = set()
        self._files: list[Path] = []
        self._gone: list[str] = []
        self._place: tuple[int, str, str | None] = (0, "step", None)
        self._encode = encoder(self._stand_in)
        # Those that only checkpoints refer to go with the last of these.
        rows = connection.execute(
            "SELECT hash FROM artifact_uses WHERE run = ? AND source = 'checkpoint'", (run,)
        )
        self._held = {hash for (hash,) in rows}

    def end(self, *, committed: bool) -> None:
        """Keep what was committed; remove the files of what was not, or is not there any more."""
        if committed:
            self._used |= self._new
            remove_files(self._folder, self._gone)
        else:
            remove_files(self._folder, [path.name for path in self._files])
        self.added = 0
        self._new.clear()
        self._files.clear()
        self._gone.clear()

    def encode(self, value: object, tick: int) -> str:
        """Write the JSON of steps, and store the artifacts in them."""
        self._place = (tick, "step", None)
        text = self._encode(value)
        if refers(text):
            self._share(text)
        return text

    def add(
        self, values: Iterable[Any], tick: int, source: str, key: str | None = None, text: str = ""
    ) -> None:
        """Store the tensors and sounds that something refers to; `text` is its JSON, if it has."""
        self._place = (tick, source, key)
        for value in values:
            self._stand_in(value)
        if refers(text):
            self._share(text)

    @property
    def holds_for_checkpoints(self) -> bool:
        """Whether there are artifacts that only checkpoints refer to."""
        return bool(self._held)

    def release(self, dropped: Iterable[Path], kept: Iterable[Path]) -> None:
        """Drop what only dropped checkpoints refer to; `kept` are the files of the others."""
        hashes = (self._held & _hashes_in(dropped)) - _hashes_in(kept)
        if not hashes:
            return
        self._held -= hashes
        which = "hash IN (SELECT value FROM json_each(?1))"
        chosen = json.dumps(sorted(hashes))
        (size,) = self._connection.execute(
            f"SELECT SUM(bytes) FROM artifacts WHERE {which}", (chosen,)
        ).fetchone()
        self._connection.execute(
            f"DELETE FROM artifact_uses WHERE {which} AND run = ?2", (chosen, self._run)
        )
        rows = self._connection.execute(
            f"DELETE FROM artifacts WHERE {which} AND NOT EXISTS "
            "(SELECT 1 FROM artifact_uses u WHERE u.hash = artifacts.hash) RETURNING file",
            (chosen,),
        ).fetchall()
        self.added -= size or 0
        self._gone += [file for (file,) in rows if file is not None]

    def _stand_in(self, value: Any) -> object:
        """Return what stands in JSON for a tensor; store it where that is a reference."""
        found = as_json(value)
        if isinstance(found, dict) and "artifact" in found and not self._has(found["artifact"]):
            self._use(found, value)
        return found

    def _has(self, hash: str) -> bool:
        source = self._place[1]
        if source == "result":  # it says more of where a picture is from than the step before it
            return False
        known = hash in self._used or hash in self._new
        return known or (source == "checkpoint" and hash in self._held)

    def _share(self, text: str) -> None:
        """Use also what came as a reference: a value that was read from a run of this journal."""
        for hash in set(_HASHES.findall(text)):
            if not self._has(hash):
                self._use({"artifact": hash}, None)

    def _use(self, reference: dict[str, Any], value: Any) -> None:
        hash = reference["artifact"]
        row = self._connection.execute(
            "SELECT bytes, EXISTS (SELECT 1 FROM artifact_uses WHERE run = ? AND hash = a.hash) "
            "FROM artifacts a WHERE hash = ?",
            (self._run, hash),
        ).fetchone()
        if row is None and value is None:  # of another journal
            return
        size, is_used = (self._insert(reference, value), False) if row is None else row
        if not is_used:
            self.added += size
        self._connection.execute(
            "INSERT INTO artifact_uses VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, hash) DO UPDATE "
            "SET source = excluded.source, key = excluded.key "
            "WHERE (excluded.source = 'result' AND source <> 'result') "
            "OR (source = 'checkpoint' AND excluded.source <> 'checkpoint')",
            (self._run, hash, *self._place),
        )
        if self._place[1] != "checkpoint":
            self._held.discard(hash)
            self._new.add(hash)
        elif not is_used:
            self._held.add(hash)

    def _insert(self, reference: dict[str, Any], value: Any) -> int:
        memory = bytes_of(value.samples if isinstance(value, Sound) else value)
        assert memory is not None
        hash, shape = reference["artifact"], reference["shape"]
        coding, content = encode_content(memory, reference["dtype"], tuple(shape))
        file = None
        if len(content) > IN_TABLE:
            file = self._write(hash, ".png" if coding == PNG else ".bin", content)
        self._connection.execute(
            "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(hash, reference["kind"], reference["dtype"], json.dumps(shape)),
                *(reference.get("rate"), coding, len(content), file),
                content if file is None else None,
            ),
        )
        return len(content)

    def _write(self, hash: str, suffix: str, content: bytes) -> str:
        # With the run, whose driver alone sweeps it, and never used again: a file whose row was
        # deleted can be removed at any time after.
        name = f"{self._run}-{hash}-{time.time_ns():x}{suffix}"
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files.append(path)
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._folder)
        except OSError as error:
            raise RunError(
                f"The artifact {path} could not be written: {error.strerror}. What was "
                "acknowledged is there; make room, and resume the run."
            ) from error
        return name


# Deletion and branches ------------------------------------------------------------------------


def drop_artifacts(connection: sqlite3.Connection, run: str) -> list[str]:
    """Delete the artifacts that no other run uses; return their files, to be removed after."""
    rows = connection.execute(
        "DELETE FROM artifacts WHERE hash IN (SELECT hash FROM artifact_uses WHERE run = ?1) "
        "AND NOT EXISTS "
        "(SELECT 1 FROM artifact_uses u WHERE u.hash = artifacts.hash AND u.run <> ?1) "
        "RETURNING file",
        (run,),
    ).fetchall()
    return [file for (file,) in rows if file is not None]


def remove_files(folder: Path, files: Iterable[str]) -> None:
    """Remove files of artifacts that have no rows any more."""
    for file in files:
        with suppress(OSError):
            (folder / Path(file).name).unlink(missing_ok=True)


def _hashes_in(checkpoints: Iterable[Path]) -> set[str]:
    """Return what checkpoints refer to; nothing of one that cannot be read."""
    hashes: set[str] = set()
    for path in checkpoints:
        with suppress(RunError):
            hashes |= artifacts_in(path)
    return hashes


def files_without_rows(database: Database, run: str) -> list[str]:
    """Return the files that a killed driver of this run wrote, but did not commit.

    Only for who holds the run's lock: its driver writes files before their rows.
    """
    there = {file.name for file in folder_of(database.path).glob(f"{run}-*")}
    if not there:
        return []
    rows = database.query("SELECT file FROM artifacts WHERE file GLOB ?", (f"{run}-*",))
    return sorted(there - {file for (file,) in rows})


def share_artifacts(
    connection: sqlite3.Connection, parent: str, run: str, checkpoint: Iterable[str]
) -> None:
    """Let a branch use the artifacts of its parent that its own rows and checkpoint refer to."""
    results: set[str] = set()
    for (text,) in connection.execute(
        "SELECT row FROM results WHERE run = ?1 UNION ALL "
        "SELECT answer FROM calls WHERE run = ?1 AND answer IS NOT NULL",
        (run,),
    ):
        if refers(text):
            results.update(_HASHES.findall(text))
    # Those of the checkpoint alone go with it.
    for hashes, source in ((results, "source"), (set(checkpoint) - results, "'checkpoint'")):
        connection.execute(
            f"INSERT INTO artifact_uses SELECT ?1, hash, tick, {source}, key FROM artifact_uses "
            "WHERE run = ?2 AND hash IN (SELECT value FROM json_each(?3)) ORDER BY rowid",
            (run, parent, json.dumps(sorted(hashes))),
        )
