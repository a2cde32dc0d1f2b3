"""The `ostinato` command: registers the subcommands, and imports each only when it is used."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from ostinato.arguments import did_you_mean
from ostinato.cli.run_loop import Exit
from ostinato.cli.terminal import check_texts, prepared_streams
from ostinato.errors import OstinatoError
from ostinato.waiting import listen

PACKAGE = Path(__file__).parents[1]

# name: (module, attribute, one line of help). The help line is repeated here: reading it from the
# command would import the command, and torch with some of them.
COMMANDS = {
    "refine": (
        "ostinato.cli.jobs.refine",
        "refine",
        "Generate a reply for every item of a job until it passes.",
    ),
    "check": (
        "ostinato.cli.jobs.check",
        "check",
        "Judge existing texts by a job's checks.",
    ),
    "why": ("ostinato.cli.jobs.why", "why", "Explain the outcome of an item or of a job."),
    "report": ("ostinato.cli.jobs.report", "report", "Write the report page of a run again."),
    "compare": ("ostinato.cli.jobs.compare", "compare_runs", "Compare two runs of a refine job."),
    "chat": (
        "ostinato.cli.chat.command",
        "chat",
        "Talk with a model, or let two models talk.",
    ),
    "serve": ("ostinato.cli.serve", "serve", "Serve a model over an OpenAI-compatible API."),
    "flow": ("ostinato.cli.flow", "flow", "Run plain Python around generative calls, durably."),
    "generate": ("ostinato.cli.generate", "generate", "Generate text token by token."),
    "fill": ("ostinato.cli.fill", "fill", "Fill the gaps of a text with a masked model."),
    "train": ("ostinato.cli.train.group", "train", "Train a model until it is good enough."),
    "tune": ("ostinato.cli.tune", "tune", "Tune a model until it passes a job's checks."),
    "sample": ("ostinato.cli.sample.group", "sample", "Sample images or music, step by step."),
    "play": ("ostinato.cli.play", "play", "Let a policy play a game, or play it yourself."),
    "teach": (
        "ostinato.cli.minigame.teach",
        "teach",
        "Teach a policy that plays a game, by thumbs up and down.",
    ),
    "models": ("ostinato.cli.models", "models", "List and download models."),
    "doctor": ("ostinato.cli.doctor", "doctor", "Describe this machine and what is missing."),
    "runs": ("ostinato.cli.runs.commands", "runs", "List, show, resume, branch and delete runs."),
}

FIRST = {
    "ostinato refine --new job.toml": "generate a reply for every item of a file until it passes",
    'ostinato generate "Name a color."': "generate a text, and see why it ended",
    "ostinato chat": "talk with a model",
    "ostinato train text FILE.txt --out small": "train a model until it is good enough",
    "ostinato sample image": "sample an image, step by step",
}
"""What one can do first, shown where nothing is typed: the command, and what it does."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table; click would sort them."""
        return list(COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any show what one can do, with the exit code of click."""
        if args or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        width = max(map(len, FIRST))
        for command, text in FIRST.items():
            click.echo(f"{command:{width}}  {text}")
        click.echo(
            "\nAll commands: ostinato --help. One of them: ostinato refine --help. "
            "This machine: ostinato doctor."
        )
        ctx.exit(Exit.BAD_INPUT)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with 130 where Ctrl-C ended it at once: click would say 1.

        An unknown option is answered with the nearest one alone.
        """
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            known = [] if error.ctx is None else error.ctx.command.params
            options = [name for parameter in known for name in parameter.opts]
            name = error.option_name
            text = f"No such option {name!r}.{did_you_mean(name, options)}"
            raise click.NoSuchOption(name, text, None, error.ctx) from None
        except KeyboardInterrupt:
            click.echo("Interrupted. What was acknowledged is saved.", err=True)
            ctx.exit(Exit.INTERRUPTED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        check_texts(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or offer the nearest name: click looks at imported commands only."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}.{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's help lines without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


# Subcommands inherit these settings, so that every default is shown in --help.
@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="ostinato")
def cli() -> None:
    """Run generative processes as loops: until good enough, always saying why they stopped."""


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
    *,
    others: Callable[..., None],
) -> None:
    """Show a warning of ours as a message, without the line of code that raised it."""
    if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
        click.echo(f"Warning: {message}", err=True)
    else:
        others(message, category, filename, lineno, file, line)


def _run() -> None:
    try:
        cli()
    except OstinatoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(Exit.BAD_INPUT)


def main() -> None:
    """Run the command line. An `OstinatoError` is a message and exit code 2, never a traceback."""
    listen(partial(click.echo, err=True))
    warnings.showwarning = partial(_show_warning, others=warnings.showwarning)
    # torch reads it when it is imported. Threads that wait for work would else keep processors from
    # the threads that have some: 2 to 3 times slower beside one busy program on 2 cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with prepared_streams():
            _run()
    finally:
        # A Ctrl-C during the interpreter's exit would print a traceback from an exit handler.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
