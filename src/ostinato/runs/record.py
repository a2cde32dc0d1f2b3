"""Runs by their configurations: found or created, compared, read back, branched and built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.errors import InputError, RunError
from ostinato.journal import (
    DEFAULT,
    Journal,
    Run,
    RunConfig,
    RunSource,
    amended,
    config_from_json,
    config_to_json,
    differences,
    require_same,
    runs_command,
    safe_name,
)
from ostinato.output_files import require_writable
from ostinato.runs.kinds import KINDS, kind_of

if TYPE_CHECKING:
    from ostinato.loop import Work

CONFIG = "config"
"""The entry of a run's spec that holds its configuration."""


def record(
    journal: Journal,
    config: RunConfig,
    *,
    name: str | None = None,
    spelled: Callable[[str], str] = str,
) -> Run:
    """Find the run of a name, or create it; without a name, create a brief one.

    A brief run is called after its kind, and kept for some time only, see `Retention`. Raises
    `InputError` where the run has another configuration, see `find_same`.
    """
    run = None if name is None else find_same(journal, config, name, spelled=spelled)
    if run is None:
        spec = {CONFIG: config_to_json(config, folder_of(journal.path))}
        called = config.kind.replace(" ", "-") if name is None else name
        return journal.create(called, kind=config.kind, spec=spec, brief=name is None)
    return run


def record_called(journal: Journal, caller: Run, config: RunConfig, part: str) -> Run:
    """Find or create the run that another one calls for a part of it, named after both.

    Raises `InputError` where the run of that part has another configuration, see `find_same`.
    """
    for run in caller.called():
        if run.caller == (caller.id, part):
            return find_same(journal, config, run.name) or run
    name = safe_name(f"{caller.name}-{part}")
    spec = {CONFIG: config_to_json(config, folder_of(journal.path))}
    return journal.create(name, kind=config.kind, spec=spec, caller=(caller, part))


def find_same(
    journal: Journal,
    config: RunConfig,
    name: str,
    *,
    spelled: Callable[[str], str] = str,
    fix: str | None = None,
) -> Run | None:
    """Return the run of a name, None where there is none; the record gets new values of free
    fields.

    Raises `InputError` where its configuration is another; it tells each field, as `spelled` calls
    it, and how to `fix` it where that is given.
    """
    run = journal.find(name)
    if run is None:
        return None
    before = config_of(run)
    if before is None:
        raise InputError(
            f"The run {run.name!r} must have a configuration to be resumed by this command, got "
            "none: an older version recorded it, or a program. See it with "
            f"{runs_command(journal.path, 'show', run.name)}, and give another name."
        )
    if type(before) is not type(config):
        raise InputError(
            f"The run {run.name!r} must be of the kind {config.kind!r}, got {run.kind!r}. Give "
            "another name."
        )
    require_same(
        run.name,
        differences(before, config, folder_of(journal.path)),
        fix
        or "Give the same values to resume it, branch it with "
        f"{runs_command(journal.path, 'branch', run.name, '--as', 'NEW')}, or start another run.",
        spelled,
    )
    amend(journal, run, amended(before, config))
    return run


def amend(journal: Journal, run: Run, config: RunConfig) -> None:
    """Record another configuration of a run."""
    written = config_to_json(config, folder_of(journal.path))
    if run.spec.get(CONFIG) != written:
        journal.amend(run, {CONFIG: written})


def config_of(run: Run) -> RunConfig | None:
    """Return the configuration of a run; None for one that was started without.

    Raises `RunError` where it cannot be read.
    """
    row = run.now()
    if row.kind not in KINDS or CONFIG not in row.spec:
        return None
    kind = kind_of(row.kind).config_class()
    return config_from_json(kind, row.spec[CONFIG], folder_of(run.database.path))


def build(run: Run, **changed: object) -> Work:
    """Build a recorded run, so that it goes on: its loop, and what is done at its end.

    `changed` are fields of its configuration with other values, such as `until`. Raises `RunError`
    for a run that was started without a configuration.
    """
    config = config_of(run)
    if config is None:
        raise RunError(
            f"The run {run.name!r} must have a configuration to be built, got none: it was started "
            "with a process of your own. Resume it from Python: "
            f"Loop(process, run={run.name!r}), with the `until` that it is to have."
        )
    return build_config(changed_config(config, changed), run=run)


def build_config(config: RunConfig, *, run: RunSource | None = None, **more: Any) -> Work:
    """Build a configuration, driven as `run`; None: nothing records it. `more` goes to the
    builder of its kind.

    Raises `OutputError` before any work where what the run makes could not be written.
    """
    for name, path in config.outputs():
        require_writable(path.absolute(), name, or_folder=True)
    work: Work = kind_of(config.kind).builder()(config, run=run, **more)
    return work


def changed_config(config: RunConfig, changed: Mapping[str, object]) -> RunConfig:
    """Return a configuration with other values of free fields. Raises `InputError` for others."""
    known = {spec.name for spec in fields(config)} & config.free
    for name in changed:
        if name not in known:
            raise InputError(
                f"{name} must be a field of a {config.kind} run that may change: "
                f"{', '.join(sorted(known)) or 'it has none'}."
            )
    return replace(config, **changed) if changed else config


def branch(
    journal: Journal,
    parent: Run,
    name: str,
    *,
    tick: int | None = None,
    edits: Mapping[str, object] | None = None,
    call: str | None = None,
) -> Run:
    """Branch a run, see `Journal.branch`; what it writes gets names of its own."""
    config = config_of(parent)
    made = journal.branch(parent, name, tick=tick, edits=edits, call=call)
    if config is not None:
        amend(journal, made, config.branched(made.name))
    return made


def folder_of(journal: Path) -> Path:
    """Return the folder that a journal's paths are relative to: they stay right if it is moved."""
    journal = journal.absolute()
    return journal.parent.parent if journal.parts[-2:] == DEFAULT.parts else journal.parent
