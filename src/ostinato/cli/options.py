"""Options that several commands share, so that each has one name and one help text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ostinato.errors import InputError, OutputError

Command = Callable[..., Any]
Option = Callable[[Command], Command]


def add_options(*options: Option) -> Option:
    """Return a decorator that adds options to a command in this order."""

    def add(command: Command) -> Command:
        # A decorator applied last is listed first in --help.
        for option in reversed(options):
            command = option(command)
        return command

    return add


def flag_of(name: str) -> str:
    """Return the option that is called as a field."""
    return f"--{name.replace('_', '-')}"


def near(path: Path) -> str:
    """Return a path relative to the working folder where it lies in it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def fields_as_options(spelled: Callable[[str], str]) -> Iterator[None]:
    """Let an error that begins with a field's name begin with the option's."""
    try:
        yield
    except (InputError, OutputError) as error:
        text = str(error)
        # A key may be an option already, where a command checked what was typed.
        if error.key and error.key.isidentifier() and text.startswith(f"{error.key} "):
            error.args = (spelled(error.key) + text.removeprefix(error.key),)
        raise


def journal_option(name: str = "journal") -> Option:
    """Return `--journal`; `name` is the command's parameter."""
    return click.option(
        "--journal",
        name,
        type=click.Path(path_type=Path),
        help="Journal file.  [default: .ostinato/journal.db]",
    )


def _take_bits(context: click.Context, option: click.Parameter, given: bool) -> None:
    """Pass `bits` to the command: of --int8 or --int4, None without either."""
    bits = context.params.setdefault("bits", None)
    if not given:
        return
    if bits:
        raise InputError("--int8 must be given without --int4, got both. Leave one out.")
    context.params["bits"] = 8 if option.name == "int8" else 4


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
seed_option = click.option("--seed", type=int, default=0, help="Random seed.")
model_options = add_options(
    click.option("--adapter", help="LoRA adapter: a name or a folder."),
    click.option(
        "--compile/--no-compile",
        default=None,
        help="Use compiled code for the forward pass.  [default: whichever is faster]",
    ),
    click.option(
        "--int8",
        is_flag=True,
        expose_value=False,
        callback=_take_bits,
        help="Quantize the weights to 8 bits (compiled).",
    ),
    click.option(
        "--int4",
        is_flag=True,
        expose_value=False,
        callback=_take_bits,
        help="Quantize the weights to 4 bits (compiled).",
    ),
    click.option("--device", default="cpu", help="Device: cpu, cuda or cuda:N."),
)
"""What `ostinato.models.load_model` takes beside the model's name."""
