"""The pages of the command line, made from the commands: what `--help` shows, as tables."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ostinato.cli.main import cli
from recipes.site.markdown import cell, table

FOLDER = "reference/commands/"


def command_pages() -> dict[str, str]:
    """Return a page for each command of `ostinato`, by path."""
    root = click.Context(cli, info_name="ostinato", color=False)
    pages = {FOLDER + "index.md": _overview(root)}
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        pages[f"{FOLDER}{name}.md"] = "\n".join(_sections(command, name, root, level=1))
    return pages


def _overview(root: click.Context) -> str:
    names = cli.list_commands(root)
    commands = [(f"[`{name}`]({name}.md)", _help(cli.get_command(root, name))) for name in names]
    lines = [
        "# Commands",
        "",
        "Every command takes `--help`, which says the same as these pages.",
        "",
        table(("command", "what it does"), [(name, cell(text)) for name, text in commands]),
    ]
    return "\n".join(lines)


def _help(command: click.Command | None) -> str:
    return "" if command is None else command.get_short_help_str(200)


def _sections(
    command: click.Command, name: str, parent: click.Context, level: int
) -> Iterator[str]:
    """Yield the lines of a command and, below it, of the commands in it."""
    context = click.Context(command, info_name=name, parent=parent, color=False)
    yield f"{'#' * level} {context.command_path}"
    yield ""
    yield from _paragraphs(command.help or "")
    yield "```text"
    yield command.get_usage(context).removeprefix("Usage: ")
    yield "```"
    yield ""
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None and not found.hidden:
                yield from _sections(found, inner, context, level + 1)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text as Markdown: what stands after `\\b` keeps its lines."""
    for paragraph in text.split("\f")[0].strip().split("\n\n"):
        kept = paragraph.startswith("\b")
        lines = paragraph.removeprefix("\b").strip("\n").splitlines()
        yield from (["```text", *lines, "```"] if kept else [cell(line) for line in lines])
        yield ""


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [option.get_help_record(context) for option in command.get_params(context)]
    rows = [(f"`{name}`", cell(text)) for name, text in filter(None, records)]
    if rows:
        yield table(("option", "what it does"), rows)
        yield ""
