"""The configurations of trainings by reward. Imports no torch: options are made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from ostinato.arguments import require, require_above, require_at_least, require_types
from ostinato.journal import Place, RunConfig, beside
from ostinato.loop import Condition, Reaches, Steps, check_seed
from ostinato.train import GradientConfig, Schedule, TrainingRun, argument, option

LAST_EPISODES = 100
"""Episodes over which a return is averaged, as Gymnasium does to say what solves an environment."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(GradientConfig):
    """How a policy trains by PPO. A step is a rollout, and the updates of it.

    The learning rate follows its schedule over all updates of `steps` rollouts.
    """

    steps: int = option(
        500, "Rollouts of the learning-rate schedule; also the limit without another condition."
    )
    lr: float = option(3e-4, "Peak learning rate.")
    warmup_steps: int = option(0, "Rollouts of linear warm-up.")
    min_lr_ratio: float = option(0.0, "Final learning rate as a share of the peak.")
    max_grad_norm: float = option(0.5, "Gradient clipping: largest norm; 0: none.")
    valid_every: int = option(
        50, "Rollouts between evaluations on seeds never trained on.", flag="--evaluate-every"
    )
    seed: int = option(0, "Seed of the environments, the initial weights and the actions.")
    environments: int = option(8, "Environments that are played side by side.")
    rollout: int = option(128, "Steps of each environment in a rollout.")
    epochs: int = option(4, "Passes over a rollout.", flag="--update-epochs")
    minibatch: int = option(256, "Steps of environments per update.", flag="--minibatch-size")
    gamma: float = option(0.99, "Discount of later rewards, per step.")
    gae_lambda: float = option(0.95, "Lambda of generalized advantage estimation (GAE).")
    clip: float = option(0.2, "How far an update may change an action's probability, as a share.")
    clip_schedule: Literal["constant", "linear"] = option(
        "constant", "Clip range over the training: constant, or linear decay."
    )
    entropy: float = option(0.0, "Weight of the entropy: more for more exploration.")
    value: float = option(0.5, "Weight of the value's squared error.", flag="--value-weight")
    target_kl: float | None = option(
        None, "Stop a rollout's updates where the policy has changed by this much.  [default: off]"
    )
    scale_rewards: bool = option(False, "Divide rewards by the spread of the returns.")
    episodes: int = option(10, "Episodes of an evaluation.", flag="--evaluation-episodes")

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("environments", "rollout", "epochs", "minibatch", "episodes")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_at_least(0, entropy=self.entropy, value=self.value)
        require_above(0, clip=self.clip)
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "in [0, 1]", value)
        if self.target_kl is not None:
            require_above(0, target_kl=self.target_kl)

    @property
    def updates(self) -> int:
        """Updates of a rollout."""
        return self.epochs * -(-self.environments * self.rollout // self.minibatch)

    def lr_schedule(self, peak: float | None = None) -> Schedule:
        """Return the learning rate of each update."""
        return Schedule(
            lr=self.lr if peak is None else peak,
            warmup_steps=self.warmup_steps * self.updates,
            shape=self.schedule,
            steps=self.steps * self.updates,
            min_lr_ratio=self.min_lr_ratio,
        )


@dataclass(frozen=True, kw_only=True)
class PolicyTrainingRun(TrainingRun):
    """A policy that learns an environment of Gymnasium, by its id.

    Without `until` it ends after the steps, or as soon as the mean return of the last 100 episodes
    is at least `solved`.
    """

    kind: ClassVar[str] = "train policy"
    prepare: ClassVar[str] = "ostinato.reward.games:prepare_policy_training"
    measure: ClassVar[str] = "return/valid"
    better: ClassVar[Literal["min", "max"]] = "max"

    game: str = argument("ENVIRONMENT")
    training: PolicyConfig = PolicyConfig()
    solved: float | None = option(
        None,
        "End at this mean return of the last 100 episodes.  [default: what solves the environment]",
    )
    width: int = option(64, "Units of a layer.")
    layers: int = option(2, "Hidden layers; pixels have convolutions instead.")
    normalize: bool = option(False, "Normalize observations by their running mean and deviation.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, width=self.width, layers=self.layers)

    def condition(self) -> Condition:
        """Return when the training ends."""
        if self.until is not None or self.solved is None:
            return super().condition()
        solved = Reaches("return", above=self.solved, over=LAST_EPISODES)
        return Steps(self.training.steps) | solved

    def trusted(self) -> list[str]:
        """Say what building it does: `module:id` imports the module."""
        return code_of(self.game)


@dataclass(frozen=True, kw_only=True)
class PlayRun(RunConfig):
    """Episodes that a policy plays; `game` is its environment, and `gif` a film of them."""

    kind: ClassVar[str] = "play"
    free: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})
    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    policy: Place
    game: str
    episodes: int = 3
    seed: int = 0
    gif: Path | None = None
    checkpoint_every: int = 200
    weights: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        require_at_least(1, episodes=self.episodes, checkpoint_every=self.checkpoint_every)
        check_seed(self.seed)
        if self.gif is not None:
            require(self.gif.suffix.lower() == ".gif", "gif", "a .gif", str(self.gif))

    def outputs(self) -> list[tuple[str, Path]]:
        """Return the file that is written, if there is one."""
        return [] if self.gif is None else [("gif", self.gif)]

    def branched(self, name: str) -> Self:
        """Return the configuration of a branch: it writes beside this one."""
        return self if self.gif is None else replace(self, gif=beside(self.gif, name, ".gif"))

    def trusted(self) -> list[str]:
        """Say what building it does: `module:id` imports the module."""
        return code_of(self.game)


def code_of(game: str) -> list[str]:
    """Say whose code an environment's id runs, where it names a module; else nothing."""
    module, _, name = game.rpartition(":")
    return [f"runs the code of the module {module} for {name}"] if module else []
