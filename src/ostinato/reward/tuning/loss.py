"""The loss of a group of texts, and what is reported of it. Knows no optimizer and no rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ostinato.models import Llama
from ostinato.reward.tuning.advantages import kl_to, surrogate, token_weights
from ostinato.reward.tuning.config import GroupConfig
from ostinato.reward.tuning.rollouts import Group
from ostinato.reward.tuning.scores import Scores, score


@dataclass(frozen=True, slots=True)
class LossParts:
    """The loss of a group, and sums over its tokens of what is reported."""

    loss: Tensor
    tokens: int
    sums: dict[str, float]

    def detached(self) -> LossParts:
        """Return the same without a graph."""
        return LossParts(self.loss.detach(), self.tokens, self.sums)

    @staticmethod
    def means(parts: Sequence[LossParts], first: int) -> dict[str, float]:
        """Return the mean loss and the means over tokens; of `first` parts but for `clipped`.

        They are those of the texts before they were learned from. Only later updates clip.
        """
        before = parts[:first]
        tokens = sum(part.tokens for part in before)
        found = {name: sum(p.sums[name] for p in before) / tokens for name in before[0].sums}
        clipped = sum(part.sums["clipped"] for part in parts)
        return {
            "loss/train": float(torch.stack([part.loss for part in before]).mean()),
            **found,
            "clipped": clipped / sum(part.tokens for part in parts),
        }


class GroupLoss:
    """The loss of a group with the `advantages` (G,) of its texts.

    The old probabilities, beside which the ratio is clipped, are those of the network that is
    trained, when it sees the texts first: not those of the decode, whose products are rounded
    otherwise. So the first update has the ratio 1. `reference` (N,) are the log-probabilities of
    the model at the start, where there is a penalty for leaving it.
    """

    def __init__(
        self,
        group: Group,
        advantages: Tensor,
        config: GroupConfig,
        temperature: float,
        limit: int,
    ) -> None:
        self.tokens = group.tokens
        self.reference: Tensor | None = None
        self._config, self._temperature = config, temperature
        self._old: Tensor | None = None
        lengths = self.tokens.lengths
        masked = [rollout.cut and config.overlong == "mask" for rollout in group.rollouts]
        weights = [
            0.0 if left_out else weight
            for weight, left_out in zip(
                token_weights(config.method, lengths, limit), masked, strict=True
            )
        ]
        sizes = torch.tensor(lengths)
        self._weights = torch.tensor(weights).repeat_interleave(sizes)  # (N,)
        self._advantages = advantages.repeat_interleave(sizes)
        self._decoded = torch.tensor([p for r in group.rollouts for p in r.logprobs])

    def of(self, network: Llama) -> LossParts:
        """Return the loss with the network's weights of now."""
        config = self._config
        scores = score(network, self.tokens, self._temperature)
        device = scores.logprobs.device
        if self._old is None:
            self._old = scores.logprobs.detach()
        weights = self._weights.to(device)
        gain, clipped = surrogate(scores.logprobs, self._old, self._advantages.to(device), config)
        loss = -(weights * gain).sum()
        sums = {"clipped": float(clipped.sum())} | self._sums(scores)
        if self.reference is not None:
            kl = kl_to(scores.logprobs, self.reference)
            loss = loss + config.kl_coefficient * (weights * kl).sum()
            sums["kl"] = float(kl.detach().sum())
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * (weights * scores.entropy).sum()
        return LossParts(loss, len(weights), sums)

    def _sums(self, scores: Scores) -> dict[str, float]:
        decoded = self._decoded.to(scores.entropy.device)
        return {
            "entropy": float(scores.entropy.detach().sum()),
            "mismatch": float((scores.model_logprobs - decoded).abs().sum()),
        }
