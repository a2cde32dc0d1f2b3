"""`ostinato refine`: generate a reply for every item of a job until it passes."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ostinato.arguments import counted, reason
from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.jobs.job_exports import claim_exports, require_exports, write_exports
from ostinato.cli.jobs.job_input import input_kept
from ostinato.cli.options import journal_option, near
from ostinato.cli.recording import resume_line
from ostinato.cli.run_loop import RESUME, Exit
from ostinato.errors import InputError
from ostinato.row_files import place

if TYPE_CHECKING:
    from ostinato.journal import RunSource
    from ostinato.refine import Job, JobRun, JobRunConfig, Only, OpenMode, Outcome, UpdatePlan


@click.command()
@click.argument("job_file", metavar="JOB.toml", required=False, type=click.Path(path_type=Path))
@click.option(
    "--new",
    "new",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a commented job file to start from, and exit.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Process only the first N items.")
@click.option(
    "--dry-run", is_flag=True, help="Show prompts, rules, past cases and checks; load no model."
)
@click.option("--fresh", is_flag=True, help="Start over in a new run; earlier runs are kept.")
@click.option(
    "--update", is_flag=True, help="After a change of job or input, redo only the items it affects."
)
@click.option(
    "--only",
    type=click.Choice(["failed", "errors", "given-up"]),
    help="Work again on these items of the newest run, and keep its other replies.",
)
@click.option("--watch", is_flag=True, help="Show the tokens of one item, with those taken back.")
@journal_option()
@click.option(
    "--input",
    "input_file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Input file; - reads standard input.  [default: the job's]",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Output file.  [default: the job's]"
)
@click.option(
    "--export",
    "exports",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Also write the results as .parquet, .csv or .jsonl; may be repeated.",
)
@click.option("--details", is_flag=True, help="Write drafts and all verdicts into the output, too.")
@click.option("--run", "run_name", metavar="NAME", help="Name of the run.  [default: the job's]")
@click.option("--strategy", metavar="KIND", help="Strategy.  [default: the job's]")
@click.option("--model", metavar="NAME", help="Model, without an adapter.  [default: the job's]")
@click.option("--adapter", metavar="NAME", help="Adapter: a name or folder.  [default: the job's]")
@click.option("--seed", type=int, help="Random seed.  [default: the job's]")
@view_options
def refine(
    job_file: Path | None,
    new: Path | None,
    limit: int | None,
    dry_run: bool,
    fresh: bool,
    update: bool,
    only: Only | None,
    watch: bool,
    journal: Path | None,
    input_file: Path | None,
    output: Path | None,
    exports: tuple[Path, ...],
    details: bool,
    run_name: str | None,
    strategy: str | None,
    model: str | None,
    adapter: str | None,
    seed: int | None,
    view: View,
) -> None:
    """Generate a reply for every item of the job JOB.toml until it passes the job's checks.

    The same command resumes an interrupted job. Exit codes: 0 all replies were accepted; 1 some
    were not; 2 an argument or a file is wrong; 3 the job's budget ended with items unfinished; 130
    interrupted.
    """
    if new is not None:
        _write_new(new)
        return
    if job_file is None:
        raise InputError(
            "A job file must be given, got none. Write one with: ostinato refine --new job.toml"
        )
    mode = _open_mode(fresh, update, run_name, only)
    from ostinato.loop import sigterm_interrupts
    from ostinato.refine import read_job, require_ready

    job = read_job(job_file, input=input_file, output=output)
    job = job.with_changes(
        strategy=strategy, seed=seed, model=model, adapter=adapter, details=details
    )
    require_exports(job, exports)
    # Before the journal is opened: a job that cannot work leaves nothing behind.
    require_ready(job)
    try:
        with sigterm_interrupts(), input_kept(job, journal, temporary=dry_run) as job:
            if dry_run:
                from ostinato.cli.jobs.dry_run import show_job

                plan = _plan(job, journal, limit) if update else None
                show_job(job, limit, as_json=view.as_json, plan=plan)
                return
            view = replace(view, show=watch)
            code = _run(job, journal, limit, mode, run_name, exports, only, view)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. {RESUME}", err=True)
        code = Exit.INTERRUPTED
    sys.exit(code)


def _plan(job: Job, path: Path | None, limit: int | None) -> UpdatePlan | None:
    """Return what an update would do; None where there is no journal yet."""
    from ostinato.journal import DEFAULT
    from ostinato.refine import journal_of, plan_update

    if not (path or DEFAULT).exists():
        return None
    with journal_of(path) as journal:
        return plan_update(job, journal, limit)


def _open_mode(fresh: bool, update: bool, run_name: str | None, only: Only | None) -> OpenMode:
    """Return how to open the job. Raises `InputError` for options that exclude one another."""
    if fresh and update:
        raise InputError("Only one of --fresh and --update must be given, got both.")
    if only is not None and (fresh or update):
        raise InputError(
            f"--only must be given without {'--fresh' if fresh else '--update'}, got both. "
            "Leave one out."
        )
    if run_name is not None and (fresh or update or only is not None):
        # They make a new run under a name of their own.
        other = "--fresh" if fresh else "--update" if update else "--only"
        raise InputError(
            f"--run must be given without {other}, got {run_name!r}. Leave one out, or name a new "
            "run."
        )
    return "fresh" if fresh else "update" if update else "resume"


def _write_new(path: Path) -> None:
    from importlib.resources import files

    text = (files("ostinato.refine.report.page") / "new_job.toml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:  # "x" never overwrites a job
            file.write(text.replace("THIS_FILE", path.name))
    except FileExistsError:
        raise InputError(f"The new job must be a new file, got {path}. Name another.") from None
    except OSError as error:
        raise InputError(
            f"{path} must be a file that can be written, got: {reason(error)}."
        ) from error
    click.echo(f"Wrote {path}. Put your messages beside it, then run: ostinato refine {path}")


def _run(
    job: Job,
    journal_path: Path | None,
    limit: int | None,
    mode: OpenMode,
    run_name: str | None,
    exports: Sequence[Path],
    only: Only | None,
    view: View,
) -> Exit:
    from ostinato.refine import journal_of, open_job

    with journal_of(journal_path) as journal:
        claim_exports(job, journal, exports)
        work = open_job(
            job,
            journal,
            limit=limit,
            mode=mode,
            name=run_name,
            only=only,
            exports=exports,
            say=view.say,
        )
        return _drive(work, exports, view)


def present(config: JobRunConfig, run: RunSource | None, view: View) -> Exit:
    """Resume the run of a job; write its output, its report and its exports."""
    from ostinato.refine import reopen_job

    work = reopen_job(config, run, say=view.say)
    require_exports(work.job, config.exports)
    return _drive(work, config.exports, view)


def _drive(work: JobRun, exports: Sequence[Path], view: View) -> Exit:
    work.settle()
    if work.reused:
        view.say(f"{_reused(work)} taken over from earlier runs of the job.")
    already = work.finished or work.out_of_budget or work.ended_by_person
    # Output and report are written even if nothing is left to do: they may have been deleted.
    outcome = work.write(work.stopped, say=view.say) if already else _work(work, view)
    code = _code(outcome)
    exported = write_exports(work, outcome, exports)
    if view.as_json:
        click.echo(json.dumps({**_summary(work, outcome, code), **exported.to_json()}))
    elif view.quiet:
        click.echo(_figures(outcome))
        for line in _errors(work, outcome):
            click.echo(line, err=True)
    else:
        _report(work, outcome, code, already=already)
        for line in exported.lines():
            click.echo(line)
    return code


def _reused(work: JobRun) -> str:
    verb = "is" if work.reused == 1 else "are"
    return f"{work.reused} of {len(work.items)} replies {verb}"


def _work(work: JobRun, view: View) -> Outcome:
    """Run the loop to its end or interruption; then write the output and the report."""
    from ostinato.loop import ends_by_signal
    from ostinato.refine import tally_of

    progress = display_for(tally_of(len(work.items), work.run), view, replies=True)
    if work.budget_change:
        view.say(f"{work.budget_change} The job resumes.", err=False)
    loop = work.loop(say=view.say)
    began = time.monotonic()
    try:
        with ends_by_signal(loop), followed(loop, view, progress):
            loop.run(progress.step)
    finally:
        # Also after an error or a second Ctrl-C: the user has paid for what is done.
        work.output_claim.add_seconds(work.run.id, time.monotonic() - began)
        outcome = work.write(loop.stopped, say=view.say)
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
        "kept": outcome.kept,
        "reused": work.reused,
        "seconds": outcome.seconds,
        "stopped": outcome.stopped.to_json() if outcome.stopped else None,
        "exit": int(code),
    }


def _report(work: JobRun, outcome: Outcome, code: Exit, *, already: bool) -> None:
    summary, job = outcome.summary, work.job
    if already and not summary.unfinished:
        click.echo("The job is finished: nothing was left to do.")
    click.echo(_figures(outcome))
    click.echo(f"  run      {work.run.name}")
    if outcome.kept:
        click.echo(f"  kept     {_kept(work, outcome)}")
    else:
        click.echo(f"  replies  {near(job.output)}")
        click.echo(f"  report   {near(job.report)}")
    for line in _errors(work, outcome):
        click.echo(line)
    for line in _next(work, outcome, code):
        click.echo(line)


def _errors(work: JobRun, outcome: Outcome) -> Iterator[str]:
    """Yield a line for each item that could not be worked on, as far as there is room."""
    for id, number, sentence in outcome.errors:
        line = f", {place(work.job.input, number)}" if number else ""
        yield f"  error    {id}{line}: {sentence}"
    if (more := outcome.summary.errors - len(outcome.errors)) > 0:
        yield f"  error    and {more} more items"


def _figures(outcome: Outcome) -> str:
    """Return the line that says how many items were accepted, and at what cost."""
    summary = outcome.summary
    per = summary.per_accepted
    cost = f"; {per:.2f} tokens computed per accepted token" if per is not None else ""
    return (
        f"{summary.accepted} of {summary.items} accepted ({summary.revised} revised), "
        f"{summary.given_up} given up"
        + (f", {summary.errors} not workable" if summary.errors else "")
        + (f", {summary.unfinished} unfinished" if summary.unfinished else "")
        + cost
        + "."
    )


def _kept(work: JobRun, outcome: Outcome) -> str:
    """Say why the output was left as it is, and when it will be replaced."""
    summary = outcome.summary
    when = (
        "It is replaced when all of this run are done."
        if work.whole
        else "To replace it, delete it first; or name another with --output."
    )
    return (
        f"{near(work.job.output)} has {counted(outcome.kept, 'replies')}, more than the "
        f"{summary.finished} of "
        f"this run. {when}"
    )


def _next(work: JobRun, outcome: Outcome, code: Exit) -> list[str]:
    """Return the lines that say what to do next."""
    if code is Exit.BUDGET and outcome.stopped is not None:
        return [
            f"The job's budget ended: {outcome.stopped.sentence} To resume, raise it in [budget] "
            f"and run: {resume_line(work.run)}"
        ]
    if work.ended_by_person:
        return [
            f"The run '{work.run.name}' was stopped for good. Start over with: "
            f"{_command(work)} --fresh"
        ]
    if code is Exit.INTERRUPTED:
        why = outcome.stopped.sentence + " " if outcome.stopped is not None else ""
        return [f"{why}To resume: {resume_line(work.run)}"]
    again = _command(work, seed=work.job.seed + 1)
    if outcome.refused:
        words = ["ostinato", "why", work.run.name, outcome.refused, *_journal(work)]
        return [f"  why      {shlex.join(words)}", f"  again    {again} --only failed"]
    return [f"  again    {again} --fresh"]


def _command(work: JobRun, seed: int | None = None) -> str:
    """Return the command that starts such a run of the job, perhaps with another seed."""
    from ostinato.runs import config_of

    config = cast("JobRunConfig", config_of(work.run))
    chosen = config.choices
    options = {
        "--input": None if chosen.input is None else near(chosen.input),
        "--limit": config.limit,
        "--output": near(config.output) if work.job.elsewhere else None,
        "--strategy": chosen.strategy or None,
        "--model": _near(chosen.model),
        "--adapter": _near(chosen.adapter),
        "--seed": chosen.seed if seed is None else seed,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, value)]
    words = ["ostinato", "refine", near(config.file), *map(str, given), *_journal(work)]
    return shlex.join(words)


def _near(place: str) -> str | None:
    """Return a chosen model or adapter as it is typed in this folder; None for none."""
    return (near(Path(place)) if Path(place).is_absolute() else place) or None


def _journal(work: JobRun) -> list[str]:
    """Return the option that names the journal, where it is not that of the working folder."""
    from ostinato.journal import DEFAULT

    path = work.run.database.path
    return [] if path.resolve() == DEFAULT.resolve() else ["--journal", near(path)]
