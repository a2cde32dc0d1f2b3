"""`ostinato train policy`: train a policy on a game until it is good enough."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ostinato.cli.train.command import TrainCommand
from ostinato.cli.train.line import line
from ostinato.cli.train.options import TrainingOptions
from ostinato.cli.train.settings import Setting


def _typed(values: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """Take what was not typed from the environment's recipe; a run that resumes keeps its own."""
    from ostinato.reward.games import PolicyTrainingRun, recipe_for

    before = options.recorded()
    known = before if isinstance(before, PolicyTrainingRun) else recipe_for(values["game"])
    usual = {name: getattr(known, name) for name in ("solved", "width", "layers", "normalize")}
    return {**asdict(known.training), **usual, **values}


POLICY = TrainCommand(
    kind="train policy",
    help="""Train a policy on an ENVIRONMENT of Gymnasium, by its id: CartPole-v1, LunarLander-v3.

    Settings that are not given are those of its kind: of a discrete or a continuous task, or of
    pixels. It ends when the last 100 episodes were good enough (--solved), or after --steps.
    The weights with the best evaluation are saved.
    """,
    line=line(
        "steps {steps/total:9,.0f}",
        "return {return:8.1f}",
        "length {length:6.1f}",
        "entropy {entropy:.2f}",
        "kl {kl:.4f}",
        "explained {explained_variance:5.2f}",
        "valid {return/valid:.1f}",
    ),
    overrides={
        "sample_every": None,
        "valid_every": Setting(
            click.IntRange(min=1),
            "Rollouts between evaluations on seeds never trained on.",
            "--evaluate-every",
        ),
    },
    typed=_typed,
)
