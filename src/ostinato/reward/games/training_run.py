"""Training a policy, as a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ostinato.arguments import counted
from ostinato.reward.games.config import PolicyConfig, PolicyTrainingRun
from ostinato.reward.games.environments import Environments
from ostinato.reward.games.policy import policy_for, save_policy
from ostinato.reward.games.policy_gradient import PolicyGradient
from ostinato.reward.games.spaces import make_environment
from ostinato.train import TrainingParts, go_back


def prepare_policy_training(config: PolicyTrainingRun) -> TrainingParts:
    """Make the environments and the policy. Raises `InputError` for bad input."""
    make = partial(make_environment, config.game)

    def process(settings: PolicyConfig) -> PolicyGradient:
        environments = Environments(
            make, settings.environments, seed=settings.seed, name=config.game
        )
        policy = policy_for(
            environments,
            width=config.width,
            layers=config.layers,
            normalize=config.normalize,
            seed=settings.seed,
        )
        return PolicyGradient(policy, environments, settings)

    def save(process: PolicyGradient, folder: Path) -> None:
        save_policy(folder, process.policy)

    def size(settings: PolicyConfig) -> str:
        steps = settings.environments * settings.rollout
        environments = counted(settings.environments, "environments")
        return f"{environments}, {counted(steps, 'steps')} in a rollout"

    make().close()  # what is wrong with it is told before anything is recorded
    return TrainingParts(process=process, save=save, size=size, on_stop=go_back(lr_scale=0.5))
