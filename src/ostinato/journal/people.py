"""What people tell a run: notes on its results, and answers to its questions."""

from __future__ import annotations

import getpass
import sqlite3
import time
from collections.abc import Mapping

from ostinato.arguments import did_you_mean, require, require_choice
from ostinato.errors import InputError, RunError
from ostinato.journal.encoding import encode_exactly
from ostinato.journal.place import runs_command
from ostinato.journal.records import VERDICTS, Question, Verdict
from ostinato.journal.run import Run
from ostinato.journal.sqlite.tables import ANSWERED
from ostinato.journal.stops import JSON


def add_note(
    run: Run,
    key: str,
    verdict: Verdict,
    value: Mapping[str, JSON] | None,
    text: str,
    by: str | None,
) -> int:
    """Record a note, see `Journal.note`."""
    require_choice("verdict", verdict, VERDICTS)
    row = run.result(key)
    if row is None:
        keys = sorted(run.some_keys())
        there = ", ".join(keys[:8]) + (", …" if len(keys) > 8 else "")
        known = f"Results are: {there or 'none'}."
        raise RunError(
            f"The run {run.name!r} has no result {key!r} to be noted on.{did_you_mean(key, keys)} "
            f"{known}"
        )
    _check_value(key, verdict, value, row)
    written = None if value is None else encode_exactly(value, "An edited value")
    with run.database.write(synced=True) as connection:
        seq = _next(connection, run, len(written or "") + len(text))
        connection.execute(
            "INSERT INTO notes (run, seq, key, verdict, value, text, author, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (run.id, seq, key, verdict, written, text, by or _person(), time.time()),
        )
    return seq


def _check_value(
    key: str, verdict: Verdict, value: Mapping[str, JSON] | None, row: Mapping[str, object]
) -> None:
    edited = verdict == "edited"
    require(
        bool(value) == edited,
        "value",
        "the fields that were edited" if edited else "left out, but for an edited result",
        value,
    )
    for name in value or {}:
        if name not in row:
            raise InputError(
                f"An edited field must be one of the result {key!r}, got {name!r}."
                f"{did_you_mean(name, row)} It has: {', '.join(row)}."
            )


def give_answer(run: Run, answer: object, path: str | None, by: str | None) -> int:
    """Record the answer to a question, see `Journal.answer`."""
    question = _question(run, path)
    if question.options and answer not in question.options:
        raise InputError(
            f"The answer to {question.path!r} must be one of {', '.join(question.options)}, got "
            f"{answer!r}."
        )
    text = encode_exactly(answer, "An answer")
    now = time.time()
    with run.database.write(synced=True) as connection:
        asked = connection.execute(
            "UPDATE requests SET done = ?, answer = ? WHERE run = ? AND action = 'ask' "
            "AND path = ? AND done IS NULL RETURNING data",
            (now, text, run.id, question.path),
        ).fetchall()
        if not asked:
            raise RunError(f"The question {question.path!r} has just been answered by another.")
        if connection.execute(
            "SELECT 1 FROM calls WHERE run = ? AND path = ?", (run.id, question.path)
        ).fetchone():
            raise RunError(
                f"The question {question.path!r} must be one without an answer, got one whose path "
                "has the answer of a call. Start another run."
            )
        seq = _next(connection, run, len(text) + len(asked[0][0]))
        connection.execute(
            "INSERT INTO calls (run, path, seq, tick, arguments, answer, author, created) "
            "SELECT id, ?, ?, tick, ?, ?, ?, ? FROM runs WHERE id = ?",
            (question.path, seq, asked[0][0], text, by or _person(), now, run.id),
        )
        connection.execute(
            f"UPDATE runs SET status = ? WHERE id = ? AND status = 'waiting' AND {ANSWERED}",
            ("running" if run.driven else "paused", run.id),
        )
    return seq


def _question(run: Run, path: str | None) -> Question:
    """Return the open question of a path, or the only one."""
    there = run.questions()
    found = [each for each in there if path in (None, each.path)]
    if len(found) == 1:
        return found[0]
    paths = ", ".join(each.path for each in there)
    if not there:
        raise RunError(
            f"The run {run.name!r} must wait for an answer, got {run.status}. Runs that wait: "
            f"{runs_command(run.database.path, '--status', 'waiting')}"
        )
    raise RunError(
        f"An answer must be to one of the questions of {run.name!r}, got {path!r}. "
        f"Give --path, or path= in Python. Open are: {paths}."
    )


def _next(connection: sqlite3.Connection, run: Run, size: int) -> int:
    """Give the next number of a run's log, to an entry of so many bytes."""
    rows = connection.execute(
        "UPDATE runs SET seq = seq + 1, bytes = bytes + ? WHERE id = ? RETURNING seq",
        (size, run.id),
    ).fetchall()
    if not rows:
        raise RunError(f"The run {run.id} was deleted.")
    return int(rows[0][0])


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in some containers
        return "unknown"
