"""Options of all `train` commands: when a training ends, its run, and how it trains.

Knows no network and no data.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ostinato.cli.options import (
    Command,
    Option,
    add_options,
    fields_as_options,
    flag_of,
    journal_option,
)
from ostinato.cli.recording import Recording, no_journal_option
from ostinato.errors import InputError
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.journal import Run
    from ostinato.train import Plannable, TrainingRun

    Config = TypeVar("Config", bound=TrainingRun)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Where a training writes, when it ends, and how its run is recorded, as typed.

    `settings` holds the typed fields of the training's configuration; others keep their defaults.
    `flags` are the options of those that are not called as their fields.
    """

    out: Path
    until: str | None = None
    epochs: float | None = None
    seconds: float | None = None
    patience: int | None = None
    checkpoint_every: int = 100
    recording: Recording = field(default_factory=Recording)
    settings: dict[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name; by default that of the output folder."""
        from ostinato.journal import safe_name

        usual = safe_name(f"train-{self.out.resolve().name}")
        return usual if self.recording.name is None else self.recording.name

    @property
    def named(self) -> Recording:
        """How the training is recorded, with the name that it has if nobody named it."""
        return replace(self.recording, usual=self.name)

    def require_valid(self) -> None:
        """Raise `InputError` where `--out` is a file or `--until` is no condition."""
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out must be a folder, got the file {self.out}. Name another.")
        self.condition(1)

    def condition(self, steps: int) -> str | None:
        """Return when the training ends, as it is spelled; None: after the steps of its schedule.

        `--patience` alone is no limit, so it is joined with `steps`: a loss may improve forever.
        """
        from ostinato.loop import Condition, Epochs, Plateau, Seconds, Steps, parse

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
            parts += [] if limited else [Steps(steps)]
        return str(functools.reduce(lambda one, other: one | other, parts)) if parts else None

    def run_fields(self) -> dict[str, Any]:
        """Return the fields that all trainings have, as typed."""
        return {"out": self.out, "checkpoint_every": self.checkpoint_every}

    def complete(self, config: Config, data: Plannable) -> Config:
        """Return a configuration with its plan and the hashes of the data.

        A run that resumes keeps its plan. Raises `InputError` for a batch that was typed and has
        room for no example, and where the run of this name is of an older version.
        """
        from ostinato.train import planned, require_room, with_plan_of

        if "batch_tokens" in self.settings:
            require_room(self.settings["batch_tokens"], data.lengths)
        before = self.recorded()
        if before is not None:
            training = with_plan_of(before.training, config.training, fixed=self.settings)
        else:
            training = planned(
                config.training,
                data,
                epochs=self.epochs,
                seconds=self.seconds,
                fixed=self.settings,
            )
        # What is not known yet, such as an autoencoder that is trained first, is what it was.
        hashes = {name: value or getattr(before, name, "") for name, value in data.hashes.items()}
        changed: dict[str, Any] = {**hashes, "training": training}
        return replace(config, **changed, until=self.condition(training.steps))

    def recorded(self) -> TrainingRun | None:
        """Return the configuration of the run that is to be resumed; None where there is none."""
        from ostinato.journal import DEFAULT, Journal
        from ostinato.runs import config_of
        from ostinato.train import TrainingRun

        path = self.recording.journal or DEFAULT
        # Opening would create the file, and bad input must leave nothing behind.
        if self.recording.off or self.recording.fresh or not path.exists():
            return None
        with Journal(path) as journal:
            run = journal.find(self.name)
            if run is None:
                return None
            _refuse_older(run)
            config = config_of(run)
        return config if isinstance(config, TrainingRun) else None

    def spelled(self, name: str) -> str:
        """Return how a message calls a field of a run's configuration: by its option."""
        from ostinato.train import HASHED

        last = name.rpartition(".")[2]
        return HASHED.get(name) or self.flags.get(last) or flag_of(last)


def _refuse_older(run: Run) -> None:
    """Raise `InputError` for a training of older versions, which recorded no configuration."""
    if run.kind == "train":
        raise InputError(
            f"The run {run.name!r} must have a configuration to be resumed, got none: an older "
            "version recorded it. Start over with --fresh, or give another --run. The model that "
            "it wrote stays until then."
        )


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
        default=TrainingOptions.checkpoint_every,
        help="Steps between checkpoints.",
    ),
    click.option("--fresh", is_flag=True, help="Start over; the earlier run is deleted."),
    click.option("--run", "run_name", help="Name of the run.  [default: train-OUT]"),
    journal_option(),
    no_journal_option,
)
END_FIELDS = ("out", "until", "epochs", "seconds", "patience", "checkpoint_every")


def training_options(settings: Settings) -> Callable[[Command], Command]:
    """Add the run's options and the settings to a command, which gets one `options`.

    Must be right above the function, below all other options of the command.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collected(**params: Any) -> None:
            ends = {name: params.pop(name) for name in END_FIELDS}
            recording = Recording(
                name=params.pop("run_name"),
                journal=params.pop("journal"),
                off=params.pop("no_journal"),
                fresh=params.pop("fresh"),
            )
            typed = {name: value for name in settings if (value := params.pop(name)) is not None}
            flags = {name: spec.flag for name, spec in settings.items() if spec.flag}
            options = TrainingOptions(**ends, recording=recording, settings=typed, flags=flags)
            options.require_valid()
            with fields_as_options(options.spelled):
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
