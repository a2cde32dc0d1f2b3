"""Proximal policy optimization: a policy learns from rollouts in environments.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017), algorithm 1, with the details
of Huang et al., "The 37 Implementation Details of Proximal Policy Optimization" (2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.loop import Report, fold_in
from ostinato.reward.games.config import PolicyConfig
from ostinato.reward.games.environments import Environments
from ostinato.reward.games.evaluation import play
from ostinato.reward.games.policy import Policy, require_fitting
from ostinato.reward.games.rollout import Rollout, collect
from ostinato.train import (
    AdamW,
    Averages,
    BestWeights,
    CurrentWeights,
    Parts,
    PartsProcess,
    Precision,
    Updater,
    Validation,
    Values,
    Weights,
    trainable,
    using,
)

MOST_PARAMETERS = 1_000_000
"""Of a network that one thread computes faster than several, which wait for one another."""


class PolicyGradient(PartsProcess):
    """Train a policy by PPO. A step is a rollout of all environments, and the updates of it.

    Reports:

    - `return` and `length`, of each episode that ended in the step: a condition sees one after the
      other, so `Reaches("return", above=475, over=100)` is about the last 100 episodes;
    - `steps` of environments in the step, `steps/total` and `episodes/total` since the start;
    - `loss/policy`, `loss/value`, `entropy`, `kl` (how far the policy moved), `clip_fraction` (the
      share of clipped probabilities), `explained_variance` (of the returns by the values before),
      `lr`, `grad/norm`;
    - `restarted`, after a resume, where episodes in progress could not be brought back;
    - every `valid_every` steps `return/valid` and `length/valid`: means of episodes on seeds never
      trained on, by the likeliest actions.

    Edits: `lr` sets the peak, `lr_scale` multiplies the rate. `best` has the weights of the highest
    `return/valid`.
    """

    def __init__(
        self, policy: Policy, environments: Environments, config: PolicyConfig | None = None
    ) -> None:
        self.config = config = config or PolicyConfig()
        require_fitting(policy, environments.spaces, environments.name)
        self.policy, self.environments = policy, environments
        self.precision = Precision(policy, name=config.precision, seed=config.seed)
        self.updater = Updater(
            trainable(policy),
            AdamW(betas=(0.9, 0.999), eps=1e-5),
            config.lr_schedule(),
            max_grad_norm=config.max_grad_norm,
        )
        # Observations are scaled as they were for these weights, so the moments belong to them.
        self._everything = trainable(policy) | dict(policy.named_buffers())
        self._averages = Averages(self.updater.parameters, config.ema_decay)
        self.best = BestWeights(self._everything, "max")
        self._validation = Validation(
            self.best, self.validate, every=config.valid_every, measure="return/valid"
        )
        self._count = Values(rollouts=0, steps=0, episodes=0)
        self._scale = Values(returns=torch.zeros(environments.count))
        self._parts = Parts(
            "PolicyGradient",
            weights=CurrentWeights(self._everything),
            updater=self.updater,
            averages=self._averages,
            best=self.best,
            validation=self._validation,
            environments=environments,
            count=self._count,
            scale=self._scale,
        )

    @property
    def parameters(self) -> Weights:
        """The weights of the policy, by name."""
        return self.updater.parameters

    @property
    def report_interval(self) -> int:
        """Steps within which all must have been reported, going back once included."""
        return 2 * self.config.valid_every

    @property
    def averages(self) -> bool:
        """Whether averaged weights are evaluated (`ema_decay`)."""
        return bool(self._averages.weights)

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Play `rollout` steps in each environment, and update the policy with them."""
        number, restarted = self._count.rollouts, self.environments.restarted
        with self.precision.step_of(number), threads_for(self.policy):
            rollout = collect(self.policy, self.environments, self.config, number, self._scale)
            report: dict[str, object] = {
                "return": [episode.total for episode in rollout.episodes],
                "length": [episode.length for episode in rollout.episodes],
            }
            report |= self._counted(rollout) | self._learn(rollout, number)
            self._averages.update()
            if self._validation.is_due(number + 1):
                with using(self.updater.parameters, self._averages.weights):
                    report |= self._validation.run(number + 1)
        return report | ({"restarted": restarted} if restarted else {})

    def _counted(self, rollout: Rollout) -> dict[str, object]:
        count = self._count
        count.rollouts += 1
        count.steps += len(rollout.actions)
        count.episodes += len(rollout.episodes)
        return {
            "steps": len(rollout.actions),
            "steps/total": count.steps,
            "episodes/total": count.episodes,
        }

    # Updates ----------------------------------------------------------------------------------

    def _learn(self, rollout: Rollout, number: int) -> dict[str, object]:
        """Pass over the rollout `epochs` times in minibatches; return the means of what is told."""
        config, told = self.config, _Told()
        draws = torch.Generator().manual_seed(fold_in(config.seed, "minibatches", number))
        clip = config.clip
        if config.clip_schedule == "linear":
            clip *= max(1 - number / config.steps, 0.01)
        for epoch in range(config.epochs):
            watched = config.target_kl is not None or epoch == config.epochs - 1
            for batch in rollout.minibatches(config.minibatch, draws):
                told.add(*self._update(batch, clip, watched))
            if config.target_kl is not None and told.kl > config.target_kl:
                break
        return {"explained_variance": rollout.explained_variance} | told.means()

    def _update(
        self, batch: Rollout, clip: float, watched: bool
    ) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
        """Update the weights by the clipped objective, equation 9.

        Returns what the losses tell, with `watched` also how far the policy is from the one that
        played, and what the updater tells.
        """
        config = self.config
        with self.precision.autocast():
            outputs, values = self.policy(batch.seen)
        logprob, entropies = self.policy.actions.logprob_and_entropy(outputs.float(), batch.actions)
        log_ratio = logprob - batch.logprobs
        ratio = log_ratio.exp()
        A = _normalized(batch.advantages)
        policy_loss = -torch.min(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A).mean()
        value_loss = F.mse_loss(values.float(), batch.returns)
        entropy = entropies.mean()
        loss = policy_loss + config.value * value_loss - config.entropy * entropy
        loss.backward()  # type: ignore[no-untyped-call]
        told = {"loss/policy": policy_loss, "loss/value": value_loss, "entropy": entropy}
        if watched:
            with torch.no_grad():  # Schulman's estimator: unbiased, and never below 0
                told["kl"] = (ratio - 1 - log_ratio).mean()
                told["clip_fraction"] = ((ratio - 1).abs() > clip).float().mean()
        return told, self.updater.step()

    # Evaluation -------------------------------------------------------------------------------

    def validate(self) -> Mapping[str, float]:
        """Return the mean `return/valid` and `length/valid` of the policy's likeliest actions."""
        episodes = play(
            self.policy, self.environments.make, self.config.episodes, seed=self.config.seed
        )
        return {
            "return/valid": sum(each.total for each in episodes) / len(episodes),
            "length/valid": sum(each.length for each in episodes) / len(episodes),
        }

    def validate_last(self) -> Mapping[str, float]:
        """Evaluate the weights of the last step, unless that is done."""
        step = self._count.rollouts
        if self._validation.last == step:
            return {}
        averaged = using(self.updater.parameters, self._averages.weights)
        with self.precision.deterministic(), threads_for(self.policy), averaged:
            return self._validation.run(step)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Use the policy's best weights in the block, else averaged ones, else the last."""
        if self.best:
            with using(self._everything, self.best.weights):
                yield
        else:
            with using(self.updater.parameters, self._averages.weights):
                yield


class _Told:
    """What the updates of a rollout tell: sums of tensors, read as numbers once at the end."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norms: list[float] = []
        self._lr = 0.0

    def add(self, told: Mapping[str, Tensor], updated: Mapping[str, float]) -> None:
        """Add what one update told, and what the updater did."""
        for name, value in told.items():
            value = value.detach()
            self._sums[name] = value if name not in self._sums else self._sums[name] + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._norms.append(updated["grad/norm"])
        self._lr = updated["lr"]

    @property
    def kl(self) -> float:
        """The mean change of the policy."""
        return float(self._sums["kl"]) / self._counts["kl"]

    def means(self) -> dict[str, object]:
        """Return the means by name; of the learning rate the last."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        return {**means, "lr": self._lr, "grad/norm": sum(self._norms) / len(self._norms)}


def _normalized(advantages: Tensor) -> Tensor:
    """Return advantages of mean 0 and standard deviation 1; of a single one, as it is."""
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


@contextmanager
def threads_for(policy: Policy) -> Iterator[None]:
    """Compute a small network on one thread in the block."""
    before = torch.get_num_threads()
    small = sum(p.numel() for p in policy.parameters()) <= MOST_PARAMETERS
    if small and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
