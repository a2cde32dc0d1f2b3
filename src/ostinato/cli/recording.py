"""How a command records its run: its options, the run that is found or made, and the way back.

Knows no family.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import (
    Command,
    Option,
    add_options,
    fields_as_options,
    journal_option,
)
from ostinato.errors import InputError, RunError

if TYPE_CHECKING:
    from ostinato.journal import Journal, Retention, Run, RunConfig, RunSource


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Where a command records its run, as typed. Without a name the run gets the `usual` one of its
    command; without that, one of its own, and is kept only for some time. With `fresh` an earlier
    run of the name is deleted, if it is of the same group of kinds."""

    name: str | None = None
    usual: str | None = None
    journal: Path | None = None
    off: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--run", self.name), ("--journal", self.journal)):
            if self.off and value is not None:
                raise InputError(f"{option} must be given without --no-journal, got both.")

    @property
    def called(self) -> str | None:
        """The name of the run, as far as it is known before the run is made."""
        return self.usual if self.name is None else self.name

    def before(self) -> RunConfig | None:
        """Return the configuration of the run of this name; None where there is none."""
        from ostinato.journal import DEFAULT, Journal
        from ostinato.runs import config_of

        path = self.journal or DEFAULT
        if self.off or self.fresh or self.called is None or not path.exists():
            return None
        with Journal(path) as journal:
            run = journal.find(self.called)
            return None if run is None else config_of(run)

    def _cannot_record(self, path: Path) -> bool:
        """Return whether nobody asked for a run, and none can be made here; warn about it."""
        there = next(each for each in (path, *path.absolute().parents) if os.path.exists(each))
        if self.name is not None or self.journal is not None or os.access(there, os.W_OK):
            return False
        click.echo(
            f"Warning: Nothing is recorded, as {there} cannot be written. Name a journal elsewhere "
            "with --journal, or give --no-journal.",
            err=True,
        )
        return True

    @contextmanager
    def opened(
        self, config: RunConfig, spelled: Callable[[str], str] = str, fix: str | None = None
    ) -> Iterator[RunSource | None]:
        """Yield the run of the configuration; None where nothing is recorded.

        Raises `InputError` where the run has another configuration, which says how to `fix` it.

        A new run is made only when its loop is built: bad input leaves nothing behind, not even a
        journal.
        """
        from ostinato.journal import DEFAULT, Journal
        from ostinato.runs import find_same, record

        path, name = self.journal or DEFAULT, self.called
        if self.off or self._cannot_record(path):
            yield None
            return
        journals: list[Journal] = []

        def opened() -> Journal:
            journals[:] = journals or [Journal(path, retention=_retention(os.environ))]
            return journals[0]

        def made() -> Run:
            earlier = opened().find(name) if self.fresh and name is not None else None
            if earlier is not None and _group(earlier.kind) == _group(config.kind):
                opened().delete(earlier.id)
            return record(opened(), config, name=name, spelled=spelled)

        def found() -> Run | None:
            if name is None or self.fresh or not path.exists():
                return None
            return find_same(opened(), config, name, spelled=spelled, fix=fix)

        try:
            yield found() or made
        finally:
            for journal in journals:
                journal.close()


def _retention(environment: Mapping[str, str]) -> Retention:
    """Return how long runs without a name are kept. Raises `InputError` for what is no number."""
    from ostinato.journal import Retention

    values: dict[str, Any] = {}
    for name, (field, read) in _KEPT.items():
        try:
            values |= {field: read(environment[name])} if environment.get(name) else {}
            Retention(**values)
        except ValueError:
            expected = "a whole number" if read is int else "a number"
            raise InputError(
                f"{name} must be {expected}, 0 or more, got {environment[name]!r}. Unset it for "
                f"{getattr(Retention, field):g}."
            ) from None
    return Retention(**values)


_KEPT = {"OSTINATO_KEEP_RUNS": ("newest", int), "OSTINATO_KEEP_DAYS": ("days", float)}
"""Environment variables that say how long runs without a name are kept."""


def _group(kind: str) -> str:
    """Return the first word of a kind: `train` of `train text`."""
    return kind.partition(" ")[0]


no_journal_option = click.option(
    "--no-journal", is_flag=True, help="Record nothing: it cannot be resumed."
)


def recording_options(spelled: Callable[[str], str]) -> Option:
    """Add --run, --journal and --no-journal to a command, which gets one `recording`.

    Must be right above the function, below all other options of the command. An error of a field
    names it as `spelled` does.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def collected(
            *, run_name: str | None, journal: Path | None, no_journal: bool, **params: Any
        ) -> None:
            recording = Recording(name=run_name, journal=journal, off=no_journal)
            with fields_as_options(spelled):
                command(recording=recording, **params)

        return _OPTIONS(collected)

    return decorate


_OPTIONS = add_options(
    click.option(
        "--run",
        "run_name",
        metavar="NAME",
        help="Name of the run; the same command resumes it.  [default: a new name]",
    ),
    journal_option(),
    no_journal_option,
)


def existing_journal(path: Path | None) -> Journal:
    """Open a journal to read it, by default that of the working folder.

    Raises `RunError` where the file does not exist: reading must not create it.
    """
    from ostinato.journal import DEFAULT, Journal

    path = path or DEFAULT
    if not os.path.exists(path):  # unlike Path.exists, it raises for no name
        raise RunError(f"There is no journal {path}. Name the journal's file with --journal.")
    return Journal(path)


def way_back(run: Run | None) -> str:
    """Return the sentence that says how an interrupted command goes on."""
    if run is None:
        return "Without --no-journal it could be resumed."
    return f"To resume: {resume_line(run)}"


def resume_line(run: Run) -> str:
    """Return the command that resumes a run, for the working folder; with `--trust` if needed."""
    from ostinato.journal import runs_command
    from ostinato.runs import config_of

    path, config = run.database.path, config_of(run)
    trusted = config is not None and asks_trust(config, path)
    return runs_command(path, "resume", run.name, *(["--trust"] if trusted else []))


def asks_trust(config: RunConfig, journal: Path) -> str:
    """Say what resuming a run does that its journal's owner must be trusted for; empty: nothing.

    A journal may come from somebody else: the files that it names may be those of others.
    """
    from ostinato.journal import places_outside
    from ostinato.runs import folder_of

    folder = folder_of(journal)
    doing, outside = config.trusted(), places_outside(config, folder)
    if outside:
        doing = [*doing, f"reads and writes files outside of {folder}: {', '.join(outside)}"]
    return "; ".join(doing)
