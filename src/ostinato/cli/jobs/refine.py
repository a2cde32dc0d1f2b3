"""`ostinato refine`: write a reply to every item until it passes."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.runs.recorded_command import RecordedCommand, begun_by, begun_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.refine import How, Job, JobRun, Outcome

ERRORS = 5
"""How many of the items that could not be worked on are told of at once."""


@click.command()
@click.argument("job_file", metavar="JOB.toml", required=False, type=click.Path(path_type=Path))
@click.option(
    "--new",
    "new",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a commented job to start from, and end.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first N items.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the first prompts, the rules, past cases and checks; load no model.",
)
@click.option("--fresh", is_flag=True, help="Start anew, whatever an earlier run has done.")
@click.option(
    "--update",
    is_flag=True,
    help="After a change of the job or input: write again only what it touches.",
)
@click.option("--watch", is_flag=True, help="Show one item's tokens as they come and go.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    help="The journal's file. [default: .ostinato/journal.db]",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write there, in place of the job's output."
)
@click.option(
    "--run", "run_name", metavar="NAME", help="The run's name, as of a branch. [default: the job's]"
)
@click.option("--strategy", metavar="KIND", help="Use this strategy in place of the job's.")
@click.option("--model", metavar="NAME", help="Use this model, without an adapter.")
@click.option("--seed", type=int, help="Use this seed in place of the job's.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def refine(
    job_file: Path | None,
    new: Path | None,
    limit: int | None,
    dry_run: bool,
    fresh: bool,
    update: bool,
    watch: bool,
    journal: Path | None,
    output: Path | None,
    run_name: str | None,
    strategy: str | None,
    model: str | None,
    seed: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write a reply to every item of the job JOB.toml, until it passes the job's checks.

    Run the same command again and it goes on where it was. Exit codes: 0 all replies were
    accepted; 1 some were not; 2 something given is wrong; 3 the job's budget ended with items
    unfinished; 130 interrupted.
    """
    if new is not None:
        _write_new(new)
        return
    if job_file is None:
        raise InputError(
            "A job file must be given, got none. Write one with: ostinato refine --new job.toml"
        )
    if fresh and update:
        raise InputError("Only one of --fresh and --update must be given, got both.")
    if run_name is not None and (fresh or update):
        raise InputError(
            f"--run must go on with a run or begin one, got {run_name!r} with "
            f"{'--fresh' if fresh else '--update'}. Leave one out, or name a new run."
        )
    from ostinato.refine import read_job

    job = read_job(job_file, output=output)
    job = job.with_changes(strategy=strategy, seed=seed, model=model)
    if dry_run:
        from ostinato.cli.jobs.dry_run import show_job

        show_job(job, limit, as_json=as_json)
        return
    how: How = "fresh" if fresh else "update" if update else "go on"
    try:
        code = _run(
            job,
            journal,
            limit,
            how,
            run_name,
            watch=watch,
            quiet=quiet or as_json,
            as_json=as_json,
        )
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again: it goes on.", err=True)
        code = Exit.INTERRUPTED
    sys.exit(code)


