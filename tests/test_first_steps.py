"""What `ostinato` shows where nothing is typed."""

from __future__ import annotations

import shlex

import click
from click.testing import CliRunner

from ostinato.cli.main import FIRST, cli


def test_nothing_typed_shows_five_things_to_do_and_where_help_is() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert len(lines) == 7 and "ostinato --help" in lines[-1]
    assert all(len(line) <= 100 for line in lines)


def test_the_commands_shown_are_right() -> None:
    assert len(FIRST) == 5
    for typed in FIRST:
        _, *words = shlex.split(typed)
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, typed
            command = found
        command.make_context("ostinato", words)  # raises where an argument or option is wrong


def test_help_is_as_before() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0 and "Commands:" in result.stdout
