"""The command that started a run: recorded with the run, shown to the user, run again to resume.

Records the words that were typed and the folder they were typed in. A key is never among them:
commands take the name of the environment variable that holds it.
"""

from __future__ import annotations

import shlex
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ostinato.errors import InputError
from ostinato.journal import DEFAULT, JSON, Run

SPEC_KEY = "begun"  # older than `RecordedCommand`: existing journals have it
"""The entry of a run's spec that holds the command."""
COMMANDS = {
    *("generate", "fill", "refine"),
    *("train text", "train image", "train image-tokens", "train music"),
    *("sample image", "sample image-tokens", "sample music"),
}
NOT_RECORDED = {"fresh", "update", "only", "as_json"}
"""Parameters that hold for one call only: with `--fresh`, a resume would start over."""
OUTPUTS = ("--out", "--output", "--export")
"""Options that name where a command writes."""
LIMITS = ("--until", "--epochs", "--seconds", "--patience")
"""Options that end a training."""

Option = tuple[str, ...]
"""An option with its values."""


@dataclass(frozen=True, kw_only=True)
class RecordedCommand:
    """A command: its name such as `train text`, its options and arguments, its working folder."""

    command: str
    options: tuple[Option, ...] = ()
    arguments: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        """Return the command as it can be pasted into a shell in any folder."""
        line = shlex.join(["ostinato", *self.words()])
        if self.folder.resolve() == Path.cwd().resolve():
            return line
        return f"cd {shlex.quote(str(self.folder))} && {line}"

    @property
    def is_training(self) -> bool:
        """Whether the command is one of `ostinato train`."""
        return self.command.startswith("train ")

    def words(self) -> list[str]:
        """Return the command line after `ostinato`."""
        options = [word for option in self.options for word in option]
        if any(argument.startswith("-") for argument in self.arguments):
            return [*self.command.split(), *options, "--", *self.arguments]
        return [*self.command.split(), *self.arguments, *options]

    def call(self) -> None:
        """Run the command in its folder. Ends as it does: returns, or raises `SystemExit`."""
        from ostinato.cli.main import cli

        if not self.folder.is_dir():
            raise InputError(f"The folder of the command must exist, got {self.folder}.")
        # In its folder: the typed paths are relative to it. Not standalone: errors reach `main`.
        with chdir(self.folder):
            cli.main(args=self.words(), prog_name="ostinato", standalone_mode=False)

    def get(self, name: str) -> str | None:
        """Return the first value of an option, or None where it is not typed."""
        return next((option[1] for option in self.options if option[0] == name), None)

    def without(self, *names: str) -> RecordedCommand:
        """Return the command without some options."""
        return replace(self, options=tuple(one for one in self.options if one[0] not in names))

    def having(self, *option: str) -> RecordedCommand:
        """Return the command with an option, which replaces earlier values of it."""
        return replace(self, options=(*self.without(option[0]).options, option))

    def until(self, condition: str) -> RecordedCommand:
        """Return a training's command with another stop condition."""
        return self.without(*LIMITS).having("--until", condition)

    def to_json(self) -> dict[str, JSON]:
        """Return the command as it is recorded."""
        return {
            "command": self.command,
            "options": [list(option) for option in self.options],
            "arguments": list(self.arguments),
            "folder": str(self.folder),
        }

    @classmethod
    def from_json(cls, value: Any) -> RecordedCommand | None:
        """Read a recorded command; return None for anything else.

        A journal may come from someone else, so the value is checked in full: only a command that
        makes runs is ever called.
        """
        if not isinstance(value, dict) or value.get("command") not in COMMANDS:
            return None
        options: Any = value.get("options")
        arguments: Any = value.get("arguments")
        if not isinstance(options, list) or not all(_is_words(one) and one for one in options):
            return None
        if not _is_words(arguments) or not isinstance(value.get("folder"), str):
            return None
        return cls(
            command=value["command"],
            options=tuple(tuple(option) for option in options),
            arguments=tuple(arguments),
            folder=Path(value["folder"]),
        )


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


# The command that is running --------------------------------------------------------------------


