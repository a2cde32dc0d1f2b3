"""The `ostinato` command. Registers the groups; each is imported only when it is used."""

from __future__ import annotations

import importlib
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

import click

from ostinato.errors import OstinatoError

PACKAGE = Path(__file__).parents[1]

# name: (module, attribute, one line of help). Modules are imported when the command is used, so
# that `ostinato --help` needs neither torch nor any other heavy library.
COMMANDS = {
    "refine": (
        "ostinato.cli.jobs.refine",
        "refine",
        "Write a reply to every item until it passes.",
    ),
    "check": (
        "ostinato.cli.jobs.check",
        "check",
        "Judge texts written elsewhere by a job's checks.",
    ),
    "why": ("ostinato.cli.jobs.why", "why", "Tell why an item of a run came out as it did."),
    "serve": ("ostinato.cli.serve", "serve", "Serve a model, with checks while it writes."),
    "generate": ("ostinato.cli.generate", "generate", "Write text token by token."),
    "fill": ("ostinato.cli.fill", "fill", "Fill the gaps of a text, the surest tokens first."),
    "train": ("ostinato.cli.train.text", "train", "Train a model until it is good enough."),
    "sample": ("ostinato.cli.sample.image", "sample", "Draw with a model, step by step."),
    "models": ("ostinato.cli.models", "models", "List models, and get them."),
    "runs": ("ostinato.cli.runs.commands", "runs", "List, show, resume, branch and delete runs."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ostinato")
def cli() -> None:
    """Run generative processes as loops: until good enough, and always telling why they stopped."""


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
    """Show a warning of ours as a message, without the line of code that gave it."""
    if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
        click.echo(f"Warning: {message}", err=True)
    else:
        others(message, category, filename, lineno, file, line)


def main() -> None:
    """Run the command line. An error of ours is a message and exit code 2, never a traceback."""
    warnings.showwarning = partial(_show_warning, others=warnings.showwarning)
    try:
        cli()
    except OstinatoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    finally:  # a Ctrl-C that comes while the interpreter ends shows no traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
