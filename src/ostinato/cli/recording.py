"""How a command records its run: its options, the run that is found or made, and the way back.

Knows no family.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import Command, add_options, journal_option
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import Run, RunConfig, RunSource


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Where a command records its run, as typed. Without a name the run gets one of its own, and
    is kept only for some time."""

    name: str | None = None
    journal: Path | None = None
    off: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--run", self.name), ("--journal", self.journal)):
            if self.off and value is not None:
                raise InputError(f"{option} must be given without --no-journal, got both.")

    @contextmanager
    def opened(
        self, config: RunConfig, spelled: Callable[[str], str] = str
    ) -> Iterator[RunSource | None]:
        """Yield the run of the configuration; None where nothing is recorded.

        Raises `InputError` where the run has another configuration.

        A new run is made only when its loop is built: bad input leaves nothing behind, not even a
        journal.
        """
        from ostinato.journal import DEFAULT, Journal
        from ostinato.runs import find_same, record

        if self.off:
            yield None
            return
        path = self.journal or DEFAULT
        journals: list[Journal] = []

        def opened() -> Journal:
            journals[:] = journals or [Journal(path)]
            return journals[0]

        def made() -> Run:
            return record(opened(), config, name=self.name, spelled=spelled)

        try:
            there = self.name is not None and path.exists()
            found = find_same(opened(), config, self.name or "", spelled=spelled) if there else None
            yield found or made
        finally:
            for journal in journals:
                journal.close()


def recording_options(command: Command) -> Command:
    """Add --run, --journal and --no-journal to a command, which gets one `recording`.

    Must be right above the function, below all other options of the command.
    """

    @wraps(command)
    def collected(
        *, run_name: str | None, journal: Path | None, no_journal: bool, **params: Any
    ) -> None:
        recording = Recording(name=run_name, journal=journal, off=no_journal)
        command(recording=recording, **params)

    return _OPTIONS(collected)


_OPTIONS = add_options(
    click.option(
        "--run",
        "run_name",
        metavar="NAME",
        help="Name of the run; the same command resumes it.  [default: a new name]",
    ),
    journal_option(),
    click.option("--no-journal", is_flag=True, help="Record nothing: it cannot be resumed."),
)


def way_back(run: Run | None) -> str:
    """Return the sentence that says how an interrupted command goes on."""
    if run is None:
        return "Without --no-journal it could be resumed."
    return f"To resume: {resume_line(run)}"


def resume_line(run: Run) -> str:
    """Return the command that resumes a run, for the working folder."""
    from ostinato.journal import DEFAULT

    path = run.database.path
    words = ["ostinato", "runs", "resume", run.name]
    if path.resolve() != DEFAULT.resolve():
        words += ["--journal", str(path)]
    return shlex.join(words)