def command_spec(*arguments: str) -> dict[str, JSON]:
    """Return the spec's entry for the command that is running; {} outside of one.

    `arguments` replace the typed ones, as for a text from standard input.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    options: list[Option] = []
    positional: list[str] = []
    for parameter in _typed(context):
        assert parameter.name is not None
        value = context.params[parameter.name]
        if isinstance(parameter, click.Option):
            options += _option_words(parameter, value)
        else:
            positional += [str(each) for each in (value if parameter.nargs != 1 else [value])]
    recorded = RecordedCommand(
        command=_name(context),
        options=tuple(options),
        arguments=arguments or tuple(positional),
        folder=Path.cwd(),
    )
    return {SPEC_KEY: recorded.to_json()}


def _typed(context: click.Context) -> list[click.Parameter]:
    """Return the parameters that were typed, in their order.

    Defaults are left out: a later version may have better ones, and the line stays short.
    """
    known = {parameter.name: parameter for parameter in context.command.params}
    return [
        known[name]
        for name in context.params
        if name not in NOT_RECORDED
        and name in known
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]


def _option_words(option: click.Option, value: Any) -> list[Option]:
    """Return an option as it is typed, once for each of its values."""
    name = max(option.opts, key=len)
    if option.is_flag:
        return [(name if value else max(option.secondary_opts, key=len),)]
    values = value if option.multiple else [value]
    return [(name, *map(str, one if option.nargs > 1 else [one])) for one in values]


def _name(context: click.Context) -> str:
    """Return the names of the command and its groups, without that of the program."""
    names: list[str] = []
    step: click.Context | None = context
    while step is not None:
        if step.command.name != "cli":
            names.append(str(step.command.name))
        step = step.parent
    return " ".join(reversed(names))


# The command of a run ---------------------------------------------------------------------------


def command_of(run: Run) -> RecordedCommand | None:
    """Return the command that resumes a run; None for a run that no command started.

    For a branch it is the command of its parent, with the branch's name and output. The folder is
    the one in which the journal lies now.
    """
    row = run.now()
    command = RecordedCommand.from_json(row.spec.get(SPEC_KEY))
    if command is None:
        return None
    command = _in_journal(command, run.database.path)
    if command is None or row.parent is None:
        return command
    if command.get("--run") == row.name:  # the branch was resumed before
        return command
    if command.is_training and not _starts_parent(command, run):
        return None
    if command.command == "refine":
        output = command.get("--output") or _near(str(row.spec.get("output")), command.folder)
        command = command.having("--output", output)
    return _renamed(command, row.name)


def _in_journal(command: RecordedCommand, journal: Path) -> RecordedCommand | None:
    """Return a command that finds the journal where it lies; None where it takes no `--journal`."""
    named = command.get("--journal")
    if (command.folder / (named or DEFAULT)).resolve() == journal.resolve():
        return command
    if named is None and journal.parts[-2:] == DEFAULT.parts:
        # The working folder was moved or renamed, with its journal in it.
        return replace(command, folder=journal.parent.parent)
    takes_one = command.command == "refine" or command.is_training
    return command.having("--journal", str(journal)) if takes_one else None


def _starts_parent(command: RecordedCommand, branch: Run) -> bool:
    """Return whether the command drives the branch's parent as a whole.

    False for a training inside another command, such as the autoencoder of image tokens: that
    command would resume the outer training. A parent that is a branch itself records the folder of
    its own parent but writes to another, so it is known by its name.
    """
    row = branch.now()
    parent = branch.parent_run()
    if parent is not None and command.get("--run") == parent.name:
        return True
    return Path(str(row.spec.get("out"))).name == (command.folder / str(command.get("--out"))).name


def _renamed(command: RecordedCommand, name: str) -> RecordedCommand:
    """Return a command for a branch: with its name, and an output beside its parent's."""
    keeps_suffix = command.command == "refine" or command.command.startswith("sample ")

    def beside(path: Path) -> Path:
        return path.with_name(name + (path.suffix if keeps_suffix else ""))

    options = [
        (one[0], str(beside(Path(one[1])))) if one[0] in OUTPUTS else one for one in command.options
    ]
    return replace(command, options=tuple(options)).having("--run", name)


def _near(path: str, folder: Path) -> str:
    """Return a path relative to the folder where it lies in it."""
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
