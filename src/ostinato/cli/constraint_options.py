"""The options by which a command is told what a text must be as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.decode import Constraint

NAMES = ("regex", "json_schema", "choice", "grammar")


def constraint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--regex`, `--json-schema`, `--choice` and `--grammar` to a command."""
    options = [
        click.option("--regex", metavar="PATTERN", help="The whole text matches this."),
        click.option(
            "--json-schema",
            metavar="FILE",
            help="The text is JSON under this schema (a file, or the schema; {}: any JSON).",
        ),
        click.option(
            "--choice", multiple=True, metavar="TEXT", help="The text is this (given again: or)."
        ),
        click.option(
            "--grammar", metavar="FILE", help="The text is of this Lark grammar (rule start)."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def constraint_from(given: dict[str, Any]) -> Constraint | None:
    """Take the options out of what was given, and make the constraint. Raises `InputError`."""
    values = {name: value for name in NAMES if (value := given.pop(name)) not in (None, ())}
    if len(values) > 1:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in values)
        raise InputError(f"A text must be under one constraint, got {named}. Leave one out.")
    for name, value in values.items():
        constraint = _made(name, value)
        constraint.check()
        return constraint
    return None


def _made(name: str, value: Any) -> Constraint:
    from ostinato.decode import Constraint

    match name:
        case "regex":
            return Constraint.regex(value)
        case "choice":
            return Constraint.choice(value)
        case "grammar":
            return Constraint.grammar(_read("--grammar", value))
        case _:
            inline = value.lstrip().startswith("{")
            return Constraint.json_schema(value if inline else _read("--json-schema", value))


def _read(option: str, name: str) -> str:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{option} must be a file that exists, got {name!r}. Create it.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} must be a text file in UTF-8, got {name!r}: {error}.") from None
