"""The specification of a job's run: its file, what was chosen beside it, and its settings.

The job file is read again when a run is built: a raised budget counts, a changed setting is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ostinato.errors import InputError, RunError
from ostinato.journal import Difference, Run, RunConfig, each_beside
from ostinato.refine.job.config import Job, JobChoices
from ostinato.refine.job.file import read_job
from ostinato.refine.job.settings import JobSettings, changed_sections
from ostinato.refine.job.toml_reader import read_job_toml
from ostinato.refine.settings import ItemBudget, changed_settings
from ostinato.remote import is_server
from ostinato.runs import CONFIG, config_of, folder_of

JOB_KIND = "refine"
"""The kind of the runs of jobs."""


@dataclass(frozen=True, kw_only=True)
class JobRunConfig(RunConfig):
    """A job file with its output, its first `limit` items, and what replaces the file's values.

    `exports` are files that get the results beside the output. `settings` are those that the file
    had when the run started.
    """

    kind: ClassVar[str] = JOB_KIND
    free: ClassVar[frozenset[str]] = frozenset({"output", "exports", "limit", "choices"})
    longer: ClassVar[str] = "Raise [budget] in the job file, and resume the run without --until."

    file: Path
    output: Path
    exports: tuple[Path, ...] = ()
    limit: int | None = None
    choices: JobChoices = field(default_factory=JobChoices)
    settings: JobSettings

    @classmethod
    def of(cls, job: Job, limit: int | None = None, exports: Sequence[Path] = ()) -> JobRunConfig:
        """Return the configuration of a run of a job."""
        return cls(
            file=job.file,
            output=job.output,
            exports=tuple(path.absolute() for path in exports),
            limit=limit,
            choices=job.choices,
            settings=JobSettings.of(job),
        )

    def job(self) -> Job:
        """Read the job file. Raises `InputError` that lists what is wrong with it."""
        chosen = self.choices
        job = read_job(self.file, input=chosen.input, output=self.output)
        return job.with_changes(
            strategy=chosen.strategy or None,
            model=chosen.model or None,
            adapter=chosen.adapter or None,
            seed=chosen.seed,
            details=chosen.details,
        )

    def branched(self, name: str) -> JobRunConfig:
        """Return the configuration of a branch: its output lies beside the parent's."""
        output, *exports = each_beside((self.output, *self.exports), name)
        return replace(self, output=output, exports=tuple(exports))

    def trusted(self) -> list[str]:
        """Name the functions of its checks, and a server that its file does not name."""
        doing = [f"calls the function {call}" for call in python_checks(self.file)]
        if is_server(self.choices.model):
            doing.append(f"sends its items to {self.choices.model}")
        return doing


def python_checks(file: Path) -> list[str]:
    """Return the functions that a job file names, without importing them."""
    try:
        values, _ = read_job_toml(file)
    except InputError:  # whoever reads the job says what is wrong
        return []
    checks: Any = values.get("check")
    tables = [each for each in checks if isinstance(each, dict)] if type(checks) is list else []
    return [str(each.get("call")) for each in tables if each.get("kind") == "python"]


# What a run recorded ----------------------------------------------------------------------------


class JobPlace(NamedTuple):
    """Which job a run is of: `ostinato refine` finds the run by these."""

    file: Path
    output: Path
    limit: int | None


def job_place(run: Run) -> JobPlace | None:
    """Return which job a run is of; None for another run. Runs of older versions have it, too."""
    row = run.now()
    if row.kind != JOB_KIND:
        return None
    if CONFIG in row.spec:
        return _place_in_config(run)
    spec: Any = row.spec
    if "job" not in spec:
        return None
    return JobPlace(Path(spec["job"]), Path(str(spec.get("output"))), spec.get("limit"))


def _place_in_config(run: Run) -> JobPlace | None:
    try:
        config = config_of(run)
    except RunError:  # of a newer version: it is none of ours
        return None
    assert isinstance(config, JobRunConfig)
    return JobPlace(config.file, config.output, config.limit)


def changes_of_settings(run: Run, now: JobRunConfig, job: Job) -> list[Difference]:
    """Return the settings of a job that have changed since a run of it started."""
    before = config_of(run)
    if isinstance(before, JobRunConfig):
        return changed_settings(before.settings, now.settings, folder_of(run.database.path))
    fingerprint: Any = run.spec.get("fingerprint")
    sections = fingerprint.get("sections") if isinstance(fingerprint, dict) else None
    return changed_sections(sections if isinstance(sections, dict) else {}, job)


def item_budget_of(run: Run) -> ItemBudget | None:
    """Return the limits of an item that a run started with; None where they are not known."""
    config = config_of(run)
    if isinstance(config, JobRunConfig):
        return config.settings.budget
    before: Any = run.spec.get("item_budget")  # of an older version
    if not isinstance(before, list):
        return None
    return ItemBudget(item_tokens=before[0], item_seconds=before[1])


def check_names(run: Run) -> list[str] | None:
    """Return the names of the checks of a job's run; None where they are not known."""
    config = config_of(run)
    if isinstance(config, JobRunConfig):
        return list(config.settings.order)
    names = run.spec.get("checks")  # of an older version
    return [str(name) for name in names] if isinstance(names, list) else None
