"""Log-probabilities and entropies of a group's tokens in the network that is trained.

The prompt of a group is computed once for all of its texts (`ostinato.models.Branches`). Knows no
rewards and no optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato.models import Branches, Llama, device_of

ROWS = 16
"""Rows of logits that are worked on at once, so that their float32 copies stay in the caches."""


@dataclass(frozen=True, slots=True)
class GroupTokens:
    """A prompt's tokens, and those of each text that follows it; no text is empty."""

    prompt: Sequence[int]
    texts: Sequence[Sequence[int]]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each text."""
        return [len(text) for text in self.texts]


class Scores(NamedTuple):
    """Of each token of all texts, one text after the other (N,), in nats."""

    logprobs: Tensor
    entropy: Tensor
    model_logprobs: Tensor


def score(network: Llama, group: GroupTokens, temperature: float = 1.0) -> Scores:
    """Return the log-probability of every token of a group's texts, and the entropy before it.

    They are those of the distribution softmax(logits / temperature), which texts are drawn from.
    `model_logprobs`, which have no gradient, are those at temperature 1.
    """
    device, prompt = device_of(network), list(group.prompt)
    # Nothing follows a text's last token, so it is predicted and not read.
    read = [list(text[:-1]) for text in group.texts]
    branches = Branches(len(prompt), [len(each) for each in read], device=device)
    tokens = torch.tensor([[*prompt, *(token for each in read for token in each)]], device=device)
    hidden = network(tokens, branches)[0]  # (T, C)
    targets = torch.tensor([token for text in group.texts for token in text], device=device)
    logits = network.logits(hidden[_predicting(len(prompt), read)])  # (N, V)
    return Scores(*_Scores.apply(logits, targets, temperature))  # type: ignore[no-untyped-call]


def _predicting(prompt: int, read: Sequence[Sequence[int]]) -> list[int]:
    """Return the place of the token before each one of the texts."""
    places: list[int] = []
    start = prompt
    for each in read:
        places += [prompt - 1, *range(start, start + len(each))]
        start += len(each)
    return places


class _Scores(torch.autograd.Function):
    """Log-probability of a target and entropy, of rows of logits (N, V).

    By hand: autograd would keep several float32 copies of the logits. With p the probabilities,
    d logprob / d z = onehot - p, and d H / d z = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        pieces = (torch.split(each, ROWS) for each in (logits, targets[:, None]))
        for rows, chosen in zip(*pieces, strict=True):
            z = rows.float()
            total = z.logsumexp(-1)
            model = z.gather(1, chosen)[:, 0] - total
            if temperature != 1:
                z = z / temperature
                total = z.logsumexp(-1)
            logp = z - total[:, None]  # not in place: float32 rows are the logits themselves
            entropy = -(logp.exp() * logp).sum(-1)
            parts.append((logp.gather(1, chosen)[:, 0], entropy, model, total))
        logprobs, entropy, model, total = (torch.cat(each) for each in zip(*parts, strict=True))
        ctx.save_for_backward(logits, targets, entropy, total)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(model)
        return logprobs, entropy, model

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = [torch.split(each, ROWS) for each in (*ctx.saved_tensors, *grads[:2])]
        parts = []
        for rows, chosen, entropy, total, grad, grad_entropy in zip(*saved, strict=True):
            logp = (rows.float() / ctx.temperature).sub_(total[:, None])
            p = logp.exp()
            made = p * -grad[:, None]
            if bool(grad_entropy.any()):
                made -= p * (logp + entropy[:, None]) * grad_entropy[:, None]
            made.scatter_add_(1, chosen[:, None], grad[:, None])
            parts.append((made / ctx.temperature).to(rows.dtype))
        return torch.cat(parts), None, None