def _write_new(path: Path) -> None:
    from importlib.resources import files

    text = (files("ostinato.refine.report.page") / "new_job.toml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("THIS_FILE", path.name))
    except FileExistsError:
        raise InputError(f"The new job must be a new file, got {path}. Name another.") from None
    except OSError as error:
        raise InputError(f"{path} must be a file that can be written, got: {error}.") from error
    click.echo(f"Wrote {path}. Put your messages beside it, then run: ostinato refine {path}")


def _run(
    job: Job,
    journal_path: Path | None,
    limit: int | None,
    how: How,
    run_name: str | None,
    *,
    watch: bool,
    quiet: bool,
    as_json: bool,
) -> Exit:
    from ostinato.refine import journal_of, open_job

    with journal_of(journal_path) as journal:
        work = open_job(job, journal, limit=limit, how=how, spec=begun_by(), name=run_name)
        if work.run.parent is not None:  # its own from here on
            journal.amend(work.run, {"output": str(job.output), **begun_by()})
        work.settle()
        already = work.finished or work.out_of_budget or work.ended_by_person
        outcome = work.write(work.stopped) if already else _work(work, watch=watch, quiet=quiet)
        code = _code(outcome)
        if as_json:
            click.echo(json.dumps(_summary(work, outcome, code)))
        elif not quiet:
            _tell(work, outcome, code, already=already)
        return code


def _work(work: JobRun, *, watch: bool, quiet: bool) -> Outcome:
    """Run the loop to its end or interruption; then write the output and the report."""
    from ostinato.cli.jobs.progress import show_of
    from ostinato.cli.signals import ends_by_signal

    show = show_of(work, watch=watch, quiet=quiet)
    if work.other_budget and not quiet:
        click.echo(f"{work.other_budget} The job goes on.")
    show.loading()
    loop = work.loop()
    began = time.monotonic()
    try:
        with ends_by_signal(loop), show:
            loop.run(show.step)
    finally:
        work.note.add_seconds(work.run.id, time.monotonic() - began)
        outcome = work.write(loop.stopped)
    return outcome


def _code(outcome: Outcome) -> Exit:
    from ostinato.journal import StopKind

    summary, stopped = outcome.summary, outcome.stopped
    if summary.unfinished:
        budget = stopped is not None and stopped.kind is StopKind.BUDGET
        return Exit.BUDGET if budget else Exit.INTERRUPTED
    return Exit.DONE if summary.accepted == summary.items else Exit.NOT_ALL


def _summary(work: JobRun, outcome: Outcome, code: Exit) -> dict[str, object]:
    return {
        **outcome.summary.to_json(),
        "run": work.run.name,
        "output": str(work.job.output),
        "report": str(work.job.report),
        "seconds": outcome.seconds,
        "stopped": outcome.stopped.to_json() if outcome.stopped else None,
        "exit": int(code),
    }


def _tell(work: JobRun, outcome: Outcome, code: Exit, *, already: bool) -> None:
    summary, job = outcome.summary, work.job
    if already and not summary.unfinished:
        click.echo("The job is finished: nothing was left to do.")
    per = summary.per_accepted
    cost = f"; {per:.2f} tokens computed for each accepted one" if per is not None else ""
    click.echo(
        f"{summary.accepted} of {summary.items} accepted ({summary.mended} mended), "
        f"{summary.given_up} given up"
        + (f", {summary.errors} not workable" if summary.errors else "")
        + (f", {summary.unfinished} unfinished" if summary.unfinished else "")
        + cost
        + "."
    )
    click.echo(f"  run      {work.run.name}")
    click.echo(f"  replies  {_near(job.output)}")
    click.echo(f"  report   {_near(job.report)}")
    broken = [result for result in outcome.results if result.outcome == "error"]
    for result in broken[:ERRORS]:
        click.echo(f"  error    {result.id}: {result.stopped.sentence}")
    if len(broken) > ERRORS:
        click.echo(f"  error    and {len(broken) - ERRORS} more items")
    for line in _next(work, outcome, code):
        click.echo(line)


def _next(work: JobRun, outcome: Outcome, code: Exit) -> list[str]:
    """Return what to do next."""
    name, command = work.run.name, _command(work)
    if code is Exit.BUDGET and outcome.stopped is not None:
        return [
            f"The job's budget ended: {outcome.stopped.sentence} Raise it in [budget] and run the "
            f"job again: it goes on. {command}"
        ]
    if work.ended_by_person:
        anew = command.having("--fresh")
        return [f"The run '{name}' was stopped for good. Begin anew: {anew}"]
    if code is Exit.INTERRUPTED:
        why = outcome.stopped.sentence + " " if outcome.stopped is not None else ""
        return [f"{why}To go on: {command}"]
    refused = next((result for result in outcome.results if not result.accepted), None)
    if refused is not None:
        journal = command.get("--journal")
        told = ["ostinato", "why", name, refused.id, *(("--journal", journal) if journal else ())]
        return [f"  why      {shlex.join(told)}"]
    return [f"  anew     {command.having('--fresh').having('--seed', str(work.job.seed + 1))}"]


def _command(work: JobRun) -> RecordedCommand:
    """Return the command of the job's run."""
    begun = begun_of(work.run)  # None for a run of an older version
    return begun or RecordedCommand(
        command="refine", arguments=(_near(work.job.file),), folder=Path.cwd()
    )


def _near(path: Path) -> str:
    """Return a path relative to the working folder where it lies in it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
