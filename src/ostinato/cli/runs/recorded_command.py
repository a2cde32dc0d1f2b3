"""The command that began a run: recorded with it, told again, and run again.

What is recorded are the words that were typed and the folder they were typed in. A key is never
among them: commands take the name of the variable that holds it.
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

KEPT_AS = "begun"
COMMANDS = {
    *("generate", "fill", "refine"),
    *("train text", "train image", "train image-tokens", "train music"),
    *("sample image", "sample image-tokens", "sample music"),
}
ONCE = {"fresh", "update", "as_json"}
"""Parameters that are not recorded: the command goes on without them."""
WRITES = ("--out", "--output")
"""Options of where a command writes."""
ENDS = ("--until", "--epochs", "--seconds", "--patience")
"""Options of a training that say when it ends."""

Option = tuple[str, ...]
"""An option with its values."""


@dataclass(frozen=True, kw_only=True)
class RecordedCommand:
    """A command: its name such as `train text`, its options and arguments, its folder."""

    command: str
    options: tuple[Option, ...] = ()
    arguments: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        """Return it as it can be pasted into a shell, wherever that stands."""
        line = shlex.join(["ostinato", *self.words()])
        if self.folder.resolve() == Path.cwd().resolve():
            return line
        return f"cd {shlex.quote(str(self.folder))} && {line}"

    def words(self) -> list[str]:
        """Return what stands behind `ostinato`."""
        options = [word for option in self.options for word in option]
        if any(argument.startswith("-") for argument in self.arguments):
            return [*self.command.split(), *options, "--", *self.arguments]
        return [*self.command.split(), *self.arguments, *options]

    def call(self) -> None:
        """Run it in its folder. Ends as the command does: by `SystemExit`, or by returning."""
        from ostinato.cli.main import cli

        if not self.folder.is_dir():
            raise InputError(f"The folder of the command must be there, got {self.folder}.")
        with chdir(self.folder):
            cli.main(args=self.words(), prog_name="ostinato", standalone_mode=False)

    def get(self, name: str) -> str | None:
        """Return the first value of an option, None where it is not given."""
        return next((option[1] for option in self.options if option[0] == name), None)

    def without(self, *names: str) -> RecordedCommand:
        """Leave options out."""
        return replace(self, options=tuple(one for one in self.options if one[0] not in names))

    def having(self, *option: str) -> RecordedCommand:
        """Give an option, in place of what was given for it."""
        return replace(self, options=(*self.without(option[0]).options, option))

    def until(self, condition: str) -> RecordedCommand:
        """Return a training's command with another condition for its end."""
        return self.without(*ENDS).having("--until", condition)

    def to_json(self) -> dict[str, JSON]:
        """Return it as it is recorded."""
        return {
            "command": self.command,
            "options": [list(option) for option in self.options],
            "arguments": list(self.arguments),
            "folder": str(self.folder),
        }

    @classmethod
    def from_json(cls, value: Any) -> RecordedCommand | None:
        """Read what was recorded; None for anything else."""
        if not isinstance(value, dict) or value.get("command") not in COMMANDS:
            return None
        options: Any = value.get("options")
        arguments: Any = value.get("arguments")
        if not isinstance(options, list) or not all(_words(one) and one for one in options):
            return None
        if not _words(arguments) or not isinstance(value.get("folder"), str):
            return None
        return cls(
            command=value["command"],
            options=tuple(tuple(option) for option in options),
            arguments=tuple(arguments),
            folder=Path(value["folder"]),
        )


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


# The command that is running --------------------------------------------------------------------


def begun_by(*arguments: str) -> dict[str, JSON]:
    """Return what the spec of a run records of the command that is running; {} where none is.

    `arguments` take the place of those that were typed, as for a text from standard input.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    options: list[Option] = []
    given: list[str] = []
    for parameter in _typed(context):
        assert parameter.name is not None
        value = context.params[parameter.name]
        if isinstance(parameter, click.Option):
            options += _spelled(parameter, value)
        else:
            given += [str(each) for each in (value if parameter.nargs != 1 else [value])]
    begun = RecordedCommand(
        command=_name(context),
        options=tuple(options),
        arguments=arguments or tuple(given),
        folder=Path.cwd(),
    )
    return {KEPT_AS: begun.to_json()}


def _typed(context: click.Context) -> list[click.Parameter]:
    """Return the parameters that were typed, in their order."""
    known = {parameter.name: parameter for parameter in context.command.params}
    return [
        known[name]
        for name in context.params
        if name not in ONCE
        and name in known
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]


def _spelled(option: click.Option, value: Any) -> list[Option]:
    name = max(option.opts, key=len)
    if option.is_flag:
        return [(name if value else max(option.secondary_opts, key=len),)]
    values = value if option.multiple else [value]
    return [(name, *map(str, one if option.nargs > 1 else [one])) for one in values]


def _name(context: click.Context) -> str:
    """Return the names of the command and its groups, that of the whole program excepted."""
    names: list[str] = []
    step: click.Context | None = context
    while step is not None:
        if step.command.name != "cli":
            names.append(str(step.command.name))
        step = step.parent
    return " ".join(reversed(names))


# The command of a run ---------------------------------------------------------------------------


def begun_of(run: Run) -> RecordedCommand | None:
    """Return the command that goes on with a run; None where it was begun in another way.

    For a branch that is the command of its parent, with the branch's name and a new place to write
    to. The folder is that in which the journal lies now.
    """
    row = run.now()
    begun = RecordedCommand.from_json(row.spec.get(KEPT_AS))
    if begun is None:
        return None
    begun = _in_journal(begun, run.database.path)
    if begun is None or row.parent is None:
        return begun
    if begun.get("--run") == row.name:
        return begun
    if begun.command.startswith("train ") and not _is_of_parent(begun, run):
        return None
    if begun.command == "refine":
        output = begun.get("--output") or _near(str(row.spec.get("output")), begun.folder)
        begun = begun.having("--output", output)
    return _renamed(begun, row.name)


def _in_journal(begun: RecordedCommand, journal: Path) -> RecordedCommand | None:
    """Return a command that finds the journal where it is; None where it takes no `--journal`."""
    named = begun.get("--journal")
    if (begun.folder / (named or DEFAULT)).resolve() == journal.resolve():
        return begun
    if named is None and journal.parts[-2:] == DEFAULT.parts:
        return replace(begun, folder=journal.parent.parent)
    takes_one = begun.command == "refine" or begun.command.startswith("train ")
    return begun.having("--journal", str(journal)) if takes_one else None


def _is_of_parent(begun: RecordedCommand, branch: Run) -> bool:
    """Tell whether the command drives the branch's parent, and not a training that it is part of.

    A parent that is a branch itself has the folder that was begun with, and writes to another.
    """
    row = branch.now()
    parent = branch.parent_run()
    if parent is not None and begun.get("--run") == parent.name:
        return True
    return Path(str(row.spec.get("out"))).name == (begun.folder / str(begun.get("--out"))).name


def _renamed(begun: RecordedCommand, name: str) -> RecordedCommand:
    """Return a command for a branch: under its name, and beside what its parent wrote."""
    endings = begun.command == "refine" or begun.command.startswith("sample ")
    options = [
        (one[0], str(_beside(Path(one[1]), name, endings))) if one[0] in WRITES else one
        for one in begun.options
    ]
    return replace(begun, options=tuple(options)).having("--run", name)


def _near(path: str, folder: Path) -> str:
    """Return a path relative to a folder where it lies in it."""
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _beside(path: Path, name: str, endings: bool) -> Path:
    return path.with_name(name + (path.suffix if endings else ""))
