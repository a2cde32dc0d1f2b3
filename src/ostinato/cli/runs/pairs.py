"""`ostinato runs pairs`: what a job discarded, as data to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from ostinato.arguments import counted
from ostinato.cli.options import journal_option, near
from ostinato.cli.runs.words import opened
from ostinato.errors import InputError


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@journal_option("path")
def pairs(name: str, file: Path, path: Path | None) -> None:
    """Write the preference pairs of the job's run NAME to FILE, as JSONL.

    A pair is an accepted reply beside a draft that was discarded for it, in the format of TRL:
    prompt, chosen, rejected. Train on them: ostinato train preferences FILE --from MODEL --out DIR.
    """
    from ostinato.output_files import require_writable
    from ostinato.refine import JobRunConfig, reopen_job, write_pairs
    from ostinato.runs import config_of

    if file.suffix != ".jsonl":
        raise InputError(f"FILE must end in .jsonl, got {file.name}. Rename it.")
    require_writable(file.absolute(), "FILE")
    with opened(path) as journal:
        run = journal.get(name)
        config = config_of(run)
        if not isinstance(config, JobRunConfig):
            raise InputError(
                f"The run {run.name!r} must be that of a job, got one of the kind {run.kind!r}. "
                "Name one that ostinato refine has made."
            )
        work = reopen_job(config, run)
        count = write_pairs(file, work.results_with_items(), work.router)
    click.echo(f"Wrote {counted(count, 'pairs')} to {near(file)}.")
