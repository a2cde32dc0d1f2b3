"""Distributions over actions, of the numbers that a policy's network gives. Knows no network.

A draw is a function of those numbers and of noise, which is drawn for a whole rollout at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ostinato.reward.games.spaces import GameSpaces

LOG_TWO_PI = math.log(2 * math.pi)


class Actions(ABC):
    """Distributions of N rows of a network's outputs; `outputs` is how many numbers a row has."""

    outputs: int

    @abstractmethod
    def noise(self, *shape: int, draws: torch.Generator) -> Tensor:
        """Return noise (*shape, …) for as many draws."""

    @abstractmethod
    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Return an action (N, A) of each row."""

    @abstractmethod
    def likeliest(self, outputs: Tensor) -> Tensor:
        """Return the likeliest action (N, A) of each row."""

    @abstractmethod
    def logprob_and_entropy(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of actions (N,), and the entropies (N,)."""

    @abstractmethod
    def taken(self, actions: Tensor) -> Tensor:
        """Return what an environment gets of actions (N, A): theirs are in its own bounds."""


class DiscreteActions(Actions):
    """One or more choices, independent of one another: logits of each, side by side."""

    def __init__(self, choices: tuple[int, ...]) -> None:
        self.choices, self.outputs = list(choices), sum(choices)

    def noise(self, *shape: int, draws: torch.Generator) -> Tensor:
        """Return Gumbel noise: the greatest sum of logit and noise is a draw of the softmax."""
        return -torch.empty(*shape, self.outputs).exponential_(generator=draws).log()

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Return an action (N, A) of each row."""
        return self.likeliest(outputs + noise)

    def likeliest(self, outputs: Tensor) -> Tensor:
        """Return the likeliest action (N, A) of each row."""
        if len(self.choices) == 1:
            return outputs.argmax(1, keepdim=True)
        return torch.stack([each.argmax(1) for each in torch.split(outputs, self.choices, 1)], 1)

    def logprob_and_entropy(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of actions (N,), and the entropies (N,)."""
        logprob = entropy = outputs.new_zeros(())
        for index, logits in enumerate(torch.split(outputs, self.choices, 1)):
            logprobs = F.log_softmax(logits, 1)
            logprob = logprob + logprobs.gather(1, actions[:, index : index + 1]).squeeze(1)
            entropy = entropy - (logprobs.exp() * logprobs).sum(1)
        return logprob, entropy

    def taken(self, actions: Tensor) -> Tensor:
        """Return the actions as they are."""
        return actions


class ContinuousActions(Actions):
    """A normal distribution of each number: means, then logarithms of standard deviations.

    Bounds are at -1 and 1 for the policy. What lies outside is clipped for the environment alone:
    the log-probability is that of what was drawn.
    """

    def __init__(self, spaces: GameSpaces) -> None:
        self.outputs = 2 * spaces.continuous
        self._low, self._high = (torch.tensor(each) for each in (spaces.low, spaces.high))

    def noise(self, *shape: int, draws: torch.Generator) -> Tensor:
        """Return standard normal noise."""
        return torch.randn(*shape, self.outputs // 2, generator=draws)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Return an action (N, A) of each row."""
        mean, log_std = outputs.chunk(2, 1)
        return mean + log_std.exp() * noise

    def likeliest(self, outputs: Tensor) -> Tensor:
        """Return the mean (N, A) of each row."""
        return outputs.chunk(2, 1)[0]

    def logprob_and_entropy(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-densities of actions (N,), and the entropies (N,)."""
        mean, log_std = outputs.chunk(2, 1)
        z = (actions - mean) * (-log_std).exp()
        logprob = (-0.5 * z.square() - log_std - 0.5 * LOG_TWO_PI).sum(1)
        return logprob, (log_std + 0.5 + 0.5 * LOG_TWO_PI).sum(1)

    def taken(self, actions: Tensor) -> Tensor:
        """Return the actions clipped, and in the environment's bounds."""
        if not len(self._low):
            return actions
        return self._low + (actions.clamp(-1, 1) + 1) / 2 * (self._high - self._low)


def actions_of(spaces: GameSpaces) -> Actions:
    """Return the distributions for an environment's actions."""
    return DiscreteActions(spaces.choices) if spaces.choices else ContinuousActions(spaces)
