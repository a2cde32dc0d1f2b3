"""Masked language modeling: the task of predicting masked tokens. Knows no optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ostinato.loop import fold_in
from ostinato.models import MaskedBert, device_of
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.data import Example
from ostinato.train.task import Loss, Share, padded

MASKED, GAP = "loss/masked", "loss/gap"


class MaskedTextTask:
    """Predict masked tokens from their context: cross-entropy in nats.

    Half of the examples get a random share masked, cos(pi/2 u) with a uniform u (MaskGIT, Chang et
    al. 2022, section 3.1). The others get one gap of at most `max_gap` tokens (spans, Joshi et al.
    2020), as `Unmask` fills them. The report shows both losses.
    """

    def __init__(
        self, train: Sequence[Example], valid: Sequence[Example], *, mask_id: int, max_gap: int = 16
    ) -> None:
        self._train, self._valid, self._mask_id, self._max_gap = train, valid, mask_id, max_gap

    @property
    def lengths(self) -> Sequence[int]:
        """The examples' lengths in tokens."""
        return [len(example) for example in self._train]

    def loss_tokens(self, chosen: Sequence[int]) -> int:
        """Return the number of tokens of the examples, masked or not."""
        return sum(len(self._train[i]) for i in chosen)

    def loss(self, network: nn.Module, chosen: Sequence[int], seed: int) -> Loss:
        """Return the mean loss of the masked tokens, times all tokens.

        Scaled so, a batch counts the same whether much or little of it is masked. `seed` decides
        what is masked.
        """
        examples = [self._train[i] for i in chosen]
        tokens, _ = padded(examples)
        masked, has_gap = self._masked([len(e) for e in examples], tokens.size(1), seed)
        losses = self._losses(network, tokens, masked)
        count = int(masked.sum())
        total = losses.sum() / count * self.loss_tokens(chosen)
        sizes = {"tokens": tokens.numel(), "tokens/masked": count}
        return Loss(total, sizes, _by_kind(losses.detach().cpu(), masked, has_gap))

    @torch.no_grad()
    def validate(self, network: nn.Module, batch_tokens: int) -> Mapping[str, float]:
        """Return mean losses in nats per masked token; every call masks the same tokens."""
        if not self._valid:
            return {}
        parts: list[tuple[str, Share]] = []
        for batch in BatchSampler([len(e) for e in self._valid], batch_tokens, 0).epoch(0):
            examples = [self._valid[i] for i in batch]
            tokens, _ = padded(examples)
            lengths = [len(e) for e in examples]
            masked, has_gap = self._masked(lengths, tokens.size(1), fold_in(0, "valid", batch[0]))
            losses = self._losses(network, tokens, masked).cpu()
            parts += _by_kind(losses, masked, has_gap).items()
        return {"loss/valid": _mean(share for _, share in parts)} | {
            f"{kind}/valid": _mean(share for name, share in parts if name == kind)
            for kind in dict(parts)
        }

    def sample(self, network: nn.Module) -> object:
        """Return None: a masked model writes no text of its own."""
        return None

    def _losses(self, network: nn.Module, tokens: Tensor, masked: Tensor) -> Tensor:
        """Return the cross-entropy of each masked token (N,)."""
        assert isinstance(network, MaskedBert)
        device = device_of(network)
        tokens, masked = tokens.to(device), masked.to(device)
        # The head, as wide as the vocabulary, runs on the masked positions only.
        hidden = network.bert(tokens.masked_fill(masked, self._mask_id))[masked]  # (N, C)
        return F.cross_entropy(network.logits(hidden).float(), tokens[masked], reduction="none")

    def _masked(self, lengths: Sequence[int], T: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return which tokens are masked (B, T), and which examples have one gap (B,)."""
        generator = torch.Generator().manual_seed(seed)
        masked = torch.zeros(len(lengths), T, dtype=torch.bool)
        has_gap = torch.rand(len(lengths), generator=generator) < 0.5
        for row, length in enumerate(lengths):
            # Drawn on the CPU: a GPU's generator gives other numbers for the same seed.
            size, offset = torch.rand(2, generator=generator).tolist()
            if has_gap[row]:
                count = 1 + int(size * min(self._max_gap, length - 1))
                start = int(offset * (length - count + 1))
                masked[row, start : start + count] = True
            else:
                count = max(1, int(length * math.cos(math.pi / 2 * size)))
                masked[row, torch.randperm(length, generator=generator)[:count]] = True
        return masked, has_gap


def _by_kind(losses: Tensor, masked: Tensor, has_gap: Tensor) -> dict[str, Share]:
    """Return the summed losses (N,) of masked tokens, those in gaps separately."""
    in_gap = has_gap[:, None].expand_as(masked)[masked]  # (N,)
    kinds = {MASKED: losses[~in_gap], GAP: losses[in_gap]}
    return {name: Share(float(v.sum()), v.numel()) for name, v in kinds.items() if v.numel()}


def _mean(shares: Iterable[Share]) -> float:
    parts = list(shares)
    return sum(part.total for part in parts) / sum(part.terms for part in parts)
