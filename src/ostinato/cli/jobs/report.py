"""`ostinato report`: the report page of a run of a refine job, made again from the journal."""

from __future__ import annotations

from pathlib import Path

import click

from ostinato.cli.jobs.pages import page_path, write_page
from ostinato.cli.jobs.why import run_of
from ostinato.cli.options import journal_option
from ostinato.cli.recording import existing_journal
from ostinato.errors import RunError
from ostinato.journal import runs_command


@click.command()
@click.argument("run")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="The page.  [default: RUN.html]",
)
@journal_option("path")
def report(run: str, out: Path | None, path: Path | None) -> None:
    """Write the report page of RUN again, from what the journal has of it.

    RUN is named as for `ostinato why`. Its job file and its input must be there; nothing is
    generated, and no model is loaded.
    """
    from ostinato.refine import JobRunConfig, reopen_job
    from ostinato.runs import config_of

    with existing_journal(path) as journal:
        found = run_of(journal, run)
        config = config_of(found)
        if not isinstance(config, JobRunConfig):
            raise RunError(
                f"The run must be one of `ostinato refine` to have a report, got {found.name!r}, "
                f"which is {found.kind}. See it with: "
                f"{runs_command(journal.path, 'show', found.name)}"
            )
        page = page_path(out or Path(f"{found.name}.html"))
        html = reopen_job(config, found, to_read=True).report()
    write_page(page, html)
