"""Options of all `train` commands: when a training ends, its run, and how it trains.

Knows no network and no data.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ostinato.cli.options import Command, Option, add_options, flag_of, journal_option
from ostinato.errors import InputError
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.journal import Journal, Run
    from ostinato.loop import Condition


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a training writes, when it ends, and the run that records it, as typed.

    `settings` holds the typed fields of the training's configuration; others keep their defaults.
    `flags` are the options of those that are not called as their fields.
    """

    out: Path
    until: str | None = None
    epochs: float | None = None
    seconds: float | None = None
    patience: int | None = None
    checkpoint_every: int = 100
    fresh: bool = False
    run_name: str | None = None
    journal: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> str:
        """Return the option that sets a field of the configuration."""
        return self.flags.get(name) or flag_of(name)

    @property
    def name(self) -> str:
        """The run's name; by default that of the output folder."""
        from ostinato.journal import safe_name

        return self.run_name or safe_name(f"train-{self.out.resolve().name}")

    def require_valid(self) -> None:
        """Raise `InputError` where `--out` is a file or `--until` is no condition."""
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out must be a folder, got the file {self.out}. Name another.")
        self.condition(1)

    def condition(self, steps: int) -> Condition:
        """Return when the training ends: after `steps` unless an option limits its length.

        `--patience` alone is no limit: a loss may improve forever.
        """
        from ostinato.loop import Epochs, Plateau, Seconds, Steps, parse

        parts: list[Condition] = []
        if self.until is not None:
            parts.append(parse(self.until))
        if self.epochs is not None:
            parts.append(Epochs(self.epochs))
        if self.seconds is not None:
            parts.append(Seconds(self.seconds))
        limited = bool(parts)
        if self.patience is not None:
            parts.append(Plateau("loss/valid", self.patience))
        if not limited:
            parts.append(Steps(steps))
        return functools.reduce(operator.or_, parts)

    def open_journal(self) -> Journal:
        """Open the journal of `--journal`, or that of the working folder."""
        from ostinato.journal import Journal

        return Journal() if self.journal is None else Journal(self.journal)

    def recorded_spec(self) -> Mapping[str, Any]:
        """Return the spec of the run that exists under this name; empty where there is none."""
        from ostinato.journal import DEFAULT

        # Opening would create the file, and bad input must leave nothing behind.
        if not (self.journal or DEFAULT).exists():
            return {}
        with self.open_journal() as journal:
            run: Run | None = journal.find(self.name)
            return dict(run.spec) if run is not None else {}


class Setting(NamedTuple):
    """How a field of a configuration becomes an option. `flag` is its name if not the field's."""

    type: Any
    help: str
    flag: str = ""


Settings = Mapping[str, Setting]


def settings_of(config: type, *, defaults: bool = False) -> dict[str, Setting]:
    """Return a setting for each field of a dataclass that has a help text.

    With `defaults` the help shows the field's default. Commands with a recipe of their own leave
    it out: their defaults are the recipe's, and reading that would import torch.
    """
    hints = typing.get_type_hints(config)
    settings = {}
    for spec in dataclasses.fields(config):
        if "help" in spec.metadata:
            choices = typing.get_args(hints[spec.name])
            shown = f"  [default: {spec.default}]" if defaults and spec.default is not False else ""
            settings[spec.name] = Setting(
                click.Choice(list(choices)) if choices else hints[spec.name],
                spec.metadata["help"] + shown,
            )
    return settings


SETTINGS = settings_of(TrainingConfig)
SEQUENCE_SETTINGS = {name: spec for name, spec in SETTINGS.items() if name != "sample_every"}
"""Of trainings that write no samples while they run."""


def image_settings(settings: Settings) -> dict[str, Setting]:
    """Return the settings of a training on images: a batch counts images, not tokens."""
    return {
        **settings,
        "batch_tokens": Setting(click.IntRange(min=1), "Images in a batch.", "--batch-size"),
        "seed": Setting(int, "Seed of the data order, the weights, the noise and the split."),
    }


RUN_OPTIONS = add_options(
    click.option(
        "--out", required=True, type=click.Path(path_type=Path), help="Output folder of the model."
    ),
    click.option("--until", help="Stop condition, such as: Epochs(3) | Seconds(600)"),
    click.option("--epochs", type=float, help="Stop after this many passes over the data."),
    click.option(
        "--seconds",
        type=float,
        help="Stop after this time; the learning rate is planned by the measured speed.",
    ),
    click.option("--patience", type=int, help="Early stopping: validations without improvement."),
    click.option(
        "--checkpoint-every",
        type=int,
        default=RunOptions.checkpoint_every,
        help="Steps between checkpoints.",
    ),
    click.option("--fresh", is_flag=True, help="Start over; the earlier run is deleted."),
    click.option("--run", "run_name", help="Name of the run.  [default: train-OUT]"),
    journal_option(),
)
RUN_FIELDS = [spec.name for spec in fields(RunOptions) if spec.name not in ("settings", "flags")]


def training_options(settings: Settings) -> Callable[[Command], Command]:
    """Add the run's options and the settings to a command, which gets one `options`.

    Must be right above the function, below all other options of the command.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collected(**params: Any) -> None:
            run = {name: params.pop(name) for name in RUN_FIELDS}
            typed = {name: value for name in settings if (value := params.pop(name)) is not None}
            flags = {name: spec.flag for name, spec in settings.items() if spec.flag}
            options = RunOptions(**run, settings=typed, flags=flags)
            options.require_valid()
            command(options=options, **params)

        return RUN_OPTIONS(add_options(*_setting_options(settings))(collected))

    return decorate


def _setting_options(settings: Settings) -> list[Option]:
    """Return an option for each setting; None where it is not typed, flags included."""
    return [
        click.option(
            spec.flag or flag_of(name),
            name,
            help=spec.help,
            default=None,
            **({"is_flag": True} if spec.type is bool else {"type": spec.type}),
        )
        for name, spec in settings.items()
    ]


image_source_options = add_options(
    click.argument("sources", nargs=-1, required=True, metavar="FOLDER|digits-8x8|IDX-FILE…"),
    click.option("--size", type=int, help="Scale images to this side, 8 to 64.  [default: as is]"),
    click.option(
        "--gray/--color", default=None, help="Channels.  [default: gray if all images are]"
    ),
    click.option("--hold-out", type=float, default=0.1, help="Share of the data to validate on."),
)
