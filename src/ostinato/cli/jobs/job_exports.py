"""`ostinato refine --export`: the results as tables beside the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostinato.arguments import counted
from ostinato.cli.options import near
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import Journal
    from ostinato.refine import Exported, Job, JobRun, Outcome


@dataclass(frozen=True)
class Exports:
    """The files that were written, and what is in each; `kept` were left as they are."""

    written: tuple[tuple[Path, Exported], ...] = ()
    kept: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the entry of `--json`; {} without exports."""
        files = [str(path.absolute()) for path, _ in self.written]
        return {"exports": files} if self.written or self.kept else {}

    def lines(self) -> Iterator[str]:
        """Yield what the command says about the files."""
        for path, exported in self.written:
            yield f"  export   {near(path)} ({counted(exported.rows, 'rows')})"
            if exported.formulas:
                yield (
                    f"           {counted(exported.formulas, 'cells')} of it begin with =, +, - or "
                    "@: import them as text, or a spreadsheet may run them as formulas."
                )
        for path in self.kept:
            yield f"  kept     {near(path)}, like the output."


def require_exports(job: Job, paths: Sequence[Path]) -> None:
    """Raise `InputError` for an export that cannot be written, before any work."""
    from ostinato.output_files import require_writable
    from ostinato.refine import require_export

    used = {
        path.resolve(): what
        for path, what in (
            (job.file, "the job file"),
            (job.input, "the input"),
            (job.output, "the output"),
            (job.report, "the report"),
        )
    }
    for path in paths:
        require_export(path)
        if path.resolve() in used:
            raise InputError(
                f"--export must name another file than {used[path.resolve()]}, got {path}. "
                "Name another."
            )
        used[path.resolve()] = "an earlier --export"
        require_writable(path.absolute(), "The export")


def claim_exports(job: Job, journal: Journal, paths: Sequence[Path]) -> None:
    """Record that the files belong to a job. Raises `InputError` for one that it did not write."""
    from ostinato.refine import OutputClaim

    for path in paths:
        try:
            OutputClaim(path.absolute(), journal.path.parent).claim(job.file)
        except InputError:
            raise InputError(
                f"--export must name a new file, or one that this job wrote, got {path}. Name "
                "another, or move the file away."
            ) from None


def write_exports(work: JobRun, outcome: Outcome, paths: Sequence[Path]) -> Exports:
    """Write the results in the journal to each file.

    Where the output keeps more replies than the run has, so do the exports.
    """
    if outcome.kept:
        return Exports(kept=tuple(paths))
    return Exports(written=tuple(work.export(paths)))
