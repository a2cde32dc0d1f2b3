"""The journal: make runs, find, drive, branch and delete them, send requests to their drivers.

Knows no loop and no process. One process drives a run, any number may read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError, RunError
from ostinato.journal.branching import branch_after_call, branch_run
from ostinato.journal.creation import amend_spec, check_name, create_run
from ostinato.journal.edits import checked
from ostinato.journal.encoding import encode_exactly
from ostinato.journal.people import add_note, give_answer
from ostinato.journal.place import DEFAULT
from ostinato.journal.records import Keep, RunSummary, Verdict
from ostinato.journal.removal import Retention, delete_family, prunable, prune_brief
from ostinato.journal.run import Run, all_runs, run_summaries
from ostinato.journal.session import RunSession
from ostinato.journal.sqlite.database import Database
from ostinato.journal.stops import JSON

SHORTEST_PREFIX = 6  # of the 12 hexadecimal digits of an id
ACTIONS = ("pause", "stop", "change")


class Journal:
    """Opens a journal, and makes it where there is none. A context manager.

    `retention` says how long runs that are made `brief` are kept. Raises `RunError` for a file
    that is no journal, or one of a newer schema.
    """

    def __init__(self, path: str | Path = DEFAULT, *, retention: Retention | None = None) -> None:
        self.retention = retention or Retention()
        self._database = Database(Path(path))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The absolute path of the SQLite file."""
        return self._database.path

    def close(self) -> None:
        """Close the file: its runs can no longer be read. Sessions have their own connections."""
        self._database.close()

    # Making and finding -----------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        kind: str,
        spec: Mapping[str, JSON] | None = None,
        caller: tuple[Run, str] | None = None,
        brief: bool = False,
    ) -> Run:
        """Make a new run; `caller` is the run that calls it, with the path of the call.

        A `brief` run is one that nobody named: where its name is taken it gets a number, and older
        brief runs that are kept no longer are deleted, see `Retention`. Raises `RunError` where
        the name is taken or is no safe name, and where the path has called a run already.
        """
        run = create_run(
            self._database,
            name,
            kind=kind,
            spec=spec or {},
            caller=None if caller is None else (caller[0].id, caller[1]),
            brief=brief,
            numbered=brief,
        )
        if brief:
            prune_brief(self._database, self.retention)
        return run

    def keep(self, run: Run, name: str | None = None) -> None:
        """Keep a brief run until somebody deletes it; with `name`, under that name."""
        if name is not None:
            check_name(name)
            other = self.find(name)
            if other is not None and other.id != run.id:
                raise RunError(f"The name of a run must be new, got {name!r}. Choose another.")
        with self._database.write() as connection:
            connection.execute(
                "UPDATE runs SET brief = 0, name = COALESCE(?, name) WHERE id = ?", (name, run.id)
            )

    def find(self, name: str) -> Run | None:
        """Return the run of that name, id, or prefix of an id (6 digits or more); None without one.

        Raises `RunError` where several ids have that prefix.
        """
        query = self._database.query
        rows = query("SELECT id FROM runs WHERE name = ?", (name,))
        if not rows and len(name) >= SHORTEST_PREFIX:
            rows = query("SELECT id FROM runs WHERE substr(id, 1, ?) = ?", (len(name), name))
        if len(rows) > 1:
            raise RunError(
                f"The prefix of an id must be that of one run, got {name!r}, that of {len(rows)}. "
                "Give more of its digits."
            )
        return Run(self._database, rows[0][0]) if rows else None

    def get(self, name: str) -> Run:
        """Return the run of that name or id. Raises `RunError` that names those that exist."""
        run = self.find(name)
        if run is None:
            names = [other.name for other in self.runs()]
            there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            guess = did_you_mean(name, names)
            raise RunError(
                f"There is no run {name!r} in {self.path}.{guess} Runs are: {there or 'none'}."
            )
        return run

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        return all_runs(self._database)

    def summaries(
        self, *, kind: str | None = None, status: str | None = None, name: str | None = None
    ) -> list[RunSummary]:
        """Return the rows of all runs with their sizes, newest first, by one query.

        `kind` and `status` select those of a kind (or its first words) and status, `name` those
        whose name fits a pattern with `*` and `?`.
        """
        return run_summaries(self._database, kind, status, name)

    def delete(self, name: str) -> int:
        """Delete a run and those that it called, rows and files; return how many they were.

        Raises `RunLocked` while one of them is driven.
        """
        return len(delete_family(self._database, self.get(name)))

    def prunable(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        kind: str | None = None,
        status: str | None = None,
    ) -> list[RunSummary]:
        """Return the runs that `ostinato runs prune` deletes, newest first.

        Those that have ended (or have the given `status`), were written more than `older_than`
        seconds ago, and are none of the `keep` newest. A run that is driven stays, and one from
        which a run that stays was branched. Runs that were called go and stay with their callers.
        """
        return prunable(self._database, older_than, keep, kind, status)

    def compact(self) -> None:
        """Give the room of deleted runs back to the disk. Raises `RunError` where others write."""
        self._database.vacuum()

    # What is done with a run ------------------------------------------------------------------

    def drive(self, run: Run, keep: Keep = "steps") -> RunSession:
        """Become the run's only writer. Raises `RunLocked` where another process is.

        With `keep="results"` steps are counted but not recorded.
        """
        return RunSession(run, keep)

    def request(self, run: Run, action: str, edits: Mapping[str, object] | None = None) -> int:
        """Ask a run's driver to "pause", "stop" or "change" (with edits); return the row's number.

        The request is committed when this returns. A change waits for the next driver; the others
        raise `RunError` where nobody drives the run.
        """
        if action not in ACTIONS:
            raise InputError(f"A request must be one of {', '.join(ACTIONS)}, got {action!r}.")
        if action != "change" and not run.driven:
            raise RunError(f"To {action} a run, it must be running; {run.name!r} is {run.status}.")
        text = encode_exactly(checked(edits), "An edit") if action == "change" else None
        with self._database.write() as connection:
            return int(
                connection.execute(
                    "INSERT INTO requests (run, action, data, created) VALUES (?, ?, ?, ?) "
                    "RETURNING number",
                    (run.id, action, text, time.time()),
                ).fetchone()[0]
            )

    def answer(
        self, run: Run, answer: object, *, path: str | None = None, by: str | None = None
    ) -> int:
        """Answer the question of a run that waits; return the number of the answer in its log.

        `path` names the question where there are several; `by` is who answers, the user by default.
        The answer is on the disk when this returns. A run that nobody drives is paused then, to be
        resumed. Raises `RunError` without such a question, `InputError` for an answer that is none
        of its options.
        """
        return give_answer(run, answer, path, by)

    def note(
        self,
        run: Run,
        key: str,
        verdict: Verdict,
        *,
        value: Mapping[str, JSON] | None = None,
        text: str = "",
        by: str | None = None,
    ) -> int:
        """Note on a result that it is accepted, rejected or edited; return the note's number.

        `value` holds the fields of the result that were edited by hand. What was recorded stays:
        `Run.results(edited=True)` shows the edited values. `by` is the user by default. Raises
        `RunError` without such a result.
        """
        return add_note(run, key, verdict, value, text, by)

    def amend(self, run: Run, entries: Mapping[str, JSON]) -> None:
        """Record entries in a run's spec, replacing those of the same names."""
        amend_spec(run, entries)

    def branch(
        self,
        parent: Run,
        name: str,
        *,
        tick: int | None = None,
        edits: Mapping[str, object] | None = None,
        call: str | None = None,
    ) -> Run:
        """Make a new run that starts at a checkpoint of another (the last, or that at `tick`).

        The edits are applied at its first step. With the path of a `call`, such as one of a flow,
        it starts just after that: it has the calls that were answered until then, and makes the
        others itself.

        Raises `RunError` where there is no checkpoint or no such call, and for edits at the natural
        end of a run: no step follows that they could change; `EditError` for edits that the process
        does not know, where the run records which it knows.
        """
        if call is None:
            return branch_run(self._database, parent, name, tick, edits)
        if tick is not None or edits:
            raise InputError(
                f"A branch after a call must be made without tick and edits, got {call!r} with "
                f"{'tick' if tick is not None else 'edits'}. Leave out one of them."
            )
        return branch_after_call(self._database, parent, name, call)
