"""Options of all `train` commands: its configuration's, when it ends, and where it is recorded.

Knows no network and no data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ostinato.cli.following import View, view_options
from ostinato.cli.options import (
    Option,
    add_options,
    fields_as_options,
    flag_of,
    journal_option,
)
from ostinato.cli.recording import Recording, no_journal_option
from ostinato.cli.train.settings import (
    Overrides,
    Setting,
    arguments_of,
    built,
    inner,
    settings_of,
)
from ostinato.errors import InputError
from ostinato.train import TrainingRun

if TYPE_CHECKING:
    from ostinato.journal import Run
    from ostinato.train import Plannable

    Config = TypeVar("Config", bound=TrainingRun)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Where a training writes, when it ends, and how its run is recorded, as typed.

    `settings` holds the typed fields of the configuration; others keep their defaults. `flags` are
    the options of those that are not called as their fields.
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
    config: type[TrainingRun] = TrainingRun

    @property
    def name(self) -> str:
        """The run's name; by default that of the output folder."""
        from ostinato.journal import safe_name

        usual = safe_name(f"{_verb(self.config)}-{self.out.resolve().name}")
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
            measure, better = self.config.measure, self.config.better
            parts.append(Plateau(measure, self.patience, mode=better))
            parts += [] if limited else [Steps(steps)]
        return str(functools.reduce(lambda one, other: one | other, parts)) if parts else None

    def built(self, values: Mapping[str, Any]) -> TrainingRun:
        """Return the configuration with these values of its fields; the plan is not made yet."""
        return built(self.config, values, out=self.out, checkpoint_every=self.checkpoint_every)

    def complete(self, config: Config, data: Plannable) -> Config:
        """Return a configuration with its plan and the hashes of the data.

        A run that resumes keeps its plan. Raises `InputError` for a batch that was typed and has
        room for no example, and where the run of this name is of an older version.
        """
        from ostinato.train import planned, with_plan_of

        config.training.require_room(data.lengths, self.settings)
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
        return config if isinstance(config, self.config) else None

    def spelled(self, name: str) -> str:
        """Return how a message calls a field of a run's configuration: by its option."""
        from ostinato.train import HASHED

        last = name.rpartition(".")[2]
        flag = self.flags.get(last, flag_of(last)).partition("/")[0]
        return HASHED.get(name, flag)


def _refuse_older(run: Run) -> None:
    """Raise `InputError` for a training of older versions, which recorded no configuration."""
    if run.kind == "train":
        raise InputError(
            f"The run {run.name!r} must have a configuration to be resumed, got none: an older "
            "version recorded it. Start over with --fresh, or give another --run. The model that "
            "it wrote stays until then."
        )


def _verb(config: type[TrainingRun]) -> str:
    """Return the first word of a kind of run, with which the names of its runs begin."""
    return config.kind.partition(" ")[0] or "train"


def _run_options(config: type[TrainingRun]) -> Option:
    """Return the options that every training has."""
    usual = f"{_verb(config)}-OUT"
    return add_options(
        click.option(
            "--out",
            required=True,
            type=click.Path(path_type=Path),
            help="Output folder of the model.",
        ),
        click.option("--until", help="Stop condition, such as: Epochs(3) | Seconds(600)"),
        click.option("--epochs", type=float, help="Stop after this many passes over the data."),
        click.option(
            "--seconds",
            type=float,
            help="Stop after this time; the learning rate is planned by the measured speed.",
        ),
        click.option(
            "--patience", type=int, help="Early stopping: validations without improvement."
        ),
        click.option(
            "--checkpoint-every",
            type=int,
            default=config.checkpoint_every,
            help="Steps between checkpoints.",
        ),
        click.option("--fresh", is_flag=True, help="Start over; the earlier run is deleted."),
        click.option("--run", "run_name", help=f"Name of the run.  [default: {usual}]"),
        journal_option(),
        no_journal_option,
        view_options,
    )


END_FIELDS = ("out", "until", "epochs", "seconds", "patience", "checkpoint_every")


def training_command(
    name: str,
    text: str,
    config: type[TrainingRun],
    overrides: Overrides,
    act: Callable[[TrainingOptions, View], None],
) -> click.Command:
    """Return a command of the options of a configuration and of every run, which it hands to `act`.

    `text` is its help.
    """
    own = settings_of(config, overrides)
    others: dict[str, Setting] = {}
    for each in inner(config):
        more = settings_of(each.config, overrides, each.default)
        if twice := (own | others).keys() & more.keys():
            raise TypeError(f"Options must have names of their own, got {sorted(twice)} twice.")
        others |= more

    def command(*, view: View, **params: Any) -> None:
        ends = {name: params.pop(name) for name in END_FIELDS}
        recording = Recording(
            name=params.pop("run_name"),
            journal=params.pop("journal"),
            off=params.pop("no_journal"),
            fresh=params.pop("fresh"),
        )
        options = TrainingOptions(
            **ends,
            recording=recording,
            settings={name: value for name, value in params.items() if value not in (None, ())},
            flags={name: spec.flag for name, spec in (own | others).items() if spec.flag},
            config=config,
        )
        options.require_valid()
        with fields_as_options(options.spelled):
            act(options, view)

    add = add_options(
        *arguments_of(config),
        *(spec.option(each) for each, spec in own.items()),
        _run_options(config),
        *(spec.option(each) for each, spec in others.items()),
    )
    return click.command(name, help=text)(add(command))
