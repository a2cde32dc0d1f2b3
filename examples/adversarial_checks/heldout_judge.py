"""The held-out judge: another kind of model, trained on other dialogues than the discriminator.

A logistic regression over sentence vectors (all-MiniLM-L6-v2) of a reply and of the customer's
message. It learns from `judge.jsonl`, whose drafts no check has seen. Knows no discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from examples.adversarial_checks.logistic import fit_logistic
from ostinato.models import Encoder

PENALTY = 0.002  # L2, of the mean loss
FOLDS = 5
Pair = tuple[str, str]  # the customer's message, and a reply


@dataclass(frozen=True)
class HeldOutJudge:
    """Scores a reply by the probability that a person wrote it.

    `accuracy` is that on the rows of a fold that a judge of the other folds has not seen.
    """

    encoder: Encoder
    weights: Tensor  # (2 * width + 1)
    accuracy: float

    @classmethod
    def train(cls, encoder: Encoder, rows: Sequence[Mapping[str, Any]]) -> HeldOutJudge:
        """Train on rows of a `message`, a `reference` and a `draft`."""
        real = _vectors(encoder, [(row["message"], row["reference"]) for row in rows])
        made = _vectors(encoder, [(row["message"], row["draft"]) for row in rows])
        right = 0.0
        for fold in range(FOLDS):
            held = torch.arange(len(rows)) % FOLDS == fold
            weights = fit_logistic(real[~held], made[~held], PENALTY)
            right += float((real[held] @ weights > 0).sum() + (made[held] @ weights <= 0).sum())
        return cls(encoder, fit_logistic(real, made, PENALTY), right / (2 * len(rows)))

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the score of each pair of a message and a reply."""
        scores: list[float] = torch.sigmoid(_vectors(self.encoder, pairs) @ self.weights).tolist()
        return scores


def _vectors(encoder: Encoder, pairs: Sequence[Pair]) -> Tensor:
    """Return (N, 2 * width + 1): the reply, what it has of the message, and a one."""
    messages = encoder.vectors([message for message, _ in pairs])
    replies = encoder.vectors([reply for _, reply in pairs])
    return torch.cat([replies, messages * replies, torch.ones(len(pairs), 1)], 1).double()
