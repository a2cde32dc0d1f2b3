"""`ostinato runs answer, note, keep, export`: what a person tells a run, and takes from it."""

from __future__ import annotations

from pathlib import Path

import click

from ostinato.cli.options import journal_option
from ostinato.cli.runs.resume_hint import resume_hint
from ostinato.cli.runs.words import json_or_text, opened, setting
from ostinato.journal import Verdict, encode, valid

BY = click.option("--by", metavar="WHO", help="Who says so.  [default: the user]")


@click.command()
@click.argument("name")
@click.argument("answer")
@click.option("--path", "question", metavar="PATH", help="The question, where there are several.")
@BY
@journal_option("path")
def answer(name: str, answer: str, question: str | None, by: str | None, path: Path | None) -> None:
    """Answer the question that the run NAME asks. ANSWER is JSON, or else text.

    A run that nobody drives goes on when it is resumed.
    """
    with opened(path) as journal:
        run = journal.get(name)
        journal.answer(run, json_or_text(answer), path=question, by=by)
        left = len(run.questions())
        goes_on = "It goes on." if run.driven else f"To resume: {resume_hint(run)}"
    more = f"{left} question{'s are' if left > 1 else ' is'} open."
    click.echo(f"Answered. {more if left else goes_on}")


@click.command()
@click.argument("name")
@click.argument("key")
@click.argument("verdict", type=click.Choice(["accepted", "rejected", "edited"]))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="What was edited by hand; the value is JSON, else text; repeatable.",
)
@click.option("--text", default="", help="Why.")
@BY
@journal_option("path")
def note(
    name: str,
    key: str,
    verdict: Verdict,
    settings: tuple[str, ...],
    text: str,
    by: str | None,
    path: Path | None,
) -> None:
    """Note on the result KEY of the run NAME that it is accepted, rejected or edited.

    What was recorded stays as it is.
    """
    value = dict(setting(each) for each in settings) or None
    with opened(path) as journal:
        journal.note(journal.get(name), key, verdict, value=value, text=text, by=by)
    click.echo(f"Noted: {key} is {verdict}.")


@click.command()
@click.argument("name")
@click.option("--as", "new", metavar="NEW", help="Keep it under this name.")
@journal_option("path")
def keep(name: str, new: str | None, path: Path | None) -> None:
    """Keep the run NAME, which would be deleted some day because nobody named it."""
    with opened(path) as journal:
        run = journal.get(name)
        journal.keep(run, new)
        click.echo(f"{run.name} is kept until it is deleted.")


@click.command()
@click.argument("name")
@click.option("--after", type=int, default=0, help="Only entries after this number.")
@journal_option("path")
def export(name: str, after: int, path: Path | None) -> None:
    """Print all that was recorded of the run NAME, in order, as JSON lines.

    An entry is a step, event, result, checkpoint, call or note, with its number (seq).
    """
    with opened(path) as journal:
        for entry in journal.get(name).log(after):
            click.echo(encode(valid(entry.to_json())))
