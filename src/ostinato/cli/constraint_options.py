"""Options that constrain a text as a whole: `--regex`, `--json-schema`, `--choice`, `--grammar`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import add_options
from ostinato.errors import InputError
from ostinato.text_files import read_text

if TYPE_CHECKING:
    from ostinato.decode import Constraint

NAMES = ("regex", "json_schema", "choice", "grammar")
constraint_options = add_options(
    click.option("--regex", metavar="PATTERN", help="Regular expression for the whole text."),
    click.option(
        "--json-schema", metavar="FILE", help="JSON schema: a file, or inline; {}: any JSON."
    ),
    click.option("--choice", multiple=True, metavar="TEXT", help="Allowed text; repeatable."),
    click.option("--grammar", metavar="FILE", help="Lark grammar; its start rule is `start`."),
)


def constraint_from(params: dict[str, Any]) -> Constraint | None:
    """Take the options out of a command's parameters, and return their constraint.

    Raises `InputError` for two constraints, and for one that does not compile.
    """
    values = {name: value for name in NAMES if (value := params.pop(name)) not in (None, ())}
    if len(values) > 1:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in values)
        raise InputError(f"A text must be under one constraint, got {named}. Leave one out.")
    for name, value in values.items():
        constraint = _constraint(name, value)
        constraint.check()  # compiles it: an error is found before the model is loaded
        return constraint
    return None


def _constraint(name: str, value: Any) -> Constraint:
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
    try:
        return read_text(name)
    except InputError as error:
        raise InputError(f"{option} must be a text file: {error}") from None
